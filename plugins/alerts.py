"""Tell people outside when something breaks, when it is well again, and in between.

`Alerter` looks at circusd's state once a second and at every event, asks `core.alerting` what that means and
`core.alert_gate` who is to be told, and hands the messages to threads, one for each ``[alert:NAME]`` section of the
ini. A sink that hangs holds up its own thread and nothing else.
``[plugin:alerts] use = xboard_circus.plugins.alerts.Alerts`` runs it alone; `bundle` hosts it otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xboard_circus import config as configuration
from xboard_circus.alerts.delivery import Delivery
from xboard_circus.alerts.memory import AlertMemory, Remembered, memory_file
from xboard_circus.alerts.message import Sink
from xboard_circus.alerts.sinks import rules_of, sink_of
from xboard_circus.alerts.text import Origin, rendered
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import Gate
from xboard_circus.core.alerting import Alerting, AlertRules, Incident
from xboard_circus.core.lost import LOST
from xboard_circus.core.names import CIRCUSD, bus_name, is_helper
from xboard_circus.core.reason import reason_in
from xboard_circus.core.state_schema import CircusdEntry, State
from xboard_circus.errors import XboardError
from xboard_circus.options.fields import IncidentOptions
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state
from xboard_circus.plugins._log import Sparingly

log = logging.getLogger("xboard_circus.alerts")

USE = "xboard_circus.plugins.alerts.Alerts"
LOOK_EVERY = 1.0
IDLE_EVERY = 5.0
FILE_EVERY = 5.0
CLOSE_SECONDS = 2.0
KINDS = frozenset({"restart", "cooldown", "unhealthy", "port_refused", "command"})


@dataclass(slots=True)
class _Told:
    """One section: whom it means, what it was told, and what is on the way."""

    config: AlertConfig
    gate: Gate
    delivery: Delivery


class Alerter:
    """Alerts of all watchers of one circusd.

    It learns the ini from circusd, reads it again when the file has changed, and does nothing while it has no
    ``[alert:...]`` section. *is_guest*: it lives in the bundle, and leaves the work to a plugin of its own.
    """

    name = "alerts"
    period = LOOK_EVERY

    def __init__(
        self,
        commands: Commands,
        *,
        options: IncidentOptions,
        plugin: str,
        is_guest: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._commands = commands
        self._rules = AlertRules(options.down_after, options.recover_after)
        self._alerting = Alerting(self._rules)
        self._plugin = plugin
        self._is_guest = is_guest
        self._clock = clock
        self._wall_clock = wall_clock
        self._file = _ConfigFile(clock)
        self._told: dict[str, _Told] = {}
        self._remembered = Remembered()
        self._lost: Mapping[str, Any] = {}
        self._memory: AlertMemory | None = None
        self._origin = Origin(socket.gethostname(), "circus.ini")
        self._names: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._said = Sparingly(clock=clock)

    def handle_event(self, event: BusEvent) -> None:
        """Count an event, and tell what it means at once."""
        # With a successor it is that one's word of the past, which its state has, too.
        if event.kind == LOST and self._told and "successor" not in event.data:
            self._alerting.lost(reason_in(event.data), self._clock())
            self._review([])
            return
        known = self._names.get(event.watcher)
        # A command that names nobody is for all.
        names = list(self._names.values()) if event.watcher == CIRCUSD else [known] if known else []
        if event.kind in KINDS and self._told:
            for name in names:
                self._alerting.event(name, event.kind, event.data, self._clock())
            self._review([])

    async def tick(self) -> float:
        """Look at the state, and tell what has changed."""
        self._loop = asyncio.get_running_loop()
        if self._file.path is not None:
            await self._read_file()
            if not self._told:
                self._lost = {}  # an address that comes tomorrow is not told of today
                return IDLE_EVERY
        state = await self._state()
        if state is None:
            return LOOK_EVERY
        if self._file.path is None:
            await self._begin(state["circusd"])
            return 0.0
        self._look_back()
        watchers = state["watchers"]
        names = [view["name"] for view in watchers if not is_helper(view["name"])]
        self._names = {bus_name(name): name for name in names}
        self._review(self._alerting.observe(watchers, self._clock()))
        return LOOK_EVERY

    async def close(self) -> None:
        """Give what waits a moment; the rest is sent after the next start."""
        loop = asyncio.get_running_loop()
        deliveries = [told.delivery for told in self._told.values()]
        await asyncio.gather(*(loop.run_in_executor(None, each.drain, CLOSE_SECONDS) for each in deliveries))
        for delivery in deliveries:
            delivery.end()
        self._save()

    async def _state(self) -> State | None:
        try:
            return await ask_state(self._commands)
        except CommandRefused:
            return None  # No watcher is armed, yet or any more.
        except CircusdGone as gone:
            self._alerting.unanswered(str(gone), self._clock())
            self._review([])
            return None

    def _look_back(self) -> None:
        """Take note, once, of the circusd before this one, where that was lost."""
        lost, self._lost = self._lost, {}
        if lost:
            at = float(lost["at"]) - self._shift()
            was_told = bool(lost["was_told"])
            self._alerting.lost_before(reason_in(lost), self._clock(), at=at, was_told=was_told)

    # What the ini says

    async def _begin(self, circusd: CircusdEntry) -> None:
        self._file.path = Path(str(circusd["config_file"]))
        self._origin = Origin(socket.gethostname(), str(circusd["config_file"]))
        self._memory = AlertMemory(memory_file(Path(str(circusd["runtime_dir"])), self._plugin))
        self._remembered = self._memory.load(shift=self._shift())
        self._alerting = Alerting(self._rules, restored=self._remembered.incidents)
        lost = circusd["lost"] or {}
        name = f"{lost.get('pid')}:{lost.get('started')}" if lost else ""
        self._lost = lost if name != self._remembered.lost else {}
        self._remembered.lost = name

    async def _read_file(self) -> None:
        found = await asyncio.get_running_loop().run_in_executor(None, self._file.changed)
        if isinstance(found, str):
            if self._said.may_say(found):
                log.error("the alerts stay as they were: %s", found)
        elif found is not None:
            self._take(found)

    def _take(self, config: Config) -> None:
        """Have a sink for each section as it is now; one that stays keeps what it knows."""
        if self._is_guest and any(plugin.use == USE for plugin in config.plugins):
            alerts: dict[str, AlertConfig] = {}
        else:
            alerts = {alert.name: alert for alert in config.alerts}
        for name in self._told.keys() - alerts.keys():
            log.info("alert:%s: is no more", name)
            self._told.pop(name).delivery.end()
        for name, alert in alerts.items():
            if alert.problems:
                told = "; ".join(f"{each.option}: {each.what}; {each.hint}" for each in alert.problems)
                what = "stays as it was" if name in self._told else "left out"
                log.error("alert:%s: %s until it is put right: %s", name, what, told)
                continue
            sink, known = sink_of(config, alert), self._told.get(name)
            if known is None:
                self._told[name] = self._begun(name, alert, sink)
                continue
            known.config, known.gate.rules = alert, rules_of(alert.options)
            # Another section may have changed it, too: a command is not given what has become a secret.
            if sink != known.delivery.sink:
                known.delivery.use(sink)
        self._save()

    def _begun(self, name: str, alert: AlertConfig, sink: Sink) -> _Told:
        waiting = self._remembered.waiting.pop(name, [])
        gate = Gate(rules_of(alert.options), self._remembered.gates.pop(name, None))
        delivery = Delivery(name, sink, waiting=waiting, on_change=self._changed)
        delivery.start()
        log.info("alert:%s: sends alerts by %s", name, sink.place)
        return _Told(alert, gate, delivery)

    # What is told

    def _review(self, over: list[Incident]) -> None:
        now, shift = self._clock(), self._shift()
        has_news = bool(over)
        for told in self._told.values():
            for notice in told.gate.review(self._alerting.open.values(), over, now):
                message = rendered(notice, self._origin, lang=told.config.options.lang, shift=shift)
                told.delivery.put(message)
                has_news = True
        if has_news:
            self._save()

    def _changed(self) -> None:
        """Save soon: called in the thread of a sink that has delivered something, or has failed to."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._save)

    def _save(self) -> None:
        if self._memory is not None:
            self._memory.save(
                incidents=self._alerting.open.values(),
                gates={name: told.gate.memory for name, told in self._told.items()},
                waiting={name: told.delivery.waiting() for name, told in self._told.items()},
                shift=self._shift(),
                troubles={name: told.delivery.trouble for name, told in self._told.items()},
                lost=self._remembered.lost,
            )

    def _shift(self) -> float:
        return self._wall_clock() - self._clock()


class _ConfigFile:
    """The ini, read anew when it, or what it includes, has changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.path: Path | None = None
        self._clock = clock
        self._looked_at = float("-inf")
        self._files: list[Path] = []
        self._seen: list[tuple[float, int] | None] = []

    def changed(self) -> Config | str | None:
        """Return what it says now, or why it cannot be read; None while it is as it was."""
        if self.path is None or self._clock() - self._looked_at < FILE_EVERY:
            return None
        self._looked_at = self._clock()
        if self._seen and self._seen == [_stamp(file) for file in self._files]:
            return None
        # Before it is read: a change while it is read is seen at the next look.
        self._files = self._files or [self.path]
        self._seen = [_stamp(file) for file in self._files]
        try:
            found = configuration.load(self.path)
        except XboardError as error:
            return str(error)
        self._files = [scan.file for scan in found.scans]
        self._seen = [_stamp(file) for file in self._files]
        return found


def _stamp(file: Path) -> tuple[float, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime, found.st_size


class Alerts(XboardPlugin):
    """The alerter alone in a process."""

    name = "alerts"

    def parts(self) -> list[Part]:
        """Return the alerter."""
        return [alerter_of(self)]


def alerter_of(plugin: XboardPlugin, *, is_guest: bool = False) -> Alerter:
    """Return an alerter with the options of *plugin*."""
    name = str(plugin.config.get("name") or plugin.name)
    return Alerter(plugin.commands, options=plugin.options.alerts, plugin=name, is_guest=is_guest)
