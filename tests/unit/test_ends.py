"""When a stop may say that all is gone; the processes here are only as dead as the test says."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import cast

import pytest

from xboard_circus.supervisor import ends
from xboard_circus.supervisor.armed import ArmedWatcher


@dataclass
class FakeSpawned:
    """Ends at the *dies_after*-th look."""

    signals: list[int]
    dies_after: int
    looks: int = 0

    def has_ended(self) -> bool:
        self.looks += 1
        return self.looks > self.dies_after


@dataclass
class FakeArmed:
    live: dict[int, FakeSpawned]
    now: float = 0.0

    def clock(self) -> float:
        self.now += 0.01
        return self.now


def stopped(*spawned: FakeSpawned) -> FakeArmed:
    """Run a stop's kill of *spawned* to its answer."""
    armed = FakeArmed(dict(enumerate(spawned, start=1)))

    async def circus_has_signalled() -> None:
        return None

    asyncio.run(ends.kill_all(cast(ArmedWatcher, armed), circus_has_signalled()))
    return armed


@pytest.mark.parametrize("dies_after", [0, 1, 7])
def test_a_stop_answers_when_what_was_sent_sigkill_is_dead(dies_after: int) -> None:
    armed = stopped(FakeSpawned([signal.SIGTERM, signal.SIGKILL], dies_after))

    assert armed.live[1].looks == dies_after + 1


def test_it_does_not_wait_for_what_was_only_asked_to_go() -> None:
    assert stopped(FakeSpawned([signal.SIGTERM], 1000)).live[1].looks == 0


def test_it_waits_for_the_last_of_several() -> None:
    armed = stopped(FakeSpawned([signal.SIGKILL], 0), FakeSpawned([signal.SIGKILL], 3))

    assert armed.live[2].looks == 4


def test_a_process_that_outlives_the_signal_holds_up_a_stop_for_a_second_only() -> None:
    armed = stopped(FakeSpawned([signal.SIGKILL], 10**9))

    assert ends.KILLED_DIES_WITHIN <= armed.now < ends.KILLED_DIES_WITHIN + 0.1
