"""Read the state of circusd, its watchers and their workers at one moment from circusd's replies.

A circusd without an armed watcher does not know our command; the replies to Circus's own commands then fill the same
shape, without ports, reasons and next tries.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from xboard_circus.circus_client import CircusdClient
from xboard_circus.core.sentences import name_all
from xboard_circus.core.state_schema import CircusdEntry, ProberEntry, State, WatcherEntry
from xboard_circus.core.unarmed import stock_state
from xboard_circus.host import procs

CPU_SAMPLE = 0.1

Figures = Mapping[int, tuple[int, float]]
"""Resident bytes, and processor use in per cent, by pid."""


class Snapshot(NamedTuple):
    """State of the circusd that answered, and of everything that it runs."""

    circusd: CircusdEntry
    watchers: list[WatcherEntry]
    probers: Sequence[ProberEntry] = ()

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


def stock(
    client: CircusdClient, *, pid: int, config_file: str | None = None, is_here: bool = True, deadline: float = 5.0
) -> State:
    """Query a circusd that has only Circus's own commands, for the same shape; *is_here*: it runs on this host."""
    start_time = procs.start_time if is_here else lambda _: None
    started = start_time(pid)
    circusd = {"pid": pid, "started": started or 0, "endpoint": client.endpoint, "config_file": config_file}
    circusd["uptime"] = procs.age(started) if started else None
    statuses, infos = (client.call(each, deadline=deadline) for each in ("status", "stats"))
    options = {name: client.options(name, deadline=deadline) for name in statuses["statuses"]}
    state = stock_state(circusd, statuses["statuses"], infos["infos"], options, start_time)
    name_all(state["watchers"] if client.other else (), client.other)
    return state


class Gauge:
    """Measure processes of this host; the processor use is that since the last look, for which psutil keeps times."""

    def __init__(self) -> None:
        self._known: dict[procs.Identity, psutil.Process] = {}

    def look(self, processes: Iterable[procs.Identity]) -> dict[int, dict[str, Any]]:
        """Return the use by pid, without processes that are gone, or that we may not examine."""
        found: dict[int, dict[str, Any]] = {}
        seen, self._known = self._known, {}
        for each in processes:
            with contextlib.suppress(psutil.Error, ValueError):
                process = seen.get(each) or psutil.Process(each.pid)
                if each not in seen and procs.start_time(each.pid) != each.started:
                    continue  # another process has its pid by now
                with process.oneshot():
                    times, cpu, memory = process.cpu_times(), process.cpu_percent(), process.memory_info()
                self._known[each] = process
                used = {"rss": memory.rss, "cpu": cpu if each in seen else None}
                found[each.pid] = {**used, "cpu_seconds": times.user + times.system}
        return found


def measured(snapshot: Snapshot) -> Figures:
    """Return the use of each worker, which the command line reads by itself to spare circusd."""
    gauge, processes = Gauge(), snapshot.processes()
    if gauge.look(processes):
        time.sleep(CPU_SAMPLE)
    return {pid: (used["rss"], used["cpu"]) for pid, used in gauge.look(processes).items() if used["cpu"] is not None}
