"""Limit the restarts of watchers without a hook of ours: stop, wait, start.

Armed watchers have a better limiter inside circusd, which holds one worker and leaves its siblings alone. From outside
only a whole watcher can be stopped, and one restart too late. A watcher is limited from here when its section has a
``restart.*`` option. While it cools down, Circus does not report an operator's ``stop``, because it is stopped already.
Without an armed watcher it is started all the same; ``start`` and then ``stop`` it, or arm it. ``[plugin:limiter] use =
xboard_circus.plugins.restart_limiter.RestartLimiter`` runs it alone.
"""

import json
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xboard_circus.circus_client import CommandRefused
from xboard_circus.core.names import CIRCUSD, bus_name, stops_for_good
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
from xboard_circus.host import procs
from xboard_circus.host.runtime import write_whole
from xboard_circus.options.reading import parse_watcher
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state
from xboard_circus.plugins._limited import Limited, LimitPhase, News, is_limited, limits_of, number

log = logging.getLogger("xboard_circus.plugins.restart_limiter")

PERIOD = 1.0
IDLE_PERIOD = 60.0
NEW_WITHIN = 0.5
CALL_SECONDS = 1.0
NEWS = 200
BY = Say.BY_LIMITER()


class Limiter(Part):
    """Stop a watcher that has failed too often, and start it again after its cooldown.

    After that the next failure stops it again, until it has run for ``restart.reset_after`` without one.
    """

    name = "restart_limiter"
    period = PERIOD

    def __init__(self, commands: Commands, *, memory: Path, circusd: str, **seams: Any) -> None:
        super().__init__(commands, **seams)
        self._memory = memory
        self._circusd = circusd
        self._limited: dict[str, Limited] = {}
        self._known: set[str] = set()
        self._remembered = stopped_under(circusd, memory)
        self._news: deque[News] = deque(maxlen=NEWS)

    def handle_event(self, event: BusEvent) -> float | None:
        """Count deaths, and note an operator's commands. An event of an unknown watcher calls for a tick."""
        limited = next((one for one in self._limited.values() if bus_name(one.name) == event.watcher), None)
        if event.kind == "command":
            self._note_command(limited, event)
        elif limited is None:
            return None if event.watcher in self._known and event.kind != "updated" else NEW_WITHIN
        elif event.kind == "stop":
            limited.deaths.forget()
            if limited.is_stop_of_another():
                self._release(limited, "stopped by another")
        elif event.kind == "start":
            if limited.phase is LimitPhase.COOLING and not limited.is_sent:
                self._release(limited, "started by another")
        elif isinstance(pid := event.data.get("process_pid"), int):
            code = event.data.get("exit_code")
            self._publish_later(limited.note(event.kind, pid, code if isinstance(code, int) else None, self._clock()))
        return None

    def _note_command(self, limited: Limited | None, event: BusEvent) -> None:
        """Release a watcher that an operator stops in its cooldown, because Circus publishes no second stop."""
        if stops_for_good(event.data):
            for each in self._limited.values():
                if each.phase is LimitPhase.COOLING and (each is limited or event.watcher == CIRCUSD):
                    self._release(each, "stopped by another")

    def _release(self, limited: Limited, why: str) -> None:
        if limited.phase is not LimitPhase.WATCHING:
            log.info("%s: %s, so the limiter does not start it", limited.name, why)
        limited.release(self._clock())
        self._save()

    def _save(self) -> None:
        """Save the stopped watchers before the stop is sent, because this process may end with it."""
        stopped = {one.name: one.until for one in self._limited.values() if one.phase is not LimitPhase.WATCHING}
        if stopped != self._remembered:
            self._remembered = stopped
            try:
                self._memory.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._memory, json.dumps({"circusd": self._circusd, "until": stopped}))
            except OSError as error:  # costs the next process its memory, nothing else
                log.error("%s cannot be written: %s", self._memory, error)

    def _publish_later(self, news: Sequence[News]) -> None:
        self._save()
        for each in news:
            log.warning("%s: %s: %s", each.name, each.event, each.reason)
        self._news.extend(news)

    async def tick(self) -> float:
        """Query every limited watcher, do what is due, and publish the news."""
        queried_at = self._clock()
        views = await self._views()
        self._meet(views)
        for limited in list(self._limited.values()):
            view = views[limited.name]
            self._publish_later(limited.seen(view, queried_at=queried_at, now=self._clock()))
            await self._step(limited, view)
        while self._news:
            await self._publish(self._news[0])
            self._news.popleft()
        return PERIOD if self._limited else IDLE_PERIOD

    def _meet(self, views: Mapping[str, WatcherEntry]) -> None:
        for name in self._limited.keys() - views.keys():
            del self._limited[name]
        for name, view in views.items():
            parsed, problems = parse_watcher(view["options"])
            for problem in problems:
                if self._said.may_say((name, str(problem))):
                    log.warning("%s: option ignored, its default is used: %s", name, problem)
            if name not in self._limited:
                limited = self._limited[name] = Limited(view, parsed.restart, now=self._clock())
                if name in self._remembered:
                    log.info("%s: was stopped by the limiter before that was restarted", name)
                    limited.phase, limited.until = LimitPhase.COOLING, self._remembered[name]
            self._limited[name].budget.limits = limits_of(parsed.restart, view["numprocesses"])
        self._save()

    async def _step(self, limited: Limited, view: WatcherEntry) -> None:
        now, is_down = self._clock(), view["status"] in ("stopped", "stopping")
        if limited.phase is LimitPhase.WATCHING:
            self._publish_later(limited.forgive(view, now))
        elif limited.phase is LimitPhase.STOPPING:
            if is_down and not limited.is_sent:
                self._release(limited, "stopped by another")
            elif is_down or await self._call(limited, "stop"):
                limited.enter(LimitPhase.COOLING)
        elif view["status"] == "active":
            self._watch(limited) if limited.is_sent else self._release(limited, "started by another")
        elif view["status"] == "stopped" and now >= limited.until and await self._call(limited, "start"):
            self._watch(limited)
        self._save()

    def _watch(self, limited: Limited) -> None:
        log.info("%s: started again after its cooldown", limited.name)
        limited.watch(self._clock())

    async def _call(self, limited: Limited, command: str) -> bool:
        """Send a command; return whether it was accepted and no event has released the watcher meanwhile.

        After a refusal the next tick sends it again.
        """
        limited.is_sent = True
        try:
            # Without "simple" a name is a pattern, and a stop of one watcher may stop another too.
            await self._commands.call(command, deadline=CALL_SECONDS, name=limited.name, match="simple", by=BY)
        except CommandRefused as refusal:
            log.info("%s: %s; sent again", limited.name, refusal)
            limited.is_sent = False
        return limited.is_sent

    async def _publish(self, news: News) -> None:
        try:
            await self._commands.call("xboard_event", name=news.name, event=news.event, reason=news.reason, **news.more)
        except CommandRefused as refusal:
            if self._said.may_say("xboard_event"):
                log.warning("events are in this log only: %s", refusal)

    async def _views(self) -> dict[str, WatcherEntry]:
        """Return the watchers that are limited from here."""
        try:
            watchers = (await ask_state(self._commands))["watchers"]
        except CommandRefused:
            watchers = await self._views_of_circus()
        self._known = {bus_name(view["name"]) for view in watchers}
        return {view["name"]: view for view in watchers if is_limited(view)}

    async def _views_of_circus(self) -> list[WatcherEntry]:
        """Query Circus's own commands: without an armed watcher, circusd has no others."""
        views = []
        for name, status in (await self._commands.call("status"))["statuses"].items():
            options = (await self._commands.call("options", name=name))["options"]
            count = int(number(options.get("numprocesses"), 1))
            view = unarmed_watcher(name=name, status=status, numprocesses=count, options=options, workers=[])
            if is_limited(view):
                pids = (await self._commands.call("list", name=name))["pids"]
                worker = partial(unarmed_worker, started=None, wid=None, leaves=False, age=None)
                view["workers"] = [worker(pid=pid) for pid in pids]
            views.append(view)
        return views


def limiter_of(plugin: XboardPlugin) -> list[Part]:
    """Return the limiter of a plugin process, with its memory beside the log."""
    circusd = procs.Identity.of(os.getppid()) or procs.Identity(os.getppid(), 0)
    file = plugin.path(plugin.options.log_dir) / "restart-limiter.json"
    return [Limiter(plugin.commands, memory=file, circusd=str(circusd))]


def stopped_under(circusd: str, memory: Path) -> dict[str, float]:
    """Return the watchers that a limiter under *circusd* has stopped, and until when on the monotonic clock.

    Another circusd has started all its watchers itself, and after another boot the clock means something else.
    """
    try:
        saved = json.loads(memory.read_text(encoding="utf-8"))
        until = saved["until"] if saved["circusd"] == circusd else {}
        return {str(name): float(at) for name, at in until.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class RestartLimiter(XboardPlugin):
    """Run the limiter alone in a process."""

    name = "restart_limiter"
    parts = limiter_of
