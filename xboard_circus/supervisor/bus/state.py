"""Build the answer to `xboard_state` for a watcher and its workers, from what is known and never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xboard_circus.core import state_schema as schema
from xboard_circus.core.durations import stale_after
from xboard_circus.core.names import runs_dashboard
from xboard_circus.core.reason import data_of, with_say
from xboard_circus.core.state_names import Health, PortState
from xboard_circus.core.state_schema import PhaseWord, PoisonEntry, WatcherEntry, WatcherFacts, WorkerEntry
from xboard_circus.core.verdict import Word, judge
from xboard_circus.host import worker_files
from xboard_circus.options.reading import flat
from xboard_circus.supervisor.held_slots import hold_of

if TYPE_CHECKING:
    from xboard_circus.core.poison import Poisons
    from xboard_circus.options.fields import HealthOptions
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher


def phase_of(worker: Worker, *, is_stopping: bool) -> PhaseWord:
    """Return the phase of a worker; while its watcher stops, every worker leaves."""
    return "leaving" if worker.is_leaving or is_stopping else "up" if worker.is_up else "starting"


def health_of(worker: Worker, options: HealthOptions, now: float) -> Health:
    """Return the health of a worker that is up by its probes; old probes prove nothing."""
    probed_at = worker.probes[-1]["at"] if worker.probes else float("-inf")
    is_stale = now - probed_at > stale_after(period=options.period, timeout=options.timeout)
    return Health.UNKNOWN if is_stale or not worker.is_up else worker.life.health


def held_slot_entry(armed: ArmedWatcher, slot: int) -> WorkerEntry:
    """Return the entry of a held slot: it has no process, and the pid 0."""
    hold = hold_of(armed, slot, armed.clock())
    more = {"next_try": round(hold.next_try, 3), **with_say(hold.reason)}
    return schema.worker_entry(pid=0, slot=slot, phase="held", held_by=hold.by, **more)


def worker_entry(armed: ArmedWatcher, worker: Worker) -> WorkerEntry:
    """Return the entry of one worker."""
    now, life = armed.clock(), worker.life
    folder = armed.folder if armed.has_private_socket else None
    reason = life.order.why if life.order else life.reason
    up_since, probe, health = worker.up_since, worker.probe, health_of(worker, armed.options.health, now)
    wait = armed.budget.wait(worker.slot, now) if health is Health.SICK else 0.0
    figures: Any = {name: probe.get(name) for name in schema.ProbeFigures.__annotations__}
    # Written out, because these are our own values, and parsing them as a wire's took half the time of the answer.
    return {
        "pid": worker.pid,
        "started": worker.started,
        "wid": worker.wid,
        "slot": worker.slot,
        "phase": phase_of(worker, is_stopping=armed.watcher.is_stopping()),
        "role": life.role.value,
        "health": health.value,
        "held_by": None,
        "ready": life.ready,
        "ready_for": None if up_since is None else round(now - up_since, 3),
        "age": round(now - worker.spawned_at, 3),
        "next_try": round(wait, 3) if wait else None,
        "reason": schema.read_text(reason),
        "say": data_of(reason),
        "drains": worker.drains,
        "latency": probe.get("latency"),
        "probe": figures,
        "socket": None if folder is None else worker_files.name_of(folder, worker.token, "sock"),
    }


def poison_entry(poisons: Poisons, now: float) -> PoisonEntry | None:
    """Return the entry of the poisonous routes of a watcher; None without one."""
    routes, reason = list(poisons.routes(now)), poisons.reason(now)
    return {"routes": routes, "reason": reason, "say": data_of(reason)} if routes else None


def watcher_entry(armed: ArmedWatcher) -> WatcherEntry:
    """Return the entry of an armed watcher."""
    now = armed.clock()
    cooling = armed.budget.next_try(now)
    again_at = armed.spawns_again_at
    workers = [worker_entry(armed, each) for each in sorted(armed.fleet, key=lambda each: each.wid)]
    workers += [held_slot_entry(armed, slot) for slot in armed.held_slots()]
    facts: WatcherFacts = {
        "name": armed.name,
        "status": armed.watcher.status(),
        "armed": True,
        "is_page": runs_dashboard(f"{armed.watcher.cmd} {armed.watcher.args}"),
        "numprocesses": armed.watcher.numprocesses,
        "probe": "private" if armed.has_private_socket else "url" if armed.options.health.url else "none",
        "restarts": armed.fleet.failures,
        "ends": dict(armed.fleet.ends),
        "cooldown_until": None if cooling is None else round(cooling, 3),
        "last_reason": armed.last_reason,
        "last_reason_say": data_of(armed.last_reason),
        "last_reason_age": round(now - armed.last_reason_at, 3) if armed.last_reason else None,
        "last_failure": armed.last_failure,
        "start_retry_in": None if again_at is None else max(0.0, again_at - now),
        "port": armed.port.view(),
        "port_retry_in": armed.port.retry_in() if armed.port.state is PortState.REFUSED else None,
        "options": flat(armed.options),
        "reload": None if armed.reload is None else armed.reload.view(),
        "output": armed.output(),
        "preload": armed.forks.view(),
        "poison": poison_entry(armed.poisons, now),
        "budget": {"used": armed.budget.used(now), "limit": armed.budget.limit},
        "workers": workers,
    }
    verdict = judge(facts, armed.before.view(), predecessors=armed.port.predecessors(), stopped_by=armed.stopped_by)
    armed.incident.take(Word(verdict["word"]), now)
    verdict["since"] = armed.incident.since(now)
    return {**facts, "verdict": verdict, "incident": armed.incident.view(now)}
