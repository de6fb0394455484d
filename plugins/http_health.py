"""Ask every worker how it is, and have the hung and the sick ones replaced.

`HealthProber` gathers what the probes saw and sends what `core.health` decides; it kills nobody. circusd does, and
refuses what is too old. ``[plugin:health] use = xboard_circus.plugins.http_health.HttpHealth`` runs it alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.circus_client import CommandRefused
from xboard_circus.core.health import HealthRules, Observation, Round, WatcherHealth, Worker, silence
from xboard_circus.core.reason import key_of
from xboard_circus.core.state_schema import State, WatcherEntry, parse_state
from xboard_circus.core.states import Health
from xboard_circus.host import procs
from xboard_circus.options.fields import HealthOptions
from xboard_circus.options.reading import parse_watcher
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state, own_identity
from xboard_circus.plugins._log import Sparingly
from xboard_circus.plugins._questions import AskWorkers, WorkerQuestions
from xboard_circus.plugins._sightings import (
    WHOLE,
    ProbeRound,
    is_probed,
    key,
    reported,
    up_workers,
)
from xboard_circus.probe import UrlAnswer, probe_url, probe_workers

log = logging.getLogger("xboard_circus.plugins.http_health")

LONGEST_PAUSE = 2.0
TOLD_HOLDS = 2 * LONGEST_PAUSE
GATHER_SECONDS = 0.05


@dataclass(slots=True)
class _Watched:
    """A watcher that is probed.

    Attributes:
        written: What circusd told of the options when they were read last.
        flight: The round that runs.
        unanswered: Of workers that `core.health` does not judge yet: failed probes in a row.
    """

    health: WatcherHealth
    options: HealthOptions
    due_at: float
    written: Mapping[str, Any] | None = None
    began_at: float | None = None
    flight: asyncio.Task[ProbeRound] | None = None
    unanswered: dict[Worker, int] = field(default_factory=dict)

    def take_options(self, view: WatcherEntry) -> None:
        written = view["options"]
        # To read them takes longer than all the rest of a round.
        if written != self.written:
            self.written = written
            self.options = _options(view)
            self.health.rules = _rules(self.options)

    def drop_counts(self) -> None:
        self.health.reset()
        self.unanswered.clear()


class HealthProber:
    """Probes all workers of a watcher at once, each watcher every ``health.period`` seconds.

    One request goes to each worker, on a socket that only it answers, and has its deadline; one report of a round goes
    to circusd. A watcher whose last round still runs is passed over. After a pause of our own (SIGSTOP, a machine
    asleep) nothing that was counted before it counts any more.

    Who is to be asked, circusd tells in its answer to the report of the round before: a question of its own for that
    would double what probing costs. Where anything has happened since, or that is long ago, it is asked anew.
    """

    name = "http_health"
    period = LONGEST_PAUSE

    def __init__(
        self,
        commands: Commands,
        *,
        identity: procs.Identity,
        clock: Callable[[], float] = time.monotonic,
        ask_workers: AskWorkers = probe_workers,
        ask_url: Callable[..., UrlAnswer] = probe_url,
    ) -> None:
        self._commands = commands
        self._identity = identity
        self._clock = clock
        self._questions = WorkerQuestions(clock=clock, ask_workers=ask_workers, ask_url=ask_url)
        self._watched: dict[str, _Watched] = {}
        self._told: tuple[float, State] | None = None
        self._said = Sparingly(clock=clock)

    def handle_event(self, event: BusEvent) -> None:
        """Ask circusd anew before the next round: who is to be asked may have changed."""
        self._told = None

    async def close(self) -> None:
        """Drop the rounds that are under way."""
        for name in list(self._watched):
            self._drop(name)

    async def tick(self) -> float:
        """Begin the rounds that are due, and send what comes of those that end before the next is due."""
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
        told, self._told = self._told, None
        if told is not None and self._clock() - told[0] <= TOLD_HOLDS:
            return told[1]
        try:
            state = await ask_state(self._commands)
        except CommandRefused as refusal:
            if self._said.may_say("no state"):
                log.warning("nothing to probe: no watcher is armed by xboard_circus.plugins.guard.arm (%s)", refusal)
            return None
        self._said.forget("no state")
        return state

    def _drop(self, name: str) -> None:
        self._questions.forget(name)
        flight = self._watched.pop(name).flight
        if flight is not None:
            flight.cancel()

    # Rounds

    def _begin_if_due(self, name: str, view: WatcherEntry) -> None:
        now = self._clock()
        watched = self._watched.get(name)
        if watched is None:
            options = _options(view)
            watched = self._watched[name] = _Watched(WatcherHealth(_rules(options)), options, due_at=now)
            _introduce(watched.health, view)
        watched.take_options(view)
        options = watched.options
        # The tenth lets watchers of one period share a round, and with it a report.
        if watched.flight is not None or now < watched.due_at - options.period / 10:
            return
        if watched.began_at is not None and now - watched.began_at > 3 * options.period + options.timeout:
            log.warning("%s: %.1f s since the last round: what was counted is dropped", name, now - watched.began_at)
            watched.drop_counts()
        watched.due_at = max(watched.due_at + options.period, now + options.period / 2)
        watched.began_at = now
        watched.flight = asyncio.ensure_future(self._round(options, view))

    async def _round(self, options: HealthOptions, view: WatcherEntry) -> ProbeRound:
        began_at = self._clock()
        seen = await self._questions.ask(view, options)
        return ProbeRound(view, began_at, self._clock(), seen)

    # What comes of them

    async def _conclude_rounds(self) -> None:
        """Send each round as it ends, those that end together in one report; leave off when the next is due."""
        has_reported = False
        while (flights := [one.flight for one in self._watched.values() if one.flight]) and (left := self._pause()) > 0:
            done, rest = await asyncio.wait(flights, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done and rest:
                await asyncio.wait(rest, timeout=GATHER_SECONDS)
            has_reported |= await self._conclude()
        if not has_reported:
            # circusd takes a prober that says nothing for a stuck one.
            await self._report({})

    async def _conclude(self) -> bool:
        """Judge and send the rounds that have ended; return whether there were any."""
        verdicts = [
            (name, watched, finding, self._judge(watched, finding))
            for name, watched in self._watched.items()
            if (finding := self._landed(name, watched)) is not None
        ]
        if not verdicts:
            return False
        workers: dict[str, Any] = {}
        for _, _, finding, verdict in verdicts:
            workers.update(reported(finding, verdict))
        await self._report(workers)
        for name, watched, finding, verdict in verdicts:
            await self._act(name, watched, finding, verdict)
        return True

    def _landed(self, name: str, watched: _Watched) -> ProbeRound | None:
        """Return the round that has ended, unless it does not count."""
        flight = watched.flight
        if flight is None or not flight.done():
            return None
        watched.flight = None
        if flight.cancelled():
            return None
        if (error := flight.exception()) is not None:
            log.error("%s: a round failed", name, exc_info=error)
            return None
        finding, timeout = flight.result(), watched.options.timeout
        took = finding.ended_at - finding.began_at
        if took > timeout + max(1.0, timeout / 2):
            # Every probe has a deadline, so it was we who did not get to run.
            log.warning("%s: a round took %.1f s; it does not count", name, took)
            watched.drop_counts()
            return None
        return finding

    def _judge(self, watched: _Watched, finding: ProbeRound) -> Round:
        return watched.health.round({worker: seen.observation for worker, seen in finding.seen.items()})

    async def _act(self, name: str, watched: _Watched, finding: ProbeRound, verdict: Round) -> None:
        wids = {key(worker): worker["wid"] for worker in finding.view["workers"]}
        for worker in up_workers(finding.view) & finding.seen.keys():
            seen = finding.seen[worker]
            if not seen.clear and self._said.may_say((worker, seen.observation.reason)):
                log.warning("%s: nothing is known of worker %d: %s", name, worker[0], seen.observation.reason)
        for item in verdict.replace:
            await self._replace(name, finding, item.worker, item.health, item.reason)
        for worker, reason in self._stuck_early(watched, finding, verdict):
            await self._replace(name, finding, worker, Health.HUNG, reason)
        for event in verdict.events:
            log.warning("%s: %s: %s", name, event.kind, event.reason)
            whose = {"pid": event.worker[0], "wid": wids[event.worker]} if event.worker in wids else {}
            await self._send("xboard_event", name=name, event=event.kind, reason=event.reason, **whose)

    def _stuck_early(self, watched: _Watched, finding: ProbeRound, verdict: Round) -> list[tuple[Worker, str]]:
        """Return workers that never answered us and yet are no beginners: circusd knows them as up.

        `core.health` counts from the first success that it sees, and a worker that got stuck right after its start, or
        while no prober ran, would wait for that for ever.
        """
        unjudged = {worker for worker, health in verdict.healths.items() if health is Health.UNKNOWN}
        candidates = up_workers(finding.view) & unjudged
        silent = [worker for worker in candidates if not finding.seen[worker].observation.answered]
        watched.unanswered = {worker: watched.unanswered.get(worker, 0) + 1 for worker in silent}
        return [
            (worker, silence(count, finding.seen[worker].observation.reason))
            for worker, count in watched.unanswered.items()
            if count >= watched.options.failure_threshold
        ]

    # Towards circusd

    async def _report(self, workers: Mapping[str, Any]) -> None:
        sender = {"plugin": self.name, "pid": self._identity.pid, "started": self._identity.started}
        asked_at = self._clock()
        answer = await self._send("xboard_report", **sender, at=asked_at, workers=workers, state=True)
        self._told = (asked_at, parse_state(answer)) if "watchers" in answer else None

    async def _replace(self, name: str, finding: ProbeRound, worker: Worker, kind: Health, reason: str) -> None:
        if worker == WHOLE:
            return  # Nobody can tell which one it is; the event says that the watcher is unhealthy.
        log.warning("%s: asking circusd to replace %d: %s", name, worker[0], reason)
        await self._send(
            "xboard_replace",
            name=name,
            pid=worker[0],
            started=worker[1],
            kind=kind.value,
            probed_at=finding.seen[worker].asked_at,
            reason=reason,
        )

    async def _send(self, command: str, **properties: Any) -> Mapping[str, Any]:
        """Send one command; a refusal is told, and asked for anew in the next round where it still matters."""
        self._told = None
        try:
            return await self._commands.call(command, **properties)
        except CommandRefused as refusal:
            if self._said.may_say((command, properties.get("pid"), key_of(refusal.reason) or refusal.reason[:20])):
                log.warning("%s", refusal)
        return {}

    def _pause(self) -> float:
        """Return the seconds until the next round is due; one that still runs is not waited for here."""
        now = self._clock()
        due = [watched.due_at - now for watched in self._watched.values() if watched.flight is None]
        return min([LONGEST_PAUSE, *due])


class HttpHealth(XboardPlugin):
    """The prober alone in a process."""

    name = "http_health"

    def parts(self) -> list[Part]:
        """Return the prober."""
        return [HealthProber(self.commands, identity=own_identity())]


def _options(view: WatcherEntry) -> HealthOptions:
    written = {name: value for name, value in view["options"].items() if value is not None}
    return parse_watcher(written)[0].health


def _rules(options: HealthOptions) -> HealthRules:
    return HealthRules(
        failure_threshold=options.failure_threshold,
        success_threshold=options.success_threshold,
        max_unavailable=options.max_unavailable,
    )


def _introduce(health: WatcherHealth, view: WatcherEntry) -> None:
    """Tell a new prober which workers an earlier one has judged: it need not see them well first.

    circusd has a latency only of those that answered a prober once.
    """
    judged = [worker for worker in view["workers"] if worker["latency"] is not None and worker["ready_for"]]
    health.round({key(worker): Observation(answered=True) for worker in judged})
