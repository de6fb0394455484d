"""Refuse requests of poisonous routes: circusd names these in the environment of the workers that it starts."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

VARIABLE = "XBOARD_REFUSED"
BODY = b"Refused for some minutes: requests of this route have ended several workers (request.refuse_poison).\n"


def encoded(status: int, routes: Mapping[str, float]) -> str:
    """Return the value of the variable: with which status which routes are refused, each until when.

    Times are those of the monotonic clock, which all processes of a host share.
    """
    return json.dumps([status, dict(routes)])


class Refusal:
    """The routes to refuse, by what the variable says.

    >>> refusal = Refusal(encoded(503, {"GET /die/{id}": float("inf"), "GET /old": 0.0}))
    >>> refusal.is_of("GET", "/die/{id}"), refusal.is_of("GET", "/old"), refusal.is_of("POST", "/die/{id}")
    (True, False, False)
    """

    def __init__(self, text: str) -> None:
        self.status, self._until = json.loads(text)

    def is_of(self, method: str, route: str) -> bool:
        """Return whether requests of a route are refused now."""
        until: float = self._until.get(f"{method} {route}", 0.0)
        return monotonic() < until

    async def answer(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        """Send the refusal, and why."""
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})
