"""Speak to a ROUTER socket of ZeroMQ's over a plain socket (ZMTP 3.0, no security), with a bound on what is read.

libzmq bounds only a single frame: of a message with endless frames it keeps all. It also hides why a connection has
ended.
"""

import selectors
import socket
import struct
import time

from xboard_circus.host import unix_sockets

LARGEST = 4 << 20
"""Bytes of a message. The journal's are the largest of ours, 1 MiB; json.loads holds Python for 0.4 s over 4 MiB."""

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
_MORE, _LONG, _COMMAND = 1, 2, 4


class TooLarge(Exception):
    """A message is larger than `LARGEST`, or has more than one frame."""


class Dealer:
    """A DEALER socket at the end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._is_ready = connection, False
        self._selector = selectors.DefaultSelector()  # on Linux by epoll: root's circusd refuses who does not wait so
        self._selector.register(connection, selectors.EVENT_READ)

    def is_silent(self) -> bool:
        """Return whether nothing can be received, not even the end of the connection."""
        return not self._selector.select(0)

    def close(self) -> None:
        self._selector.close()
        unix_sockets.close(self._connection)

    def send(self, message: bytes, *, ends_at: float) -> None:
        """Send a message of one frame; raises as `receive` does."""
        if not self._is_ready:
            self._shake_hands(ends_at)
        self._wait_until(ends_at)
        self._connection.sendall(_frame(0, message))

    def receive(self, *, ends_at: float) -> bytes:
        """Return the next message.

        Raises:
            TimeoutError: None has come until *ends_at*, of `time.monotonic`.
            OSError: The other side has closed the connection, or does not speak ZMTP 3.
            TooLarge: It is too large.
        """
        while True:
            is_command, body = self._receive_frame(ends_at)
            if not is_command:
                return body

    def _shake_hands(self, ends_at: float) -> None:
        self._wait_until(ends_at)
        self._connection.sendall(_GREETING + _frame(_COMMAND, _READY))
        greeting = self._take(len(_GREETING), ends_at)
        if greeting[:1] != b"\xff" or greeting[10] < 3:
            raise ConnectionError("not a ZeroMQ socket")
        self._receive_frame(ends_at)  # libzmq takes a message for a part of the handshake until it has sent this
        self._is_ready = True

    def _receive_frame(self, ends_at: float) -> tuple[bool, bytes]:
        flags = self._take(1, ends_at)[0]
        size = struct.unpack(">Q", self._take(8, ends_at))[0] if flags & _LONG else self._take(1, ends_at)[0]
        if flags & _MORE or size > LARGEST:
            raise TooLarge
        return bool(flags & _COMMAND), self._take(size, ends_at)

    def _take(self, size: int, ends_at: float) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            self._wait_until(ends_at)
            if not (part := unix_sockets.read(self._connection, size - len(taken))):
                raise ConnectionResetError
            taken += part
        return bytes(taken)

    def _wait_until(self, ends_at: float) -> None:
        if (left := ends_at - time.monotonic()) <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


def _frame(flags: int, body: bytes) -> bytes:
    return struct.pack(">BQ", flags | _LONG, len(body)) + body
