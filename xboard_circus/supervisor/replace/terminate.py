"""End a worker for a reason, and report that it is going to be replaced."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from psutil import NoSuchProcess

from xboard_circus.core.causes import Cause
from xboard_circus.core.reason import with_say
from xboard_circus.core.worker import Order, Ordered
from xboard_circus.host.worker_files import listener_of
from xboard_circus.supervisor.patches import circus_process, circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

STEP = 0.05
STACK_SECONDS = 1.5
DIES_WITHIN = 60.0


def announce(armed: ArmedWatcher, worker: Worker, order: Order) -> None:
    """Publish that a worker is going to be replaced, and why."""
    cause = (order.cause or Cause.COMMANDED).value
    armed.publish("replace", reason=order.why, **worker.ids, cause=cause, **with_say(order.by, "by"))


async def end(armed: ArmedWatcher, worker: Worker, order: Order, *, within: float | None = None) -> None:
    """Terminate a worker, kill it after *within* seconds (else `graceful_timeout`), and fill its place."""
    armed.happen(worker, Ordered(armed.clock(), order, armed.order_expires_after))
    await circus_watcher.kill(armed.watcher, worker.process, within)
    armed.keep_up()


async def kill_hung(armed: ArmedWatcher, worker: Worker, order: Order) -> None:
    """Kill a worker whose event loop does not answer, with the stack of every thread in its log.

    SIGABRT makes faulthandler write the stacks; a process under SIGSTOP only does so after SIGCONT. Behind a wrapper
    (``uv run``) the signals go to the worker itself, because the wrapper has no stacks of Python's to write. A worker
    that survives that gets SIGKILL: it cannot drain, since it cannot do anything.
    """
    armed.happen(worker, Ordered(armed.clock(), order, STACK_SECONDS + DIES_WITHIN))
    announce(armed, worker, order)
    children = circus_process.children(worker.process)
    path = armed.file_of(worker, "sock")
    listener = None if path is None else listener_of(path)
    behind_wrapper = next((child for child in children if child.pid == listener), None)
    for signum in (signal.SIGABRT, signal.SIGCONT):
        circus_process.send(behind_wrapper or worker.process, signum)
    await until_ended(armed, worker, STACK_SECONDS)
    if not worker.has_ended():
        circus_process.send(worker.process, signal.SIGKILL)
    for child in children:
        with suppress(NoSuchProcess):
            child.kill()
    await until_ended(armed, worker, DIES_WITHIN)
    armed.keep_up()


async def until_ended(armed: ArmedWatcher, worker: Worker, seconds: float) -> None:
    """Wait until the process of a worker is dead, for *seconds* at most."""
    deadline = armed.clock() + seconds
    while armed.clock() < deadline and not worker.has_ended():
        await asyncio.sleep(STEP)
