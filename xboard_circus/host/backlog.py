"""Read how many connections may wait at a listener for an accept."""

import socket
import sys

_AT, _TCP_INFO_SIZE = 28, 32  # tcpi_sacked of linux/tcp.h, of a listener


def backlog_of(listener: socket.socket) -> int | None:
    """Return the backlog of a listener; None where the kernel does not show it, as of a unix socket."""
    if sys.platform != "linux" or listener.family == socket.AF_UNIX:
        return None
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    return int.from_bytes(info[_AT:], sys.byteorder) if len(info) == _TCP_INFO_SIZE else None
