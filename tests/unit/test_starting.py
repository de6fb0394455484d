"""Which worker is terminated for a start that takes too long; time is what the test says."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Role
from xboard_circus.core.worker_phases import Life, LifeEvent, Starting, step
from xboard_circus.host import procs
from xboard_circus.options.fields import WatcherOptions
from xboard_circus.supervisor.life import start
from xboard_circus.supervisor.watcher import EFFECTS, ArmedWatcher


class FakeArmed:
    """A watcher with one worker whose start began 100 s ago and is not complete."""

    slack = 5.0
    late_grace = ArmedWatcher.late_grace
    kill = ArmedWatcher.kill

    def __init__(self, *, is_stopping: bool, role: Role = Role.SERVING) -> None:
        self._is_stopping = is_stopping
        self.options = WatcherOptions()
        self.late: Any = SimpleNamespace(
            pid=71, process=SimpleNamespace(stopping=True), life=Life(phase=Starting(0.0), role=role)
        )
        self.fleet = [self.late]
        self.killed: list[object] = []
        self.watcher = SimpleNamespace(graceful_timeout=30.0, kill_process=self._kill)
        self.supervisor = SimpleNamespace(run=self._run)

    def clock(self) -> float:
        return 100.0

    def is_running(self) -> bool:
        return not self._is_stopping

    def keep_up(self) -> None:
        pass

    def happen(self, worker: Any, event: LifeEvent) -> None:
        worker.life, effects = step(worker.life, event)
        for effect in effects:
            EFFECTS[effect](cast(ArmedWatcher, self), worker)

    async def _kill(self, process: Any, *, graceful_timeout: float) -> None:
        assert process.stopping is False  # Circus's kill_process would return at once
        self.killed.append(graceful_timeout)

    def _run(self, work: Coroutine[Any, Any, None], what: str) -> None:
        asyncio.run(work)


@pytest.mark.parametrize(
    ("is_stopping", "role", "cause", "killed"),
    [
        pytest.param(
            False, Role.SERVING, Cause.FAILED_START, [5.0], id="a worker: it gets 5 s, since it serves nobody"
        ),
        pytest.param(True, Role.SERVING, None, [], id="not while its watcher stops"),
        pytest.param(False, Role.SUCCESSOR, None, [], id="not a successor, which the swap judges"),
    ],
)
def test_a_start_that_takes_too_long_has_failed(
    is_stopping: bool, role: Role, cause: Cause | None, killed: list[float]
) -> None:
    armed = FakeArmed(is_stopping=is_stopping, role=role)

    ArmedWatcher.pass_time(cast(ArmedWatcher, armed))

    order = armed.late.life.order
    assert (None if order is None else order.cause, armed.killed) == (cause, killed)


@pytest.mark.parametrize(
    ("queued", "said"),
    [
        pytest.param(0.4, "not up within health.startup_timeout = 15 s", id="its own fault"),
        pytest.param(
            12.2,
            "not up within health.startup_timeout = 15 s: it was ready to run for 12.2 s of that, and no core was free",
            id="a crowded machine",
        ),
    ],
)
def test_a_late_start_for_which_no_core_was_free_is_no_fault_of_the_code(
    monkeypatch: pytest.MonkeyPatch, queued: float, said: str
) -> None:
    """Given what chaos on a crowded machine showed: on a core for 0.2 s of 15, runnable for 12 more."""
    thread = procs.FirstThread(is_stopped=False, ran=0.2, waits=1, turns=9, queued=queued)
    monkeypatch.setattr(procs, "first_thread", lambda _: thread)

    assert str(start.found_late(Say.NOT_UP_IN_TIME(timeout=exactly(15.0)), 4242, 15.0)) == said
