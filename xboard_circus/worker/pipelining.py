"""Parse pipelined requests one after the other in uvicorn, which takes in all that a client sends.

With httptools it makes objects of each request that a read brings, 40 times as large; with either parser it reads on at
each answer, and at each `receive` of the app. So clients that read no answers could fill a worker's memory. Here a
request waits unparsed until the one before it is answered, and no more is read while over 64 KiB wait.
"""

import asyncio
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from uvicorn.protocols import utils
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from xboard_circus.worker.drain import is_idle, queued

_END = b"\r\n\r\n"  # llhttp takes nothing else for the end of headers
_PIECE = 1024
"""Least bytes of a chunked body that are parsed at once: nothing but its parser knows where in it requests begin."""


def one_at_a_time(protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """Return *protocol* with its requests one at a time if it is uvicorn's for HTTP/1.1; any other as it is."""
    for module, name, ours in (("httptools", "HttpToolsProtocol", _OfHttpTools), ("h11", "H11Protocol", _OneAtATime)):
        known = getattr(sys.modules.get(f"uvicorn.protocols.http.{module}_impl"), name, None)
        if known is not None and issubclass(protocol, known):
            vars(sys.modules[known.__module__]).update(_ADDRESSES)
            # Not by super(), which each request would pay.
            kept = {"_parse": protocol.data_received, "_complete": known.on_response_complete}
            return type(f"OneAtATime{name}", (ours, protocol), kept)
    return protocol


def _address(which: str, of_uvicorn: Callable[[Any], Any], transport: asyncio.BaseTransport) -> Any:
    """Return an address of a connection as the loop knows it: uvicorn makes a socket to ask for each of the two."""
    known = transport.get_extra_info(which)
    return known if isinstance(known, tuple) and len(known) == 2 else of_uvicorn(transport)  # of IPv6, or a path


_ADDRESSES = {
    "get_local_addr": partial(_address, "sockname", utils.get_local_addr),
    "get_remote_addr": partial(_address, "peername", utils.get_remote_addr),
}


class _Flow(FlowControl):
    """Read no further while too much waits.

    Attributes:
        of: The connection; a closed one would otherwise be kept until Python collects garbage.
    """

    of: "ref[Any]"

    def resume_reading(self) -> None:
        if self.read_paused and not ((connection := self.of()) and connection.is_full()):
            super().resume_reading()


def is_kept(connection: Any) -> bool:
    """Return whether *connection* waits for another request, without a timer of its own."""
    is_without = isinstance(getattr(connection, "loop", None), _LoopWithoutTimers)
    return is_without and connection.cycle is not None and is_idle(connection)


def untaken(connection: Any) -> tuple[int, bytes]:
    """Return how many bytes of its answers the client of *connection* has not taken, and how many it has, as a mark.

    The mark is for TLS, which fills the kernel again from a buffer that cannot be seen. A unix socket has none.
    """
    transport, taken = connection.transport, b""
    with suppress(OSError, AttributeError):
        taken = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[120:]
    return transport.get_write_buffer_size() + queued(connection, termios.TIOCOUTQ), taken


class _LoopWithoutTimers:
    """Stand for the loop in uvicorn, which sets a timer after each answer and cancels it at the next request.

    That takes 2 us with uvloop. `SheddingServer` looks once in a while which connections are not used.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.with_timers, self.create_task = loop, loop.create_task

    def call_later(self, seconds: float, expire: Callable[[], None]) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self.with_timers, name)


class _OneAtATime(asyncio.Protocol):
    """Bound what h11 keeps behind a request that is not answered; it parses one at a time."""

    def connection_made(self: Any, transport: Any) -> None:
        super().connection_made(transport)
        self.flow.__class__ = _Flow
        self.flow.of = ref(self)

    def _is_busy(self: Any) -> bool:
        """Return whether a request has arrived as a whole and has no whole answer yet."""
        cycle = self.cycle
        return not (cycle is None or cycle.response_complete or cycle.more_body)

    def is_full(self: Any) -> bool:
        return self._is_busy() and len(self.conn.trailing_data[0]) > HIGH_WATER_LIMIT


class _OfHttpTools(_OneAtATime):
    """Give httptools no more than up to the end of the next headers, and that when the request before is answered."""

    _body_of: Any = None
    _body_read = 0

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._waiting = bytearray()
        if self.timeout_keep_alive >= 1:  # a shorter time is too short to look once in a while
            self.loop = _LoopWithoutTimers(self.loop)

    def data_received(self: Any, data: bytes) -> None:
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and data.find(_END) in (-1, len(data) - len(_END)):
            self._parse(data)  # as below, in the time that each request takes
        elif self._is_busy() or self._length_to_parse(data) < len(data):
            self._waiting += data
            self._parse_waiting()
        else:
            self._parse(data)

    def on_body(self: Any, body: bytes) -> None:
        if self._body_of is not self.cycle:
            self._body_of, self._body_read = self.cycle, 0
        self._body_read += len(body)
        super().on_body(body)  # type: ignore[misc]

    def on_response_complete(self: Any) -> None:
        if self.cycle.more_body and isinstance(self.loop, _LoopWithoutTimers):
            self.loop = self.loop.with_timers  # the rest of the body shows that it is used, which uvicorn alone sees
        self._complete()
        if self._waiting:
            self._parse_waiting()
            self.flow.resume_reading()

    def is_full(self) -> bool:
        return len(self._waiting) > HIGH_WATER_LIMIT

    def _length_to_parse(self: Any, data: "bytes | bytearray") -> int:
        """Return where the next headers in *data* end, behind the rest of a body of known length; or its length.

        A chunk of blank lines would otherwise be parsed in pieces of 4 bytes, each with a look through all headers.
        """
        start, cycle = 0, self.cycle
        if cycle is not None and cycle.more_body:
            value = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"")
            length = int(value.strip().lstrip(b"0") or 0)  # Python reads no number with thousands of zeros before it
            start = max(0, length - (self._body_read if self._body_of is cycle else 0)) or _PIECE
        end = data.find(_END, start)
        return len(data) if end < 0 else end + len(_END)

    def _parse_waiting(self: Any) -> None:
        while self._waiting and not self._is_busy():
            if self not in self.connections or self.transport.is_closing():  # answered 400, or a WebSocket by now
                self._waiting.clear()
                return
            piece = bytes(self._waiting[: self._length_to_parse(self._waiting)])
            del self._waiting[: len(piece)]
            self._parse(piece)
        if self.is_full():
            self.flow.pause_reading()
