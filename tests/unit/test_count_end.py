"""When a stop may answer that all is gone; the processes here are only as dead as the test says."""

import asyncio
import signal
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.supervisor.life import count_end


class FakeWorker:
    """Ends at the *dies_after*-th look."""

    def __init__(self, signals: list[int], dies_after: int) -> None:
        self.life = SimpleNamespace(signals=tuple(signals))
        self.dies_after = dies_after
        self.looks = 0

    def has_ended(self) -> bool:
        self.looks += 1
        return self.looks > self.dies_after


@dataclass
class FakeArmed:
    fleet: list[FakeWorker]
    now: float = 0.0

    def clock(self) -> float:
        self.now += 0.01
        return self.now


def stopped(*workers: FakeWorker) -> FakeArmed:
    """Run a stop's kill of *workers* to its answer."""
    armed = FakeArmed(list(workers))

    asyncio.run(count_end.until_dead(cast(Any, armed.fleet), armed.clock))
    return armed


@pytest.mark.parametrize("dies_after", [0, 1, 7])
def test_a_stop_answers_when_what_was_sent_sigkill_is_dead(dies_after: int) -> None:
    armed = stopped(FakeWorker([signal.SIGTERM, signal.SIGKILL], dies_after))

    assert armed.fleet[0].looks == dies_after + 1


def test_it_does_not_wait_for_what_was_only_asked_to_go() -> None:
    assert stopped(FakeWorker([signal.SIGTERM], 1000)).fleet[0].looks == 0


def test_it_waits_for_the_last_of_several() -> None:
    armed = stopped(FakeWorker([signal.SIGKILL], 0), FakeWorker([signal.SIGKILL], 3))

    assert armed.fleet[1].looks == 4


def test_a_process_that_outlives_the_signal_holds_up_a_stop_for_a_second_only() -> None:
    armed = stopped(FakeWorker([signal.SIGKILL], 10**9))

    assert count_end.KILLED_DIES_WITHIN <= armed.now < count_end.KILLED_DIES_WITHIN + 0.1
