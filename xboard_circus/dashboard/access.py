"""Authenticate a request: by its cookie or token, with a limit for wrong tokens, and a proof that our page sent it."""

import ipaddress

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.sessions import SECONDS, Session
from xboard_circus.dashboard.tokens import Role


class Access:
    """Read and set the cookies of one dashboard."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Cookies know no port: another dashboard on this host must not take ours away.
        self._cookie = f"xboard_{hub.tokens.key('cookie').hex()[:12]}"

    def session_of(self, request: Request) -> Session | None:
        """Return the session of a request, or None."""
        return self._hub.sessions.read(request.cookies.get(self._cookie))

    async def need(self, request: Request) -> Session:
        """Return the session of a request; 401 without one."""
        session = self.session_of(request)
        if session is None:
            raise HTTPException(401, Answer.LOG_IN())
        return session

    def check_csrf(self, request: Request, session: Session, of_form: str = "") -> None:
        """Raise 403 where a page of ours did not send this."""
        if not self._hub.sessions.is_csrf_of(session, request.headers.get("x-csrf-token") or of_form):
            raise HTTPException(403, Answer.OUT_OF_DATE())

    def log_in(self, request: Request, token: str) -> str | float:
        """Return the cookie for *token*; for a wrong one the seconds until the next try, 0.0 where that is now."""
        now, network = self._hub.clock(), network_of(address_of(request))
        role = self._hub.tokens.role_of(token)
        # The limit is for wrong tokens only: otherwise enough of them would keep the owner out.
        if role is not None:
            self._hub.logins.succeeded(network)
            return self._hub.sessions.begin(role)
        wait = self._hub.logins.wait(network, now)
        if wait <= 0:
            self._hub.logins.failed(network, now)
        return wait

    def role_of_bearer(self, request: Request) -> Role | None:
        """Return what the token of an Authorization header allows; None without a good one.

        A wrong one is refused and not counted: 256 random bits cannot be guessed, and a scraper with an old token would
        have the people of its address wait.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return self._hub.tokens.role_of(token.strip()) if kind.lower() == "bearer" else None

    def set_cookies(self, request: Request, answer: Response, cookie: str) -> None:
        """Give the browser the session's cookie."""
        answer.set_cookie(
            self._cookie,
            cookie,
            max_age=int(SECONDS),
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def drop_cookie(self, request: Request, answer: Response) -> None:
        """Take the cookie away again."""
        answer.delete_cookie(self._cookie, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")


def address_of(request: Request) -> str:
    """Return the client's address, for the record and the limit; `Guarded` decides whether a proxy is believed."""
    return request.client.host if request.client is not None else "an unknown address"


def network_of(address: str) -> str:
    """Return what counts as one sender: an address, or the 2**64 of IPv6 that one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 6 and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
