"""Describe the state that circusd answers to ``xboard_state``, and validate what comes over a wire.

Whoever builds the state builds these dictionaries; whoever reads it gets them from `parse_state`, which looks at every
value once. A value of the wrong kind counts as missing, so that one worker's nonsense spoils nothing but itself.
"""

import functools
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NewType, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from xboard_circus.core.in_flight import MOST_SLOW
from xboard_circus.core.reason import LARGEST, data_of, one_line, reason_in
from xboard_circus.core.route_counts import MOST_ROUTES, STRIDE, route_name
from xboard_circus.core.sentences import as_heard

MOST_SLOTS = 256
"""A watcher has no more slots, and its history keeps no more."""
MOST_OF_ANSWER = 400
"""Characters of what an app answered to a health check; our workers send 200."""
NoneType = type(None)
PhaseWord = Literal["up", "held", "starting", "leaving"]
RoleWord = Literal["serving", "successor", "retiring"]
HealthWord = Literal["unknown", "ok", "busy", "failing", "sick", "hung"]
HeldByWord = Literal["before", "port", "cooldown", "delay", "turn"]
ProbeKind = Literal["none", "private", "url"]
VerdictWord = Literal["unknown", "ok", "degraded", "down", "looping", "blocked", "dependency", "deploying", "stopped"]
Data = dict[str, Any]
"""A reason as data: the key of its sentence, and its fields."""


class LoadFigures(TypedDict, total=False):
    """What a worker reports of its load."""

    lag: float | None
    threads_used: int | None
    threads_limit: int | None
    requests_active: int | None
    requests_served: int | None
    rss: int | None


class ProbeFigures(LoadFigures):
    """What the last probe of a worker measured."""

    latency: float | None


class Reasoned(TypedDict):
    """A reason as text, and as data: None where it is plain text."""

    reason: str
    say: Data | None


class WorkerEntry(Reasoned):
    """One process of a watcher.

    Attributes:
        pid: 0 for a slot that is held: it has no process.
        started: Start time, its identity together with *pid*.
        wid: Circus's number, for Circus's own commands only; people see *slot*.
        slot: Its place, from 1 on; 0 where it has none.
        ready: The result of its ready path; None before its first probe.
        ready_for: Seconds since it came up; None before that.
        next_try: Seconds until a held one is let go, or a sick one may be replaced; None for others.
        drains: It leaves because its successor is up.
        socket: Path of its private socket.
    """

    pid: int
    started: int | None
    wid: int | None
    slot: int
    phase: PhaseWord
    role: RoleWord
    health: HealthWord
    held_by: HeldByWord | None
    ready: bool | None
    ready_for: float | None
    age: float | None
    next_try: float | None
    drains: bool
    latency: float | None
    probe: ProbeFigures
    socket: str | None


class PortEntry(Reasoned):
    """The port of a watcher, and how far the port guard is with it."""

    host: str
    port: int
    state: str


class ReloadEntry(Reasoned):
    """The last rolling reload: "running", "done", "failed" or "stopped".

    Attributes:
        step: What it does, or did last: "before", "import" or "workers".
        slot: Of the worker that it replaces, or replaced last; None before the first.
        cut: How many requests of old workers were cut off at their drain limit.
        old: How many workers of the code before it are up still.
    """

    state: str
    step: str
    slot: int | None
    done: int
    total: int
    age: float | None
    replaced: list[list[int]]
    cut: int
    old: int
    log: str


class OutputEntry(Reasoned):
    """What becomes of the output of workers.

    Attributes:
        lost: How many bytes could not be written since circusd started.
        file: The log that cannot be written now; where all can, the first.
        reason: Why not; "" where all can.
    """

    lost: int
    file: str | None


class PreloadEntry(Reasoned):
    """The forkserver of a watcher.

    Attributes:
        level: What it has imported: "server" or "app"; "" where there was none yet.
        state: "off", "importing", "ready" or "failed".
        reason: Why workers are started and not forked, or forked at "server" where the ini says "app"; else "".
    """

    level: str
    state: str
    pid: int | None


class PoisonEntry(Reasoned):
    """Routes whose requests end worker after worker, see `core.poison`; *reason* is about the last one."""

    routes: list[str]


class BudgetEntry(TypedDict):
    """How much of the restart budget of a watcher is used; a slot that cools down has used all that it may."""

    used: int
    limit: int


class VerdictEntry(TypedDict):
    """The verdict on a watcher: see `core.verdict`.

    Attributes:
        since: Seconds for which it has been this word; of an outage, whatever its word, since nothing serves.
        next_in: Seconds until what *next* names.
    """

    word: VerdictWord
    since: float
    cause: str
    cause_say: Data | None
    next: str
    next_say: Data | None
    next_in: float | None
    cure: str
    cure_say: Data | None


class IncidentEntry(TypedDict):
    """The trouble of a watcher from its first sign: seconds since then, and the worst word meanwhile."""

    age: float
    worst: VerdictWord


class WatcherFacts(TypedDict):
    """A watcher before it is judged; what only an armed one has is empty for the others.

    Attributes:
        status: What Circus says: active, starting, stopping or stopped.
        is_page: It runs our dashboard.
        numprocesses: How many workers there are to be.
        probe: How its workers are probed; "none" where they are not.
        last_failure: Why a worker failed last.
        port_retry_in: Seconds until a port that is taken is tried again.
        start_retry_in: Seconds until a start that failed inside circusd is tried again; None where none failed.
        output: What becomes of the workers' output; None where that is not known.
    """

    name: str
    status: str
    armed: bool
    is_page: bool
    numprocesses: int
    probe: ProbeKind
    restarts: int
    ends: dict[str, int]
    cooldown_until: float | None
    last_reason: str
    last_reason_say: Data | None
    last_reason_age: float | None
    last_failure: str
    start_retry_in: float | None
    port: PortEntry | None
    port_retry_in: float | None
    options: dict[str, Any]
    reload: ReloadEntry | None
    budget: BudgetEntry | None
    output: OutputEntry | None
    preload: PreloadEntry | None
    poison: PoisonEntry | None
    workers: list[WorkerEntry]


class WatcherEntry(WatcherFacts):
    """A watcher with the verdict on it."""

    verdict: VerdictEntry
    incident: IncidentEntry | None


class CircusdEntry(TypedDict):
    """The circusd that answered; *lost* is the loss of the one before it, if that had no stop request."""

    pid: int
    started: int
    version: str | None
    python: str | None
    endpoint: str
    uptime: float | None
    stopping: bool
    config_file: str | None
    instance: str
    state_dir: str
    lost: Data | None


class ProberEntry(TypedDict):
    """A plugin that probes, and the seconds since its last round."""

    plugin: str
    pid: int
    round_age: float


class State(TypedDict):
    """The whole answer."""

    circusd: CircusdEntry
    probers: list[ProberEntry]
    watchers: list[WatcherEntry]


class PathReport(Reasoned):
    """What the app answered on one path; *refused*: it answers, but not to this request."""

    ok: bool | None
    refused: bool
    status: int | None
    body: str


RouteNames = NewType("RouteNames", list[str])
Counts = NewType("Counts", list[int])


class TrafficReport(TypedDict):
    """What a worker has counted of its requests since it began.

    Attributes:
        active: Requests in flight.
        routes: Names of routes; some may be equal.
        counts: A row of numbers for each route, see `core.route_counts`.
    """

    active: int
    routes: RouteNames
    counts: Counts


class SlowEntry(TypedDict):
    """A request that a worker found slow, *at* a time of the monotonic clock.

    Attributes:
        where: In which function of the app it was.
        timed_out: It was answered 504.
    """

    method: str
    route: str
    id: str
    age: float
    at: float
    where: str
    timed_out: bool


class WorkerReport(LoadFigures, total=False):
    """What a worker reports of itself on its private socket.

    Attributes:
        cpu: Seconds of the processor that it has used.
        connections: How many clients are connected.
        files_full: How many files it may open, where all of these are open; else None.
    """

    pid: int
    state: str
    connections: int | None
    cpu: float | None
    files_full: int | None
    traffic: TrafficReport | None
    slow: list[SlowEntry]
    uptime: float | None
    version: str | None
    live: PathReport | None
    ready: PathReport | None


class Judgement(ProbeFigures, Reasoned):
    """What a prober reports to circusd of one worker.

    Attributes:
        asked_at: When it was probed, in seconds of the monotonic clock; None where that is unknown.
        ok: Whether the probe succeeded; None where it shows neither.
        status: With what a failing path answered; *body*: how that answer begins.
    """

    health: HealthWord
    ready: bool | None
    asked_at: float | None
    ok: bool | None
    status: int | None
    body: str


class UnreadableState(ValueError):
    """The answer is nothing that a circusd of ours would give."""


class _Misfit(ValueError):
    """A value is not of the kind that is expected."""


def parse_state(answer: Mapping[str, Any]) -> State:
    """Return the reply to ``xboard_state`` with every value checked; a wrong one counts as missing.

    A worker without a pid, and a watcher without a name, is left out.

    Raises:
        UnreadableState: There is no circusd in it, or no list of watchers.
    """
    try:
        state: State = _reader(State)(answer)
    except _Misfit as misfit:
        raise UnreadableState(f"circusd's answer has an unexpected form: {misfit}") from None
    return state


def parse_report(given: Mapping[str, Any]) -> WorkerReport:
    """Return the report of a worker, whose app may have put anything into it; a wrong value counts as missing.

    >>> parse_report({"pid": 7, "threads_limit": 10**400, "threads_used": "text", "lag": 0.5})["lag"]
    0.5
    >>> parse_report({"pid": 7, "threads_limit": 10**400})["threads_limit"]
    """
    report: WorkerReport = _reader(WorkerReport)(given)
    traffic = report["traffic"]
    if traffic is not None and (traffic["active"] < 0 or len(traffic["counts"]) != STRIDE * len(traffic["routes"])):
        report["traffic"] = None
    for path in filter(None, (report["live"], report["ready"])):
        path["reason"], path["body"] = as_heard(reason_in(path)), path["body"][:MOST_OF_ANSWER]
        path["say"] = data_of(path["reason"])
    report["slow"] = report["slow"][:MOST_SLOW]
    for slow in report["slow"]:
        slow["method"], _, slow["route"] = route_name(f"{slow['method']} {slow['route']}").partition(" ")
        slow["id"], slow["where"] = one_line(slow["id"], 64), one_line(slow["where"], 200)
    return report


def parse_traffic(given: object) -> TrafficReport | None:
    """Return what was counted by route, None where a value is wrong."""
    return parse_report({"traffic": given})["traffic"]


def parse_judgements(given: object) -> dict[int, Judgement]:
    """Return by pid what a prober reports of each worker; what cannot be read is left out."""
    found = _readable(_reader(Judgement), given.items() if isinstance(given, Mapping) else ())
    return {int(pid): each for pid, each in found.items() if str(pid).isdecimal()}


def watcher_entry(**known: object) -> WatcherEntry:
    """Return the entry of a watcher of which only these values are known."""
    found: WatcherEntry = _reader(WatcherEntry)(known)
    return found


def worker_entry(**known: object) -> WorkerEntry:
    """Return the entry of a worker of which only these values are known."""
    found: WorkerEntry = _reader(WorkerEntry)(known)
    return found


_Reader = Callable[[Any], Any]
_Field = tuple[str, _Reader, Callable[[], Any] | None]
_LARGEST = 2**63
# Without these the rest of an entry is of no use.
_NEEDED: dict[Any, tuple[str, ...]] = {
    WorkerEntry: ("pid",),
    WatcherEntry: ("name", "workers"),
    CircusdEntry: ("pid", "started"),
    ProberEntry: ("plugin", "round_age"),
    PortEntry: ("port",),
    ReloadEntry: ("state",),
    BudgetEntry: ("used", "limit"),
    OutputEntry: ("lost",),
    PoisonEntry: ("reason",),
    IncidentEntry: ("age", "worst"),
    SlowEntry: ("method", "route", "age", "at"),
    TrafficReport: ("active", "routes", "counts"),
    State: ("circusd", "watchers"),
}


@functools.cache
def _reader(hint: Any) -> _Reader:
    """Return what reads a value of the type *hint*, and raises _Misfit for one of another kind.

    Made when a value is first read, once for each type: all of them are 0.3 MiB, of which circusd needs few.
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if NoneType in arguments:
        return _reader(arguments[0])  # `_read_entry` calls no reader for None
    if kind is list:
        return functools.partial(_read_items, _reader(arguments[0]))
    if kind is dict:
        return functools.partial(_read_mapping, _reader(arguments[1]))
    if kind is Literal:
        return functools.partial(_read_word, arguments)
    if is_typeddict(kind):
        return functools.partial(_read_entry, kind.__name__, _fields_of(kind))
    return _PLAIN[kind]


# These run 40 times for each worker and round of probes: no function more than is needed.


def read_text(value: Any) -> str:
    """Return a text with what UTF-8 has no bytes for replaced: JSON may escape half of a surrogate pair.

    It ends after LARGEST characters: whoever sent it may not keep us busy with masking it.
    """
    if not isinstance(value, str):
        raise _misfit(value, "a text")
    if type(value) is str and value.isascii():
        return value[:LARGEST]
    return value[:LARGEST].encode("utf-8", errors="replace").decode("utf-8")


def _read_truth(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise _misfit(value, "a truth")


def _read_number(value: Any) -> Any:
    # The bounds refuse infinity, what is no number, and an int of 400 digits: JSON holds it, and no float does.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST:
        return value
    raise _misfit(value, "a number")


def _read_whole(value: Any) -> int:
    return value if type(value) is int and -_LARGEST < value < _LARGEST else int(_read_number(value))


def _read_counts(values: Any) -> list[int]:
    # Two thousand numbers for each worker and round: no line of Python for each of them.
    if type(values) is not list or set(map(type, values)) - {int} or min(values, default=0) < 0:
        raise _misfit(values, "a list of counts")
    _read_number(sum(values))
    return values


def _read_route_names(values: Any) -> list[str]:
    if type(values) is not list or len(values) > MOST_ROUTES + 1 or set(map(type, values)) - {str}:
        raise _misfit(values, "a list of routes")
    return [route_name(each) for each in values]


def _read_word(words: tuple[str, ...], value: Any) -> Any:
    if isinstance(value, str) and value in words:
        return value
    raise _misfit(value, " or ".join(words))


def _read_items(read: _Reader, values: Any) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise _misfit(values, "a list")
    return list(_readable(read, enumerate(values)).values())


def _read_mapping(read: _Reader, values: Any) -> dict[Any, Any]:
    if not isinstance(values, (dict, Mapping)):  # a dict first: asking the abstract class takes longer
        raise _misfit(values, "a mapping")
    return _readable(read, values.items())


def _read_entry(kind: str, fields: Iterable[_Field], value: Any) -> Any:
    if not isinstance(value, (dict, Mapping)):
        raise _misfit(value, kind)
    found = {}
    for name, read, neutral in fields:
        given = value.get(name)
        try:
            found[name] = neutral() if given is None and neutral is not None else read(given)
        except _Misfit as misfit:
            if neutral is None:
                raise _Misfit(f"{name}: {misfit}") from None
            found[name] = neutral()
    return found


def _misfit(value: Any, name: str) -> _Misfit:
    return _Misfit(f"{reprlib.repr(value):.40} is not {name}")  # a worker may have nested it 1,000 times


def _readable(read: _Reader, values: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return those of *values* that can be read."""
    found = {}
    for name, value in values:
        try:
            found[name] = read(value)
        except _Misfit:
            continue
    return found


def _fields_of(kind: Any) -> list[_Field]:
    """Return of each field its name, how it is read, and what makes the value that stands for a missing one."""
    needed = _NEEDED.get(kind, ())
    hints = get_type_hints(kind).items()
    return [(name, _reader(hint), None if name in needed else _neutral(hint)) for name, hint in hints]


def _neutral(hint: Any) -> Callable[[], Any]:
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if NoneType in arguments or kind is Any:
        return NoneType
    if kind is Literal:
        return lambda: arguments[0]
    return functools.partial(_reader(kind), {}) if is_typeddict(kind) else kind


_PLAIN: dict[Any, _Reader] = {
    Any: lambda value: value,
    bool: _read_truth,
    float: _read_number,
    int: _read_whole,
    str: read_text,
    Counts: _read_counts,
    RouteNames: _read_route_names,
}
