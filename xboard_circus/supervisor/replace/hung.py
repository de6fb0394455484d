"""Kill a hung worker, with the stack of every thread in its log."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from psutil import NoSuchProcess, Process

from xboard_circus.core.causes import Cause
from xboard_circus.core.worker import Order, Ordered
from xboard_circus.host.worker_files import listener_of
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.replace.swap import announce

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

STEP = 0.05
STACK_SECONDS = 1.5
DIES_WITHIN = 60.0


async def kill_hung(armed: ArmedWatcher, worker: Worker, reason: str) -> None:
    """Kill a worker whose event loop does not answer.

    SIGABRT makes faulthandler write the stacks; a process under SIGSTOP only does so after SIGCONT. Behind a wrapper
    (``uv run``) the signals go to the worker itself, because the wrapper has no stacks of Python's to write. A worker
    that survives that gets SIGKILL: it cannot drain, since it cannot do anything.
    """
    order = Order(by="probe", why=reason, cause=Cause.UNHEALTHY)
    armed.happen(worker, Ordered(armed.clock(), order, STACK_SECONDS + DIES_WITHIN))
    announce(armed, worker, Cause.UNHEALTHY, by="probe", reason=reason)
    children = circus_process.children(worker.process)
    behind_wrapper = _listener(armed, worker, children)
    for signum in (signal.SIGABRT, signal.SIGCONT):
        if behind_wrapper is None:
            circus_process.send(worker.process, signum)
        else:
            with suppress(NoSuchProcess):
                behind_wrapper.send_signal(signum)
    await _until_ended(armed, worker, STACK_SECONDS)
    if not worker.has_ended():
        circus_process.send(worker.process, signal.SIGKILL)
    for child in children:
        with suppress(NoSuchProcess):
            child.kill()
    await _until_ended(armed, worker, DIES_WITHIN)
    armed.keep_up()


def _listener(armed: ArmedWatcher, worker: Worker, children: list[Process]) -> Process | None:
    """Return the one of *children*, processes in the session of *worker*, that listens on its private socket."""
    path = armed.file_of(worker, "sock")
    pid = None if path is None else listener_of(path)
    return next((child for child in children if child.pid == pid), None)


async def _until_ended(armed: ArmedWatcher, worker: Worker, seconds: float) -> None:
    end = armed.clock() + seconds
    while armed.clock() < end and not worker.has_ended():
        await asyncio.sleep(STEP)
