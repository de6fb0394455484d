"""Server-sent events: each message made once for all who look, and nobody waited for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger("xboard_circus.dashboard")

TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # two classes until Python 3.11
STUCK_AFTER = 20.0
HEARTBEAT = b": \n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back
]


def event(name: str, data: str) -> bytes:
    """Return one event; *data* is JSON, which has no line breaks."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def json_text(value: object) -> str:
    """Return *value* as compact JSON that is safe wherever it ends up, a page's source among it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


class EventStream(Response):
    """Sends what *source* yields until it ends, the client goes or stays stuck, or *closing* is set."""

    def __init__(
        self, source: AsyncIterator[bytes], *, closing: asyncio.Event, stuck_after: float = STUCK_AFTER
    ) -> None:
        self.status_code = 200
        self.background = None
        self._source = source
        self._closing = closing
        self._stuck_after = stuck_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        tasks = [asyncio.create_task(work) for work in (self._pump(send), _gone(receive), self._closed())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            pumped, gone, _ = await asyncio.gather(*tasks, return_exceptions=True)
        # Neither who has gone nor who does not read takes a farewell.
        if isinstance(pumped, TIMEOUTS):
            _cut_off(receive)
            return
        if gone is None:
            return
        if isinstance(pumped, Exception):
            log.error("a stream of events broke off", exc_info=pumped)
        with anyio.move_on_after(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        await send(_body(b"retry: 2000\n\n"))
        async for message in self._source:
            # One that does not read: what it would get is lost on it, and what is held for it costs us.
            with anyio.fail_after(self._stuck_after):
                await send(_body(message))

    async def _closed(self) -> None:
        await self._closing.wait()


def _body(message: bytes) -> Message:
    return {"type": "http.response.body", "body": message, "more_body": True}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def transport_of(receive: Receive) -> asyncio.Transport | None:
    """Return the connection of a request; None where a server other than uvicorn hands it over."""
    transport: asyncio.Transport | None = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport


def _cut_off(receive: Receive) -> None:
    """Drop the connection of a client that does not read: uvicorn would close it when all is read, so never."""
    if (transport := transport_of(receive)) is not None:
        transport.abort()


class StreamBoard:
    """Publish a message to all open pages. A slow one gets the latest and misses what was before it.

    Attributes:
        viewers: How many pages are open, by role.
    """

    def __init__(self) -> None:
        self.viewers: Counter[str] = Counter()
        self._messages: dict[str, bytes] = {}
        self._next = asyncio.Event()

    def publish(self, messages: dict[str, bytes]) -> None:
        """Show one message to each role."""
        self._messages = messages
        shown, self._next = self._next, asyncio.Event()
        shown.set()

    async def follow(self, role: str, first: Callable[[], bytes], *, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield a message now and whenever there is a new one, for as long as *holds* says so."""
        self.viewers[role] += 1
        try:
            yield first()
            while True:
                await self._next.wait()
                if not holds():
                    return
                yield self._messages[role]
        finally:
            self.viewers[role] -= 1
