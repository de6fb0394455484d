"""Kill a hung worker, with the stack of every thread in its log."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from psutil import NoSuchProcess

from xboard_circus.core.causes import Cause
from xboard_circus.core.worker import Order, Ordered
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

    SIGABRT makes faulthandler write the stacks; a process under SIGSTOP only does so after SIGCONT. A worker that
    survives that gets SIGKILL: it cannot drain, since it cannot do anything.
    """
    order = Order(by="probe", why=reason, cause=Cause.UNHEALTHY)
    armed.happen(worker, Ordered(armed.clock(), order, STACK_SECONDS + DIES_WITHIN))
    announce(armed, worker, Cause.UNHEALTHY, by="probe", reason=reason)
    children = circus_process.children(worker.process)
    for signum in (signal.SIGABRT, signal.SIGCONT):
        circus_process.send(worker.process, signum)
    await _until_ended(armed, worker, STACK_SECONDS)
    if not worker.has_ended():
        circus_process.send(worker.process, signal.SIGKILL)
    for child in children:
        try:
            child.kill()
        except NoSuchProcess:
            continue
    await _until_ended(armed, worker, DIES_WITHIN)
    armed.keep_up()


async def _until_ended(armed: ArmedWatcher, worker: Worker, seconds: float) -> None:
    end = armed.clock() + seconds
    while armed.clock() < end and not worker.has_ended():
        await asyncio.sleep(STEP)
