"""One watcher that is limited from outside circusd: what is seen of it, and what follows from that. No effects.

*now* is in seconds of one clock, everywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.budget import RestartBudget, RestartLimits
from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.durations import seconds
from xboard_circus.core.names import is_helper
from xboard_circus.core.sentences import Say
from xboard_circus.options.fields import RestartOptions
from xboard_circus.plugins._deaths import DeadProcess, DeathCount

READY_AFTER = 1.0
GRACEFUL_TIMEOUT = 30.0
KILL_SLACK = 10.0
# A watcher is limited as a whole, so it has one slot; the delays between restarts are Circus's own from here.
SLOT = 0
NO_DELAY = 1e-6


@dataclass(frozen=True, slots=True)
class WatcherView:
    """A watcher as circusd tells of it."""

    name: str
    status: str
    numprocesses: int
    pids: tuple[int, ...]
    options: Mapping[str, Any]

    @property
    def is_down(self) -> bool:
        return self.status in ("stopped", "stopping")


class LimitPhase(enum.Enum):
    """What the limiter is at with a watcher."""

    WATCHING = "watching"
    STOPPING = "stopping"
    COOLING = "cooling"
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class News:
    """An event that circusd is to publish."""

    name: str
    event: str
    reason: str
    more: Mapping[str, Any] = field(default_factory=dict)


class Limited:
    """A watcher that is limited.

    Attributes:
        quiet_since: When it last failed, or was first seen.
        until: When it is to be started again, while it isn't watched.
        is_calling: A command of ours is under way: what Circus says now may be its doing.
        may_be_ours: A command of ours was sent, and nobody knows whether it was carried out.
    """

    def __init__(self, view: WatcherView, options: RestartOptions, *, now: float) -> None:
        self.name = view.name
        self.options = options
        self.budget = RestartBudget(limits_of(options, view.numprocesses), slots=1)
        grace = number(view.options.get("graceful_timeout"), GRACEFUL_TIMEOUT)
        self.deaths = DeathCount(kill_seconds=grace + KILL_SLACK)
        self.quiet_since = now
        self.phase = LimitPhase.WATCHING
        self.until = 0.0
        self.is_calling = False
        self.may_be_ours = False

    def take_options(self, options: RestartOptions, numprocesses: int) -> None:
        """Put what the ini says now into force."""
        self.options, self.budget.limits = options, limits_of(options, numprocesses)

    def enter(self, phase: LimitPhase) -> None:
        """Begin a phase; whatever was sent in the last one is done with."""
        self.phase = phase
        self.may_be_ours = False

    def release(self, now: float) -> None:
        """Let an operator have it: what was counted is forgotten."""
        self.budget.clear()
        self.quiet_since = now
        self.enter(LimitPhase.WATCHING)

    def was_stopped_by_another(self) -> bool:
        """Say whether a stop that Circus tells of is neither ours nor of what cools down already."""
        is_ours = self.phase is LimitPhase.STOPPING and (self.is_calling or self.may_be_ours)
        return not is_ours and self.phase is not LimitPhase.COOLING

    def heard(self, kind: str, pid: int, exit_code: int | None, now: float) -> list[News]:
        """Take what Circus says of one of its processes."""
        if kind == "spawn":
            self.deaths.spawned(pid, now=now)
        elif kind == "kill":
            self.deaths.killed(pid, now=now)
        elif kind == "reap":
            ended = self.deaths.reaped(pid, exit_code=exit_code, now=now)
            return [] if ended is None else self.count(ended, now)
        return []

    def seen(self, view: WatcherView, *, asked_at: float, now: float) -> list[News]:
        """Take the list of its processes: it shows the ends that Circus said nothing of."""
        if view.is_down:
            self.deaths.forget()
            return []
        return [news for ended in self.deaths.listed(view.pids, asked_at=asked_at) for news in self.count(ended, now)]

    def count(self, ended: DeadProcess, now: float) -> list[News]:
        """Count an end; where it was one too many, it is to be stopped from here on."""
        if self.phase is not LimitPhase.WATCHING:
            return []
        cause, reason = cause_of(Death(exit_code=ended.exit_code, was_ready=ended.lived > READY_AFTER))
        verdict = self.budget.failed(SLOT, now)
        self.budget.started(SLOT, now)
        self.quiet_since = now
        more = {"pid": ended.pid, "cause": cause.value}
        counted = Say.THEN_COUNTED(
            failures=verdict.failures, burst=self.budget.limits.burst, window=seconds(self.options.window)
        )
        news = [News(self.name, "restart", Say.COUNTED(why=reason, then=counted), more)]
        if verdict.cooling:
            self.until = now + verdict.wait
            self.enter(LimitPhase.STOPPING)
            news.append(News(self.name, "cooldown", Say.COUNTED(why=reason, then=verdict.reason), more))
        return news

    def forgive(self, view: WatcherView, now: float) -> list[News]:
        """Forget the failures of what has held for long enough."""
        was_cooling = self.budget.is_cooling(SLOT, now)
        if view.status == "active" and self.budget.reset_if_held(SLOT, now - self.quiet_since) and was_cooling:
            held = Say.FORGIVEN_FROM_OUTSIDE(held=seconds(self.options.reset_after))
            return [News(self.name, "recovered", held)]
        return []

    def started(self, now: float) -> None:
        """Watch it again after its cooldown: the next failure stops it again, until it has held."""
        self.quiet_since = now
        self.budget.started(SLOT, now)
        self.enter(LimitPhase.WATCHING)


def is_limited(name: str, options: Mapping[str, Any]) -> bool:
    """Say whether a watcher is to be limited from outside: its section asks for it."""
    return not is_helper(name) and any(key.startswith("restart.") for key in options)


def limits_of(options: RestartOptions, numprocesses: int) -> RestartLimits:
    """Return the limits of a whole watcher."""
    return RestartLimits(
        burst=max(options.burst, 2 * numprocesses),
        window=options.window,
        delay=NO_DELAY,
        delay_max=NO_DELAY,
        cooldown=options.cooldown,
        reset_after=options.reset_after,
    )


def number(value: object, default: float) -> float:
    """Return an option of Circus's as a number.

    >>> number("5", 30.0), number(None, 30.0)
    (5.0, 30.0)
    """
    try:
        return float(str(value))
    except ValueError:
        return default
