"""Who is ended for a start that takes too long; time is what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.core.causes import Cause
from xboard_circus.options.reading import WatcherOptions
from xboard_circus.supervisor.armed import ArmedWatcher
from xboard_circus.supervisor.slot import Spawned
from xboard_circus.supervisor.starting import end_late_starts


class FakeArmed:
    """A watcher with one worker that was let go 100 s ago and never got ready."""

    replacement = None

    def __init__(self, *, is_stopping: bool) -> None:
        self._is_stopping = is_stopping
        self.options = WatcherOptions()
        self.late = Spawned(process=None, pid=71, wid=1, slot=1, started=1, spawned_at=0.0, circus_started=0.0)
        self.late.released_at = 0.0
        self.live = {71: self.late}
        self.killed: list[object] = []
        self.watcher = SimpleNamespace(graceful_timeout=30.0, kill_process=self._kill)
        self.supervisor = SimpleNamespace(run=self._run)

    def clock(self) -> float:
        return 100.0

    def is_running(self) -> bool:
        return not self._is_stopping

    def reap_and_respawn(self) -> None:
        pass

    async def _kill(self, process: object, *, graceful_timeout: float) -> None:
        self.killed.append(graceful_timeout)

    def _run(self, work: Coroutine[Any, Any, None], what: str) -> None:
        asyncio.run(work)


@pytest.mark.parametrize(("is_stopping", "cause"), [(False, Cause.FAILED_START), (True, None)])
def test_a_start_that_takes_too_long_failed_unless_its_watcher_is_stopped(
    is_stopping: bool, cause: Cause | None
) -> None:
    armed = FakeArmed(is_stopping=is_stopping)

    end_late_starts(cast(ArmedWatcher, armed))

    assert (armed.late.our_kill, len(armed.killed)) == (cause, 0 if is_stopping else 1)
