"""Fold the events of the ledger into incidents, and find when no worker served. Nothing here reads a clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.durations import lasted
from xboard_circus.core.sentences import Say

PROBLEMS = {  # by name: the kinds that open it, and those that close it
    "health": (("unhealthy", "poison"), ("recovered",)),
    "port": (("port_refused", "port_shut"), ("port_freed", "ready")),
    "output": (("output_lost",), ("output_back",)),
    "before": (("before_failed",), ("before_done",)),
    "circusd": (("circusd_lost",), ("circusd_back",)),
}
OPENED_BY = {kind: name for name, (kinds, _) in PROBLEMS.items() for kind in kinds}
CLOSED_BY = {kind: name for name, (_, kinds) in PROBLEMS.items() for kind in kinds}
KINDS = frozenset({*OPENED_BY, *CLOSED_BY, "restart", "end", "cooldown", "stop", "reload_end"})
"""Kinds of event that matter here."""

NEVER_UP = ("failed start", "cannot be run", "port conflict")
"""Causes of the end of a worker that was not up before."""

CALM = 60.0
"""Seconds without trouble after which the next trouble is another incident."""


Happening = Any
"""A `Record` of the ledger, which this room may not import."""


@dataclass
class IncidentRecord:
    """Trouble of a watcher from its first event to the last that belongs to it.

    Attributes:
        until: When it was over; None while it is not.
        next_try: When a slot that cools down is tried again.
    """

    first: Happening
    last: Happening
    until: float | None = None
    next_try: float | None = None
    failures: list[Happening] = field(default_factory=list)
    problems: set[str] = field(default_factory=set)

    def line(self) -> str:
        """Return what happened in one sentence: which slots ended how often, in which time, and why the last did."""
        if not self.failures:
            return str(self.first.reason)
        slots = sorted({slot for each in self.failures if (slot := each.data.get("slot"))})
        who = [f"#{slot}" for slot in slots] or [self.first.watcher]
        took = lasted(self.failures[-1].time - self.failures[0].time)
        say = Say.INCIDENT_ONCE if len(self.failures) == 1 else Say.INCIDENT_TIMES
        return say(slots=who, n=len(self.failures), lasted=took, why=self.failures[-1].reason)


def fold(events: Iterable[Happening], troubled: Iterable[str]) -> list[IncidentRecord]:
    """Fold *events*, in their order, into incidents; only those of watchers that are *troubled* now are not over."""
    found: list[IncidentRecord] = []
    current: dict[str, IncidentRecord] = {}
    for event in events:
        incident = current.get(event.watcher)
        if incident is not None and incident.until is not None and event.time - incident.until > CALM:
            incident = None
        if problem := _problem(event):
            if incident is None:
                incident = current[event.watcher] = IncidentRecord(event, event)
                found.append(incident)
            incident.problems |= {problem} - {"reload"}  # over as soon as it has failed
            incident.last, incident.until = event, None
            if event.kind in ("restart", "end"):
                incident.failures.append(event)
            if event.kind == "cooldown":
                incident.next_try = event.time + float(event.data.get("wait") or 0.0)
        elif incident is not None and incident.until is None:
            incident.last = event
            solved = {CLOSED_BY.get(event.kind, ""), f"slot {event.data.get('slot')}" if event.kind == "ready" else ""}
            incident.problems -= incident.problems if event.kind in ("stop", "reload_end") else solved
        if incident is not None and incident.until is None and (not incident.problems or event.data.get("gap")):
            incident.until = event.time
    names = {*troubled}
    for incident in found:
        if incident.until is None and incident.first.watcher not in names:
            incident.until = incident.last.time
    return found


def _problem(event: Happening) -> str:
    if event.kind in ("restart", "end", "cooldown"):
        return "" if event.cause == "commanded" else f"slot {event.data.get('slot')}"
    if event.kind == "reload_end":
        return "reload" if event.data.get("state") == "failed" else ""
    return OPENED_BY.get(event.kind, "")


def outages(events: Sequence[Happening], up_now: Iterable[int]) -> list[tuple[float, float]]:
    """Return when no worker of a watcher was up, though it was not stopped; *up_now* are the pids that are."""
    first: dict[int, str] = {}
    for event in events:
        if event.pid and event.kind in ("ready", "restart", "end") and event.cause not in NEVER_UP:
            first.setdefault(event.pid, event.kind)
    up = {pid for pid, kind in first.items() if kind != "ready"} | ({*up_now} - {*first})
    found: list[tuple[float, float]] = []
    since: float | None = None
    for event in events:
        if event.kind == "ready" and event.pid:
            up.add(event.pid)
        elif event.kind in ("restart", "end") and event.pid in up:
            up.discard(event.pid)
            # "end": no worker takes its place, because it is stopped.
            since = event.time if not up and event.kind == "restart" else since
        if since is not None and (up or event.kind == "stop"):
            found.append((since, event.time))
            since = None
    return found if since is None or up else [*found, (since, float("inf"))]


def share(spans: Iterable[tuple[float, float]], since: float, until: float) -> float:
    """Return which part of the time from *since* to *until* was outside of all *spans*.

    >>> share([(0.0, 5.0), (9.0, 99.0)], 0.0, 10.0)
    0.4
    """
    within = sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in spans)
    return 1.0 - within / (until - since)
