"""What one circusd is asked, in a thread of its own: its state, its sockets, and what its workers use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from xboard_circus.checks.file_rules import is_loopback, split_endpoint
from xboard_circus.circus_client import CircusdClient, CommandRefused
from xboard_circus.core.state_schema import State, WatcherEntry, WorkerEntry, parse_state
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
from xboard_circus.dashboard import views
from xboard_circus.dashboard.measures import Key, Measure, Measures
from xboard_circus.host import procs
from xboard_circus.options.kinds import WrongValueError, read_size

SELDOM = 10.0
Told = dict[str, Any]


class Questions:
    """Puts together what the page is shown of the circusd at one endpoint. Every call must come from one thread."""

    def __init__(self, endpoint: str, *, deadline: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = CircusdClient(endpoint)
        self._deadline = deadline
        self._clock = clock
        self._measures = Measures(clock=clock)
        self._seldom_at = float("-inf")
        self._sockets: list[Told] = []
        self._stats: dict[int, Told] = {}
        self._options: dict[str, Told] = {}

    def ask(self) -> Told:
        """Return circusd, probers, watchers and sockets; XboardError where there is no answer in time."""
        is_time = self._clock() - self._seldom_at >= SELDOM
        try:
            state = self.client.state(deadline=self._deadline)
        except CommandRefused:
            state = self._stock(is_time)
        if is_time:
            self._sockets = self._ask_sockets()
        circusd = state["circusd"]
        is_here = circusd["started"] and procs.start_time(circusd["pid"]) == circusd["started"]
        workers = [each for watcher in state["watchers"] for each in watcher["workers"]]
        measures: Mapping[Key, Measure] = {}
        stats = self._stats
        if is_here:
            measures = self._measures.take((each["pid"], each["started"] or 0) for each in workers)
            stats = {}
        elif is_time:
            stats = self._stats = self._ask_stats()
        if is_time:
            self._seldom_at = self._clock()
        return {
            "circusd": circusd,
            "probers": state["probers"],
            "watchers": [views.watcher(each, measures, stats) for each in state["watchers"]],
            "sockets": self._sockets,
            "cpu_seconds": {pid: measure.cpu_seconds for (pid, _), measure in measures.items()},
        }

    def _ask_sockets(self) -> list[Told]:
        found = self.client.call("listsockets", deadline=self._deadline).get("sockets", [])
        return [{name: each.get(name) for name in ("name", "host", "port", "path", "fd")} for each in found]

    def _ask_stats(self) -> dict[int, Told]:
        infos = self.client.call("stats", deadline=self._deadline).get("infos", {})
        return {
            int(pid): {"rss": _bytes(info.get("mem_info1")), "cpu": _number(info.get("cpu"))}
            for of_watcher in infos.values()
            for pid, info in of_watcher.items()
            if isinstance(info, dict)
        }

    def _stock(self, is_time: bool) -> State:
        """Ask a circusd that has only Circus's own commands, for the same shape."""
        call = self.client.call
        pid = int(call("dstats", deadline=self._deadline)["info"]["pid"])
        address = split_endpoint(self.client.endpoint)
        started = (procs.start_time(pid) or 0) if address is None or is_loopback(address[0]) else 0
        statuses: dict[str, str] = call("status", deadline=self._deadline)["statuses"]
        infos = call("stats", deadline=self._deadline)["infos"]
        if is_time or set(statuses) - set(self._options):
            self._options = {
                name: call("options", name=name, deadline=self._deadline)["options"] for name in sorted(statuses)
            }
        circusd = {
            "pid": pid,
            "started": started,
            "endpoint": self.client.endpoint,
            "uptime": procs.age(started) if started else None,
        }
        watchers = [
            _stock_watcher(name, status, self._options[name], infos.get(name, {}), is_here=bool(started))
            for name, status in sorted(statuses.items())
        ]
        return parse_state({"circusd": circusd, "watchers": watchers})


def _stock_watcher(name: str, status: str, options: Told, infos: Told, *, is_here: bool) -> WatcherEntry:
    return unarmed_watcher(
        name=name,
        status=status,
        numprocesses=options.get("numprocesses", 0),
        options=options,
        workers=[_stock_worker(int(pid), info, is_here=is_here) for pid, info in infos.items()],
    )


def _stock_worker(pid: int, told: Told | str, *, is_here: bool) -> WorkerEntry:
    # Of a process that has just ended, Circus tells a sentence in place of the figures.
    info: Told = told if isinstance(told, dict) else {}
    return unarmed_worker(
        pid=pid,
        started=(procs.start_time(pid) or 0) if is_here else 0,
        wid=info.get("wid"),
        leaves=not info,
        age=info.get("age"),
    )


def _bytes(text: object) -> int | None:
    try:
        return read_size(str(text))
    except WrongValueError:
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
