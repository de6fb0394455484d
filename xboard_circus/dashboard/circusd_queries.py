"""Query one circusd, in a thread of its own: its state, its sockets, and the use of its workers."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from xboard_circus.checks.file_rules import split_endpoint
from xboard_circus.circus_client import CircusdClient, CommandRefused
from xboard_circus.core.state_schema import State
from xboard_circus.dashboard import views
from xboard_circus.host import procs
from xboard_circus.host.sockets import is_loopback
from xboard_circus.masking import masked
from xboard_circus.options.kinds import WrongValueError, read_size
from xboard_circus.snapshot import Gauge, from_state, stock

SELDOM = 10.0
_OF_SOCKET = ("name", "host", "port", "path", "fd")
Data = dict[str, Any]
Clock = Callable[[], float]


class CircusdQueries:
    """Collect what the page shows of the circusd at one endpoint. Every call must come from one thread.

    Attributes:
        is_here: The circusd that answered last runs on this host.
    """

    def __init__(self, endpoint: str, *, deadline: float, clock: Clock = time.monotonic, owner: int | None = 0) -> None:
        self.client = CircusdClient(endpoint, owner=owner)
        self._deadline, self._clock, self._gauge = deadline, clock, Gauge()
        self.is_here, self._seldom_at = False, float("-inf")
        self._sockets: list[Data] = []
        self._stats: Mapping[int, Data] = {}

    def state(self) -> Data:
        """Return circusd, probers, watchers and sockets; XboardError without an answer in time."""
        try:
            state = self.client.state(deadline=self._deadline)
        except CommandRefused:
            state = None
        with self.client.held():  # or the page would show one circusd, and give its orders to another
            return self._completed(state)

    def _completed(self, state: State | None) -> Data:
        is_time = self._clock() - self._seldom_at >= SELDOM
        if state is None:
            address, deadline = split_endpoint(self.client.endpoint), self._deadline
            is_here = address is None or is_loopback(address[0])
            state = stock(self.client, pid=self.client.pid(deadline=deadline), is_here=is_here, deadline=deadline)
        circusd, probers = state["circusd"], state["probers"]
        self.is_here = bool(circusd["started"]) and procs.start_time(circusd["pid"]) == circusd["started"]
        if is_time:
            sockets = self._call("listsockets").get("sockets", [])
            self._sockets = [{name: _plain(each.get(name)) for name in _OF_SOCKET} for each in sockets]
            self._stats = {} if self.is_here else _figures_of_circus(self._call("stats").get("infos", {}))
            self._seldom_at = self._clock()
        shown = from_state(state)
        helpers = [procs.Identity.of(each["pid"]) for each in probers]
        ours = [*shown.processes(), shown.identity, *filter(None, helpers)]
        figures = self._gauge.look(ours) if self.is_here else self._stats
        return {
            **state,
            "circusd": {**circusd, **figures.get(circusd["pid"], {})},
            "probers": [{**each, **figures.get(each["pid"], {})} for each in probers],
            "watchers": [views.watcher(each, figures) for each in state["watchers"]],
            "sockets": self._sockets,
        }

    def _call(self, command: str) -> Data:
        return self.client.call(command, deadline=self._deadline)


def _plain(value: object) -> object:
    return masked(value) if isinstance(value, (str, int)) else None


def _figures_of_circus(infos: Mapping[str, Mapping[str, Any]]) -> dict[int, Data]:
    found = [each for of_watcher in infos.values() for each in of_watcher.items() if isinstance(each[1], dict)]
    return {int(pid): {"rss": _bytes(of.get("mem_info1")), "cpu": _number(of.get("cpu"))} for pid, of in found}


def _bytes(text: object) -> int | None:
    try:
        return read_size(str(text))
    except WrongValueError:
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
