"""Decide whether a lost circusd had a stop request, and why it ended. No effects.

No process is left that saw the end: circusd's plugins are its children, and the next circusd may start hours later. So
each circusd records its identity and a heartbeat; what it did not record is the finding.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import lasted
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say

GRACEFUL_TIMEOUT = 30.0
"""Circus's default."""
LOST, BACK, HOST_RESTARTED = "circusd_lost", "circusd_back", "host_restarted"
"""Kinds of event: circusd was lost, is back after a loss that was reported at once, or the host was restarted."""


class CircusdLife(NamedTuple):
    """Record of one circusd's life, written by itself and by its plugin.

    Attributes:
        boot: Which start of the host it ran in; "" if unknown.
        seen: When it was last known to be alive, by the wall clock.
        kills: How many processes the kernel had killed for lack of memory by then, for each file that counts them; the
            host's own count comes last.
        is_ordered: It got a stop request: a command, a signal, a stop by our command line.
        wound_up: Its Python exited by itself; after a SIGKILL it cannot.
        why: Why the monitor killed it; "" where it did not.
        next_ended: Exit code of the circusd that was to follow it in a restart, and ended before it answered.
        stopped: The watchers that an operator had stopped, where it left and its workers kept serving.
        workers: By watcher, the tokens of its workers, also of those that an earlier circusd left; each with the pid
            and start time of the process and its user, without that, or "", in the record of an older release.
        graces: By watcher, its `graceful_timeout`.
        gone_at: When its own plugin saw it gone, by the wall clock, and began to report that.
        witness: Identity of that plugin until it has reported; "" after that.
    """

    pid: int
    started: int
    boot: str = ""
    seen: float = 0.0
    kills: Mapping[str, int] = {}
    is_ordered: bool = False
    wound_up: bool = False
    why: str = ""
    next_ended: int | None = None
    stopped: Sequence[str] = ()
    workers: Mapping[str, Mapping[str, str]] = {}
    graces: Mapping[str, float] = {}
    gone_at: float | None = None
    witness: str = ""

    @property
    def ended_at(self) -> float:
        """Return the best known time of its end."""
        return self.seen if self.gone_at is None else self.gone_at


def grace_of(watcher: str | None, graces: Mapping[str, float], *, least: float) -> float:
    """Return how long a process of *watcher* that an earlier circusd left may take to end, if none takes its place.

    A worker has requests in flight: it gets the `graceful_timeout` that its circusd had in *graces*, Circus's default
    where that is unknown. A plugin, of no watcher, gets the *least*.

    >>> grace_of("api", {"api": 40.0}, least=2.0), grace_of("web", {}, least=2.0), grace_of(None, {}, least=2.0)
    (40.0, 30.0, 2.0)
    """
    return least if watcher is None else max(least, graces.get(watcher, GRACEFUL_TIMEOUT))


class Loss(NamedTuple):
    """Event of a circusd that ended without a stop request.

    Attributes:
        kind: `LOST`, `BACK` or `HOST_RESTARTED`.
        at: When it was seen gone, or last seen, by the wall clock.
        cause: None if unknown.
        gap: Seconds until the next one had started; None before that.
        successor: Pid of that one.
    """

    kind: str
    pid: int
    started: int
    at: float
    reason: str
    cause: str | None = None
    gap: float | None = None
    successor: int | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the data of its event."""
        more = {} if self.successor is None else {"successor": self.successor, "gap": self.gap}
        identity = {"pid": self.pid, "started": self.started, "gone_at": self.at}
        return {**identity, "cause": self.cause, **with_say(self.reason), **more}


def witnessed(life: CircusdLife, *, kills: Mapping[str, int], now: float) -> Loss | None:
    """Return the loss that a plugin reports when its circusd is gone; None after a stop request.

    >>> loss = witnessed(CircusdLife(pid=7, started=1), kills={}, now=5.0)
    >>> loss.kind, loss.as_data()["say"]["key"]
    ('circusd_lost', 'UNATTENDED')
    """
    if life.is_ordered:
        return None
    cause, ended = _ended(life, kills)
    return Loss(LOST, life.pid, life.started, now, Say.UNATTENDED(why=ended), cause)


def found(
    life: CircusdLife, *, boot: str, kills: Mapping[str, int], successor: int, now: float, is_reported: bool
) -> Loss | None:
    """Return the loss that the next circusd reports of *life*, which has ended; None after a stop request.

    Where a plugin has reported the loss already (*is_reported*), only the return is left to report.

    A count of kills begins anew with another host or control group, and proves nothing then.

    >>> life = CircusdLife(pid=7, started=1, is_ordered=True)
    >>> found(life, boot="", kills={}, successor=9, now=5.0, is_reported=False) is None
    True
    """
    if life.is_ordered:
        return None
    at = life.ended_at
    gap = max(0.0, now - at)
    then = Say.THEN_AGAIN_AFTER_SEEN(pid=successor, after=lasted(gap))
    kind, (cause, ended) = LOST, _ended(life, kills)
    if boot and life.boot and boot != life.boot:
        kind, cause, ended = HOST_RESTARTED, None, Say.HOST_RESTARTED(pid=life.pid)
    reason = Say.COUNTED(why=ended, then=then)
    if kind == LOST and is_reported:
        kind = BACK
        reason = Say.CIRCUSD_BACK(then=Say.THEN_AGAIN_AFTER_LOST(pid=successor, after=lasted(gap)), why=ended)
    return Loss(kind, life.pid, life.started, at, reason, cause, gap, successor)


def _ended(life: CircusdLife, kills: Mapping[str, int]) -> tuple[str | None, str]:
    if life.next_ended is not None:
        return Cause.CRASH.value, Say.CIRCUSD_NOT_FOLLOWED(pid=life.pid, code=life.next_ended)
    if life.why:
        return Cause.UNHEALTHY.value, Say.CIRCUSD_ENDED(pid=life.pid, why=life.why)
    if life.wound_up:
        return Cause.CRASH.value, Say.CIRCUSD_WOUND_UP(pid=life.pid)
    if killer := _killer(life.kills, kills):
        return Cause.OUT_OF_MEMORY.value, Say.CIRCUSD_OOM_KILLED(pid=life.pid, why=killer)
    return None, Say.CIRCUSD_KILLED(pid=life.pid)


def _killer(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Return what killed it, by the count of OOM kills that rose; "" where none did.

    A control group counts its own kills, so its count overrules the host's. A count that fell belongs to another group
    of the same name.
    """
    files = [path for path in before if now.get(path, -1) >= before[path]]
    for path in files:
        if now[path] > before[path]:
            return Say.OOM_OF_HOST() if path == list(before)[-1] else Say.OOM_OF_CGROUP()
        if path != list(before)[-1]:
            return ""
    return ""
