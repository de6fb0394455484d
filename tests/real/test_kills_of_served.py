"""Kill workers from outside: one that had served is put right the sixth time like the first; young deaths are paced."""

import time
from functools import partial
from pathlib import Path

import pytest

from xboard_circus.core.restart_limits import SERVED

from .facts_of_state import pace_of
from .harness import Circusd, Watcher, circusd, eventually, is_well, kill
from .load import Load

KILLS = 6


def has_served(c: Circusd, pid: int) -> bool:
    return (c.worker(pid)["ready_for"] or 0.0) > SERVED


def up_in(c: Circusd, slot: int) -> set[int]:
    return {each["pid"] for each in c.watcher()["workers"] if each["slot"] == slot and is_well(each)}


def successors_of(c: Circusd, pid: int) -> list[int]:
    return [new for new in c.ready() if new != pid]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_sixth_kill_of_a_worker_that_has_served_is_put_right_like_the_first(tmp_path: Path, workers: int) -> None:
    """Given the only worker, or one of two, when its slot's worker is killed each time that it has served, six times,
    then each successor is started at once, and no request is lost but those that the dead worker had."""
    with circusd(tmp_path, numprocesses=workers) as c:
        *siblings, pid = c.wait_ready()
        slot, dead, killed = c.worker(pid)["slot"], set[int](), list[tuple[float, float]]()  # and when it was dead
        with Load(c.url, rate=50, timeout=30) as load:
            for _ in range(KILLS):
                eventually(partial(has_served, c, pid), what="it has served")
                killed.append((kill(pid), time.monotonic()))
                dead.add(pid)
                pid = eventually(lambda: up_in(c, slot) - dead, what="its successor is up").pop()
            eventually(lambda: pid in load.workers, what="the last successor answers")

        assert [failure.message["wait"] for failure in c.failures()] == [0.0] * KILLS
        assert set(siblings) < set(c.workers())
        assert {request.outcome for request in load.lost} <= {"reset", "closed"}
        # What comes after a kill waits in the listener's queue.
        assert all(
            any(lost.start <= gone and at <= lost.start + lost.latency for at, gone in killed) for lost in load.lost
        )
        assert c.watcher()["budget"]["used"] == 5
        assert [event.message["wait"] for event in c.told("cooldown")] == [0.0]
        assert "next try at once" in c.watcher()["last_reason"]


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
