"""Probe every worker, and have the hung and the sick ones replaced.

`HealthProber` gathers what the probes saw and sends what `core.health` decides. It kills no worker: circusd does, and
refuses a finding that is too old. ``[plugin:health] use = xboard_circus.plugins.http_health.HttpHealth`` runs it alone.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.health import HealthRules, Replace, Silence, WatcherHealth, Worker
from xboard_circus.core.in_flight import RUNNING
from xboard_circus.core.reason import key_of
from xboard_circus.core.state_names import BLOCKED, Health
from xboard_circus.core.state_schema import State, WatcherEntry
from xboard_circus.host import procs
from xboard_circus.ledger.history_store import HistoryStore, history_of
from xboard_circus.options.fields import HealthOptions
from xboard_circus.options.reading import parse_watcher
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state
from xboard_circus.plugins._questions import AskWorkers, WorkerQuestions
from xboard_circus.plugins._sightings import WHOLE, ProbeRound, SlowEvents, is_probed, judgements, key, up_workers
from xboard_circus.plugins.traffic_recorder import TrafficRecorder
from xboard_circus.probe import UrlAnswer, probe_url, probe_workers

log = logging.getLogger("xboard_circus.plugins.http_health")

LONGEST_PAUSE = 2.0
STATE_HOLDS = 5 * LONGEST_PAUSE
GATHER_SECONDS = 0.05
WITHIN = 2.0
MOST_CHARS = 20_000


async def native_frames(pid: int, within: float) -> str:
    """Return the frames of all threads of a process; "" where py-spy is missing, may not, or is late.

    Python's own stacks of a hung worker end at a call of C.
    """
    import shutil  # not above: most plugins see no hung worker

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if (program := shutil.which("py-spy", path=path)) is None:
        return ""
    command = [program, "dump", "--native", "--pid", str(pid)]

    def dump() -> bytes:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=within).stdout

    try:
        text = (await asyncio.to_thread(dump)).decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return text[text.find("\nThread ") + 1 :][:MOST_CHARS] if "\nThread " in text else ""  # before that: its command


@dataclass(slots=True)
class _Watched:
    """A watcher that is probed.

    Attributes:
        written: The options in circusd's state when they were parsed last.
        flight: The round that runs.
        silent: The workers that have not answered it yet.
        ahead: The request for a successor of a blocked one; *succeeded* have one, until they answer.
    """

    due_at: float
    health: WatcherHealth = field(default_factory=lambda: WatcherHealth(HealthRules()))
    options: HealthOptions = field(default_factory=HealthOptions)
    written: Mapping[str, Any] | None = None
    began_at: float | None = None
    flight: asyncio.Task[ProbeRound | None] | None = None
    silent: dict[Worker, Silence] = field(default_factory=dict)
    ahead: asyncio.Task[None] | None = None
    succeeded: set[Worker] = field(default_factory=set)

    def take_options(self, view: WatcherEntry) -> None:
        # Parsing takes longer than the rest of a round.
        if view["options"] != self.written:
            self.written = view["options"]
            written = {name: value for name, value in view["options"].items() if value is not None}
            options = self.options = parse_watcher(written)[0].health
            self.health.rules = HealthRules(**{rule.name: getattr(options, rule.name) for rule in fields(HealthRules)})


class HealthProber(Part):
    """Probe all workers of a watcher at once, each watcher every ``health.period`` seconds.

    Each worker gets one request, with a deadline, on a socket that only it answers; circusd gets one report a round.
    A watcher whose last round still runs is skipped. After a pause of our own (SIGSTOP, a machine asleep) all counts
    start again.

    Which workers there are is queried after an event, and otherwise once in `STATE_HOLDS`: the state of 200 workers in
    each round cost as much as a sixth of their probes.
    """

    name = "http_health"
    period = LONGEST_PAUSE

    def __init__(
        self,
        commands: Commands,
        *,
        identity: procs.Identity,
        ask_workers: AskWorkers = probe_workers,
        ask_url: Callable[..., UrlAnswer] = probe_url,
        on_round: Callable[[ProbeRound], object] = lambda _: None,
        read_native: Callable[[int, float], Awaitable[str]] = native_frames,
        **seams: Any,
    ) -> None:
        super().__init__(commands, **seams)
        self._identity = identity
        self._on_round = on_round
        self._read_native = read_native
        self._questions = WorkerQuestions(self._clock, ask_workers, ask_url)
        self._watched: dict[str, _Watched] = {}
        self._known: tuple[float, State] | None = None
        self._events = 0
        self._slow = SlowEvents(self._clock())

    def handle_event(self, event: BusEvent) -> None:
        """Query circusd before the next round, because its workers may have changed."""
        self._known = None
        self._events += 1

    async def close(self) -> None:
        """Cancel the rounds that run."""
        for name in list(self._watched):
            self._drop(name)

    async def tick(self) -> float:
        """Begin the rounds that are due, and report those that end before the next is due."""
        state = await self._state()
        if state is None:
            return LONGEST_PAUSE
        views = {view["name"]: view for view in state["watchers"] if is_probed(view)}
        for name in self._watched.keys() - views.keys():
            self._drop(name)
        for name, view in views.items():
            self._begin_if_due(name, view)
        await self._conclude_rounds()
        return self._pause()

    async def _state(self) -> State | None:
        asked_at, events = self._clock(), self._events
        if self._known is not None and asked_at - self._known[0] <= STATE_HOLDS:
            return self._known[1]
        self._known = None
        try:
            state = await ask_state(self._commands)
        except CommandRefused as refusal:
            if self._said.may_say("no state"):
                log.warning("nothing to probe: no watcher is armed by xboard_circus.plugins.guard.arm (%s)", refusal)
            return None
        self._said.forget("no state")
        if events == self._events:  # an event meanwhile may be younger than the answer
            self._known = asked_at, state
        return state

    def _drop(self, name: str) -> None:
        self._questions.forget(name)
        dropped = self._watched.pop(name)
        for task in (dropped.flight, dropped.ahead):
            if task is not None:
                task.cancel()

    def _begin_if_due(self, name: str, view: WatcherEntry) -> None:
        now = self._clock()
        watched = self._watched.get(name)
        if watched is None:
            watched = self._watched[name] = _Watched(due_at=now)
        watched.take_options(view)
        options = watched.options
        # The tenth lets watchers of one period share a round, and with it a report.
        if watched.flight is not None or now < watched.due_at - options.period / 10:
            return
        if watched.began_at is not None and now - watched.began_at > 3 * options.period + options.timeout:
            log.warning("%s: %.1f s since the last round: all counts start again", name, now - watched.began_at)
            watched.health.reset()
        watched.due_at = max(watched.due_at + options.period, now + options.period / 2)
        watched.began_at = now
        watched.flight = asyncio.ensure_future(self._round(watched, view))

    async def _round(self, watched: _Watched, view: WatcherEntry) -> ProbeRound | None:
        """Probe and judge a watcher; None where the round does not count."""
        began_at, timeout = self._clock(), watched.options.timeout
        watched.silent = {}
        up = up_workers(view)

        def on_silence(worker: Worker, silence: Silence | None) -> None:
            if silence is None:
                watched.silent.pop(worker, None)
                return
            watched.silent[worker] = silence
            if worker in watched.succeeded or (watched.ahead is not None and not watched.ahead.done()):
                return
            if why := watched.health.ahead(worker, watched.silent, period=watched.options.period, up=up):
                watched.ahead = asyncio.ensure_future(self._ahead(watched, view, worker, silence, why))

        seen = await self._questions.ask(view, watched.options, on_silence)
        watched.succeeded &= {worker for worker, each in seen.items() if not each.observation.answered}
        if (took := self._clock() - began_at) > timeout + max(1.0, timeout / 2):
            # Every probe has a deadline, so it was this process that did not run.
            log.warning("%s: a round took %.1f s; it does not count", view["name"], took)
            watched.health.reset()
            return None
        observations = {worker: each.observation for worker, each in seen.items()}
        return ProbeRound(view, seen, watched.health.round(observations, up=up))

    async def _conclude_rounds(self) -> None:
        """Report each round as it ends, those that end together in one report; stop when the next is due."""
        has_reported = False
        while (flights := [one.flight for one in self._watched.values() if one.flight]) and (left := self._pause()) > 0:
            done, rest = await asyncio.wait(flights, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done and rest:
                await asyncio.wait(rest, timeout=GATHER_SECONDS)
            findings = [found for name in self._watched if (found := self._landed(name)) is not None]
            if findings:
                has_reported = True
                await self._report({pid: each for finding in findings for pid, each in judgements(finding).items()})
            for finding in findings:
                await self._act(finding)
            for finding in findings:
                self._on_round(finding)
        if not has_reported:
            # circusd takes a prober that reports nothing for a stuck one.
            await self._report({})

    def _landed(self, name: str) -> ProbeRound | None:
        """Return the round that has ended, unless it failed or does not count."""
        flight = self._watched[name].flight
        if flight is None or not flight.done():
            return None
        self._watched[name].flight = None
        try:
            return flight.result()
        except asyncio.CancelledError:
            return None
        except Exception:
            log.exception("%s: a round of probes failed", name)
            return None

    async def _act(self, finding: ProbeRound) -> None:
        name, verdict = finding.view["name"], finding.verdict
        wids = {key(worker): worker["wid"] for worker in finding.view["workers"]}
        for worker in up_workers(finding.view).keys() & finding.seen.keys():
            seen = finding.seen[worker]
            if not seen.is_clear and self._said.may_say((worker, seen.observation.reason)):
                log.warning("%s: nothing is known of worker %d: %s", name, worker[0], seen.observation.reason)
        for item in verdict.replace:
            # WHOLE cannot be replaced: which worker fails is unknown. The event says that the watcher is unhealthy.
            if item.worker != WHOLE:
                await self._replace(finding, item)
        for event in verdict.events:
            log.warning("%s: %s: %s", name, event.kind, event.reason)
            whose = {"pid": event.worker[0], "wid": wids[event.worker]} if event.worker in wids else {}
            await self._send("xboard_event", name=name, event=event.kind, reason=event.reason, **whose)
        for (pid, started), reason in self._slow.of(finding, self._clock()):
            whose = {"pid": pid, "wid": wids[pid, started]}
            await self._send("xboard_event", name=name, event="slow_request", reason=reason, **whose)

    async def _report(self, workers: Mapping[str, Any]) -> None:
        sender = {"plugin": self.name, "pid": self._identity.pid, "started": self._identity.started}
        await self._send("xboard_report", **sender, at=self._clock(), workers=workers)

    async def _replace(self, finding: ProbeRound, item: Replace) -> None:
        name, (pid, started) = finding.view["name"], item.worker
        log.warning("%s: asking circusd to replace %d: %s", name, pid, item.reason)
        what = {"kind": item.health.value, "probed_at": finding.seen[item.worker].asked_at, "reason": item.reason}
        if item.health is Health.HUNG and (native := await self._native(name, pid)):
            what["native"] = native
        if not await self._send("xboard_replace", name=name, pid=pid, started=started, **what):
            self._watched[name].health.let_others_go_first(item.worker)

    async def _ahead(self, watched: _Watched, view: WatcherEntry, worker: Worker, silence: Silence, why: str) -> None:
        """Have circusd start a successor of a blocked worker; a refusal is tried anew at the next look."""
        name, (pid, started) = view["name"], worker
        what = {"kind": BLOCKED, "probed_at": self._clock() - silence.lasts, "reason": why}
        with suppress(CircusdGone):
            if await self._send("xboard_replace", name=name, pid=pid, started=started, **what):
                log.warning("%s: circusd starts a successor of %d: %s", name, pid, why)
                watched.succeeded.add(worker)

    async def _native(self, name: str, pid: int) -> str:
        """Return the native frames of a hung worker without a report of its watchdog thread: C may hold the GIL."""
        answer = await self._send("xboard_requests", name=name)
        requests = next((each.get("requests") for each in answer.get("workers", ()) if each.get("pid") == pid), None)
        if requests and requests[0].get("state") == RUNNING:
            return ""
        # circusd refuses a finding that is too old.
        return await self._read_native(pid, min(WITHIN, self._watched[name].options.period / 2))

    async def _send(self, command: str, **properties: Any) -> Mapping[str, Any]:
        """Send one command; a refusal is logged, and sent anew in the next round where it still matters."""
        try:
            return await self._commands.call(command, **properties)
        except CommandRefused as refusal:
            self._known = None
            if self._said.may_say((command, properties.get("pid"), key_of(refusal.reason) or refusal.reason[:20])):
                log.warning("%s", refusal)
        return {}

    def _pause(self) -> float:
        """Return the seconds until the next round is due, without those that still run."""
        now = self._clock()
        due = [watched.due_at - now for watched in self._watched.values() if watched.flight is None]
        return min([LONGEST_PAUSE, *due])


def prober_of(plugin: XboardPlugin) -> list[Part]:
    """Return the prober of a plugin process, and what records the traffic that its probes see."""
    identity = procs.Identity.of(os.getpid()) or procs.Identity(os.getpid(), 0)
    recorder = TrafficRecorder(plugin.commands, HistoryStore(history_of(plugin.path(plugin.options.ledger.file))))
    return [HealthProber(plugin.commands, identity=identity, on_round=recorder.take), recorder]


class HttpHealth(XboardPlugin):
    """Run the prober alone in a process."""

    name = "http_health"
    parts = prober_of
