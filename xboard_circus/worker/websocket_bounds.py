"""Bound what a client makes a WebSocket of uvicorn's keep: answers to its pings, pieces of messages, messages without
end, and connections without a handshake.

uvicorn answers each ping also where the client reads none of the answers, and keeps each piece of a message, also empty
ones, which count for no size: so one client could fill a worker's memory. So could 20 connections with a message each
that has no last piece: compressed, 16 MB of it are 16 KB. And it passes over a handshake that the
library websockets refuses by itself, such as one with 129 headers: the client gets no answer, and the connection
stays open for good.
"""

import asyncio
from typing import Any, ClassVar

MOST_UNREAD = 500
"""Answers to pings that wait for a client that does not read; each has 131 bytes at most."""

MOST_UNFINISHED = 16
"""Times the largest message that all unfinished messages of a worker together may have: people who upload at once."""


def bounded(protocol: Any) -> Any:
    """Return *protocol* with these bounds if it is one of uvicorn's that need them; any other as it is."""
    module = getattr(protocol, "__module__", "")
    if not module.startswith("uvicorn.") or not hasattr(protocol, "handle_ping"):  # that of older websockets waits
        return protocol
    return type(f"Bounded{protocol.__name__}", (_Bounded, protocol), {})


class _Bounded(asyncio.Protocol):
    _unread, _is_full = 0, False
    _unfinished: ClassVar[dict[Any, int]] = {}  # of all connections, the oldest message first

    def data_received(self: Any, data: bytes) -> None:
        super().data_received(data)
        is_refused = not self.handshake_complete and getattr(self.conn, "handshake_exc", None) is not None
        if is_refused and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        while self in self._unfinished and sum(self._unfinished.values()) > MOST_UNFINISHED * self.config.ws_max_size:
            next(iter(self._unfinished))._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unfinished.pop(self, None)
        super().connection_lost(exc)

    def _drop(self: Any) -> None:
        """Close with 1009, and free the unfinished message at once: who does not read may stay connected for long."""
        del self._unfinished[self]
        self.conn.fail(1009, "too many unfinished messages")
        self.handle_parser_exception()
        self.frames, self.bytes = list[bytes](), b""  # the latter in older versions of uvicorn

    def _note(self: Any, event: Any) -> None:
        if event.fin:
            self._unfinished.pop(self, None)
        else:
            self._unfinished[self] = self._unfinished.get(self, 0) + len(event.data)

    def handle_text(self: Any, event: Any) -> None:
        super().handle_text(event)  # type: ignore[misc]
        self._note(event)

    def handle_bytes(self: Any, event: Any) -> None:
        super().handle_bytes(event)  # type: ignore[misc]
        self._note(event)

    def handle_ping(self: Any, *event: Any) -> None:
        super().handle_ping(*event)  # type: ignore[misc]
        self._unread += self._is_full
        if self._unread > MOST_UNREAD and not self.transport.is_closing():
            self.transport.pause_reading()

    def handle_cont(self: Any, event: Any) -> None:
        self._note(event)
        pieces = getattr(self, "frames", [])  # older versions of uvicorn keep the bytes by themselves
        if event.fin or not pieces:
            super().handle_cont(event)  # type: ignore[misc]
            return
        if not isinstance(pieces[0], bytearray):
            pieces[0] = bytearray(pieces[0])
        pieces[0] += event.data

    def pause_writing(self: Any) -> None:
        super().pause_writing()
        self._is_full = True  # uvicorn before 0.53 does not note it

    def resume_writing(self: Any) -> None:
        super().resume_writing()
        was_held, self._unread, self._is_full = self._unread > MOST_UNREAD, 0, False
        if was_held and not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()
