"""A TCP socket whose last close waits for `LINGER` seconds in whichever process does it."""

import array
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LINGER = 40


@contextmanager
def lingering() -> Iterator[socket.socket]:
    """Return one whose peer reads nothing until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as made:
        leave_unsent(made, listener)
        with listener.accept()[0]:
            yield made


def leave_unsent(made: socket.socket, listener: socket.socket) -> None:
    """Connect *made*, leave unsent data in it, and have its last close wait for that."""
    made.setblocking(True)
    made.connect(listener.getsockname())
    made.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            made.send(b"x" * 65536)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))


@contextmanager
def attached(channel: socket.socket, data: bytes) -> Iterator[None]:
    """Send *data* with such a socket, of which the receiver has the last descriptor within the block."""
    with lingering() as made:
        try:
            channel.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
        except PermissionError:  # refused by the other end; the close here must not wait either
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            channel.send(data)
        made.close()
        yield


@contextmanager
def server_that_attaches(path: Path, answer: bytes) -> Iterator[None]:
    """Run a process that answers each connection to *path* with *answer* and such a socket, which it closes at once."""
    with subprocess.Popen([sys.executable, __file__, str(path), answer.hex()], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield
        finally:
            server.kill()


def serve(path: str, answer: bytes) -> None:
    with ExitStack() as kept, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            channel, _ = listener.accept()
            with suppress(OSError):  # who looks whether anybody listens is gone by now
                kept.enter_context(attached(channel, answer))
                channel.shutdown(socket.SHUT_WR)
            kept.enter_context(channel)


if __name__ == "__main__":
    serve(sys.argv[1], bytes.fromhex(sys.argv[2]))
