"""Replace workers that are well but have grown, served or lived enough, or that nobody can probe any more."""

from typing import TYPE_CHECKING

from xboard_circus.core.recycling import RecycleLimits, due
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Order
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.replace.swap import Swap

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher


def look(armed: "ArmedWatcher") -> None:
    """Begin the replacement of one worker that is due, unless another one is being replaced."""
    if armed.swaps or armed.busy or not armed.is_running() or armed.clock() < armed.recycle_not_before:
        return
    if armed.reload is not None and armed.reload.is_running:
        return
    worker = armed.options.worker
    # Circus's own max_age ends all that are due at once, by the wall clock.
    age = worker.max_age or float(armed.watcher.max_age or 0)
    limits = RecycleLimits(rss=worker.max_rss, requests=worker.max_requests, age=age)
    for each in armed.fleet.up():
        reason = Say.SOCKET_GONE() if armed.lacks_socket(each) else _why(each, limits, armed.clock())
        if reason is not None and each.life.counts:
            armed.supervisor.run(_replace(armed, each, Say.RECYCLED(why=reason)), f"the recycling of {each.pid}")
            return


def _why(worker: "Worker", limits: RecycleLimits, now: float) -> str | None:
    return due(
        limits,
        rss=circus_process.resident(worker.process) if limits.rss else None,
        requests=worker.probe.get("requests_served"),
        age=now - (worker.up_since or now),
        spread=worker.spread,
    )


async def _replace(armed: "ArmedWatcher", worker: "Worker", reason: str) -> None:
    if await Swap(armed, worker, Order(by="recycle", why=reason)).run() is not None:
        # A new worker that does not get ready would otherwise be tried again each second.
        armed.recycle_not_before = armed.clock() + armed.options.restart.cooldown
