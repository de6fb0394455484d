"""Limit the restarts of watchers that carry no hook of ours: stop, wait, start.

Armed watchers have a better limiter inside circusd, which holds back one worker and leaves its siblings alone. From
outside only a whole watcher can be stopped, and one restart too late. A watcher is limited from here when its section
has a ``restart.*`` option. An operator's ``stop`` while it cools down cannot be seen from outside (Circus says nothing
when it stops what is stopped), so the watcher is started all the same; ``start`` and then ``stop`` it, or arm it.
``[plugin:limiter] use = xboard_circus.plugins.restart_limiter.RestartLimiter`` runs it alone.
"""

from __future__ import annotations

import enum
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.budget import RestartBudget, RestartLimits
from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.reasons import seconds
from xboard_circus.host import procs
from xboard_circus.options.reading import RestartOptions, parse_watcher
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, bus_name
from xboard_circus.plugins._cooling_file import CoolingFile
from xboard_circus.plugins._deaths import DeathCount, Ended
from xboard_circus.plugins._log import Sparingly

log = logging.getLogger("xboard_circus.plugins.restart_limiter")

PERIOD = 1.0
IDLE_PERIOD = 5.0
CALL_SECONDS = 1.0
OPTIONS_EVERY = 60.0
READY_AFTER = 1.0
GRACEFUL_TIMEOUT = 30.0
KILL_SLACK = 10.0
NEWS = 200
# A watcher is limited as a whole, so it has one slot; the delays between restarts are Circus's own from here.
SLOT = 0
BY = "the restart limiter"
NO_DELAY = 1e-6


@dataclass(frozen=True, slots=True)
class WatcherView:
    """A watcher as circusd tells of it."""

    name: str
    status: str
    numprocesses: int
    pids: tuple[int, ...]
    options: Mapping[str, Any]


class Phase(enum.Enum):
    """What the limiter is at with a watcher."""

    WATCHING = "watching"
    STOPPING = "stopping"
    COOLING = "cooling"
    STARTING = "starting"


@dataclass(slots=True)
class _Limited:
    """A watcher that is limited.

    Attributes:
        quiet_since: When it last failed, or was first seen.
        until: When it is to be started again, while it isn't watched.
        is_calling: A command of ours is under way: what Circus says now may be its doing.
        may_be_ours: A command of ours was sent, and nobody knows whether it was carried out.
    """

    name: str
    options: RestartOptions
    budget: RestartBudget
    deaths: DeathCount
    quiet_since: float
    phase: Phase = Phase.WATCHING
    until: float = 0.0
    is_calling: bool = False
    may_be_ours: bool = False


@dataclass(slots=True)
class _Options:
    """Options of a watcher, read when *read_at*."""

    values: Mapping[str, Any]
    read_at: float


@dataclass(frozen=True, slots=True)
class _News:
    """An event that circusd is to publish."""

    name: str
    event: str
    reason: str
    more: Mapping[str, Any] = field(default_factory=dict)


class Limiter:
    """Stops a watcher that has failed too often, and starts it again after its cooldown.

    Then it is half open: the next failure stops it again, until it has run for ``restart.reset_after`` without one.
    """

    name = "restart_limiter"
    period = PERIOD

    def __init__(self, commands: Commands, *, memory: CoolingFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._commands = commands
        self._memory = memory
        self._clock = clock
        self._limited: dict[str, _Limited] = {}
        self._options: dict[str, _Options] = {}
        self._remembered = memory.load()
        self._news: deque[_News] = deque(maxlen=NEWS)
        self._said = Sparingly(clock=clock)

    async def close(self) -> None:
        """Leave everything as it is: what cools down is on record for our successor."""

    # What circusd publishes

    def handle_event(self, event: BusEvent) -> None:
        """Count deaths, and learn what the operator does."""
        limited = next((one for one in self._limited.values() if bus_name(one.name) == event.watcher), None)
        if event.kind == "updated":
            self._options.clear()
        if limited is None:
            return
        now, pid = self._clock(), event.data.get("process_pid")
        if event.kind == "stop":
            self._heard_stop(limited)
        elif event.kind == "start":
            self._heard_start(limited)
        elif not isinstance(pid, int):
            return
        elif event.kind == "spawn":
            limited.deaths.spawned(pid, now=now)
        elif event.kind == "kill":
            limited.deaths.killed(pid, now=now)
        elif event.kind == "reap":
            code = event.data.get("exit_code")
            self._count(limited, limited.deaths.reaped(pid, exit_code=code if isinstance(code, int) else None, now=now))

    def _heard_stop(self, limited: _Limited) -> None:
        limited.deaths.forget()
        is_ours = limited.phase is Phase.STOPPING and (limited.is_calling or limited.may_be_ours)
        if not is_ours and limited.phase is not Phase.COOLING:
            self._release(limited, "stopped by somebody else")

    def _heard_start(self, limited: _Limited) -> None:
        if limited.phase is Phase.COOLING:
            self._release(limited, "started by somebody else")

    def _release(self, limited: _Limited, why: str) -> None:
        """Let an operator have it: what was counted is forgotten."""
        if limited.phase is not Phase.WATCHING:
            log.info("%s: %s, so it is not for us to start it any more", limited.name, why)
        limited.budget.clear()
        limited.quiet_since = self._clock()
        self._enter(limited, Phase.WATCHING)

    def _enter(self, limited: _Limited, phase: Phase) -> None:
        limited.phase = phase
        limited.may_be_ours = False
        self._save()

    def _save(self) -> None:
        stopped = {one.name: one.until for one in self._limited.values() if one.phase is not Phase.WATCHING}
        if stopped != self._remembered:
            self._remembered = stopped
            self._memory.save(stopped)

    def _count(self, limited: _Limited, ended: Ended | None) -> None:
        if ended is None or limited.phase is not Phase.WATCHING:
            return
        now, options = self._clock(), limited.options
        cause, reason = cause_of(Death(exit_code=ended.exit_code, was_ready=ended.lived > READY_AFTER))
        verdict = limited.budget.failed(SLOT, now)
        limited.budget.started(SLOT, now)
        limited.quiet_since = now
        more = {"pid": ended.pid, "cause": cause.value}
        counted = f"{verdict.failures} of {limited.budget.limits.burst} failures in {seconds(options.window)}"
        self._tell(_News(limited.name, "restart", f"{reason}; {counted}", more))
        if verdict.cooling:
            limited.until = now + verdict.wait
            # Saved before the stop: it must be known whose stop that was even if this process ends with it.
            self._enter(limited, Phase.STOPPING)
            self._tell(_News(limited.name, "cooldown", f"{reason}; {verdict.reason}", more))

    def _tell(self, news: _News) -> None:
        log.warning("%s: %s: %s", news.name, news.event, news.reason)
        self._news.append(news)

    # What circusd answers

    async def tick(self) -> float:
        """Look at every limited watcher, do what is due, and publish the news."""
        asked_at = self._clock()
        views = await self._views()
        self._meet(views)
        for limited in list(self._limited.values()):
            view = views[limited.name]
            if view.status in ("stopped", "stopping"):
                limited.deaths.forget()
            else:
                for ended in limited.deaths.listed(view.pids, asked_at=asked_at):
                    self._count(limited, ended)
            await self._step(limited, view)
        while self._news:
            await self._publish(self._news[0])
            self._news.popleft()
        return PERIOD if self._limited else IDLE_PERIOD

    def _meet(self, views: Mapping[str, WatcherView]) -> None:
        for name in self._limited.keys() - views.keys():
            del self._limited[name]
        for name, view in views.items():
            options, problems = parse_watcher(view.options)
            for problem in problems:
                if self._said.may_say((name, str(problem))):
                    log.warning("%s: option ignored, its default counts: %s", name, problem)
            limits = _limits(options.restart, view.numprocesses)
            limited = self._limited.get(name)
            if limited is None:
                limited = self._limited[name] = self._new(view, options.restart, limits)
            limited.options, limited.budget.limits = options.restart, limits
        self._save()

    def _new(self, view: WatcherView, options: RestartOptions, limits: RestartLimits) -> _Limited:
        limited = _Limited(
            view.name,
            options,
            RestartBudget(limits, slots=1),
            DeathCount(kill_seconds=_number(view.options.get("graceful_timeout"), GRACEFUL_TIMEOUT) + KILL_SLACK),
            quiet_since=self._clock(),
        )
        if view.name in self._remembered:
            log.info("%s: was stopped by this plugin before it was restarted itself", view.name)
            limited.phase, limited.until = Phase.COOLING, self._remembered[view.name]
        return limited

    async def _step(self, limited: _Limited, view: WatcherView) -> None:
        now = self._clock()
        if limited.phase is Phase.WATCHING:
            self._forgive(limited, view, now)
        elif limited.phase is Phase.STOPPING:
            await self._stop(limited, view)
        elif view.status == "active":
            self._release(limited, "started by somebody else")
        elif view.status == "stopped" and now >= limited.until:
            await self._start(limited)

    def _forgive(self, limited: _Limited, view: WatcherView, now: float) -> None:
        was_cooling = limited.budget.is_cooling(SLOT, now)
        if view.status == "active" and limited.budget.reset_if_held(SLOT, now - limited.quiet_since) and was_cooling:
            held = f"ran for {seconds(limited.options.reset_after)} without a failure: its restarts are forgotten"
            self._tell(_News(limited.name, "recovered", held))

    async def _stop(self, limited: _Limited, view: WatcherView) -> None:
        if view.status in ("stopped", "stopping"):
            if limited.may_be_ours:
                self._enter(limited, Phase.COOLING)
            else:
                self._release(limited, "stopped by somebody else")
        elif await self._call(limited, "stop") and limited.phase is Phase.STOPPING:
            self._enter(limited, Phase.COOLING)

    async def _start(self, limited: _Limited) -> None:
        self._enter(limited, Phase.STARTING)
        if await self._call(limited, "start") and limited.phase is Phase.STARTING:
            log.info("%s: started again after its cooldown", limited.name)
            limited.quiet_since = self._clock()
            limited.budget.started(SLOT, limited.quiet_since)
            self._enter(limited, Phase.WATCHING)

    async def _call(self, limited: _Limited, command: str) -> bool:
        """Send a command and return whether it was taken; if Circus is busy, the next tick tries again."""
        limited.is_calling = True
        try:
            # Without "simple" a name is a pattern, and one watcher's stop may be another's too.
            await self._commands.call(command, deadline=CALL_SECONDS, name=limited.name, match="simple", by=BY)
        except CommandRefused as refusal:
            log.info("%s: %s; tried again", limited.name, refusal)
            return False
        except CircusdGone:
            limited.may_be_ours = True
            raise
        finally:
            limited.is_calling = False
        return True

    async def _publish(self, news: _News) -> None:
        try:
            await self._commands.call("xboard_event", name=news.name, event=news.event, reason=news.reason, **news.more)
        except CommandRefused as refusal:
            if self._said.may_say("xboard_event"):
                log.warning("events stay in this log: %s", refusal)

    # Who is limited

    async def _views(self) -> dict[str, WatcherView]:
        """Return the watchers that are to be limited from here."""
        try:
            state = await self._commands.call("xboard_state")
        except CommandRefused:
            # No watcher is armed, so circusd has only Circus's own commands.
            return await self._views_of_circus()
        return {
            str(view["name"]): WatcherView(
                name=str(view["name"]),
                status=str(view["status"]),
                numprocesses=int(view.get("numprocesses") or 1),
                pids=tuple(int(worker["pid"]) for worker in view["workers"]),
                options=view["options"],
            )
            for view in state["watchers"]
            if not view["armed"] and _is_limited(str(view["name"]), view.get("options") or {})
        }

    async def _views_of_circus(self) -> dict[str, WatcherView]:
        statuses = (await self._commands.call("status"))["statuses"]
        views = {}
        for name, status in statuses.items():
            options = await self._options_of(name)
            if _is_limited(name, options):
                pids = (await self._commands.call("list", name=name))["pids"]
                count = int(_number(options.get("numprocesses"), 1))
                views[name] = WatcherView(name, status, count, tuple(pids), options)
        self._options = {name: options for name, options in self._options.items() if name in statuses}
        return views

    async def _options_of(self, name: str) -> Mapping[str, Any]:
        now = self._clock()
        known = self._options.get(name)
        if known is None or now - known.read_at > OPTIONS_EVERY:
            reply = await self._commands.call("options", name=name)
            known = self._options[name] = _Options(reply["options"], now)
        return known.values


class RestartLimiter(XboardPlugin):
    """The limiter alone in a process."""

    name = "restart_limiter"

    def parts(self) -> list[Part]:
        """Return the limiter."""
        return [limiter_of(self)]


def limiter_of(plugin: XboardPlugin) -> Limiter:
    """Return a limiter that keeps its memory beside the log of *plugin*."""
    circusd = procs.Identity.of(os.getppid()) or procs.Identity(os.getppid(), 0)
    folder = plugin.path(plugin.options.log_dir)
    return Limiter(plugin.commands, memory=CoolingFile(folder / "restart-limiter.json", circusd=str(circusd)))


def _is_limited(name: str, options: Mapping[str, Any]) -> bool:
    return not name.startswith("plugin:") and any(key.startswith("restart.") for key in options)


def _limits(options: RestartOptions, numprocesses: int) -> RestartLimits:
    return RestartLimits(
        burst=max(options.burst, 2 * numprocesses),
        window=options.window,
        delay=NO_DELAY,
        delay_max=NO_DELAY,
        cooldown=options.cooldown,
        reset_after=options.reset_after,
    )


def _number(value: object, default: float) -> float:
    try:
        return float(str(value))
    except ValueError:
        return default
