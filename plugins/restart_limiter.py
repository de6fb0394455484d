"""Limit the restarts of watchers that carry no hook of ours: stop, wait, start.

Armed watchers have a better limiter inside circusd, which holds back one worker and leaves its siblings alone. From
outside only a whole watcher can be stopped, and one restart too late. A watcher is limited from here when its section
has a ``restart.*`` option. An operator's ``stop`` while it cools down cannot be seen from outside (Circus says nothing
when it stops what is stopped), so the watcher is started all the same; ``start`` and then ``stop`` it, or arm it.
``[plugin:limiter] use = xboard_circus.plugins.restart_limiter.RestartLimiter`` runs it alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.names import CIRCUSD, bus_name, stops_for_good
from xboard_circus.core.sentences import Say
from xboard_circus.host import procs
from xboard_circus.options.fields import RestartOptions
from xboard_circus.options.reading import parse_watcher
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin
from xboard_circus.plugins._cooling_file import CoolingFile
from xboard_circus.plugins._limited import Limited, LimitPhase, News, WatcherView, is_limited, number
from xboard_circus.plugins._log import Sparingly

log = logging.getLogger("xboard_circus.plugins.restart_limiter")

PERIOD = 1.0
IDLE_PERIOD = 60.0
NEW_WITHIN = 0.5
CALL_SECONDS = 1.0
OPTIONS_EVERY = 60.0
NEWS = 200
BY = Say.BY_LIMITER()


@dataclass(slots=True)
class _Options:
    """Options of a watcher, read when *read_at*."""

    values: Mapping[str, Any]
    read_at: float


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
        self._limited: dict[str, Limited] = {}
        self._options: dict[str, _Options] = {}
        self._passed_over: set[str] = set()
        self._remembered = memory.load()
        self._news: deque[News] = deque(maxlen=NEWS)
        self._said = Sparingly(clock=clock)

    async def close(self) -> None:
        """Leave everything as it is: what cools down is on record for our successor."""

    # What circusd publishes

    def handle_event(self, event: BusEvent) -> float | None:
        """Count deaths, and learn what the operator does. An event of somebody new calls for a look at who that is."""
        limited = next((one for one in self._limited.values() if bus_name(one.name) == event.watcher), None)
        if event.kind == "updated":
            self._options.clear()
        if event.kind == "command":
            self._learn(limited, event)
            return None
        if limited is None:
            return None if event.watcher in self._passed_over and event.kind != "updated" else NEW_WITHIN
        pid, code = event.data.get("process_pid"), event.data.get("exit_code")
        if event.kind == "stop":
            limited.deaths.forget()
            if limited.was_stopped_by_another():
                self._release(limited, "stopped by somebody else")
        elif event.kind == "start":
            if limited.phase is LimitPhase.COOLING:
                self._release(limited, "started by somebody else")
        elif isinstance(pid, int):
            self._tell(limited.heard(event.kind, pid, code if isinstance(code, int) else None, self._clock()))
        return None

    def _learn(self, limited: Limited | None, event: BusEvent) -> None:
        """Leave alone what somebody stops in its cooldown: Circus, for which it is stopped already, says nothing."""
        if stops_for_good(event.data):
            chosen = list(self._limited.values()) if event.watcher == CIRCUSD else [limited] if limited else []
            for each in chosen:
                if each.phase is LimitPhase.COOLING:
                    self._release(each, "stopped by somebody else")

    def _release(self, limited: Limited, why: str) -> None:
        if limited.phase is not LimitPhase.WATCHING:
            log.info("%s: %s, so it is not for us to start it any more", limited.name, why)
        limited.release(self._clock())
        self._save()

    def _enter(self, limited: Limited, phase: LimitPhase) -> None:
        limited.enter(phase)
        self._save()

    def _save(self) -> None:
        """Keep who is stopped, before the stop: whose it was must be known even if this process ends with it."""
        stopped = {one.name: one.until for one in self._limited.values() if one.phase is not LimitPhase.WATCHING}
        if stopped != self._remembered:
            self._remembered = stopped
            self._memory.save(stopped)

    def _tell(self, news: Sequence[News]) -> None:
        self._save()
        for each in news:
            log.warning("%s: %s: %s", each.name, each.event, each.reason)
        self._news.extend(news)

    # What circusd answers

    async def tick(self) -> float:
        """Look at every limited watcher, do what is due, and publish the news."""
        asked_at = self._clock()
        views = await self._views()
        self._meet(views)
        for limited in list(self._limited.values()):
            view = views[limited.name]
            self._tell(limited.seen(view, asked_at=asked_at, now=self._clock()))
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
            limited = self._limited.get(name)
            if limited is None:
                limited = self._limited[name] = self._new(view, options.restart)
            limited.take_options(options.restart, view.numprocesses)
        self._save()

    def _new(self, view: WatcherView, options: RestartOptions) -> Limited:
        limited = Limited(view, options, now=self._clock())
        if view.name in self._remembered:
            log.info("%s: was stopped by this plugin before it was restarted itself", view.name)
            limited.phase, limited.until = LimitPhase.COOLING, self._remembered[view.name]
        return limited

    async def _step(self, limited: Limited, view: WatcherView) -> None:
        now = self._clock()
        if limited.phase is LimitPhase.WATCHING:
            self._tell(limited.forgive(view, now))
        elif limited.phase is LimitPhase.STOPPING:
            await self._stop(limited, view)
        elif view.status == "active":
            self._release(limited, "started by somebody else")
        elif view.status == "stopped" and now >= limited.until:
            await self._start(limited)

    async def _stop(self, limited: Limited, view: WatcherView) -> None:
        if view.is_down:
            if limited.may_be_ours:
                self._enter(limited, LimitPhase.COOLING)
            else:
                self._release(limited, "stopped by somebody else")
        elif await self._call(limited, "stop") and limited.phase is LimitPhase.STOPPING:
            self._enter(limited, LimitPhase.COOLING)

    async def _start(self, limited: Limited) -> None:
        self._enter(limited, LimitPhase.STARTING)
        if await self._call(limited, "start") and limited.phase is LimitPhase.STARTING:
            log.info("%s: started again after its cooldown", limited.name)
            limited.started(self._clock())
            self._save()

    async def _call(self, limited: Limited, command: str) -> bool:
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

    async def _publish(self, news: News) -> None:
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
        self._passed_over = {bus_name(str(view["name"])) for view in state["watchers"]}
        return {
            str(view["name"]): WatcherView(
                name=str(view["name"]),
                status=str(view["status"]),
                numprocesses=int(view.get("numprocesses") or 1),
                pids=tuple(int(worker["pid"]) for worker in view["workers"]),
                options=view["options"],
            )
            for view in state["watchers"]
            if not view["armed"] and is_limited(str(view["name"]), view.get("options") or {})
        }

    async def _views_of_circus(self) -> dict[str, WatcherView]:
        statuses = (await self._commands.call("status"))["statuses"]
        self._passed_over = {bus_name(name) for name in statuses}
        views = {}
        for name, status in statuses.items():
            options = await self._options_of(name)
            if is_limited(name, options):
                pids = (await self._commands.call("list", name=name))["pids"]
                count = int(number(options.get("numprocesses"), 1))
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
