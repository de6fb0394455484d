"""Decide when to stop and start a watcher that is limited from outside circusd. No effects.

*now* is in seconds of one clock, everywhere.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.durations import seconds
from xboard_circus.core.names import is_helper
from xboard_circus.core.restart_limits import RestartBudget, RestartLimits
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.options.fields import RestartOptions

READY_AFTER = 1.0
GRACEFUL_TIMEOUT = 30.0
KILL_SLACK = 10.0
# A watcher is limited as a whole, so it has one slot; Circus itself restarts without a delay.
SLOT = 0
NO_DELAY = 1e-6
REMEMBERED = 60.0


class DeadProcess(NamedTuple):
    """A process that ended without a command; *exit_code* is None where it is unknown."""

    pid: int
    exit_code: int | None
    lived: float


@dataclass(slots=True)
class _Process:
    seen_at: float
    killed_at: float | None = None
    is_missing: bool = False


class DeathCount:
    """Follow each process of one watcher from its spawn until its end is counted, once.

    Circus publishes a ``reap`` for most of them and forgets it for up to a third; those are the pids that are no longer
    listed. Both are needed: a list alone misses a process that started and died between two queries.

    The end of a process that Circus signalled (``kill``) within *kill_seconds* before was commanded. *now* is in
    seconds of one clock.

    >>> deaths = DeathCount(kill_seconds=40)
    >>> deaths.spawned(71, now=0)
    >>> deaths.reaped(71, exit_code=-9, now=2)
    DeadProcess(pid=71, exit_code=-9, lived=2)
    >>> deaths.listed([], queried_at=3)
    []
    """

    def __init__(self, *, kill_seconds: float) -> None:
        self.kill_seconds = kill_seconds
        self._processes: dict[int, _Process] = {}
        self._settled_at: dict[int, float] = {}

    def spawned(self, pid: int, *, now: float) -> None:
        """Note a new process; its pid may have been used before."""
        self._processes[pid] = _Process(now)
        self._settled_at.pop(pid, None)

    def killed(self, pid: int, *, now: float) -> None:
        """Note that Circus signalled a process; it may be an unknown one, or a child of one."""
        self._processes.setdefault(pid, _Process(now)).killed_at = now

    def reaped(self, pid: int, *, exit_code: int | None, now: float) -> DeadProcess | None:
        """Note the end of a process; return it, unless it was commanded or counted before."""
        if pid in self._settled_at:
            return None
        process = self._processes.pop(pid, None) or _Process(now)
        return self._ended(pid, process, exit_code, now)

    def listed(self, pids: Iterable[int], *, queried_at: float) -> list[DeadProcess]:
        """Compare with the pids that circusd listed at *queried_at*; return the processes that ended without a
        ``reap``.

        A pid has to be missing twice: its ``reap`` may arrive after the list.
        """
        present = set(pids)
        ended = []
        for pid, process in list(self._processes.items()):
            if pid in present or process.seen_at >= queried_at:
                process.is_missing = False
            elif not process.is_missing:
                process.is_missing = True
            else:
                del self._processes[pid]
                found = self._ended(pid, process, None, queried_at)
                ended += [found] if found else []
        for pid in present - self._processes.keys():
            # A process counted after the list was made has ended since.
            if self._settled_at.get(pid, float("-inf")) < queried_at:
                self.spawned(pid, now=queried_at)
        self._settled_at = {pid: at for pid, at in self._settled_at.items() if queried_at - at < REMEMBERED}
        return ended

    def forget(self) -> None:
        """Forget all processes: the watcher was stopped, so their ends are commanded."""
        self._processes.clear()

    def _ended(self, pid: int, process: _Process, exit_code: int | None, now: float) -> DeadProcess | None:
        self._settled_at[pid] = now
        if process.killed_at is not None and now - process.killed_at <= self.kill_seconds:
            return None
        return DeadProcess(pid, exit_code, max(0.0, now - process.seen_at))


class LimitPhase(enum.Enum):
    """Phases of a limited watcher."""

    WATCHING = "watching"
    STOPPING = "stopping"
    COOLING = "cooling"


class News(NamedTuple):
    """An event for circusd to publish."""

    name: str
    event: str
    reason: str
    more: Mapping[str, Any] = {}


class Limited:
    """A watcher that is limited.

    Attributes:
        quiet_since: When it last failed, or was first seen.
        until: When it starts again, while it is not watched.
        is_sent: The stop or start of this phase was sent and not refused, so Circus's reports may be its effect.
    """

    def __init__(self, view: WatcherEntry, options: RestartOptions, *, now: float) -> None:
        self.name = view["name"]
        self.budget = RestartBudget(limits_of(options, view["numprocesses"]), slots=1)
        grace = number(view["options"].get("graceful_timeout"), GRACEFUL_TIMEOUT)
        self.deaths = DeathCount(kill_seconds=grace + KILL_SLACK)
        self.quiet_since = now
        self.phase = LimitPhase.WATCHING
        self.until = 0.0
        self.is_sent = False

    def enter(self, phase: LimitPhase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.is_sent = False

    def watch(self, now: float) -> None:
        """Watch it again after its cooldown: the next failure stops it again, until it has held."""
        self.quiet_since = now
        self.budget.started(SLOT, now)
        self.enter(LimitPhase.WATCHING)

    def release(self, now: float) -> None:
        """Watch it with a clean count, because an operator has stopped or started it."""
        self.budget.clear()
        self.quiet_since = now
        self.enter(LimitPhase.WATCHING)

    def is_stop_of_another(self) -> bool:
        """Return whether a stop in Circus's report is not the effect of a stop from here."""
        return self.phase is LimitPhase.WATCHING or self.is_sent != (self.phase is LimitPhase.STOPPING)

    def note(self, kind: str, pid: int, exit_code: int | None, now: float) -> list[News]:
        """Note an event of Circus about one of its processes."""
        if kind == "spawn":
            self.deaths.spawned(pid, now=now)
        elif kind == "kill":
            self.deaths.killed(pid, now=now)
        elif kind == "reap" and (ended := self.deaths.reaped(pid, exit_code=exit_code, now=now)) is not None:
            return self.count(ended, now)
        return []

    def seen(self, view: WatcherEntry, *, queried_at: float, now: float) -> list[News]:
        """Note the list of its processes, which shows the ends that Circus did not report."""
        if view["status"] in ("stopped", "stopping"):
            self.deaths.forget()
            return []
        pids = [worker["pid"] for worker in view["workers"]]
        return [news for ended in self.deaths.listed(pids, queried_at=queried_at) for news in self.count(ended, now)]

    def count(self, ended: DeadProcess, now: float) -> list[News]:
        """Count an end; if the budget is used up, the watcher will be stopped."""
        if self.phase is not LimitPhase.WATCHING:
            return []
        cause, reason = cause_of(Death(exit_code=ended.exit_code, was_up=ended.lived > READY_AFTER))
        decision, limits = self.budget.failed(SLOT, now), self.budget.limits
        self.budget.started(SLOT, now)
        self.quiet_since = now
        more = {"pid": ended.pid, "cause": cause.value}
        counted = Say.THEN_COUNTED(failures=decision.failures, burst=limits.burst, window=seconds(limits.window))
        news = [News(self.name, "restart", Say.COUNTED(why=reason, then=counted), more)]
        if decision.cooling:
            self.until = now + decision.wait
            self.enter(LimitPhase.STOPPING)
            news.append(News(self.name, "cooldown", Say.COUNTED(why=reason, then=decision.reason), more))
        return news

    def forgive(self, view: WatcherEntry, now: float) -> list[News]:
        """Reset the budget after `restart.reset_after` without a failure."""
        was_cooling = self.budget.is_cooling(SLOT, now)
        if view["status"] == "active" and self.budget.reset_if_stable(SLOT, now - self.quiet_since) and was_cooling:
            held = Say.FORGIVEN_FROM_OUTSIDE(held=seconds(self.budget.limits.reset_after))
            return [News(self.name, "recovered", held)]
        return []


def is_limited(view: WatcherEntry) -> bool:
    """Return whether a watcher is limited from outside: it is not armed, and its section has a `restart.*` option."""
    has_option = any(key.startswith("restart.") for key in view["options"])
    return has_option and not view["armed"] and not is_helper(view["name"])


def limits_of(options: RestartOptions, numprocesses: int) -> RestartLimits:
    """Return the limits of a whole watcher."""
    given = {**options._asdict(), "burst": max(options.burst, 2 * numprocesses)}
    return RestartLimits(**given | {"delay": NO_DELAY, "delay_max": NO_DELAY})


def number(value: object, default: float) -> float:
    """Return an option of Circus as a number.

    >>> number("5", 30.0), number(None, 30.0)
    (5.0, 30.0)
    """
    try:
        return float(str(value))
    except ValueError:
        return default
