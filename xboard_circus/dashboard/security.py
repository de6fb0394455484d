"""Guard every request: is it meant for us, does it come from our page; and add the headers of every answer."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xboard_circus.core.origins import is_for_us, is_same_site
from xboard_circus.core.reason import with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.stream import transport_of

LONGEST_BODY = 65_536
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that, browsers send "Origin: null" with a form of our own page.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@functools.cache
def boot_script() -> str:
    """Return the one script that stands in the page itself: it has to be there when no other file is."""
    return Path(__file__).with_name("static").joinpath("boot.js").read_text(encoding="utf-8")


@functools.cache
def policy() -> str:
    """Return the content security policy.

    No 'unsafe-inline': what stands in a log line, a name or a reason runs nothing even where it got into the page. Of
    what stands inline, only `boot_script` runs, known by its hash.
    """
    digest = base64.b64encode(hashlib.sha256(boot_script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )


class Guarded:
    """The app behind its checks, at a path below which it may be shown."""

    def __init__(
        self, app: ASGIApp, *, root_path: str = "", hosts: Collection[str] = (), behind_proxy: bool = False
    ) -> None:
        self._app = app
        self._root_path = root_path.rstrip("/")
        self._hosts = hosts
        self._behind_proxy = behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if self._is_root_without_slash(scope):
            await RedirectResponse(f"{self._root_of(scope)}/", 308)(scope, receive, send)
            return
        self._place(scope)
        if not self._behind_proxy and (transport := transport_of(receive)) is not None:
            # uvicorn believes X-Forwarded-For of whoever is on this host.
            peer = transport.get_extra_info("peername")
            scope["client"] = peer[:2] if isinstance(peer, tuple) else None

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "content-security-policy": policy()})
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, guarded)
        else:
            await refused(scope, receive, guarded)

    def _root_of(self, scope: Scope) -> str:
        return self._root_path or str(scope.get("root_path", "")).rstrip("/")

    def _is_root_without_slash(self, scope: Scope) -> bool:
        """Say whether the page is asked for at an address from which its relative links would lead elsewhere."""
        return bool(root := self._root_of(scope)) and scope["path"] in (root, root + root)

    def _place(self, scope: Scope) -> None:
        """Bring the path into one shape, whether a proxy has cut its prefix off or not, and uvicorn put one before."""
        root = self._root_of(scope)
        path: str = scope["path"]
        while root and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :] or "/"
        scope["root_path"], scope["path"] = root, root + path
        scope.pop("raw_path", None)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not is_for_us(host, self._hosts):
            return refusal(421, Answer.ODD_HOST())
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return refusal(405, Answer.ONLY_GET_AND_POST())
        origin, fetch_site = headers.get("origin"), headers.get("sec-fetch-site")
        if not is_same_site(host=host, origin=origin, fetch_site=fetch_site, names=self._hosts):
            return refusal(403, Answer.OTHER_SITE())
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            return refusal(413 if length else 411, Answer.BODY(n=LONGEST_BODY))
        return None


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer that says no, and why."""
    return JSONResponse({"ok": False, **with_say(message, "message")}, status, headers)
