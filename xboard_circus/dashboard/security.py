"""Refuse requests for other hosts, and add the security headers to every answer."""

import base64
import functools
import hashlib
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xboard_circus.core.origins import is_for_us
from xboard_circus.core.reason import with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.stream import transport_of

LONGEST_BODY = 65_536
_SAME_ORIGIN = ("referrer-policy", "cross-origin-opener-policy", "cross-origin-resource-policy")
HEADERS = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", **dict.fromkeys(_SAME_ORIGIN, "same-origin")}
HEADERS["permissions-policy"] = "camera=(), geolocation=(), microphone=()"


@functools.cache
def boot_script() -> str:
    """Return the only script inside the page itself, which must run when no other file loads."""
    return Path(__file__).with_name("static").joinpath("boot.js").read_text(encoding="utf-8")


@functools.cache
def policy() -> str:
    """Return the content security policy.

    No 'unsafe-inline': text of a log line, a name or a reason runs nothing even if it got into the page. Of inline
    scripts only `boot_script` runs, known by its hash.
    """
    digest = base64.b64encode(hashlib.sha256(boot_script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class Guarded:
    """The app behind its checks, at a path below which it may be shown."""

    def __init__(
        self, app: ASGIApp, *, root_path: str = "", hosts: Collection[str] = (), behind_proxy: bool = False
    ) -> None:
        self._app, self._hosts, self._behind_proxy = app, hosts, behind_proxy
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        root, path = self._root_path or str(scope.get("root_path", "")).rstrip("/"), scope["path"]
        if root and path in (root, root + root):
            # At this address the page's relative links would lead elsewhere.
            await RedirectResponse(f"{root}/", 308)(scope, receive, send)
            return
        # With or without the prefix: a proxy may have cut it off, and uvicorn put one before.
        while root and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :] or "/"
        scope.update(root_path=root, path=root + path)
        scope.pop("raw_path", None)
        if not self._behind_proxy and (transport := transport_of(receive)) is not None:
            # uvicorn trusts the X-Forwarded-For of every client on this host.
            peer = transport.get_extra_info("peername")
            scope["client"] = peer[:2] if isinstance(peer, tuple) else None

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "content-security-policy": policy()})
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if (refused := self._refusal(scope["method"], path, Headers(scope=scope))) is None:
            await self._app(scope, receive, guarded)
        else:
            await refused(scope, receive, guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        if not is_for_us(headers.get("host", ""), self._hosts):
            return refusal(421, Answer.ODD_HOST())
        if "\0" in path:  # no file has such a name, and an older starlette raises
            return refusal(404, Answer.NO_PAGE())
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return refusal(405, Answer.ONLY_GET_AND_POST())
        # h11 takes a chunked body without a limit in place of the length that is named beside it.
        length = "" if "transfer-encoding" in headers else headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            return refusal(413 if length else 411, Answer.BODY(n=LONGEST_BODY))
        return None


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer to a refused request, with the reason."""
    return JSONResponse({"ok": False, **with_say(message, "message")}, status, headers)
