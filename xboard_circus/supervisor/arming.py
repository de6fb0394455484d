"""Arm a watcher as a transaction: prepare, install our methods last, and remove them again on any failure.

A watcher that cannot be armed runs plainly, with its environment and its port, and its siblings notice nothing.
"""

import socket
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.options.fields import WatcherOptions
from xboard_circus.supervisor.listener_check import is_listening
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.patches.patch import PatchFailed
from xboard_circus.supervisor.watcher import ArmedWatcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def arm(supervisor: "Supervisor", watcher: Any) -> None:
    """Arm a watcher that starts, or prepare an armed one for its next start. Never raises."""
    armed = supervisor.armed.get(watcher.name)
    is_new = armed is None or armed.watcher is not watcher
    try:
        if supervisor.unfit:
            raise PatchFailed(supervisor.unfit)
        if armed is None or is_new:
            armed = ArmedWatcher(supervisor, watcher)
        armed.prepare()
        if is_new:
            armed.install()
        supervisor.armed[watcher.name] = armed
        armed.before_start()
        supervisor.plain.pop(watcher, None)
    except Exception as error:
        why = str(error) or type(error).__name__
        if isinstance(error, PatchFailed):
            why = Say.CIRCUS_LACKS(what=why)
        elif not isinstance(error, XboardError):
            logger.exception("xboard: %s could not be armed", watcher.name)
            why = Say.TRACEBACK_IN_LOG(what=why)
        _undo(supervisor, watcher, armed)
        run_plainly(supervisor, watcher, Say.RUNS_PLAINLY(why=why))


def _undo(supervisor: "Supervisor", watcher: Any, armed: ArmedWatcher | None) -> None:
    try:
        if armed is not None and armed.watcher is watcher:
            armed.disarm()
    except Exception:
        logger.exception("xboard: %s could not be disarmed", watcher.name)
    if (known := supervisor.armed.get(watcher.name)) is not None and known.watcher is watcher:
        del supervisor.armed[watcher.name]


def run_plainly(supervisor: "Supervisor", watcher: Any, reason: str) -> None:
    """Run *watcher* unarmed: the right interpreter and our marks in its environment, and its port bound."""
    supervisor.plain[watcher] = reason
    logger.error("xboard: %s: %s", watcher.name, reason)
    try:
        supervisor.give_environment(watcher, None, WatcherOptions())
    except Exception:
        logger.exception("xboard: %s runs with the environment of circusd", watcher.name)
    bind_plainly(watcher)


def bind_plainly(watcher: Any) -> None:
    """Bind the sockets that were left for the port guard, because Circus would bind one per worker, beside any
    stranger; and those that it has given back at a stop."""
    named = circus_process.sockets_named(watcher)
    for name, shared in (watcher.sockets or {}).items():
        if name.lower() in named and (shared.so_reuseport or not is_listening(shared)):
            try:
                shared.so_reuseport = False
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
                shared.bind_and_listen()
            except OSError as error:
                logger.error("xboard: socket %s could not be bound: %s", name, error)
