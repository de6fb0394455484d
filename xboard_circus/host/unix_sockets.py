"""Read from a unix socket of another user, who may attach descriptors to what it sends.

The kernel closes in our own process any descriptor that is not taken, or is still queued when we close our end. The
last close of a TCP socket with SO_LINGER and unsent data blocks there for as many seconds as its sender has set. Linux
6.16 and later can refuse descriptors; on older kernels they are taken, and closed without lingering.
"""

import array
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

PASSRIGHTS = 83  # SO_PASSRIGHTS, Linux 6.16; Python has no name for it
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
        descriptors: Descriptors attached to it; to be used, or given to `discard`.
        sender: Its pid as the kernel knows it, with SO_PASSCRED; otherwise 0.
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
    """Have the kernel refuse data with descriptors from the other end; older kernels cannot."""
    if sys.platform == "linux":
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, PASSRIGHTS, 0)


def receive(connection: socket.socket, size: int) -> Received:
    """Return the next data, of at most *size* bytes."""
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
    """Return at most *size* bytes, as `recv` does, without attached descriptors."""
    data, descriptors, _ = receive(connection, size)
    discard(descriptors)
    return data


def discard(descriptors: Iterable[int]) -> None:
    """Close *descriptors* without waiting for their unsent data."""
    for descriptor in descriptors:
        with suppress(OSError):
            do_not_linger(descriptor)
        with suppress(OSError):
            os.close(descriptor)


def do_not_linger(descriptor: int) -> None:
    """Make the close of a socket wait for nothing; OSError for anything else."""
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
        connection.shutdown(socket.SHUT_RD)  # nothing more can arrive
        connection.setblocking(False)
        for _ in range(MOST_UNREAD):
            message = receive(connection, PIECE)
            discard(message.descriptors)
            if not any(message):
                break
    connection.close()
