"""Judge a watcher in one word, with the cause, what happens next, and the cure.

circusd computes the verdict with its state; every face reads it there. Nothing in this module reads a clock.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from shlex import quote
from typing import Any, NamedTuple

from xboard_circus.core.ports import holders_in, was_handed
from xboard_circus.core.reason import Reason, data_of, key_of, reason_in
from xboard_circus.core.sentences import CHECK, Say, state_named
from xboard_circus.core.state_schema import (
    IncidentEntry,
    PortEntry,
    ReloadEntry,
    VerdictEntry,
    WatcherEntry,
    WatcherFacts,
    WorkerEntry,
)

Worker = WorkerEntry | Mapping[str, Any]

PROBED_WITHIN = 30.0
"""Seconds within which a worker that came up is probed; a plugin needs some of them for its own start."""

LOOP_FAILURES = 2
"""After this many failures in the window, and without a worker up, a start is one more try of a loop."""


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
        """Return how bad it is."""
        return list(Word).index(self)

    @property
    def is_outage(self) -> bool:
        """Return whether no worker serves though some should."""
        return self in (Word.DOWN, Word.LOOPING, Word.BLOCKED)

    @property
    def is_trouble(self) -> bool:
        """Return whether it is part of an incident; what an operator ordered is not."""
        return self.rank >= Word.UNKNOWN.rank


class Preparation(NamedTuple):
    """What must be done before the workers of a start can run.

    Attributes:
        runs: It is under way, and nothing is wrong.
        retry_in: Seconds until it is tried again; None if unknown.
    """

    reason: str
    cure: str = ""
    runs: bool = False
    retry_in: float | None = None


def is_up(worker: Worker) -> bool:
    """Return whether a worker has come up to serve; False for a leaving one."""
    return worker["phase"] == "up"


def serves(worker: Worker) -> bool:
    """Return whether a worker answers requests."""
    return is_up(worker) and worker["health"] != "hung"


def serving(watcher: WatcherFacts) -> int:
    """Return how many workers of a watcher answer requests, without those beside their successors."""
    return min(sum(map(serves, watcher["workers"])), watcher["numprocesses"])


def is_scaled_to_zero(watcher: WatcherFacts) -> bool:
    """Return whether a watcher is scaled to zero processes: it is active, and as good as stopped."""
    return watcher["status"] == "active" and watcher["numprocesses"] == 0


def running_reload(watcher: WatcherFacts) -> ReloadEntry | None:
    """Return the rolling reload that runs on a watcher; None without one."""
    reload = watcher["reload"]
    return reload if reload is not None and reload["state"] == "running" else None


def condition_of(worker: Worker) -> str:
    """Return the condition of a worker: its phase, and of one that is up its health, or not_ready."""
    if worker["phase"] == "up" and worker["health"] not in ("ok", "unknown"):
        return worker["health"]
    return "not_ready" if is_up(worker) and worker["ready"] is False else worker["phase"]


def word_of(worker: Worker) -> str:
    """Return the word that is shown for the condition of a worker.

    >>> word_of({"phase": "up", "role": "serving", "health": "ok", "ready": False})
    'not ready'
    """
    found = condition_of(worker)
    return Say.FOUND_NOT_READY() if found == "not_ready" else state_named(found)


def worker_words() -> list[str]:
    """Return every word that `word_of` gives."""
    states = ("held", "starting", "up", "leaving", "busy", "failing", "sick", "hung")
    return [Say.FOUND_NOT_READY(), *map(state_named, states)]


def has_come_up(watcher: WatcherEntry) -> bool:
    """Return whether all configured workers have come up, sick ones among them."""
    return watcher["status"] == "active" and sum(map(is_up, watcher["workers"])) >= watcher["numprocesses"]


def runs_plainly(watcher: WatcherEntry) -> bool:
    """Return whether *watcher* could not be armed, so that Circus alone starts its workers, and none is probed."""
    return not watcher["armed"] and (watcher["last_reason_say"] or {}).get("key") == Say.RUNS_PLAINLY.name


def fails_whole(reason: str) -> bool:
    """Return whether *reason* is that every worker fails its live path, so that no request is served."""
    is_dependency = key_of(reason) in (Say.DEPENDENCY_DOWN.name, Say.DEPENDENCY_DOWN_SAYING.name)
    return is_dependency and isinstance(reason, Reason) and reason.fields["n"] == reason.fields["total"]


def availability(watcher: WatcherEntry) -> str:
    """Return "down" of a watcher that serves no request though it should, "stopped" of one that should not, else "up".

    "" where only some workers fail their live path: the event with which that began decides.
    """
    verdict = watcher["verdict"]
    word = Word(verdict["word"])
    if word is Word.DEPENDENCY:
        return "down" if fails_whole(reason_in(verdict, "cause")) else ""
    return "down" if word.is_outage else "stopped" if word is Word.STOPPED else "up"


def headline(verdict: VerdictEntry) -> str:
    """Return a verdict in one line: its word unless all is well, and the cause.

    >>> headline(verdict_entry(Word.DOWN, "none of 2 workers is up: 2 starting"))
    'down: none of 2 workers is up: 2 starting'
    >>> headline(verdict_entry(Word.OK, "2 of 2 workers up"))
    '2 of 2 workers up'
    """
    return verdict["cause"] if verdict["word"] == "ok" else ": ".join(filter(None, (verdict["word"], verdict["cause"])))


def verdict_entry(
    word: Word, cause: str, *, next: str = "", next_in: float | None = None, cure: str = ""
) -> VerdictEntry:
    """Return a verdict as the state shows it, new at this moment.

    Args:
        next: What happens next, by itself; *next_in*: in how many seconds.
        cure: What an operator can do.
    """
    return {
        "word": word.value,
        "since": 0.0,
        "cause": cause,
        "cause_say": data_of(cause),
        "next": next,
        "next_say": data_of(next),
        "next_in": None if next_in is None else round(next_in, 3),
        "cure": cure,
        "cure_say": data_of(cure),
    }


def judge(
    watcher: WatcherFacts, before: Preparation | None = None, *, predecessors: int = 0, stopped_by: str = ""
) -> VerdictEntry:
    """Return the verdict on a watcher, as the state shows it; on an unarmed one by Circus's status alone.

    Args:
        before: What has to be done before a worker may run; None when it is done.
        predecessors: How many workers of an earlier circusd serve until those of this one are ready.
        stopped_by: The sender of the last stop.
    """
    return beside_predecessors(_of_own(watcher, before, stopped_by), watcher["name"], predecessors)


def beside_predecessors(found: VerdictEntry, watcher: str, predecessors: int) -> VerdictEntry:
    """Return the verdict *found* on the workers of this circusd, changed by those of an earlier one that serve."""
    word = Word(found["word"])
    if not predecessors or not (word.is_outage or word is Word.DEPLOYING):
        return found
    cause = Say.PREDECESSORS_SERVE(n=predecessors, why=found["cause"])
    cure = Say.CURE_RELOAD(watcher=watcher) if word is Word.LOOPING else found["cure"]
    word = Word.DEGRADED if word.is_outage else word
    return verdict_entry(word, cause, next=found["next"], next_in=found["next_in"], cure=cure)


def predecessors(watcher: WatcherEntry) -> int:
    """Return how many workers of an earlier circusd serve in place of those of this one, by its verdict."""
    say = watcher["verdict"]["cause_say"] or {}
    return int(say["fields"]["n"]) if say.get("key") == Say.PREDECESSORS_SERVE.name else 0


def _of_own(watcher: WatcherFacts, before: Preparation | None, stopped_by: str) -> VerdictEntry:
    if not watcher["armed"]:
        return _stopped(watcher) or _unarmed(watcher)
    if early := _stopped(watcher, stopped_by) or _unprepared(watcher, before):
        return early
    looks = (_blocked, _dependency, _looping, _starting, _down, _reloading, _unprobed, _degraded, _unwritten, _shared)
    if (found := next(filter(None, (look(watcher) for look in looks)), None)) is not None:
        return found
    return verdict_entry(Word.OK, Say.SO_MANY_UP(n=serving(watcher), total=watcher["numprocesses"]))


def _stopped(watcher: WatcherFacts, by: str = "") -> VerdictEntry | None:
    if watcher["start_retry_in"] is not None and not watcher["workers"]:
        cause, cure = watcher["last_failure"] or Say.NO_WORKER(), Say.CURE_LOOP(watcher=watcher["name"])
        return verdict_entry(Word.LOOPING, cause, next=Say.NEXT_START(), next_in=watcher["start_retry_in"], cure=cure)
    if watcher["status"] in ("stopped", "stopping"):
        cause = Say.WATCHER_STOPPED_BY(by=by) if by else Say.WATCHER_IS_STOPPED()
        return verdict_entry(Word.STOPPED, cause, next=Say.NEXT_NOTHING(), cure=Say.CURE_START(watcher=watcher["name"]))
    if watcher["numprocesses"]:
        return None
    # Circus calls it active. Its port stays open, and a client that connects waits for an answer that never comes.
    cause = Say.NOBODY_WANTED(why=Say.SET_TO_NONE(), cure=Say.START_ONE(watcher=watcher["name"]))
    return verdict_entry(Word.STOPPED, cause, next=Say.NEXT_NOTHING())


def _unarmed(watcher: WatcherFacts) -> VerdictEntry:
    running, wanted = sum(map(is_up, watcher["workers"])), watcher["numprocesses"]
    if watcher["status"] == "starting":
        return verdict_entry(Word.DEPLOYING, Say.STARTING(n=running, total=wanted))
    word = Word.OK if watcher["status"] == "active" and running >= wanted else Word.UNKNOWN
    return verdict_entry(word, Say.SO_MANY_RUN(n=running, total=wanted))


def _unprepared(watcher: WatcherFacts, before: Preparation | None) -> VerdictEntry | None:
    if before is None or serving(watcher):
        return None
    if before.runs:
        cause = Say.STARTING_SAYING(n=0, total=watcher["numprocesses"], why=before.reason)
        return verdict_entry(Word.DEPLOYING, cause, next=Say.NEXT_SPAWNED())
    return verdict_entry(Word.BLOCKED, before.reason, next=Say.NEXT_START(), next_in=before.retry_in, cure=before.cure)


def _blocked(watcher: WatcherFacts) -> VerdictEntry | None:
    if (port := watcher["port"]) is None or port["state"] != "refused" or serving(watcher):
        return None
    cause, cure = reason_in(port), _cure_of_port(port)
    if port["port"]:  # that of a unix socket has its path
        cause = Say.PORT_OF_IT(port=port["port"], why=cause)
    return verdict_entry(Word.BLOCKED, cause, next=Say.NEXT_PORT(), next_in=watcher["port_retry_in"], cure=cure)


def _cure_of_port(port: PortEntry) -> str:
    """Return the shortest command that frees the port: one that ends its holders, where they are known."""
    if pids := holders_in(reason_in(port)):
        return Say.CURE_PORT_HELD(command=f"kill {' '.join(map(str, pids))}", port=port["port"])
    if was_handed(reason_in(port)):
        return Say.CURE_HANDED()
    if port["port"] == 0:
        return Say.CURE_SOCKET_FILE(path=port["host"])
    return Say.CURE_PORT(command=CHECK, port=port["port"])


def _dependency(watcher: WatcherFacts) -> VerdictEntry | None:
    """Find that half of the workers fail their live path together, because a dependency is down."""
    up = [worker for worker in watcher["workers"] if is_up(worker)]
    failing = [worker for worker in up if worker["health"] in ("sick", "failing")]
    sick = [worker for worker in failing if worker["health"] == "sick"]
    if not sick or len(failing) < 2 or 2 * len(failing) < len(up):
        return None
    why = reason_in(sick[0])
    cause = (Say.DEPENDENCY_DOWN_SAYING if why else Say.DEPENDENCY_DOWN)(n=len(failing), total=len(up), why=why)
    return verdict_entry(Word.DEPENDENCY, cause, next=Say.NEXT_RECOVERY(), cure=Say.CURE_DEPENDENCY())


def _looping(watcher: WatcherFacts) -> VerdictEntry | None:
    held = held_by_budget(watcher["workers"])
    if serving(watcher) or _hang_together(watcher) or not (held or _failures(watcher) >= LOOP_FAILURES):
        return None
    why = watcher["last_failure"] or (reason_in(held[0]) if held else "")
    cause = (Say.NONE_UP_SAYING if why else Say.NONE_UP)(total=watcher["numprocesses"], why=why)
    starting = [each for each in watcher["workers"] if each["phase"] == "starting"]
    next_, next_in = _next(watcher, starting or held or _troubled(watcher))
    cure = (Say.CURE_RETRY if held else Say.CURE_CODE)(watcher=watcher["name"])
    return verdict_entry(Word.LOOPING, cause, next=next_, next_in=next_in, cure=cure)


def _starting(watcher: WatcherFacts) -> VerdictEntry | None:
    """Find a start without a failure so far: every missing worker is on its way, within its time."""
    if _failures(watcher) or watcher["start_retry_in"] is not None or running_reload(watcher):
        return None
    troubled = _troubled(watcher)
    is_short = watcher["status"] == "starting" and serving(watcher) < watcher["numprocesses"]
    if not (troubled or is_short) or not all(_is_coming(watcher, worker) for worker in troubled):
        return None
    waits = any(worker["phase"] == "held" for worker in troubled)
    why = reason_in(watcher["port"]) if waits and watcher["port"] is not None else ""
    answers = (reason_in(each) for each in troubled if each["phase"] == "starting")
    # Not that it does not answer yet, as in a long import.
    why = why or next((each for each in answers if key_of(each) in (Say.STATUS.name, Say.STATUS_SAYING.name)), "")
    cause = (Say.STARTING_SAYING if why else Say.STARTING)(n=serving(watcher), total=watcher["numprocesses"], why=why)
    next_, next_in = _next(watcher, troubled)
    return verdict_entry(Word.DEPLOYING, cause, next=next_, next_in=next_in)


def _is_coming(watcher: WatcherFacts, worker: Worker) -> bool:
    """Return whether a worker starts and has time left, or waits for a port that is being freed."""
    if worker["phase"] == "starting":
        return (worker["age"] or 0.0) < _startup_timeout(watcher)
    is_refused = watcher["port"] is not None and watcher["port"]["state"] == "refused"
    return worker["phase"] == "held" and worker["held_by"] == "port" and not is_refused


def _down(watcher: WatcherFacts) -> VerdictEntry | None:
    if serving(watcher):
        return None
    together = _hang_together(watcher)
    why = together or _doing(watcher["workers"]) or Say.NO_WORKER()
    cause = Say.NONE_UP_SAYING(total=watcher["numprocesses"], why=why)
    next_, next_in = _next(watcher, _troubled(watcher))
    cure = (Say.CURE_HANG if together else Say.CURE_LOGS)(watcher=watcher["name"])
    return verdict_entry(Word.DOWN, cause, next=next_, next_in=next_in, cure=cure)


def _hang_together(watcher: WatcherFacts) -> str:
    """Return that at least two workers and half of the slots hang, "" if not: a dependency may block them all."""
    up = [worker for worker in watcher["workers"] if is_up(worker)]
    hangs = [worker for worker in up if not (serves(worker) or _is_stopped(worker))]
    slots, hung = ({each["slot"] for each in some} for some in (up, hangs))
    are_many = len(hung) >= 2 and 2 * len(hung) >= len(slots)
    return Say.HANG_TOGETHER(n=len(hung), total=len(slots)) if are_many else ""


def _is_stopped(worker: Worker) -> bool:
    """Return whether a hung worker is stopped by a signal, and so waits for no dependency."""
    why = reason_in(worker)
    return isinstance(why, Reason) and key_of(why.fields.get("why")) == Say.STOPPED_BY_SIGNAL.name


def _reloading(watcher: WatcherFacts) -> VerdictEntry | None:
    if (reload := running_reload(watcher)) is None or serving(watcher) < watcher["numprocesses"]:
        return None
    cause = reason_in(reload) or Say.RELOAD_AT(done=reload["done"], total=reload["total"])
    return verdict_entry(Word.DEPLOYING, cause, next=Say.NEXT_RELOADED())


def _degraded(watcher: WatcherFacts) -> VerdictEntry | None:
    troubled = _troubled(watcher)
    if not troubled and serving(watcher) >= watcher["numprocesses"]:
        return None
    port, (next_, next_in) = watcher["port"], _next(watcher, troubled)
    why: str
    if port is not None and port["state"] == "refused":
        why, cure = Say.PORT_OF_IT(port=port["port"], why=reason_in(port)), _cure_of_port(port)
        next_, next_in = Say.NEXT_PORT(), watcher["port_retry_in"]
    elif (poison := watcher["poison"]) is not None and not any(worker["phase"] == "up" for worker in troubled):
        why, cure = reason_in(poison), Say.CURE_POISON(watcher=watcher["name"])
    elif why := _hang_together(watcher):
        cure = Say.CURE_HANG(watcher=watcher["name"])
    else:
        why = _of_worker(troubled[0]) if troubled else Say.NO_WORKER_IN_ITS_PLACE()
        is_short = not troubled or troubled[0]["phase"] != "up"
        if is_short and watcher["last_failure"] and _failures(watcher):
            why = Say.OF_WORKER_AFTER(what=why, why=watcher["last_failure"])
        worst = word_of(troubled[0]) if troubled else ""
        if held := held_by_budget(troubled):
            cure = Say.CURE_HELD(watcher=watcher["name"], slot=held[0]["slot"])
        elif troubled and _refuses_probe(troubled[0]):
            cure = Say.CURE_REFUSED()
        elif worst == Say.FOUND_NOT_READY():
            cure = Say.CURE_NOT_READY()
        elif troubled and _fails_live_path(troubled[0]):
            cure = Say.CURE_DEPENDENCY()
        else:
            cure = (Say.CURE_OVERLOAD if worst == Say.STATE_BUSY() else Say.CURE_LOGS)(watcher=watcher["name"])
    cause = Say.SO_MANY_UP_SAYING(n=serving(watcher), total=watcher["numprocesses"], why=why)
    return verdict_entry(Word.DEGRADED, cause, next=next_, next_in=next_in, cure=cure)


def _refuses_probe(worker: Worker) -> bool:
    """Return whether a worker answers the probe of its ready path, and refuses it: an option is wrong."""
    why = reason_in(worker)
    return isinstance(why, Reason) and key_of(why.fields.get("why")).startswith("PROBE_REFUSED")


def _fails_live_path(worker: Worker) -> bool:
    """Return whether a worker answers, and its live path fails: nothing of it has died that `why` could show."""
    why = reason_in(worker)
    found = why.fields.get("found") if isinstance(why, Reason) else None
    return worker["health"] == "sick" or (isinstance(found, str) and key_of(found) == Say.FOUND_LIVE_FAILED.name)


def _unwritten(watcher: WatcherFacts) -> VerdictEntry | None:
    """Find that the output of workers is lost, though they serve."""
    if (output := watcher["output"]) is None or not output["reason"]:
        return None
    cause = Say.SO_MANY_UP_SAYING(n=serving(watcher), total=watcher["numprocesses"], why=reason_in(output))
    cure = _cure_of_disk(reason_in(output)) or Say.CURE_OUTPUT(file=output["file"])
    return verdict_entry(Word.DEGRADED, cause, next=Say.NEXT_OUTPUT(), cure=cure)


def _cure_of_disk(lost: str) -> str:
    """Return what shows the largest files of the full disk for which output is *lost*; "" for another reason."""
    error = lost.fields.get("error") if isinstance(lost, Reason) else None
    lister = {Say.DISK_FULL.name: "du -xah {} | sort -h", Say.NO_INODES.name: "du -x --inodes {} | sort -n"}
    if not isinstance(error, Reason) or error.key not in lister:
        return ""
    return Say.CURE_DISK(command=lister[error.key].format(quote(str(error.fields["mount"]))) + " | tail")


def _shared(watcher: WatcherFacts) -> VerdictEntry | None:
    """Find that a process which is no worker has the listening socket open too."""
    if (port := watcher["port"]) is None or port["state"] != "bound" or not port["reason"]:
        return None
    cure = (Say.CURE_HANDED if was_handed(reason_in(port)) else Say.CURE_SHARED)()
    cause = Say.SO_MANY_UP_SAYING(n=serving(watcher), total=watcher["numprocesses"], why=reason_in(port))
    return verdict_entry(Word.DEGRADED, cause, next=Say.NEXT_NOTHING(), cure=cure)


def _unprobed(watcher: WatcherFacts) -> VerdictEntry | None:
    up = [worker for worker in watcher["workers"] if is_up(worker)]
    if len(up) < watcher["numprocesses"] or not all(_is_unprobed(watcher, worker) for worker in up):
        return None
    why = next((reason_in(worker) for worker in up if worker["reason"]), "")
    return verdict_entry(Word.UNKNOWN, why or Say.NOBODY_PROBES(), next=Say.NEXT_NOTHING(), cure=Say.CURE_PROBER())


def _failures(watcher: WatcherFacts) -> int:
    used = 0 if watcher["budget"] is None else watcher["budget"]["used"]
    return used if watcher["poison"] is None else max(used, LOOP_FAILURES)  # deaths by poison are not counted there


def _startup_timeout(watcher: WatcherFacts) -> float:
    return float(watcher["options"]["health.startup_timeout"])


def held_by_budget(workers: Iterable[Worker]) -> list[Worker]:
    """Return the workers that the restart budget holds, the one that is tried next first."""
    held = (each for each in workers if each["phase"] == "held" and each["held_by"] not in ("port", "before"))
    return sorted(held, key=_next_try)


def _next_try(worker: Worker) -> float:
    return math.inf if worker["next_try"] is None else float(worker["next_try"])


def _is_unprobed(watcher: WatcherFacts, worker: Worker) -> bool:
    """Return whether a worker has been up for longer than a first probe takes, and was not probed."""
    late = (worker["ready_for"] or 0.0) >= PROBED_WITHIN
    return watcher["probe"] != "none" and is_up(worker) and worker["health"] == "unknown" and late


_BADNESS = {"hung": 0, "sick": 1, "failing": 5, "unknown": 6}


def workers_worst_first(watcher: WatcherEntry) -> list[WorkerEntry]:
    """Return the workers of a watcher, those in trouble first, then by slot."""
    return sorted(watcher["workers"], key=lambda worker: (_badness(watcher, worker), worker["slot"]))


def _troubled(watcher: WatcherFacts) -> list[Worker]:
    """Return the workers that keep the watcher from being ok, the worst first, and the first of the held ones."""
    found = (worker for worker in watcher["workers"] if _badness(watcher, worker) < 9)
    return sorted(found, key=lambda worker: (_badness(watcher, worker), _next_try(worker)))


def _badness(watcher: WatcherFacts, worker: Worker) -> int:
    if worker["role"] == "successor" or worker["phase"] == "leaving":
        return 9
    if worker["phase"] == "held":
        return 2
    if worker["phase"] == "starting":
        return 3
    if worker["health"] in ("hung", "sick", "failing") or _is_unprobed(watcher, worker):
        return _BADNESS[worker["health"]]
    return 4 if worker["ready"] is False else 9


def _of_worker(worker: Worker) -> str:
    """Return what is wrong with a worker.

    >>> _of_worker({"slot": 2, "phase": "up", "role": "serving", "health": "hung", "reason": "hung: no answer"})
    '#2: hung: no answer'
    """
    if worker["reason"]:
        return Say.OF_WORKER_SAYING(slot=worker["slot"], why=reason_in(worker))
    return Say.OF_WORKER(slot=worker["slot"], state=word_of(worker))


def _doing(workers: Iterable[Worker]) -> list[str]:
    """Return what the workers that do not serve are doing, grouped."""
    doing = Counter((word_of(each), "" if each["phase"] == "held" else reason_in(each)) for each in workers)
    return [(Say.DOING_SAYING if why else Say.DOING)(n=n, state=word, why=why) for (word, why), n in doing.items()]


def _next(watcher: WatcherFacts, troubled: Sequence[Worker]) -> tuple[str, float | None]:
    """Return what happens next to the worst of the *troubled* workers, or in place of one, and in how many seconds."""
    if not troubled:
        return Say.NEXT_SPAWNED(), None
    worst = troubled[0]
    if worst["phase"] == "held":
        return Say.NEXT_TRY(slot=worst["slot"]), worst["next_try"]
    if worst["phase"] == "starting" and _failures(watcher):
        return Say.NEXT_LOOPS(slot=worst["slot"]), None  # it will not take as long as it may
    if worst["phase"] == "starting":
        return Say.NEXT_STARTED(slot=worst["slot"]), max(0.0, _startup_timeout(watcher) - (worst["age"] or 0.0))
    if worst["health"] in ("hung", "sick"):
        return Say.NEXT_REPLACED(slot=worst["slot"]), worst["next_try"]
    if worst["health"] == "failing":
        return Say.NEXT_IF_IT_FAILS_ON(slot=worst["slot"]), None
    return Say.NEXT_SERVES_ON(slot=worst["slot"]), None


@dataclass(slots=True)
class IncidentKeeper:
    """Keep since when a watcher has its verdict, and its incident from the first sign of trouble to its end.

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
        """Note the verdict at *now*."""
        if word is not self.word:
            if self.word is None or not (word.is_outage and self.word.is_outage):
                self._changed_at = now
            self.word = word
        if not word.is_trouble:
            self.worst = None
        elif self.worst is None:
            self.worst, self._began_at = word, now
        elif word.rank > self.worst.rank:
            self.worst = word

    def since(self, now: float) -> float:
        """Return the seconds for which the verdict has been the same; of an outage, since nothing serves."""
        return round(now - self._changed_at, 3)

    def view(self, now: float) -> IncidentEntry | None:
        """Return the incident as the state shows it; None without an incident."""
        return None if self.worst is None else {"age": round(now - self._began_at, 3), "worst": self.worst.value}
