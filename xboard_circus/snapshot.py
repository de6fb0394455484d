"""What circusd, its watchers and their workers do at one moment, read from circusd's replies.

A circusd without an armed watcher does not know our command; what Circus's own commands tell then fills the same
shape, without ports, reasons and next tries.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from xboard_circus.circus_client import CircusdClient
from xboard_circus.core.state_schema import (
    BudgetEntry,
    HealthWord,
    HeldByWord,
    IncidentEntry,
    PhaseWord,
    RoleWord,
    State,
    VerdictEntry,
    WatcherEntry,
)
from xboard_circus.core.unarmed import stock_state
from xboard_circus.core.verdict import has_come_up, serves, word_of
from xboard_circus.host import procs

CPU_SAMPLE = 0.1
NOT_IN_JSON = {"started", "config_file", "armed", "serving", "has_come_up"}


@dataclass(frozen=True, slots=True)
class ShownWorker:
    """One process of a watcher.

    Attributes:
        started: Start time, its identity together with *pid*; None where it ended before it could be read.
        slot: Its place, by which people call it; those of spares are below 0.
        phase, role, health, held_by, ready, next_try: See `core.state_schema.WorkerEntry`.
        rss: Resident bytes; None until `measured`, or where the process is gone. The same for *cpu*, in per cent.
    """

    pid: int
    wid: int | None
    slot: int
    phase: PhaseWord
    role: RoleWord
    health: HealthWord
    held_by: HeldByWord | None
    word: str
    age: float | None
    started: int | None
    ready: bool | None
    next_try: float | None
    reason: str
    rss: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """The port of a watcher, and how far the port guard is with it."""

    host: str
    port: int
    state: str


@dataclass(frozen=True, slots=True)
class ReloadProgress:
    """A rolling reload that runs: *done* of *total* workers are replaced. *age* is in seconds since it began."""

    done: int
    total: int
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """A watcher; *armed* is False for those that carry no hook of ours, plugins among them.

    Attributes:
        serving: How many workers serve.
        has_come_up: As many have come up as are wanted, well or not.
    """

    name: str
    status: str
    armed: bool
    numprocesses: int
    workers: tuple[ShownWorker, ...]
    serving: int
    has_come_up: bool
    verdict: VerdictEntry
    incident: IncidentEntry | None
    budget: BudgetEntry | None
    restarts: int
    cooldown_until: float | None
    last_reason: str
    last_reason_age: float | None
    port: Port | None
    reload: ReloadProgress | None

    @property
    def wants_nobody(self) -> bool:
        """Say whether somebody has set it to 0 processes: it is active, and as good as stopped."""
        return self.status == "active" and self.numprocesses == 0


@dataclass(frozen=True, slots=True)
class Circusd:
    """The circusd that answered; *config_file* is None where it cannot tell."""

    pid: int
    started: int
    version: str | None
    endpoint: str
    uptime: float
    config_file: str | None = None

    @property
    def identity(self) -> procs.Identity:
        return procs.Identity(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that circusd runs."""

    circusd: Circusd
    watchers: tuple[Watcher, ...]

    def watcher(self, name: str) -> Watcher | None:
        """Return the watcher of that name; names have no case in Circus."""
        return next((watcher for watcher in self.watchers if watcher.name.lower() == name.lower()), None)

    def processes(self) -> list[procs.Identity]:
        """Return every process of every watcher."""
        workers = [worker for watcher in self.watchers for worker in watcher.workers]
        return [procs.Identity(worker.pid, worker.started) for worker in workers if worker.started is not None]


def from_state(state: State) -> Snapshot:
    """Read the state of circusd."""
    return Snapshot(_known(Circusd, state["circusd"]), tuple(_watcher(each) for each in state["watchers"]))


def from_stock(client: CircusdClient, *, pid: int, config_file: str | None) -> Snapshot:
    """Query a circusd that has only Circus's own commands."""
    started = procs.start_time(pid) or 0
    circusd = {"pid": pid, "started": started, "endpoint": client.endpoint, "uptime": procs.age(started)}
    stats, statuses = client.stats(), client.statuses()
    options = {name: client.options(name) for name in statuses}
    return from_state(stock_state({**circusd, "config_file": config_file}, statuses, stats, options, procs.start_time))


def measured(snapshot: Snapshot, *, sleep: Callable[[float], None] = time.sleep) -> Snapshot:
    """Fill in each worker's memory and processor use, which the command line reads by itself to spare circusd."""
    samples = {}
    for worker in (worker for watcher in snapshot.watchers for worker in watcher.workers):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(worker.pid)
            process.cpu_percent(None)
            if procs.start_time(worker.pid) == worker.started:
                samples[worker.pid] = process
    if samples:
        sleep(CPU_SAMPLE)
    watchers = [
        dataclasses.replace(
            watcher, workers=tuple(_with_figures(each, samples.get(each.pid)) for each in watcher.workers)
        )
        for watcher in snapshot.watchers
    ]
    return dataclasses.replace(snapshot, watchers=tuple(watchers))


def as_json(snapshot: Snapshot | None) -> dict[str, Any]:
    """Return the reply to ``status --json``; its names and nesting are fixed."""
    if snapshot is None:
        return {"circusd": None, "watchers": []}
    return dataclasses.asdict(snapshot, dict_factory=lambda fields: {k: v for k, v in fields if k not in NOT_IN_JSON})


def _watcher(told: WatcherEntry) -> Watcher:
    reload = told["reload"]
    found: Watcher = _known(
        Watcher,
        {
            **told,
            "port": told["port"] and _known(Port, told["port"]),
            "workers": tuple(_known(ShownWorker, {**worker, "word": word_of(worker)}) for worker in told["workers"]),
            "reload": _known(ReloadProgress, reload) if reload and reload["state"] == "running" else None,
            "serving": sum(map(serves, told["workers"])),
            "has_come_up": has_come_up(told),
        },
    )
    return found


def _with_figures(worker: ShownWorker, process: psutil.Process | None) -> ShownWorker:
    if process is None:
        return worker
    try:
        return dataclasses.replace(worker, rss=process.memory_info().rss, cpu=process.cpu_percent(None))
    except psutil.Error:
        return worker


def _known(kind: type[Any], told: Mapping[str, Any]) -> Any:
    """Build *kind* from those keys that it has."""
    return kind(**{field.name: told[field.name] for field in dataclasses.fields(kind) if field.name in told})
