"""Announce the end of a worker, kill a hung one with its stacks, and wait until it is dead."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from xboard_circus.core.causes import Cause
from xboard_circus.core.reason import with_say
from xboard_circus.core.worker_phases import Order
from xboard_circus.host import procs
from xboard_circus.host.worker_files import listener_of
from xboard_circus.supervisor.fleet import Worker
from xboard_circus.supervisor.patches import circus_process

STEP = 0.05
STACK_SECONDS = 5.0  # a worker of a crowded machine got no turn in 1.5; almost each ends at once
DIES_WITHIN = 60.0


def announcement(worker: Worker, order: Order) -> dict[str, Any]:
    """Return the event that announces a worker's replacement, with the reason."""
    cause = (order.cause or Cause.COMMANDED).value
    return {"reason": order.why, **worker.ids, "cause": cause, **with_say(order.by, "by")}


async def kill_with_stacks(worker: Worker, private_socket: Path | None) -> None:
    """Kill a worker whose event loop does not answer, with the stack of every thread in its log.

    SIGABRT makes faulthandler write the stacks; a process under SIGSTOP only does so after SIGCONT. Behind a wrapper
    (``uv run``) the signals go to the worker itself, because the wrapper has no Python stacks. A worker that survives
    that gets SIGKILL, because it cannot drain.
    """
    children = circus_process.children(worker)
    listener = None if private_socket is None else listener_of(private_socket)
    behind_wrapper = next((child for child in children if child.pid == listener), None)
    for signum in (signal.SIGABRT, signal.SIGCONT):
        if behind_wrapper is None:
            circus_process.send(worker.process, signum)
        else:  # it may have ended by now, or have become root's
            procs.signal_all({behind_wrapper: (worker.user,)}, signum, 0.0)
    await until_ended(worker, STACK_SECONDS)
    if not worker.has_ended():
        circus_process.send(worker.process, signal.SIGKILL)
    procs.signal_all(children, signal.SIGKILL, 0.0)
    await until_ended(worker, DIES_WITHIN)


async def until_ended(worker: Worker, seconds: float) -> None:
    """Wait until the process of a worker is dead, for *seconds* at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not worker.has_ended():
        await asyncio.sleep(STEP)
