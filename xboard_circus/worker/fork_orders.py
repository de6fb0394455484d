"""Define the messages between circusd and a forkserver; see `xboard_circus.worker.forkserver`."""

import socket
from collections.abc import Iterable

ORDERS, LEVEL, SPACE = "XBOARD_FORK_ORDERS", "XBOARD_FORK_LEVEL", "XBOARD_FORK_SPACE"
"""Variables: the socket for orders; the level of the preload; and room in the environment that /proc shows."""

MODULES = "XBOARD_FORK_MODULES"
"""Variable: the modules of `worker.preload_modules`, separated by blanks."""

READY, OUTDATED, UNSAFE, HERE, GO = b"ready", b"outdated", b"unsafe", b"here", b"go"
"""The imports are done; a file of them has changed; no fork is safe any more, for the reason sent before; a worker is
forked; the worker may go on."""

ANYWHERE = -1
"""In place of a descriptor's number: the worker chooses one, and puts it into its environment."""


def variables(orders: socket.socket, level: str, modules: Iterable[str] | None) -> dict[str, str]:
    """Return the environment of a forkserver that takes *orders*, beside that of its workers."""
    return {ORDERS: str(orders.fileno()), LEVEL: level, MODULES: " ".join(modules or ()), SPACE: "-" * 64}
