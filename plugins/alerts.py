"""Send alerts when something breaks, when it is well again, and reminders in between.

`Alerter` queries circusd's state once a second and takes every event. `core.alerting` turns them into incidents,
`core.alert_gate` decides which sink gets which, and `alerts.delivery` sends them, for each ``[alert:NAME]`` section in
a thread of its own. ``[plugin:alerts] use = xboard_circus.plugins.alerts.Alerts`` runs it alone; otherwise `bundle`
hosts it.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xboard_circus.alerts.delivery import Delivery
from xboard_circus.alerts.memory import AlertMemory, Remembered, memory_file
from xboard_circus.alerts.sinks import rules_of, sink_of
from xboard_circus.alerts.text import Origin, rendered
from xboard_circus.checks.authorship import load_own
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.config import AlertConfig, Config
from xboard_circus.core.alert_gate import Gate, Notice
from xboard_circus.core.alerting import Alerting, AlertRules, Incident, Trouble
from xboard_circus.core.headlines import Answering, gone, is_troubled, lines_of
from xboard_circus.core.lost import LOST
from xboard_circus.core.names import CIRCUSD, bus_name, is_helper
from xboard_circus.core.reason import Reason, reason_in
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import CircusdEntry, State, WatcherEntry
from xboard_circus.errors import XboardError
from xboard_circus.ledger.record import record_of
from xboard_circus.local_time import worded_since
from xboard_circus.options.fields import IncidentOptions
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state
from xboard_circus.survivors import served, serving_on

log = logging.getLogger("xboard_circus.alerts")

USE = "xboard_circus.plugins.alerts.Alerts"
PERIOD, IDLE_EVERY, FILE_EVERY = 1.0, 5.0, 5.0
CLOSE_SECONDS = 2.5  # the host of the parts gives 3, and 15 where circusd was lost
PORTS_WITHIN = 4.0
SETTLED = 0.1  # seconds after an event: several at once are one query
KINDS = frozenset(
    {"restart", "cooldown", "unhealthy", "port_refused", "port_shared", "output_lost", "poison", "command"}
)


@dataclass(slots=True)
class _Section:
    """An ``[alert:NAME]`` section at work."""

    lang: str
    gate: Gate
    delivery: Delivery


class Alerter(Part):
    """Send the alerts of all watchers of one circusd.

    It reads the ini file that circusd names, again when that changes, and does nothing while it has no ``[alert:...]``
    section. *is_guest*: it lives in the bundle, and leaves the work to a plugin of its own if one is configured.
    """

    name = "alerts"
    period = PERIOD

    def __init__(
        self,
        commands: Commands,
        *,
        options: IncidentOptions,
        plugin: str,
        is_guest: bool = False,
        wall_clock: Callable[[], float] = time.time,
        **seams: Any,
    ) -> None:
        super().__init__(commands, **seams)
        self._rules = AlertRules(options.down_after, options.recover_after)
        self._alerting = Alerting(self._rules)
        self._plugin = plugin
        self._is_guest = is_guest
        self._wall_clock = wall_clock
        self._file: _ConfigFile | None = None
        self._sections: dict[str, _Section] = {}
        self._remembered = Remembered()
        self._lost: Mapping[str, Any] = {}
        self._memory: AlertMemory | None = None
        self._origin = Origin(socket.gethostname(), "circus.ini")
        self._names: dict[str, str] = {}
        self._watchers: dict[str, WatcherEntry] = {}
        self._seen_at = 0.0
        self._serving_on: list[Answering] | None = None
        self._losing: asyncio.Task[None] | None = None

    def handle_event(self, event: BusEvent) -> float | None:
        """Count an event, and have its alerts sent in a moment, with the words of the state that it brought about."""
        # With a successor it comes from the next circusd, whose state reports the loss too.
        if event.kind == LOST and self._sections and "successor" not in event.data:
            self._losing = asyncio.ensure_future(self._take_loss(reason_in(event.data)))
        self._pass_on(event)
        if event.kind in KINDS and self._sections:
            for bus, name in self._names.items():
                # A command without a watcher is for all.
                if event.watcher in (CIRCUSD, bus):
                    self._alerting.event(name, event.kind, event.data, self._clock())
            return SETTLED
        return None

    def _pass_on(self, event: BusEvent) -> None:
        """Queue an event for the sections that get each one, and not only what is an incident."""
        deliveries = [each.delivery for each in self._sections.values()]
        takers = [each for each in deliveries if getattr(each.sink, "takes_events", False)]
        if not takers or event.watcher not in self._names:
            return
        from xboard_circus.alerts.otlp import EVENTS, message_of  # only where such a section is

        if event.kind in EVENTS:
            record = record_of(self._names[event.watcher], event.kind, event.data, now=self._wall_clock())
            message = message_of(record, self._origin.host)  # one for all: a log record has the ids of its span
            for delivery in takers:
                delivery.put(message)

    async def tick(self) -> float:
        """Query the state, and send what has changed."""
        if self._file is not None:
            if self._clock() >= self._file.due_at:
                await self._read_file(self._file)
            if not self._sections:
                self._lost = {}  # a section that is added later gets no alert on the past
                return IDLE_EVERY
        state = await self._state()
        if state is None:
            return PERIOD
        # Before the first section is read, because its events would be dropped until the next query.
        names = [view["name"] for view in state["watchers"] if not is_helper(view["name"])]
        self._names = {bus_name(name): name for name in names}
        self._watchers, self._seen_at = {each["name"]: each for each in state["watchers"]}, self._clock()
        if self._file is None:
            self._begin(state["circusd"])
            return 0.0
        self._keep_place(state["circusd"])
        lost, self._lost = self._lost, {}
        if lost:
            at, was_told = float(lost["at"]) - self._shift(), bool(lost["was_told"])
            self._alerting.lost_before(reason_in(lost), self._clock(), at=at, was_reported=was_told)
        self._review(self._alerting.observe(state["watchers"], self._clock()))
        return PERIOD

    async def close(self) -> None:
        """Give waiting alerts a moment; the rest is sent after the next start."""
        if self._losing is not None:
            await self._losing
        self._review([])
        deliveries = [section.delivery for section in self._sections.values()]
        await asyncio.gather(*(each.drain(CLOSE_SECONDS) for each in deliveries))
        for delivery in deliveries:
            delivery.end()
        self._save()

    async def _state(self) -> State | None:
        try:
            return await ask_state(self._commands)
        except CommandRefused:  # no watcher is armed, yet or any more
            self._review([])
            return None
        except CircusdGone as gone:
            self._alerting.unanswered(str(gone), self._clock())
            if (CIRCUSD, Trouble.SILENT) in self._alerting.open:
                await self._look_after_ports()
            self._review([])
            return None

    async def _take_loss(self, reason: str) -> None:
        """Send the alert on a circusd that is gone; it has which ports answer without it, if they do soon."""
        await self._look_after_ports()
        self._alerting.lost(reason, self._clock())
        self._review([])

    async def _look_after_ports(self) -> None:
        look, self._serving_on = self.in_thread(serving_on, [*served(self._watchers.values())]), None
        with suppress(TimeoutError, asyncio.TimeoutError):
            self._serving_on = await asyncio.wait_for(look, PORTS_WITHIN)

    def _begin(self, circusd: CircusdEntry) -> None:
        self._file = _ConfigFile(Path(str(circusd["config_file"])))
        self._origin = Origin(socket.gethostname(), str(circusd["config_file"]))
        self._memory = AlertMemory(memory_file(Path(str(circusd["state_dir"])), self._plugin))
        self._remembered = self._memory.load(shift=self._shift(), now=self._clock())
        self._alerting = Alerting(self._rules, restored=self._remembered.incidents)
        lost = circusd["lost"] or {}
        name = f"{lost.get('pid')}:{lost.get('started')}" if lost else ""
        self._lost = lost if name != self._remembered.lost else {}
        self._remembered.lost = name

    def _keep_place(self, circusd: CircusdEntry) -> None:
        """Save the memory where circusd is found now: its folder may have been deleted, or moved to another place."""
        place = memory_file(Path(str(circusd["state_dir"])), self._plugin)
        if self._memory is None or self._memory.path != place:
            self._memory = AlertMemory(place)
        if not os.path.exists(place):
            self._save()

    async def _read_file(self, file: "_ConfigFile") -> None:
        file.due_at = self._clock() + FILE_EVERY
        try:
            found = await self.in_thread(file.changed)
        except (XboardError, OSError) as error:  # or it is deleted meanwhile
            if self._said.may_say(str(error)):
                log.error("the alerts stay as they were: %s", error)
            return
        if found is not None:
            self._take(found)

    def _take(self, config: Config) -> None:
        """Have a delivery for each section of the ini file; one that stays keeps its memory."""
        is_idle = self._is_guest and any(plugin.use == USE for plugin in config.plugins)
        alerts = {} if is_idle else {alert.name: alert for alert in config.alerts}
        for name in self._sections.keys() - alerts.keys():
            log.info("alert:%s: the section was removed", name)
            self._sections.pop(name).delivery.end()
        for name, alert in alerts.items():
            known = self._sections.get(name)
            if alert.problems:
                why = "; ".join(f"{each.option}: {each.what}; {each.hint}" for each in alert.problems)
                what = "left out" if known is None else "stays as it was"
                log.error("alert:%s: %s until it is put right: %s", name, what, why)
                continue
            if known is None:
                known = self._sections[name] = self._begun(config, alert)
            known.lang, known.gate.rules = alert.options.lang, rules_of(alert.options)
            # Another section may have changed it: the environment of a command is without the secrets of all.
            if (sink := sink_of(config, alert)) != known.delivery.sink:
                known.delivery.use(sink)
        self._save()

    def _begun(self, config: Config, alert: AlertConfig) -> _Section:
        name, sink = alert.name, sink_of(config, alert)
        gate = Gate(rules_of(alert.options), self._remembered.gates.pop(name, None))
        delivery = Delivery(name, sink, waiting=self._remembered.waiting.pop(name, []), on_change=self._save)
        delivery.start()
        log.info("alert:%s: sends alerts by %s", name, sink.place)
        return _Section(alert.options.lang, gate, delivery)

    def _review(self, over: list[Incident]) -> None:
        now, shift = self._clock(), self._shift()
        has_news = bool(over)
        for section in self._sections.values():
            for notice in section.gate.review(self._alerting.open.values(), over, now):
                lines = self._lines_of(notice) if notice.is_open else []
                section.delivery.put(rendered(notice, self._origin, lang=section.lang, shift=shift, lines=lines))
                has_news = True
        if has_news:
            self._save()

    def _lines_of(self, notice: Notice) -> list[str]:
        """Return the words with which the page and `status` begin; none where they have none for its watcher."""
        aged = worded_since(self._wall_clock())
        if notice.watcher == CIRCUSD:
            is_dead, age = notice.trouble is Trouble.LOST, notice.at - notice.since
            ports, why = self._serving_on, notice.reason
            if isinstance(why, Reason) and why.key == Say.CIRCUSD_SILENT.name:
                why = why.fields["why"]  # the line itself says for how long
            found = gone(age=age, why=why, is_dead=is_dead, serving_on=ports or (), aged=aged)["lines"]
            return [reason_in(each) for each in (found if ports is not None else (found[0], found[-1]))]
        watcher = self._watchers.get(notice.watcher)
        if watcher is None or not is_troubled(watcher):
            return []
        return lines_of(watcher, self._clock() - self._seen_at, aged)

    def _save(self) -> None:
        if self._memory is not None:
            sections = self._sections.items()
            now = Remembered(
                incidents=list(self._alerting.open.values()),
                gates={name: section.gate.memory for name, section in sections},
                waiting={name: section.delivery.waiting() for name, section in sections},
                lost=self._remembered.lost,
                troubles={name: section.delivery.trouble for name, section in sections},
            )
            self._memory.save(now, shift=self._shift())

    def _shift(self) -> float:
        return self._wall_clock() - self._clock()


class _ConfigFile:
    """The ini file with all that it includes; *due_at* is when to check it again."""

    def __init__(self, path: Path) -> None:
        self.due_at = float("-inf")
        self._path = path
        self._seen: dict[Path, tuple[float, int] | None] = {}

    def changed(self) -> Config | None:
        """Return its content after a change, None without one; raise XboardError if it cannot be read, each time."""
        if self._seen and all(_stamp(file) == stamp for file, stamp in self._seen.items()):
            return None
        # Before it is read, so that a change in between is seen the next time. A new included file is read twice.
        before, self._seen = {file: _stamp(file) for file in self._seen or [self._path]}, {}
        found = load_own(self._path)
        self._seen = {scan.file: before.get(scan.file) for scan in found.scans}
        return found


def _stamp(file: Path) -> tuple[float, int] | None:
    with suppress(OSError):
        found = os.stat(file)
        return found.st_mtime, found.st_size
    return None


def alerter_of(plugin: XboardPlugin, *, is_guest: bool = False) -> list[Part]:
    """Return the alerter of a plugin process."""
    name = str(plugin.config.get("name") or plugin.name)
    return [Alerter(plugin.commands, options=plugin.options.alerts, plugin=name, is_guest=is_guest)]


class Alerts(XboardPlugin):
    """Run the alerter alone in a process."""

    name = "alerts"
    parts = alerter_of
