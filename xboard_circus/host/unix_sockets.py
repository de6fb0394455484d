"""Read from a unix socket whose other end is another user's, who may attach descriptors to what it sends.

What nobody takes of them, or what lies unread when we close our end, the kernel closes in our own process. The last
close of a TCP socket with SO_LINGER and unsent data waits there for as many seconds as its sender has set. Linux 6.16
and later let us refuse descriptors; on older kernels they are taken, and closed without lingering.
"""

import array
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

PASSRIGHTS = 83  # SO_PASSRIGHTS, Linux 6.16, which Python has no name for
MOST_DESCRIPTORS = 253  # SCM_MAX_FD: of one message
MOST_UNREAD = 4096
PIECE = 1 << 16
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SCM_CREDENTIALS
DOES_NOT_LINGER = struct.pack("ii", 0, 0)
_SIZE = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * _SIZE) + socket.CMSG_SPACE(CREDENTIALS.size)


class Received(NamedTuple):
    """A message or a piece of a stream.

    Attributes:
        data: Empty where the other end is closed.
        descriptors: What came with it; to be used, or given to `discard`.
        sender: Its pid as the kernel has it, with SO_PASSCRED; else 0.
    """

    data: bytes
    descriptors: list[int]
    sender: int


@contextmanager
def opened(*, takes_descriptors: bool = False) -> Iterator[socket.socket]:
    """Make a stream socket, and close it as `close` does at the end of the block."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if not takes_descriptors:
        refuse_descriptors(made)
    try:
        yield made
    finally:
        close(made)


def refuse_descriptors(connection: socket.socket) -> None:
    """Have the kernel refuse what the other end sends with descriptors; older kernels do not know how."""
    if sys.platform == "linux":
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, PASSRIGHTS, 0)


def receive(connection: socket.socket, size: int) -> Received:
    """Return what comes next, of at most *size* bytes."""
    descriptors, sender = array.array("i"), 0
    # Not socket.recv_fds: up to Python 3.13 it drops its flags, and circusd may fork in the next moment.
    data, ancillary, _, _ = connection.recvmsg(size, _ROOM, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(value[: len(value) - len(value) % _SIZE])
        elif (level, kind) == (socket.SOL_SOCKET, getattr(socket, "SCM_CREDENTIALS", None)):
            sender = CREDENTIALS.unpack(value[: CREDENTIALS.size])[0]
    return Received(data, list(descriptors), sender)


def read(connection: socket.socket, size: int) -> bytes:
    """Return at most *size* bytes, as `recv` does, without what was attached to them."""
    data, descriptors, _ = receive(connection, size)
    discard(descriptors)
    return data


def discard(descriptors: Iterable[int]) -> None:
    """Close *descriptors* without waiting for what they have to send."""
    for descriptor in descriptors:
        with suppress(OSError):
            do_not_linger(descriptor)
        with suppress(OSError):
            os.close(descriptor)


def do_not_linger(descriptor: int) -> None:
    """Have the close of a socket wait for nothing; OSError where it is none."""
    found = socket.socket(fileno=descriptor)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DOES_NOT_LINGER)
    finally:
        found.detach()


def close(connection: socket.socket) -> None:
    """Close *connection*, and without waiting what lies unread in it."""
    if connection.family != socket.AF_UNIX:
        connection.close()
        return
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # nothing more comes in
        connection.setblocking(False)
        for _ in range(MOST_UNREAD):
            message = receive(connection, PIECE)
            discard(message.descriptors)
            if not any(message):
                break
    connection.close()
