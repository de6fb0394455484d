"""Kill workers from outside: one that had served is put right the sixth time like the first; young deaths are paced."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from xboard_circus.core.restart_limits import SERVED

from .facts_of_state import pace_of
from .harness import Circusd, Watcher, circusd, eventually, is_well, kill
from .load import Load

KILLS = 6


def has_served(c: Circusd, pid: int, name: str = "web") -> bool:
    return (c.worker(pid, name)["ready_for"] or 0.0) > SERVED


def up_in(c: Circusd, slot: int, name: str) -> set[int]:
    return {each["pid"] for each in c.watcher(name)["workers"] if each["slot"] == slot and is_well(each)}


def successors_of(c: Circusd, pid: int) -> list[int]:
    return [new for new in c.ready() if new != pid]


@dataclass
class Killed:
    """The slot of a watcher whose worker is killed again and again.

    Attributes:
        at: When each kill was sent, and when the worker was dead.
    """

    c: Circusd
    name: str
    load: Load
    dead: list[int] = field(default_factory=list)
    at: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        *self.siblings, self.pid = self.c.wait_ready(name=self.name)
        self.slot = self.c.worker(self.pid, self.name)["slot"]

    def kill_once_served(self) -> None:
        eventually(partial(has_served, self.c, self.pid, self.name), what="it has served")
        self.at.append((kill(self.pid), time.monotonic()))
        self.dead.append(self.pid)

    def wait_for_successor(self) -> None:
        self.pid = eventually(
            lambda: up_in(self.c, self.slot, self.name) - {*self.dead}, what="its successor is up"
        ).pop()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_sixth_kill_of_a_worker_that_has_served_is_put_right_like_the_first(tmp_path: Path, workers: int) -> None:
    """Given the only worker, or one of two, at each level of `worker.preload`, when its slot's worker is killed each
    time that it has served, six times, then each successor is started at once, and no request is lost but those that
    the dead worker had."""
    levels = "server", "app"
    watchers = [Watcher(level, workers, options={"worker.preload": level}) for level in levels]
    with circusd(tmp_path, watchers=watchers) as c, ExitStack() as loads:
        slots = [Killed(c, level, Load(c.url_of(level), rate=50, timeout=30)) for level in levels]
        for slot in slots:
            loads.enter_context(slot.load)
        for _ in range(KILLS):
            for slot in slots:
                slot.kill_once_served()
            for slot in slots:
                slot.wait_for_successor()
        for slot in slots:
            eventually(partial(answers, slot), what="the last successor answers")
        loads.close()

        for slot in slots:
            assert c.watcher(slot.name)["preload"]["level"] == slot.name
            assert [failure.message["wait"] for failure in c.failures(slot.name)] == [0.0] * KILLS
            assert set(slot.siblings) < set(c.workers(slot.name))
            assert {request.outcome for request in slot.load.lost} <= {"reset", "closed"}
            # What comes after a kill waits in the listener's queue.
            assert all(
                any(lost.start <= gone and at <= lost.start + lost.latency for at, gone in slot.at)
                for lost in slot.load.lost
            )
            assert c.watcher(slot.name)["budget"]["used"] == 5
            assert [event.message["wait"] for event in c.told("cooldown", slot.name)] == [0.0]
            assert "next try at once" in c.watcher(slot.name)["last_reason"]


def answers(slot: Killed) -> bool:
    return slot.pid in slot.load.workers


def test_a_worker_that_dies_young_cools_down_all_the_same_after_one_that_has_served(tmp_path: Path) -> None:
    """Given the only worker, when one that has served and then young ones are killed, then the slot waits."""
    options = {"restart.burst": 3, "restart.delay": 0.1, "restart.delay_max": 30, "restart.cooldown": 300}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options)]) as c:
        (pid,) = c.wait_ready()
        eventually(lambda: has_served(c, pid), what="it has served")
        for _ in range(2):
            kill(pid)
            (pid,) = eventually(partial(successors_of, c, pid))
        kill(pid)

        eventually(lambda: c.words() == ["held"])
        assert pace_of(c.failures()[-1]) == 30
        assert c.verdict() == "looping"
