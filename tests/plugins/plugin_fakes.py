"""What stands in for circusd, for the clock and for the workers, in the tests of the plugins."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from state_views import state_view

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.health import Silence
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import parse_report
from xboard_circus.probe import Outcome, Target, WorkerAnswer


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeCircusd:
    """Answers what *state* says, and keeps every other command that was sent.

    Attributes:
        refuses: By command, why it is refused.
        answers: By command, what is in its answer.
        is_gone: Nothing answers.
        asked: How often it was asked for its state.
        on_call: Called with each command and its properties before it is answered.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.state = state
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.refuses: dict[str, str] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.is_gone = False
        self.asked = 0
        self.on_call: Callable[[str, dict[str, Any]], None] = lambda command, properties: None

    async def call(self, command: str, *, deadline: float = 2.0, **properties: Any) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        if self.is_gone:
            raise CircusdGone("ipc://fake", "silent", listening=True)
        self.on_call(command, properties)
        if command == "xboard_state":
            self.asked += 1
            if self.state is None:
                raise CommandRefused(command, "unknown command: 'xboard_state'")
            return self._answer()
        self.sent.append((command, properties))
        if command in self.refuses:
            raise CommandRefused(command, self.refuses[command])
        return {"status": "ok", **self.answers.get(command, {})}

    def _answer(self) -> dict[str, Any]:
        plain, told = state_view(), self.state or {}
        return {**plain, **told, "circusd": {**plain["circusd"], **told.get("circusd", {})}}

    def named(self, *commands: str) -> list[dict[str, Any]]:
        """Return the properties of every one of *commands* that was sent."""
        return [properties for command, properties in self.sent if command in commands]


WELL = {"ok": True, "status": 200, "reason": "", "latency": 0.001}
FAILING = {"ok": False, "status": 500, **with_say(Say.ANSWERED(status=500)), "latency": 0.001}
REPORTS: dict[str, dict[str, Any]] = {
    "well": {"state": "ready", "live": WELL},
    "sick": {"state": "ready", "live": FAILING},
    "not ready": {"state": "ready", "live": WELL, "ready": FAILING},
    "busy": {"state": "ready", "live": FAILING, "threads_used": 40, "threads_limit": 40},
    "crowded": {"state": "ready", "live": FAILING, "files_full": 100, "connections": 80},
    "leaking": {"state": "ready", "live": WELL, "files_full": 100, "connections": 3},
    "starting": {"state": "starting", "live": None},
    "draining": {"state": "draining", "live": WELL},
}


class FakeWorkers:
    """Answers each probe as *mood*, by pid, says: a key of REPORTS, "silent", "blocked" or "unclear"."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.mood: dict[int, str] = {}
        self.asked: list[list[int]] = []
        self.requests: list[bytes] = []

    async def __call__(self, targets: Iterable[Target]) -> dict[int, WorkerAnswer]:
        await asyncio.sleep(0)
        targets = list(targets)
        self.asked.append([target.pid for target in targets])
        self.requests += [target.request for target in targets]
        for lasts in (0.2, 0.35, 0.5, 0.65):
            for target in targets:
                if self.mood.get(target.pid) == "blocked":
                    target.on_silence(Silence(lasts=lasts, stands=2.5))
            for _ in range(3):  # a request to circusd is answered before the next look
                await asyncio.sleep(0)
        for target in targets:
            target.on_silence(None)
        return {target.pid: self._answer(target.pid) for target in targets}

    def _answer(self, pid: int) -> WorkerAnswer:
        mood = self.mood.get(pid, "well")
        if mood in ("silent", "blocked"):
            return WorkerAnswer(Outcome.SILENCE, "no answer within 2 s", self._clock(), 2.0)
        if mood == "unclear":
            return WorkerAnswer(Outcome.UNCLEAR, "private socket unreachable: gone", self._clock(), 0.0)
        report = parse_report({"pid": pid, "lag": 0.0, **REPORTS[mood]})
        return WorkerAnswer(Outcome.REPORT, "", self._clock(), 0.001, report)
