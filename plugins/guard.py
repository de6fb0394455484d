"""The one line that arms a watcher: `hooks.before_start = xboard_circus.plugins.guard.arm`."""

from __future__ import annotations

import socket
from typing import Any

from circus import logger

from xboard_circus.supervisor.supervisor import Supervisor


def arm(watcher: Any, arbiter: Any, hook_name: str, **_: object) -> bool:
    """Arm *watcher*; Circus calls this each time the watcher starts.

    Always answers True and never raises: a backend without our protection is better than none.
    """
    try:
        Supervisor.of(arbiter).arm(watcher)
    except Exception:
        logger.exception("xboard: %s could not be armed; it runs without protection", watcher.name)
        _bind_plainly(watcher)
    return True


def _bind_plainly(watcher: Any) -> None:
    """Bind the sockets that were left for the port guard; else Circus binds one per worker, beside any stranger."""
    for name, shared in (watcher.sockets or {}).items():
        if shared.so_reuseport and f"circus.sockets.{name}" in watcher.cmd.lower():
            try:
                shared.so_reuseport = False
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
                shared.bind_and_listen()
            except OSError as error:
                logger.error("xboard: socket %s could not be bound: %s", name, error)
