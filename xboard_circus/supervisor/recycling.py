"""Replace workers that are well but have grown, served or lived enough: new one first, one at a time in a watcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psutil import Error

from xboard_circus.core.recycling import RecycleLimits, due
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor.replacement import Replacement

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned


def look(armed: ArmedWatcher) -> None:
    """Begin the replacement of one worker that is due, if none is being replaced for any reason."""
    worker = armed.options.worker
    limits = RecycleLimits(rss=worker.max_rss, requests=worker.max_requests, age=worker.max_age)
    rolling = armed.reload is not None and armed.reload.state == "running"
    if limits == RecycleLimits() or armed.replacement is not None or armed.busy or rolling or not armed.is_running():
        return
    now = armed.clock()
    if now < armed.recycle_not_before:
        return
    for spawned in armed.live.values():
        if spawned.ready_at is None or not spawned.counts or spawned.commanded_by or spawned.our_kill:
            continue
        reason = due(
            limits,
            rss=_resident(spawned) if limits.rss else None,
            requests=spawned.probe.get("requests_served"),
            age=now - spawned.ready_at,
            spread=spawned.spread,
        )
        if reason is not None:
            work = Replacement(armed, spawned, cause=None, by="recycle", reason=Say.RECYCLED(why=reason))
            armed.supervisor.run(_replace(armed, work), f"the recycling of {spawned.pid}")
            return


async def _replace(armed: ArmedWatcher, work: Replacement) -> None:
    failure = await work.run()
    if failure is not None:
        # A new worker that does not get ready would otherwise be tried again each second.
        armed.recycle_not_before = armed.clock() + armed.options.restart.cooldown
        armed.tell(Say.KEPT(why=work.reason, failure=failure))


def _resident(spawned: Spawned) -> int | None:
    try:
        return int(spawned.process._worker.memory_info().rss)
    except Error:
        return None
