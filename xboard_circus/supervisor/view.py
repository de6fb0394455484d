"""What a watcher and its workers show: the answer of `xboard_state`, made from what is known and never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xboard_circus.core.sentences import Say
from xboard_circus.core.states import WorkerState
from xboard_circus.options.reading import flat

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned


def state_of(armed: ArmedWatcher, spawned: Spawned) -> WorkerState:
    """Return the one state in which a worker is."""
    if spawned.draining:
        return WorkerState.DRAINING
    if spawned.commanded_by or spawned.our_kill or armed.watcher.is_stopping():
        return WorkerState.STOPPING
    if spawned.released_at is None:
        return WorkerState.WAITING
    if spawned.spare:
        return WorkerState.SPARE
    if spawned.ready_at is None:
        return WorkerState.STARTING
    return spawned.seen or WorkerState.READY


def reason_of(armed: ArmedWatcher, spawned: Spawned) -> str:
    """Return why it is in that state, empty where there is nothing to tell."""
    if spawned.released_at is not None:
        return spawned.our_reason or spawned.seen_reason
    if not armed.port.is_ready:
        return Say.WAITS_FOR_PORT(why=armed.port.reason)
    now = armed.clock()
    wait = armed.budget.wait(spawned.slot, now)
    if not armed.budget.is_cooling(spawned.slot, now):
        return Say.WAITS(waiting=Say.WAITING_PLAINLY(), wait=f"{wait:.0f} s")
    return Say.WAITS(waiting=Say.WAITING_COOLING(), wait=f"{wait:.0f} s") if wait else Say.WAITS_FOR_TURN()


def next_try_of(armed: ArmedWatcher, spawned: Spawned) -> float | None:
    """Return the seconds until a waiting worker is tried, None for one that runs."""
    if spawned.released_at is not None:
        return None
    wait = armed.budget.wait(spawned.slot, armed.clock())
    return round(wait if armed.port.is_ready else max(wait, armed.port.retry_in()), 3)


def worker(armed: ArmedWatcher, spawned: Spawned) -> dict[str, object]:
    now = armed.clock()
    return {
        "pid": spawned.pid,
        "started": spawned.started,
        "wid": spawned.wid,
        "state": state_of(armed, spawned).value,
        "age": round(now - spawned.spawned_at, 3),
        "ready": spawned.ready_now,
        "ready_for": None if spawned.ready_at is None else round(now - spawned.ready_at, 3),
        "next_try": next_try_of(armed, spawned),
        "reason": reason_of(armed, spawned),
        "latency": spawned.probe.get("latency"),
        "probe": dict(spawned.probe),
        "socket": str(armed.file_of(spawned, "sock")) if armed.has_private_socket else None,
    }


def watcher(armed: ArmedWatcher) -> dict[str, object]:
    """Return what `xboard_state` tells of an armed watcher."""
    now = armed.clock()
    cooling = armed.budget.next_try(now)
    return {
        "name": armed.name,
        "status": armed.watcher.status(),
        "armed": True,
        "numprocesses": armed.watcher.numprocesses,
        "probe": "private" if armed.has_private_socket else "url" if armed.options.health.url else "none",
        "restarts": armed.restarts,
        "ends": dict(armed.ends),
        "cooldown_until": None if cooling is None else round(cooling, 3),
        "last_reason": armed.last_reason,
        "port": armed.port.view(),
        "options": flat(armed.options),
        "reload": None if armed.reload is None else armed.reload.view(),
        "budget": {"spent": armed.budget.spent(now), "limit": armed.budget.limit},
        "workers": [worker(armed, spawned) for spawned in sorted(armed.live.values(), key=lambda each: each.wid)],
    }
