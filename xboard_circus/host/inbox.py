"""Pass listening sockets to a starting process, over a unix socket that is its stdin.

A sent listener stays open in the queue of the unix socket. So the ports stay taken when the sender ends, however long
the receiver needs to start, and are free again when the receiver ends.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from xboard_circus.host import service_manager, unix_sockets

STDIN = 0


def path_of(folder: Path, gate: int) -> Path:
    """Return the path of the inbox of the process that waits at *gate* in *folder*."""
    return folder / f"gate-{gate}.sock"


def make(path: Path) -> socket.socket | None:
    """Return a unix socket at *path* that only this user can send to; None where the system cannot make one."""
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        path.unlink(missing_ok=True)
        os.fchmod(inbox.fileno(), 0o600)  # the file gets this mode from the first moment on; macOS refuses
        inbox.bind(os.fspath(path))
    except OSError:
        inbox.close()
        return None
    return inbox


def send(listeners: Iterable[socket.socket], path: Path) -> None:
    """Send *listeners*, as many as one message takes, to the inbox at *path*; OSError without a receiver."""
    service_manager.send(os.fspath(path), "\0", [each.fileno() for each in listeners])


def receive(folder: Path) -> list[socket.socket]:
    """Return the listeners sent to stdin, if that is an inbox in *folder*: it is removed, and stdin is empty from now
    on.

    Call it before anything is started, because a child would inherit it.
    """
    try:
        inbox = socket.socket(fileno=STDIN)
    except OSError:  # no socket
        return []
    received: list[socket.socket] = []
    try:
        path = inbox.getsockname()
        if not isinstance(path, str) or Path(path).parent != folder:
            return []
        inbox.setblocking(False)
        with suppress(OSError):  # nothing was sent: the sender was killed
            received = [socket.socket(fileno=number) for number in unix_sockets.receive(inbox, 1).descriptors]
    finally:
        inbox.detach()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), STDIN)
    with suppress(OSError):
        Path(path).unlink()
    return received
