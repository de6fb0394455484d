"""Build what `xboard_state` answers of a watcher and its workers, from what is known and never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xboard_circus.core import state_schema as schema
from xboard_circus.core.durations import stale_after
from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry, WorkerEntry
from xboard_circus.core.states import Health, HeldBy, Phase, PortState
from xboard_circus.core.verdict import Facts, entry, judge
from xboard_circus.options.reading import flat

if TYPE_CHECKING:
    from xboard_circus.options.fields import HealthOptions
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher


WAITS = {
    HeldBy.PORT: Say.WAITS_FOR_PORT,
    HeldBy.COOLDOWN: Say.WAITING_COOLING,
    HeldBy.DELAY: Say.WAITING_PLAINLY,
    HeldBy.TURN: Say.WAITS_FOR_TURN,
}


def phase_of(worker: Worker, *, is_stopping: bool) -> Phase:
    """Return how far a worker is in its life; while its watcher stops, every worker leaves."""
    if worker.is_leaving or is_stopping:
        return Phase.LEAVING
    if worker.is_spare:
        # It has imported the app once it answers probes.
        return Phase.UP if worker.probes and worker.probes[-1]["ok"] is not False else Phase.STARTING
    return Phase.HELD if worker.is_held else Phase.UP if worker.is_up else Phase.STARTING


def health_of(worker: Worker, options: HealthOptions, now: float) -> Health:
    """Return what the probes say of a worker that is up; what they said long ago says nothing."""
    probed_at = worker.probes[-1]["at"] if worker.probes else float("-inf")
    is_stale = now - probed_at > stale_after(period=options.period, timeout=options.timeout)
    return Health.UNKNOWN if is_stale or not worker.is_up else worker.life.health


def holder_of(armed: ArmedWatcher, worker: Worker, now: float) -> HeldBy | None:
    """Return what a held worker waits for; None for one that is not held."""
    port, budget = armed.port, armed.budget
    if not worker.is_held:
        return None
    if not armed.before.is_done:
        return HeldBy.BEFORE
    if not port.is_ready:
        return HeldBy.PORT
    if not budget.is_cooling(worker.slot, now):
        return HeldBy.DELAY
    return HeldBy.COOLDOWN if budget.wait(worker.slot, now) else HeldBy.TURN


def worker_entry(armed: ArmedWatcher, worker: Worker) -> WorkerEntry:
    """Return the entry of one worker."""
    now, port, life = armed.clock(), armed.port, worker.life
    holder, wait = holder_of(armed, worker, now), armed.budget.wait(worker.slot, now)
    if worker.order is not None:
        reason = worker.order.why
    elif holder is HeldBy.BEFORE and armed.before.pending is not None:
        reason = armed.before.pending.reason
    else:
        reason = life.reason if holder is None else WAITS[holder](why=port.reason)
    path = armed.file_of(worker, "sock") if armed.has_private_socket else None
    return schema.worker_entry(
        pid=worker.pid,
        started=worker.started,
        wid=worker.wid,
        slot=worker.slot,
        phase=phase_of(worker, is_stopping=armed.watcher.is_stopping()).value,
        role=life.role.value,
        health=health_of(worker, armed.options.health, now).value,
        held_by=holder and holder.value,
        ready=life.ready,
        ready_for=None if worker.up_since is None else round(now - worker.up_since, 3),
        age=round(now - worker.spawned_at, 3),
        next_try=holder and round(max(wait, port.retry_in()) if holder is HeldBy.PORT else wait, 3),
        reason=reason,
        say=data_of(reason),
        drains=worker.drains,
        latency=worker.probe.get("latency"),
        probe=worker.probe,
        socket=path and str(path),
    )


def watcher_entry(armed: ArmedWatcher) -> WatcherEntry:
    """Return the entry of an armed watcher."""
    now = armed.clock()
    cooling = armed.budget.next_try(now)
    again_at = armed.spawns_again_at
    workers = [worker_entry(armed, each) for each in sorted(armed.fleet, key=lambda each: each.wid)]
    facts = Facts(
        name=armed.name,
        status=armed.watcher.status(),
        wanted=armed.watcher.numprocesses,
        workers=workers,
        probe="private" if armed.has_private_socket else "url" if armed.options.health.url else "none",
        port=armed.port.view(),
        port_retry_in=armed.port.retry_in() if armed.port.state is PortState.REFUSED else None,
        reload=None if armed.reload is None else armed.reload.view(),
        failures=armed.budget.used(now),
        last_failure=armed.last_failure,
        start_retry_in=None if again_at is None else max(0.0, again_at - now),
        startup_timeout=armed.options.health.startup_timeout,
        before=armed.before.view(),
    )
    verdict = judge(facts)
    armed.incident.take(verdict.word, now)
    return {
        "name": armed.name,
        "status": facts.status,
        "armed": True,
        "numprocesses": facts.wanted,
        "probe": facts.probe,
        "restarts": armed.fleet.failures,
        "ends": dict(armed.fleet.ends),
        "cooldown_until": None if cooling is None else round(cooling, 3),
        "last_reason": armed.last_reason,
        "last_reason_say": data_of(armed.last_reason),
        "last_reason_age": round(now - armed.last_reason_at, 3) if armed.last_reason else None,
        "port": facts.port,
        "options": flat(armed.options),
        "reload": facts.reload,
        "budget": {"used": facts.failures, "limit": armed.budget.limit},
        "verdict": entry(verdict, since=armed.incident.since(now)),
        "incident": armed.incident.view(now),
        "workers": workers,
    }
