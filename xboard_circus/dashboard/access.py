"""Authenticate a request: by its session or token, with a limit for wrong tokens."""

import ipaddress

from fastapi import Request
from starlette.exceptions import HTTPException

from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.sessions import Session
from xboard_circus.dashboard.tokens import Role


class Access:
    """Authenticate the sender of a request by its Authorization header.

    Never by a cookie: a browser sends those of 127.0.0.1 to every port of it, so also to servers of other users. The
    page's scripts keep the session where only this origin can read it; no page of another one can send it for them.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def session_of(self, request: Request) -> Session | None:
        """Return the session of a request, or None."""
        return self._hub.sessions.read(_bearer(request))

    async def need(self, request: Request) -> Session:
        """Return the session of a request; 401 without one."""
        if (session := self.session_of(request)) is None:
            raise HTTPException(401, Answer.LOG_IN())
        return session

    def log_in(self, request: Request, token: str) -> str | float:
        """Return a session for *token*; for a wrong one the seconds until the next try, 0.0 for at once."""
        now, network = self._hub.clock(), network_of(address_of(request))
        role = self._hub.tokens.role_of(token)
        # The limit is for wrong tokens only, because otherwise enough of them would keep the owner out.
        if role is not None:
            self._hub.logins.succeeded(network)
            return self._hub.sessions.begin(role)
        wait = self._hub.logins.wait(network, now)
        if wait <= 0:
            self._hub.logins.failed(network, now)
        return wait

    def role_of_bearer(self, request: Request) -> Role | None:
        """Return the role of the token in an Authorization header; None without a good one.

        A wrong one is refused and not counted: 256 random bits cannot be guessed, and a scraper with an old token would
        make the users of its address wait.
        """
        return self._hub.tokens.role_of(_bearer(request))


def _bearer(request: Request) -> str:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def address_of(request: Request) -> str:
    """Return the client's address, for the record and the limit; `Guarded` decides whether a proxy is trusted."""
    return request.client.host if request.client is not None else "an unknown address"


def network_of(address: str) -> str:
    """Return the network that counts as one sender: an address, or the 2**64 of IPv6 that one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 6 and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
