"""What circusd, its watchers and their workers do at one moment, read from circusd's replies.

A circusd without an armed watcher does not know our command; what Circus's own commands tell then fills the same
shape, without ports, reasons and next tries.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from xboard_circus.circus_client import CircusdClient
from xboard_circus.core.state_schema import (
    BudgetEntry,
    IncidentEntry,
    PortEntry,
    ReloadEntry,
    State,
    VerdictEntry,
    WatcherEntry,
    WorkerEntry,
)
from xboard_circus.core.unarmed import stock_state
from xboard_circus.core.verdict import has_come_up, serves, word_of
from xboard_circus.host import procs

CPU_SAMPLE = 0.1

Figures = Mapping[int, tuple[int, float]]
"""Resident bytes, and processor use in per cent, by pid."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A watcher; *armed* is False for those that carry no hook of ours, plugins among them.

    Attributes:
        serving: How many workers serve.
        has_come_up: As many have come up as are wanted, well or not.
        reload: The rolling reload that runs; None where none does.
    """

    name: str
    status: str
    armed: bool
    numprocesses: int
    workers: tuple[WorkerEntry, ...]
    serving: int
    has_come_up: bool
    verdict: VerdictEntry
    incident: IncidentEntry | None
    budget: BudgetEntry | None
    restarts: int
    cooldown_until: float | None
    last_reason: str
    last_reason_age: float | None
    port: PortEntry | None
    reload: ReloadEntry | None

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

    @property
    def identity(self) -> procs.Identity:
        """Which circusd it is."""
        return self.circusd.identity

    def watcher(self, name: str) -> Watcher | None:
        """Return the watcher of that name; names have no case in Circus."""
        return next((watcher for watcher in self.watchers if watcher.name.lower() == name.lower()), None)

    def processes(self) -> list[procs.Identity]:
        """Return every process of every watcher."""
        workers = [worker for watcher in self.watchers for worker in watcher.workers]
        return [procs.Identity(each["pid"], each["started"]) for each in workers if each["started"] is not None]


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


def measured(snapshot: Snapshot) -> Figures:
    """Return what each worker uses, which the command line reads by itself to spare circusd.

    A process that is gone, or that has a worker's pid by now, is left out.
    """
    sampled = []
    for identity in snapshot.processes():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(identity.pid)
            process.cpu_percent(None)
            if procs.start_time(identity.pid) == identity.started:
                sampled.append(process)
    if sampled:
        time.sleep(CPU_SAMPLE)
    figures = {}
    for process in sampled:
        with contextlib.suppress(psutil.Error):
            figures[process.pid] = process.memory_info().rss, process.cpu_percent(None)
    return figures


def as_json(snapshot: Snapshot | None, figures: Figures) -> dict[str, Any]:
    """Return the reply to ``status --json``; its names and nesting are fixed."""
    if snapshot is None:
        return {"circusd": None, "watchers": []}
    circusd = _chosen(dataclasses.asdict(snapshot.circusd), "pid version endpoint uptime")
    return {"circusd": circusd, "watchers": [_watcher_as_json(each, figures) for each in snapshot.watchers]}


def _watcher_as_json(watcher: Watcher, figures: Figures) -> dict[str, Any]:
    names = "name status numprocesses verdict incident budget restarts cooldown_until last_reason last_reason_age"
    workers = []
    for worker in watcher.workers:
        shown = _chosen(worker, "pid wid slot phase role health held_by age ready next_try reason")
        rss, cpu = figures.get(worker["pid"], (None, None))
        workers.append({**shown, "word": word_of(worker), "rss": rss, "cpu": cpu})
    return {
        **_chosen(dataclasses.asdict(watcher), names),
        "port": watcher.port and _chosen(watcher.port, "host port state"),
        "reload": watcher.reload and _chosen(watcher.reload, "done total age"),
        "workers": workers,
    }


def _chosen(fields: Mapping[str, Any], names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names.split()}


def _watcher(told: WatcherEntry) -> Watcher:
    reload = told["reload"]
    made = {
        "workers": tuple(told["workers"]),
        "reload": reload if reload and reload["state"] == "running" else None,
        "serving": sum(map(serves, told["workers"])),
        "has_come_up": has_come_up(told),
    }
    found: Watcher = _known(Watcher, {**told, **made})
    return found


def _known(kind: type[Any], told: Mapping[str, Any]) -> Any:
    """Build *kind* from those keys that it has."""
    return kind(**{field.name: told[field.name] for field in dataclasses.fields(kind) if field.name in told})
