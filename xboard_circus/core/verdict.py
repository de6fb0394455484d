"""Judge a watcher in one word, with the cause, what happens next, and the cure.

circusd computes the verdict with its state; every face reads it there. Nothing in this module reads a clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from xboard_circus.core.reason import data_of, reason_in
from xboard_circus.core.sentences import Say, state_named
from xboard_circus.core.state_schema import (
    IncidentEntry,
    PortEntry,
    ProbeKind,
    ReloadEntry,
    VerdictEntry,
    WatcherEntry,
    WorkerEntry,
)
from xboard_circus.core.states import nobody_wanted

Worker = WorkerEntry | Mapping[str, Any]

PROBED_WITHIN = 30.0
"""Seconds within which a worker that came up is probed; a plugin needs some of them for its own start."""

LOOP_FAILURES = 2
"""As many failures in the window, and no worker up: a start that runs is one more try of a loop."""


class Word(Enum):
    """The verdict on a watcher, from good to bad."""

    OK = "ok"
    DEPLOYING = "deploying"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    DEGRADED = "degraded"
    DEPENDENCY = "dependency"
    LOOPING = "looping"
    BLOCKED = "blocked"
    DOWN = "down"

    @property
    def rank(self) -> int:
        """How bad it is."""
        return list(Word).index(self)

    @property
    def is_outage(self) -> bool:
        """Return whether no worker serves though some are wanted."""
        return self in (Word.DOWN, Word.LOOPING, Word.BLOCKED)

    @property
    def is_trouble(self) -> bool:
        """Return whether it is part of an incident; what an operator ordered is not."""
        return self.rank >= Word.UNKNOWN.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What keeps all workers of a start from running.

    Attributes:
        runs: It is on its way, and nothing is wrong.
        retry_in: Seconds until it is tried again; None where that is not known.
    """

    reason: str
    cure: str = ""
    runs: bool = False
    retry_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What circusd knows of a watcher.

    Attributes:
        status: What Circus says: active, starting, stopping or stopped.
        wanted: How many workers there are to be.
        probe: How its workers are probed; "none" where they are not.
        failures: How much of the restart budget is used; *last_failure*: why a worker failed last.
        port_retry_in: Seconds until a port that is taken is tried again.
        start_retry_in: Seconds until a start that failed inside circusd is tried again; None where none failed.
        startup_timeout: Seconds within which a worker has to come up.
        before: What has to be done before a worker may run; None when it is done.
    """

    name: str
    status: str
    wanted: int
    workers: Sequence[Worker]
    probe: ProbeKind = "none"
    port: PortEntry | None = None
    port_retry_in: float | None = None
    reload: ReloadEntry | None = None
    failures: int = 0
    last_failure: str = ""
    start_retry_in: float | None = None
    startup_timeout: float | None = None
    before: Preparation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One word, and why.

    Attributes:
        next: What happens next, by itself; *next_in*: in how many seconds.
        cure: What a person can do.
    """

    word: Word
    cause: str
    next: str = ""
    next_in: float | None = None
    cure: str = ""


def is_up(worker: Worker) -> bool:
    """Return whether a worker has come up to serve; a spare has not, and one that leaves is not any more."""
    return worker["phase"] == "up" and worker["role"] != "spare"


def serves(worker: Worker) -> bool:
    """Return whether a worker answers requests."""
    return is_up(worker) and worker["health"] != "hung"


def word_of(worker: Worker) -> str:
    """Return the one word for a worker that people are shown.

    >>> word_of({"phase": "up", "role": "serving", "health": "ok", "ready": False})
    'not ready'
    """
    if worker["role"] == "spare" and worker["phase"] != "leaving":
        return Say.STATE_SPARE()
    if worker["phase"] == "up" and worker["health"] not in ("ok", "unknown"):
        return state_named(worker["health"])
    is_unready = worker["phase"] == "up" and worker["ready"] is False
    return Say.FOUND_NOT_READY() if is_unready else state_named(worker["phase"])


def worker_words() -> list[str]:
    """Return every word that `word_of` gives."""
    states = ("held", "starting", "up", "leaving", "spare", "busy", "failing", "sick", "hung")
    return [Say.FOUND_NOT_READY(), *map(state_named, states)]


def has_come_up(watcher: WatcherEntry) -> bool:
    """Return whether as many workers of a watcher have come up as are wanted: its start is over, well or not."""
    return watcher["status"] == "active" and sum(map(is_up, watcher["workers"])) >= watcher["numprocesses"]


def headline(verdict: VerdictEntry) -> str:
    """Return a verdict in one line: the word where all is not well, and the cause.

    >>> headline(entry(Verdict(word=Word.DOWN, cause="none of 2 workers is up: 2 starting"), since=0.0))
    'down: none of 2 workers is up: 2 starting'
    >>> headline(entry(Verdict(word=Word.OK, cause="2 of 2 workers up"), since=0.0))
    '2 of 2 workers up'
    """
    return verdict["cause"] if verdict["word"] == "ok" else ": ".join(filter(None, (verdict["word"], verdict["cause"])))


def judge(facts: Facts) -> Verdict:
    """Return the verdict on an armed watcher."""
    for look in (
        _stopped,
        _unprepared,
        _blocked,
        _dependency,
        _looping,
        _starting,
        _down,
        _deploying,
        _unprobed,
        _degraded,
    ):
        found = look(facts)
        if found is not None:
            return found
    return Verdict(word=Word.OK, cause=Say.SO_MANY_UP(n=len(_serving(facts)), total=facts.wanted))


def judge_unarmed(name: str, status: str, wanted: int, running: int) -> Verdict:
    """Return the verdict on a watcher without a guard of ours, by Circus's status alone."""
    stopped = _stopped(Facts(name=name, status=status, wanted=wanted, workers=()))
    if stopped is not None:
        return stopped
    word = Word.OK if status == "active" and running >= wanted else Word.UNKNOWN
    return Verdict(word=word, cause=Say.SO_MANY_RUN(n=running, total=wanted))


def _stopped(facts: Facts) -> Verdict | None:
    if facts.start_retry_in is not None and not facts.workers:
        return Verdict(
            word=Word.LOOPING,
            cause=facts.last_failure or Say.NO_WORKER(),
            next=Say.NEXT_START(),
            next_in=facts.start_retry_in,
            cure=Say.CURE_LOOP(watcher=facts.name),
        )
    if facts.status in ("stopped", "stopping"):
        return Verdict(word=Word.STOPPED, cause=Say.WATCHER_IS_STOPPED(), cure=Say.CURE_START(watcher=facts.name))
    return Verdict(word=Word.STOPPED, cause=nobody_wanted(facts.name)) if facts.wanted == 0 else None


def _unprepared(facts: Facts) -> Verdict | None:
    before = facts.before
    if before is None or _serving(facts):
        return None
    if before.runs:
        cause = Say.STARTING_SAYING(n=0, total=facts.wanted, why=before.reason)
        return Verdict(word=Word.DEPLOYING, cause=cause)
    return Verdict(
        word=Word.BLOCKED,
        cause=before.reason,
        next=Say.NEXT_START(),
        next_in=before.retry_in,
        cure=before.cure,
    )


def _blocked(facts: Facts) -> Verdict | None:
    port = facts.port
    if port is None or port["state"] != "refused" or _serving(facts):
        return None
    return Verdict(
        word=Word.BLOCKED,
        cause=Say.PORT_OF_IT(port=port["port"], why=port["reason"]),
        next=Say.NEXT_PORT(),
        next_in=facts.port_retry_in,
        cure=Say.CURE_PORT(port=port["port"]),
    )


def _dependency(facts: Facts) -> Verdict | None:
    """Find that half of the workers fail their live path together: what they depend on is down."""
    up = [worker for worker in facts.workers if is_up(worker)]
    failing = [worker for worker in up if worker["health"] in ("sick", "failing")]
    sick = [worker for worker in failing if worker["health"] == "sick"]
    if not sick or len(failing) < 2 or 2 * len(failing) < len(up):
        return None
    why = str(sick[0]["reason"])
    say = Say.DEPENDENCY_DOWN_SAYING if why else Say.DEPENDENCY_DOWN
    return Verdict(
        word=Word.DEPENDENCY,
        cause=say(n=len(failing), total=len(up), why=why),
        next=Say.NEXT_RECOVERY(),
        cure=Say.CURE_DEPENDENCY(),
    )


def _looping(facts: Facts) -> Verdict | None:
    held = _held(facts.workers)
    if _serving(facts) or not (held or facts.failures >= LOOP_FAILURES):
        return None
    first = min(held, key=_next_try, default=None)
    cause = facts.last_failure or (_held_reason(first) if first is not None else "")
    return Verdict(
        word=Word.LOOPING,
        cause=Say.NONE_UP_SAYING(total=facts.wanted, why=cause) if cause else Say.NONE_UP(total=facts.wanted),
        next=Say.NEXT_TRY(slot=first["slot"]) if first is not None else "",
        next_in=None if first is None else first["next_try"],
        cure=Say.CURE_LOOP(watcher=facts.name),
    )


def _starting(facts: Facts) -> Verdict | None:
    """Find a start in which nothing has failed yet: all that is missing is on its way, in its time."""
    is_reloading = facts.reload is not None and facts.reload["state"] == "running"
    if facts.failures or facts.start_retry_in is not None or is_reloading:
        return None
    troubled = _troubled(facts)
    is_short = facts.status == "starting" and len(_serving(facts)) < facts.wanted
    if not (troubled or is_short) or not all(_is_coming(facts, worker) for worker in troubled):
        return None
    waits = any(worker["phase"] == "held" for worker in troubled)
    why = reason_in(facts.port) if waits and facts.port is not None else ""
    cause = (Say.STARTING_SAYING if why else Say.STARTING)(n=len(_serving(facts)), total=facts.wanted, why=why)
    next_, next_in = _next(facts, troubled)
    return Verdict(word=Word.DEPLOYING, cause=cause, next=next_, next_in=next_in)


def _is_coming(facts: Facts, worker: Worker) -> bool:
    """Return whether a worker starts and has time left, or waits for a port that is being freed."""
    if worker["phase"] == "starting":
        return facts.startup_timeout is None or (worker["age"] or 0.0) < facts.startup_timeout
    is_refused = facts.port is not None and facts.port["state"] == "refused"
    return worker["phase"] == "held" and worker["held_by"] == "port" and not is_refused


def _down(facts: Facts) -> Verdict | None:
    if _serving(facts):
        return None
    doing = _doing(facts.workers)
    next_, next_in = _next(facts, _troubled(facts))
    return Verdict(
        word=Word.DOWN,
        cause=Say.NONE_UP_SAYING(total=facts.wanted, why=doing or Say.NO_WORKER()),
        next=next_,
        next_in=next_in,
        cure=Say.CURE_LOGS(watcher=facts.name),
    )


def _deploying(facts: Facts) -> Verdict | None:
    reload = facts.reload
    if reload is None or reload["state"] != "running" or len(_serving(facts)) < facts.wanted:
        return None
    return Verdict(
        word=Word.DEPLOYING,
        cause=reason_in(reload) or Say.RELOAD_AT(done=reload["done"], total=reload["total"]),
        next=Say.NEXT_RELOADED(),
    )


def _degraded(facts: Facts) -> Verdict | None:
    troubled = _troubled(facts)
    if not troubled and len(_serving(facts)) >= facts.wanted:
        return None
    port = facts.port
    why: str
    next_: str
    if port is not None and port["state"] == "refused":
        why = Say.PORT_OF_IT(port=port["port"], why=reason_in(port))
        next_, next_in = Say.NEXT_PORT(), facts.port_retry_in
        cure = Say.CURE_PORT(port=port["port"])
    else:
        why = _of_worker(troubled[0]) if troubled else Say.NO_WORKER_IN_ITS_PLACE()
        next_, next_in = _next(facts, troubled)
        cure = (Say.CURE_LOOP if _held(troubled) else Say.CURE_LOGS)(watcher=facts.name)
    cause = Say.SO_MANY_UP_SAYING(n=len(_serving(facts)), total=facts.wanted, why=why)
    return Verdict(word=Word.DEGRADED, cause=cause, next=next_, next_in=next_in, cure=cure)


def _unprobed(facts: Facts) -> Verdict | None:
    up = [worker for worker in facts.workers if is_up(worker)]
    if len(up) < facts.wanted or not all(_is_unprobed(facts, worker) for worker in up):
        return None
    why = next((str(worker["reason"]) for worker in up if worker["reason"]), "")
    return Verdict(word=Word.UNKNOWN, cause=why or Say.NOBODY_PROBES(), cure=Say.CURE_PROBER())


def _serving(facts: Facts) -> list[Worker]:
    return [worker for worker in facts.workers if serves(worker)]


def _held(workers: Iterable[Worker]) -> list[Worker]:
    """Return those that the restart budget holds."""
    return [worker for worker in workers if worker["phase"] == "held" and worker["held_by"] not in ("port", "before")]


def _next_try(worker: Worker) -> float:
    return math.inf if worker["next_try"] is None else float(worker["next_try"])


def _is_unprobed(facts: Facts, worker: Worker) -> bool:
    """Return whether a worker is up for longer than a first probe takes, and was not probed."""
    late = (worker["ready_for"] or 0.0) >= PROBED_WITHIN
    return facts.probe != "none" and is_up(worker) and worker["health"] == "unknown" and late


_BADNESS = {"hung": 0, "sick": 1, "failing": 5, "unknown": 6}


def _troubled(facts: Facts) -> list[Worker]:
    """Return the workers that keep the watcher from being ok, the worst first."""
    return sorted((worker for worker in facts.workers if _badness(facts, worker) < 9), key=lambda w: _badness(facts, w))


def _badness(facts: Facts, worker: Worker) -> int:
    if worker["role"] in ("spare", "successor") or worker["phase"] == "leaving":
        return 9
    if worker["phase"] == "held":
        return 2
    if worker["phase"] == "starting":
        return 3
    if worker["health"] in ("hung", "sick", "failing") or _is_unprobed(facts, worker):
        return _BADNESS[worker["health"]]
    return 4 if worker["ready"] is False else 9


def _of_worker(worker: Worker) -> str:
    """Return what is wrong with a worker.

    >>> _of_worker({"slot": 2, "phase": "up", "role": "serving", "health": "hung", "reason": "hung: no answer"})
    '#2: hung: no answer'
    """
    # The reason of a held one counts down: what is the same for all of the wait is said here.
    reason = _held_reason(worker) if worker["phase"] == "held" else worker["reason"]
    if reason:
        return Say.OF_WORKER_SAYING(slot=worker["slot"], why=reason)
    return Say.OF_WORKER(slot=worker["slot"], state=word_of(worker))


def _held_reason(worker: Worker) -> str:
    if worker["held_by"] in ("port", "before"):
        return str(worker["reason"])
    if worker["held_by"] == "turn":
        return Say.WAITS_FOR_TURN()
    return Say.WAITING_COOLING() if worker["held_by"] == "cooldown" else Say.WAITING_PLAINLY()


def _doing(workers: Iterable[Worker]) -> str:
    """Return what the workers that do not serve are at, those that do the same together."""
    doing = Counter(_without_countdown(word_of(worker), worker) for worker in workers if worker["role"] != "spare")
    return ", ".join(f"{count} {what}" for what, count in doing.items())


def _without_countdown(word: str, worker: Worker) -> str:
    # What a held worker waits for changes with each second.
    return word if worker["phase"] == "held" or not worker["reason"] else f"{word} ({worker['reason']})"


def _next(facts: Facts, troubled: Sequence[Worker]) -> tuple[str, float | None]:
    """Return what happens next about the worst of the *troubled*, and in how many seconds."""
    if not troubled:
        return "", None
    worst = troubled[0]
    if worst["phase"] == "held":
        return Say.NEXT_TRY(slot=worst["slot"]), worst["next_try"]
    if worst["phase"] == "starting" and facts.startup_timeout is not None:
        return Say.NEXT_STARTED(slot=worst["slot"]), max(0.0, facts.startup_timeout - (worst["age"] or 0.0))
    if worst["health"] in ("hung", "sick"):
        return Say.NEXT_REPLACED(slot=worst["slot"]), None
    return "", None


@dataclass(slots=True)
class IncidentKeeper:
    """Keep since when a watcher has its verdict, and its incident: trouble from its first sign to its end.

    >>> incident = IncidentKeeper()
    >>> incident.take(Word.OK, now=0.0)
    >>> incident.take(Word.DOWN, now=60.0)
    >>> incident.take(Word.DEGRADED, now=70.0)
    >>> incident.since(now=75.0), incident.view(now=75.0)
    (5.0, {'age': 15.0, 'worst': 'down'})
    """

    word: Word | None = None
    worst: Word | None = None
    _changed_at: float = 0.0
    _began_at: float = 0.0

    def take(self, word: Word, now: float) -> None:
        """Note the verdict of *now*."""
        if word is not self.word:
            self.word, self._changed_at = word, now
        if not word.is_trouble:
            self.worst = None
        elif self.worst is None:
            self.worst, self._began_at = word, now
        elif word.rank > self.worst.rank:
            self.worst = word

    def since(self, now: float) -> float:
        """Return the seconds for which the verdict has been the same."""
        return round(now - self._changed_at, 3)

    def view(self, now: float) -> IncidentEntry | None:
        """Return the incident as the state shows it; None without an incident."""
        if self.worst is None:
            return None
        return {"age": round(now - self._began_at, 3), "worst": self.worst.value}


def entry(verdict: Verdict, *, since: float) -> VerdictEntry:
    """Return a verdict as the state shows it."""
    return {
        "word": verdict.word.value,
        "since": since,
        "cause": verdict.cause,
        "cause_say": data_of(verdict.cause),
        "next": verdict.next,
        "next_say": data_of(verdict.next),
        "next_in": None if verdict.next_in is None else round(verdict.next_in, 3),
        "cure": verdict.cure,
        "cure_say": data_of(verdict.cure),
    }
