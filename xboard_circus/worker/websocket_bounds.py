"""Bound what a client makes a WebSocket of uvicorn's keep: answers to its pings, pieces of messages, and connections
without a handshake.

uvicorn answers each ping also where the client reads none of the answers, and keeps each piece of a message, also empty
ones, which count for no size: so one client could fill a worker's memory. And it passes over a handshake that the
library websockets refuses by itself, such as one with 129 headers: the client gets no answer, and the connection
stays open for good.
"""

import asyncio
from typing import Any

MOST_UNREAD = 500
"""Answers to pings that wait for a client that does not read; each has 131 bytes at most."""


def bounded(protocol: Any) -> Any:
    """Return *protocol* with these bounds if it is one of uvicorn's that need them; any other as it is."""
    module = getattr(protocol, "__module__", "")
    if not module.startswith("uvicorn.") or not hasattr(protocol, "handle_ping"):  # that of older websockets waits
        return protocol
    return type(f"Bounded{protocol.__name__}", (_Bounded, protocol), {})


class _Bounded(asyncio.Protocol):
    _unread, _is_full = 0, False

    def data_received(self: Any, data: bytes) -> None:
        super().data_received(data)
        is_refused = not self.handshake_complete and getattr(self.conn, "handshake_exc", None) is not None
        if is_refused and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_ping(self: Any, *event: Any) -> None:
        super().handle_ping(*event)  # type: ignore[misc]
        self._unread += self._is_full
        if self._unread > MOST_UNREAD and not self.transport.is_closing():
            self.transport.pause_reading()

    def handle_cont(self: Any, event: Any) -> None:
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
