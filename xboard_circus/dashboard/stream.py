"""Send events to open pages: each message is made once for all of them, and a slow page delays no other."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT = b": \n\n"


def event(name: str, data: str) -> bytes:
    """Return one event; *data* is JSON, which has no line breaks."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def json_text(value: object) -> str:
    """Return *value* as compact JSON that is safe wherever it is inserted, even in a page's source.

    What another user's circusd says may hold NaN or Infinity, which no browser reads: the page would show nothing.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), separators=(",", ":"))
    return text.replace("<", "\\u003c")


class EventStream(StreamingResponse):
    """Send what a source yields until it ends, or the client goes."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        # nginx would buffer the events.
        super().__init__(source, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self._source):
            await super().stream_response(send)


def transport_of(receive: Receive) -> asyncio.Transport | None:
    """Return the connection of a request; None under a server other than uvicorn."""
    transport: asyncio.Transport | None = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport


class StreamBoard:
    """Publish a message to all open pages. A slow one gets the latest and misses the earlier ones.

    Attributes:
        viewers: How many pages are open, by role.
        is_closed: All streams end.
    """

    def __init__(self) -> None:
        self.viewers: Counter[str] = Counter()
        self.is_closed = False
        self._messages: dict[str, bytes] = {}
        self._next = asyncio.Event()

    def publish(self, messages: dict[str, bytes]) -> None:
        """Show one message to each role."""
        self._messages = messages
        shown, self._next = self._next, asyncio.Event()
        shown.set()

    def close(self) -> None:
        """End all streams."""
        self.is_closed = True
        self._next.set()

    async def follow(
        self, role: str, first: Callable[[], bytes], *, holds: Callable[[], bool], most: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield a message now and whenever there is a new one, for as long as *holds* returns True.

        Nothing beyond *most* viewers: requests that come at once all find a place free.
        """
        self.viewers[role] += 1
        try:
            if self.viewers[role] > most:
                return
            yield first()
            while True:
                await self._next.wait()
                if self.is_closed or not holds():
                    return
                yield self._messages[role]
        finally:
            self.viewers[role] -= 1
