"""Fold the events of the ledger into incidents, and find when no worker served. Nothing here reads a clock."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xboard_circus.core.durations import lasted
from xboard_circus.core.headlines import has_failed_lately
from xboard_circus.core.names import circusd_of
from xboard_circus.core.reason import key_of
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.verdict import availability, fails_whole, is_up

PROBLEMS = {  # by name: the kinds that open it, and those that close it
    "health": (("unhealthy",), ("recovered",)),  # of one worker, and ends with it, or of all
    "port": (("port_refused", "port_shut"), ("port_freed", "ready")),
    "output": (("output_lost",), ("output_back",)),
    "before": (("before_failed",), ("before_done",)),
    "circusd": (("circusd_lost",), ("circusd_back",)),
}
OPENED_BY = {kind: name for name, (kinds, _) in PROBLEMS.items() for kind in kinds}
CLOSED_BY = {kind: name for name, (_, kinds) in PROBLEMS.items() for kind in kinds}
KINDS = frozenset(
    {*OPENED_BY, *CLOSED_BY, "restart", "end", "cooldown", "poison", "stop", "kept", "reload_end", "replace"}
)
"""Kinds of event that matter here."""

NEVER_UP = ("failed start", "cannot be run", "port conflict")
"""Causes of the end of a worker that was not up before."""

CALM = 60.0
"""Seconds without trouble after which the next trouble is another incident."""

LONG_CALM = 600.0
"""The same where a slot that should be tried again has no event."""

DAY = 86_400.0
SHARES = (DAY, 7 * DAY, 30 * DAY)
"""Spans of time of which the availability is shown, in seconds."""

CELLS = 90
"""Cells of a heartbeat."""


Happening = Any
"""A `Record` of the ledger, which this room may not import."""
Happenings = Iterable[Happening]


@dataclass
class IncidentRecord:
    """Trouble of a watcher from its first event to the last that belongs to it.

    Attributes:
        until: When it was over; None while it is not.
        reload: The last one that failed.
        failures: The ends of its workers, without those of new ones beside workers that serve on.
        problems: What is not solved, each with the last event that opened it.
        families: The kinds of its problems; one of another kind, once it is over, is another incident.
        tries: When the slots that cool down are tried again, as far as that is known.
        successors: The event with which the successor of a worker came up, by the worker's pid; perhaps before its end.
    """

    first: Happening
    last: Happening
    until: float | None = None
    failures: list[Happening] = field(default_factory=list)
    problems: dict[str, Happening] = field(default_factory=dict)
    families: set[str] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    reload: Happening | None = None
    tries: dict[Any, float] = field(default_factory=dict)
    successors: dict[int, Happening] = field(default_factory=dict)

    def add(self, problem: str, event: Happening) -> None:
        """Take an event that opens a problem; not a failed reload, nor the end of a worker whose successor is up."""
        self.families.add(_family(problem, event.cause))
        is_told_late = problem == _health(event.pid) and event.pid in self.ended
        if problem != "reload" and event.pid not in self.successors and not is_told_late:
            self.problems[problem] = event
        self.until = None
        if event.kind == "reload_end":
            self.reload = event
        if event.kind in ("restart", "end"):
            self.failures.append(event)
        slot = event.data.get("slot")
        if event.kind == "cooldown" or (event.kind == "restart" and slot in self.tries):  # on after a try in vain
            self.tries[slot] = event.time + float(event.data.get("wait") or 0.0)

    def settle(self, event: Happening) -> None:
        """Take an event of any kind, of which some solve problems; with the last one it is over."""
        self.last = event
        if event.kind == "ready":
            self.tries.clear()  # a held slot waits longer while a sibling is up
        if event.kind in ("restart", "end"):
            self.problems.pop(_health(event.pid), None)
            self.ended.add(event.pid)
        if event.kind == "kept":  # its successor did not come up, and it serves on
            self.problems.pop(f"slot {event.data.get('slot')}", None)
        if not _problem(event):
            solved = {CLOSED_BY.get(event.kind, ""), f"slot {event.data.get('slot')}" if event.kind == "ready" else ""}
            if event.kind == "recovered":
                solved = {_health(event.pid)} if event.pid else {each for each in self.problems if "health" in each}
            for each in {*self.problems} if event.kind in ("stop", "reload_end") else solved:
                self.problems.pop(each, None)
        if not self.problems or event.data.get("gap"):
            self.until = event.time

    @property
    def next_try(self) -> float | None:
        """Return when the first of the slots that cool down is tried again; None where that is not known."""
        return min(self.tries.values(), default=None)

    @property
    def subject(self) -> Happening:
        """Return the event that explains it: the last one of what is not solved, or otherwise the last end."""
        return max(self.problems.values(), key=lambda each: each.id, default=(self.failures or [self.first])[-1])

    def is_lost_by(self, time: float) -> bool:
        """Return whether its slots should have been tried long before: they were scaled away, which no event says."""
        is_of_slots = all(each.startswith("slot ") for each in self.problems)
        return is_of_slots and time > max(self.last.time, self.next_try or 0.0) + LONG_CALM

    def line(self) -> str:
        """Return what happened in one sentence: which slots ended how often, in which time, and why the last did."""
        if not self.failures:
            return str(self.first.reason)
        slots = sorted({slot for each in self.failures if (slot := each.data.get("slot"))})
        who = [f"#{slot}" for slot in slots] or [self.first.watcher]
        took = lasted(self.failures[-1].time - self.failures[0].time)
        is_alike = len({each.cause for each in self.failures}) == 1
        several = Say.INCIDENT_TIMES if is_alike else Say.INCIDENT_TIMES_LAST
        say = Say.INCIDENT_ONCE if len(self.failures) == 1 else several
        return say(slots=who, n=len(self.failures), lasted=took, why=self.failures[-1].reason)


def fold(events: Happenings, troubled: Iterable[str]) -> list[IncidentRecord]:
    """Fold *events*, in their order, into incidents; only those of watchers that are *troubled* now are not over."""
    found: list[IncidentRecord] = []
    current: dict[str, IncidentRecord] = {}
    successors: defaultdict[str, dict[int, Happening]] = defaultdict(dict)
    blocked: dict[tuple[str, int | None], Happening] = {}
    up: set[tuple[str, int | None]] = set()
    for event in events:
        if event.kind == "replace" and key_of(event.reason) == Say.SUCCESSOR_AHEAD.name:
            blocked[event.watcher, event.pid] = event
        if event.kind in ("restart", "end"):
            up.discard((event.watcher, event.pid))
        if event.kind == "ready":
            up.add((event.watcher, event.pid))
            successors[event.watcher].pop(event.pid, None)  # the pid of an earlier worker, too
            if old := event.data.get("follows"):
                successors[event.watcher][old] = event
        incident = current.get(event.watcher)
        # The end of a new worker beside one that serves on is in the event of its reload's end, or in `kept`.
        is_beside = event.kind == "restart" and (event.watcher, event.data.get("follows")) in up
        problem = "" if is_beside else _problem(event)
        if incident is not None and incident.until is None and incident.is_lost_by(event.time):
            incident.until = incident.last.time
        if incident is not None and incident.until is not None:
            is_soon = event.time - incident.until <= CALM
            if not is_soon or (problem and _family(problem, event.cause) not in incident.families):
                incident = None
        # A hang has begun when its worker was found blocked, and got a successor ahead.
        first = event
        if event.kind in ("unhealthy", "restart", "end", "kept"):
            first = blocked.pop((event.watcher, event.pid), event)
        if problem:
            if incident is None:
                incident = current[event.watcher] = IncidentRecord(first, event, successors=successors[event.watcher])
                found.append(incident)
            incident.add(problem, event)
        if incident is not None and incident.until is None:
            incident.settle(event)
    names = {*troubled}
    for incident in found:
        if incident.until is None and incident.first.watcher not in names:
            incident.until = incident.last.time
    return found


@dataclass
class Folded:
    """An incident in the place of its events."""

    incident: IncidentRecord
    events: list[Happening] = field(default_factory=list)


def folded(events: Happenings, found: Iterable[IncidentRecord]) -> list[Happening | Folded]:
    """Return *events* with each incident in the place of its first event, and without its others."""
    coming: dict[str, list[Folded]] = {}
    for incident in reversed([*found]):
        coming.setdefault(incident.first.watcher, []).append(Folded(incident))
    items: list[Happening | Folded] = []
    for event in events:
        own = coming.get(event.watcher, [])
        while own and own[-1].incident.last.id < event.id:
            own.pop()
        if not own or event.id < own[-1].incident.first.id:
            items.append(event)
            continue
        if not own[-1].events:
            items.append(own[-1])
        own[-1].events.append(event)
    return items


def _problem(event: Happening) -> str:
    if event.kind in ("restart", "end", "cooldown", "poison"):
        return "" if event.cause == "commanded" else f"slot {event.data.get('slot')}"
    if event.kind == "unhealthy":
        return _health(event.pid)
    if event.kind == "reload_end":
        return "reload" if event.data.get("state") == "failed" else ""
    return OPENED_BY.get(event.kind, "")


def _health(pid: int | None) -> str:
    return f"health {pid or 'of all'}"


def _family(problem: str, cause: str | None) -> str:
    """Return the kind of a problem, of whichever worker it is; a worker that is ended for its health is that.

    >>> _family("slot 1", "crash"), _family("slot 1", "unhealthy"), _family("health 812", None), _family("port", None)
    ('slot', 'health', 'health', 'port')
    >>> _family("health of all", None)
    'health of all'
    """
    if problem == _health(None):
        return problem
    return "health" if cause == "unhealthy" else problem.partition(" ")[0]


class Present(NamedTuple):
    """How a watcher is at this moment: the pids that are up, its `availability`, and since when that is so.

    Attributes:
        is_troubled: It has an incident.
        has_failed_reload: Its last reload has failed, and is news.
    """

    up: Collection[int] = ()
    word: str = "up"
    since: float = 0.0
    is_troubled: bool = False
    has_failed_reload: bool = False


def present(watcher: WatcherEntry, *, now: float) -> Present:
    """Return how *watcher* is *now*, in wall-clock time."""
    up = [worker["pid"] for worker in watcher["workers"] if is_up(worker)]
    reload = watcher["reload"]
    has_failed = reload is not None and has_failed_lately(reload)
    since, is_troubled = now - watcher["verdict"]["since"], watcher["incident"] is not None
    return Present(up, availability(watcher), since, is_troubled, has_failed)


class Lapse(NamedTuple):
    """A time in which no request was served: "down", or "stopped" by an order."""

    word: str
    since: float
    until: float


def _first_of_each(events: Sequence[Happening]) -> dict[int, Happening]:
    """Return the first event of each worker that shows whether it was up before."""
    kinds = ("ready", "restart", "end")
    shown = [each for each in events if each.pid and each.kind in kinds and each.cause not in NEVER_UP]
    return {each.pid: each for each in reversed(shown)}


def lapses(events: Sequence[Happening], current: Present | None) -> list[Lapse]:
    """Return when a watcher served no request, and whether it was down or stopped.

    It is down without a worker that answers, and while a dependency of all workers is. *current* is None if unknown.
    """
    first = _first_of_each(events)
    up = {pid: circusd_of(each.seq) for pid, each in first.items() if each.kind != "ready"}
    up |= dict.fromkeys({*(() if current is None else current.up)} - {*first})
    hung: set[int | None] = set()
    is_starved, cause, circusd = False, None, None
    found: list[Lapse] = []
    word, since = "up", float("-inf")

    def turn(into: str, at: float) -> None:
        nonlocal word, since
        if into != word and word != "up":
            found.append(Lapse(word, since, at))
        word, since = into, since if into == word else at

    for event in events:
        if event.kind == "ready" and event.pid:
            # Of the workers of an earlier circusd no end is known: they end once this one has a worker.
            is_starved, circusd = is_starved and circusd == circusd_of(event.seq), circusd_of(event.seq)
            up = {pid: of for pid, of in up.items() if circusd is None or of in (None, circusd)} | {event.pid: circusd}
        elif event.kind in ("restart", "end"):
            up.pop(event.pid, None)
            cause = event.cause
        elif event.kind == "unhealthy":
            hung |= {event.pid} if key_of(event.reason) == Say.HUNG.name else set()
            is_starved, circusd = is_starved or fails_whole(event.reason), circusd_of(event.seq)
        elif event.kind == "recovered":
            hung.discard(event.pid)
            is_starved = is_starved and bool(event.pid)
        if up:
            turn("down" if is_starved or hung.issuperset(up) else "up", event.time)
        elif event.kind == "end" or (event.kind == "stop" and cause != "cannot be run"):
            # "end": no worker takes its place. Circus itself stops a watcher of which none can be run.
            turn("stopped", event.time)
            is_starved = False
        elif event.kind in ("restart", "cooldown", "before_failed", "port_refused", "port_shut"):
            turn("down", event.time)
    if current is not None and current.word not in ("", word):
        turn(current.word, current.since if events else float("-inf"))
    turn("up", float("inf"))
    return found


def share(spans: Iterable[Lapse], since: float, until: float) -> float | None:
    """Return which part of the time from *since* to *until* was not down; None if it was stopped all the time.

    >>> share([Lapse("down", 0.0, 4.0), Lapse("stopped", 8.0, 99.0)], 0.0, 10.0)
    0.5
    """
    down, stopped = (_sum(spans, word, since, until) for word in ("down", "stopped"))
    wanted = until - since - stopped
    return 1.0 - down / wanted if wanted > 0 else None


def _sum(spans: Iterable[Lapse], word: str, since: float, until: float) -> float:
    """Return for how long it was down, or stopped, from *since* to *until*."""
    return sum(max(0.0, min(each.until, until) - max(each.since, since)) for each in spans if each.word == word)


class Beat(NamedTuple):
    """A cell of a heartbeat: how a watcher was between two times at worst, and the last incident in it."""

    word: str
    since: float
    until: float
    incident: IncidentRecord | None


class Share(NamedTuple):
    """In which *part* of *span* seconds it served, less the time for which it was stopped; None if that is all.

    *whole* if all of a span of `SHARES` is known.
    """

    part: float | None
    span: float
    whole: bool = True


class Heartbeat(NamedTuple):
    """How a watcher has been: its cells, and its shares up to the first span that is not known whole."""

    cells: list[Beat]
    shares: list[Share]


def heartbeat(
    events: Happenings, watcher: str, current: Present, *, begun: float, now: float, span: float, count: int = CELLS
) -> Heartbeat:
    """Return how *watcher* has been in the last *span* seconds, in *count* cells; nothing is known before *begun*."""
    own = [each for each in events if each.watcher == watcher]
    begun = _known_since(own, current, begun)
    unserved, trouble = lapses(own, current), fold(own, [watcher] if current.is_troubled else [])
    shares = [Share(share(unserved, now - age, now), age) for age in SHARES if now - age >= begun]
    if len(shares) < len(SHARES) and begun < now:
        shares.append(Share(share(unserved, begun, now), now - begun, whole=False))
    width = span / count
    return Heartbeat([_beat(now - span + at * width, width, begun, unserved, trouble) for at in range(count)], shares)


def _known_since(own: Sequence[Happening], current: Present, begun: float) -> float:
    """Return since when a watcher is known: since its first event, if no worker of it was up before that."""
    first = _first_of_each(own)
    was_up = any(each.kind != "ready" for each in first.values()) or not first.keys() >= {*current.up}
    return begun if was_up or not own else max(begun, own[0].time)


def _beat(since: float, width: float, begun: float, unserved: list[Lapse], trouble: list[IncidentRecord]) -> Beat:
    until = since + width
    found = [each for each in trouble if each.first.time < until and (each.until is None or each.until >= since)]
    words = {each.word for each in unserved if each.since < until and each.until > since}
    words |= {"degraded"} if found else set()
    worst_word = next((word for word in ("down", "degraded", "stopped") if word in words), "ok")
    return Beat("none" if until <= begun else worst_word, since, until, found[-1] if found else None)


def worst(
    found: Sequence[IncidentRecord], events: Sequence[Happening], current: Mapping[str, Present], *, now: float
) -> IncidentRecord | None:
    """Return the worst of the incidents, of those that are not over where there are any, or a failed reload.

    That is the longest without a worker, then the one with most ends, then the last. Without a circusd only its own
    loss counts as not over.

    Args:
        events: Those of which the incidents were folded.
        current: How the watchers are now, by name.
    """

    def harm(incident: IncidentRecord) -> tuple[bool, bool, float, int, float]:
        name, begin = incident.first.watcher, incident.first.time
        end = now if incident.until is None else max(incident.until, begin)
        own = [each for each in events if each.watcher == name]
        without = _sum(lapses(own, current.get(name)), "down", begin, end)
        is_open = incident.until is None and (bool(current) or incident.first.kind == "circusd_lost")
        is_news = incident.reload is not None and current.get(name, Present()).has_failed_reload
        return is_open, is_news, round(without, 1), len(incident.failures), begin

    return max(found, key=harm, default=None)
