"""Read the state of circusd, its watchers and their workers at one moment from circusd's replies.

A circusd without an armed watcher does not know our command; the replies to Circus's own commands then fill the same
shape, without ports, reasons and next tries.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from xboard_circus.circus_client import CircusdClient
from xboard_circus.core.state_schema import CircusdEntry, ProberEntry, State, WatcherEntry
from xboard_circus.core.unarmed import stock_state
from xboard_circus.host import procs

CPU_SAMPLE = 0.1

Figures = Mapping[int, tuple[int, float]]
"""Resident bytes, and processor use in per cent, by pid."""


@dataclass(frozen=True)
class Snapshot:
    """State of the circusd that answered, and of everything that it runs."""

    circusd: CircusdEntry
    watchers: list[WatcherEntry]
    probers: list[ProberEntry] = field(default_factory=list)

    @property
    def identity(self) -> procs.Identity:
        return procs.Identity(self.circusd["pid"], self.circusd["started"])

    def watcher(self, name: str) -> WatcherEntry | None:
        """Return the watcher of that name; names have no case in Circus."""
        return next((watcher for watcher in self.watchers if watcher["name"].lower() == name.lower()), None)

    def processes(self) -> list[procs.Identity]:
        """Return every process of every watcher."""
        workers = [worker for watcher in self.watchers for worker in watcher["workers"]]
        return [procs.Identity(each["pid"], each["started"]) for each in workers if each["started"] is not None]


def from_state(state: State) -> Snapshot:
    """Build a snapshot from the state of circusd."""
    return Snapshot(state["circusd"], state["watchers"], state["probers"])


def from_stock(client: CircusdClient, *, pid: int, config_file: str | None) -> Snapshot:
    """Query a circusd that has only Circus's own commands."""
    started = procs.start_time(pid) or 0
    circusd = {"pid": pid, "started": started, "endpoint": client.endpoint, "uptime": procs.age(started)}
    stats, statuses = client.stats(), client.statuses()
    options = {name: client.options(name) for name in statuses}
    return from_state(stock_state({**circusd, "config_file": config_file}, statuses, stats, options, procs.start_time))


def measured(snapshot: Snapshot) -> Figures:
    """Return the use of each worker, which the command line reads by itself to spare circusd.

    A worker that is gone is left out, also if another process has its pid by now.
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
