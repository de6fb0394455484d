"""Describe the state that circusd answers to ``xboard_state``, and validate what comes over a wire.

Whoever builds the state builds these dictionaries; whoever reads it gets them from `parse_state`, which looks at every
value once. A value of the wrong kind counts as missing, so that one worker's nonsense spoils nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

PhaseWord = Literal["up", "held", "starting", "leaving"]
RoleWord = Literal["serving", "spare", "successor", "retiring"]
HealthWord = Literal["unknown", "ok", "busy", "failing", "sick", "hung"]
HeldByWord = Literal["port", "cooldown", "delay", "turn"]
ProbeKind = Literal["none", "private", "url"]
VerdictWord = Literal["unknown", "ok", "degraded", "down", "looping", "blocked", "dependency", "deploying", "stopped"]
Data = dict[str, Any]
"""A reason as data: the key of its sentence, and its fields."""


class ProbeFigures(TypedDict):
    """What the last probe of a worker measured."""

    latency: float | None
    lag: float | None
    threads_used: int | None
    threads_limit: int | None
    requests_active: int | None
    requests_served: int | None
    rss: int | None


NO_FIGURES: ProbeFigures = {
    "latency": None,
    "lag": None,
    "threads_used": None,
    "threads_limit": None,
    "requests_active": None,
    "requests_served": None,
    "rss": None,
}


class WorkerEntry(TypedDict):
    """One process of a watcher.

    Attributes:
        started: Start time, its identity together with *pid*.
        wid: Circus's number, for Circus's own commands only; people see *slot*.
        slot: Its place, from 1 on; those of spares go down from -1. 0 where nobody gives it one.
        ready: What its ready path says; None where nobody asked.
        ready_for: Seconds since it came up; None before that.
        next_try: Seconds until a held one is let go; None for one that is not held.
        say: *reason* as data, None where it is plain text.
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
    reason: str
    say: Data | None
    drains: bool
    latency: float | None
    probe: ProbeFigures
    socket: str | None


class PortEntry(TypedDict):
    """The port of a watcher, and how far the port guard is with it."""

    host: str
    port: int
    state: str
    reason: str
    say: Data | None


class ReloadEntry(TypedDict):
    """The last rolling reload: "running", "done", "failed" or "stopped".

    Attributes:
        cut: How many requests of old workers were cut off at their drain limit.
        serving: How many workers of the watcher serve now.
    """

    state: str
    done: int
    total: int
    age: float | None
    replaced: list[list[int]]
    cut: int
    serving: int
    reason: str
    say: Data | None
    log: str


class BudgetEntry(TypedDict):
    """How much of the restart budget of a watcher is used; a slot that cools down has used all that it may."""

    used: int
    limit: int


class VerdictEntry(TypedDict):
    """The verdict on a watcher: see `core.verdict`.

    Attributes:
        since: Seconds for which it has been this word.
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


class WatcherEntry(TypedDict):
    """A watcher; what only an armed one has is empty for the others."""

    name: str
    status: str
    armed: bool
    numprocesses: int
    probe: ProbeKind
    restarts: int
    ends: dict[str, int]
    cooldown_until: float | None
    last_reason: str
    last_reason_say: Data | None
    last_reason_age: float | None
    port: PortEntry | None
    options: dict[str, Any]
    reload: ReloadEntry | None
    budget: BudgetEntry | None
    verdict: VerdictEntry
    incident: IncidentEntry | None
    workers: list[WorkerEntry]


class CircusdEntry(TypedDict):
    """The circusd that answered; *lost* is the loss of the one before it, if that was killed or crashed."""

    pid: int
    started: int
    version: str | None
    endpoint: str
    uptime: float | None
    stopping: bool
    config_file: str | None
    instance: str
    runtime_dir: str
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


class WorkerReport(TypedDict, total=False):
    """What a worker reports of itself on its private socket."""

    pid: int
    state: str
    uptime: float | None
    lag: float | None
    threads_used: int | None
    threads_limit: int | None
    requests_active: int | None
    requests_served: int | None
    rss: int | None
    version: str | None
    live: PathReport | None
    ready: PathReport | None


class PathReport(TypedDict):
    """What the app answered on one path; *refused*: it answers, but not to this request."""

    ok: bool | None
    refused: bool
    status: int | None
    reason: str
    say: Data | None
    body: str


class Judgement(TypedDict):
    """What a prober reports to circusd of one worker.

    Attributes:
        asked_at: When it was asked, in seconds of the monotonic clock; None where nobody can tell.
        ok: Whether the probe speaks for the worker; None where it tells nothing.
        status: With what a failing path answered; *body*: how that answer begins.
    """

    health: HealthWord
    reason: str
    say: Data | None
    ready: bool | None
    asked_at: float | None
    ok: bool | None
    latency: float | None
    status: int | None
    body: str
    lag: float | None
    threads_used: int | None
    threads_limit: int | None
    requests_active: int | None
    requests_served: int | None
    rss: int | None


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
        return {
            "circusd": _CIRCUSD(answer.get("circusd")),
            "probers": _PROBERS(answer.get("probers", [])),
            "watchers": _WATCHERS(answer.get("watchers")),
        }
    except _Misfit as misfit:
        raise UnreadableState(f"circusd's answer has an unexpected form: {misfit}") from None


def parse_report(told: Mapping[str, Any]) -> WorkerReport:
    """Return the report of a worker, whose app may have put anything into it; a wrong value counts as missing.

    >>> parse_report({"pid": 7, "threads_limit": 10**400, "threads_used": "text", "lag": 0.5})["lag"]
    0.5
    >>> parse_report({"pid": 7, "threads_limit": 10**400})["threads_limit"]
    """
    found: WorkerReport = _REPORT({"pid": 0, **told})
    return found


def parse_judgements(told: object) -> dict[int, Judgement]:
    """Return by pid what a prober reports of each worker; what cannot be read is left out."""
    found = {}
    for pid, each in told.items() if isinstance(told, Mapping) else ():
        try:
            found[int(pid)] = _JUDGEMENT(each)
        except (_Misfit, ValueError):
            continue
    return found


def watcher_entry(**known: object) -> WatcherEntry:
    """Return the entry of a watcher of which only these values are known."""
    found: WatcherEntry = _check(WatcherEntry)(known)
    return found


def worker_entry(**known: object) -> WorkerEntry:
    """Return the entry of a worker of which only these values are known."""
    found: WorkerEntry = _check(WorkerEntry)(known)
    return found


# Checkers: each returns the value, or raises _Misfit. They are made once of the annotations above.

_Check = Callable[[object], Any]
_MISSING: Any = object()
_LARGEST = 2**63
# What stands for a value that is missing where None would mean nothing.
_NEUTRAL: dict[Any, Callable[[], Any]] = {str: str, int: int, float: float, bool: bool, list: list, dict: dict}


@cache
def _check(hint: Any) -> _Check:
    """Return what checks a value against the type *hint*."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin is Literal:
        return _choice(arguments)
    if origin is Union or type(None) in arguments:
        (inner,) = (_check(each) for each in arguments if each is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is list:
        return _list_of(_check(arguments[0]))
    if origin is dict:
        return _dict_of(_check(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, dict):
        return _fields_of(hint)
    return _plain(hint)


def _plain(kind: type) -> _Check:
    def check(value: object) -> Any:
        if kind in (int, float):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_sane(value):
                raise _Misfit(f"{value!r:.40} is no number")
            return int(value) if kind is int else value
        if not isinstance(value, kind):
            raise _Misfit(f"{value!r:.40} is no {kind.__name__}")
        return value

    return check


def _is_sane(value: float) -> bool:
    # An int of 400 digits fits into JSON, and into no float: the comparison comes first.
    return -_LARGEST < value < _LARGEST and math.isfinite(value)


def _choice(words: tuple[object, ...]) -> _Check:
    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in words:
            raise _Misfit(f"{value!r:.40} is none of {', '.join(map(str, words))}")
        return value

    return check


def _list_of(check_item: _Check) -> _Check:
    def check(value: object) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _Misfit(f"{value!r:.40} is no list")
        return [item for each in value if (item := _or_missing(check_item, each)) is not _MISSING]

    return check


def _dict_of(check_item: _Check) -> _Check:
    def check(value: object) -> Any:
        if not isinstance(value, Mapping):
            raise _Misfit(f"{value!r:.40} is no mapping")
        found = {str(name): _or_missing(check_item, each) for name, each in value.items()}
        return {name: item for name, item in found.items() if item is not _MISSING}

    return check


def _or_missing(check: _Check, value: object) -> Any:
    try:
        return check(value)
    except _Misfit:
        return _MISSING


def _fields_of(kind: Any) -> _Check:
    hints = get_type_hints(kind)
    checks = {name: _check(hint) for name, hint in hints.items()}
    neutral = {name: _neutral(hint) for name, hint in hints.items() if name not in _NEEDED.get(kind.__name__, ())}

    def check(value: object) -> Any:
        if not isinstance(value, Mapping):
            raise _Misfit(f"{value!r:.40} is no mapping")
        found = {}
        for name, check_field in checks.items():
            try:
                found[name] = check_field(value.get(name))
            except _Misfit as misfit:
                if name not in neutral:
                    raise _Misfit(f"{name}: {misfit}") from None
                found[name] = neutral[name]()
        return found

    return check


def _neutral(hint: Any) -> Callable[[], Any]:
    """Return what makes the value that stands for a missing one: None where that is allowed."""
    arguments = get_args(hint)
    if type(None) in arguments or hint is Any:
        return lambda: None
    if get_origin(hint) is Literal:
        return lambda: arguments[0]
    if isinstance(hint, type) and issubclass(hint, dict) and hint is not dict:
        empty = _fields_of(hint)
        return lambda: empty({})
    return _NEUTRAL[get_origin(hint) or hint]


# Without these the rest of an entry tells nothing.
_NEEDED = {
    "WorkerEntry": ("pid",),
    "WatcherEntry": ("name", "workers"),
    "CircusdEntry": ("pid", "started"),
    "ProberEntry": ("plugin", "round_age"),
    "PortEntry": ("port",),
    "ReloadEntry": ("state",),
    "BudgetEntry": ("used", "limit"),
    "IncidentEntry": ("age", "worst"),
}

_CIRCUSD = _check(CircusdEntry)
_PROBERS = _check(list[ProberEntry])
_WATCHERS = _check(list[WatcherEntry])
_REPORT = _check(WorkerReport)
_JUDGEMENT = _check(Judgement)
