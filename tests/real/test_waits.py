"""How long a slot waits after a death: from its last start, and never longer than need be where nothing is up."""

import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from .facts_of_state import held, paces
from .harness import Circusd, Watcher, circusd, eventually, holds, kill
from .processes import process

# 4 to 6 s with the jitter; a worker that has lived for longer has waited already.
LONG_WAIT = {"restart.burst": 50, "restart.delay": 5, "restart.delay_max": 5}
LONGEST = 6.0
COOLING = {
    "restart.burst": 2,
    "restart.delay": 0.4,
    "restart.delay_max": 0.8,
    "restart.cooldown": 600,
    "restart.window": 600,
}


def lived(c: Circusd, pid: int) -> float:
    age: float = c.worker(pid)["age"]
    return age


def has_lived(c: Circusd, pid: int, seconds: float) -> bool:
    return lived(c, pid) > seconds


def successors_of(c: Circusd, pid: int) -> list[int]:
    return [new for new in c.ready() if new != pid]


def test_a_worker_that_outlived_its_wait_is_started_at_once(tmp_path: Path) -> None:
    """Given a worker with two deaths, when one that lived longer than the wait is killed, no slot is held."""
    with circusd(tmp_path, options=LONG_WAIT) as c:
        first, sibling = c.wait_ready()
        kill(first)
        (second,) = set(c.wait_ready()) - {sibling}
        eventually(lambda: lived(c, second) > LONGEST, what="the second has lived longer than the longest wait")

        before = c.last_told()
        kill(second)
        (failure,) = eventually(lambda: c.failures(after=before))

        assert failure.message["wait"] == 0
        assert held(c) == []
        assert sibling in c.wait_ready()


def test_a_worker_that_dies_young_waits_for_the_rest_only(tmp_path: Path) -> None:
    """Given a worker with two deaths, when one is killed half-way through the wait, then it waits for what is left."""
    with circusd(
        tmp_path, options={**LONG_WAIT, "restart.delay": 30, "restart.delay_max": 30, "restart.window": 6000}
    ) as c:
        first, sibling = c.wait_ready()
        kill(first)
        (second,) = set(c.wait_ready()) - {sibling}
        eventually(lambda: lived(c, second) > 12.5)

        before = c.last_told()
        kill(second)
        (failure,) = eventually(lambda: c.failures(after=before))

        # From its start on 24 to 36 s by the jitter, of which 12.5 are over at the least: from its death on it is less.
        assert 24 <= round(failure.message["wait"] + failure.message["lived"], 2) <= 36
        assert eventually(lambda: held(c))[0]["next_try"] <= failure.message["wait"] < 24


def test_where_nothing_is_up_no_wait_is_longer_than_delay_max(tmp_path: Path) -> None:
    """Given an app that dies at import, when its burst is used up, it is tried each restart.delay_max, and comes up."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=COOLING, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.failures()) >= 6, what="six tries, four of them beyond the burst")
        c.set("boot", "")
        c.wait_ready()

        assert min(paces(c, slot=1)[2:]) >= 0.64  # the longest wait less its jitter
        assert all(worker["next_try"] is None for worker in c.watcher()["workers"])


def test_a_lone_worker_that_outlives_delay_max_each_time_is_started_at_once_however_often_it_is_killed(
    tmp_path: Path,
) -> None:
    """Given the only worker, when it and each after it is killed beyond the burst, once it has lived longer than the
    longest wait of a watcher without any, then none waits, and none is an outage."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=COOLING)]) as c:
        (pid,) = c.wait_ready()
        for _ in range(4):
            # restart.delay_max and its jitter are less.
            eventually(partial(has_lived, c, pid, 1.2), what="it has lived longer than the longest wait")
            kill(pid)
            (pid,) = eventually(partial(successors_of, c, pid), what="another is up")

        assert [each.message["wait"] for each in c.failures()] == [0.0] * 4
        assert c.told("cooldown"), "no proof: its burst was not used up"


def test_two_that_are_both_down_are_tried_within_delay_max(tmp_path: Path) -> None:
    """Given two workers whose app dies at import, when it is mended past the burst, then both are up soon."""
    with circusd(tmp_path, watchers=[Watcher(options=COOLING, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.failures()) >= 6, what="both are past their burst")
        c.set("boot", "")

        c.wait_ready()


def test_a_cooldown_beside_a_worker_that_serves_is_a_cooldown(tmp_path: Path) -> None:
    """Given one of two that dies at import, when its burst is used up, then it is held, and held for long."""
    watcher = Watcher(options=COOLING, told={"boot.wid-2": "die"})
    with circusd(tmp_path, watchers=[watcher]) as c:
        (serving,) = c.wait_ready(1)
        eventually(lambda: c.told("cooldown") and held(c))
        tries = len(c.starts())

        holds(lambda: len(c.starts()) == tries, seconds=1.5)
        assert held(c)[0]["next_try"] > 500

        # Now nothing is up any more, and a cooldown would be an outage.
        c.set("boot.wid-2", "")
        c.set("boot", "slow 2")  # a forked worker is up before anybody has seen that none is
        assert process(serving).signal(9)
        eventually(lambda: len(c.ready()) == 2, what="the held one is let go too")


def test_a_held_slot_has_no_process_is_on_show_and_is_retried(tmp_path: Path) -> None:
    """Given a slot that cools down, then no process waits for it, it is shown as held, and a retry starts it."""
    with circusd(tmp_path, watchers=[Watcher(options=COOLING, told={"boot.wid-2": "die"})]) as c:
        (serving,) = c.wait_ready(1)
        (entry,) = eventually(lambda: held(c) if c.told("cooldown") else [])

        shown = {name: entry[name] for name in ("pid", "slot", "held_by", "reason")}
        assert shown == {"pid": 0, "slot": 2, "held_by": "cooldown", "reason": "cooling down"}
        assert entry["next_try"] > 500
        assert c.workers() == [serving]
        assert [each.command for each in c.processes() if "launch.py" in each.command] == []

        c.set("boot.wid-2", "")
        c.do("xboard_retry", name="web", slot=entry["slot"])
        assert serving in c.wait_ready(2)
        assert held(c) == []


@pytest.mark.parametrize("doomed", [1, 2])
def test_a_held_slot_that_is_taken_away_starts_afresh(tmp_path: Path, doomed: int) -> None:
    """Given one of two slots that cools down, when one worker fewer is wanted and then one more, then both serve; and
    with one, a worker that dies is back at once: the cooldown of the other slot is none of its own."""
    with circusd(tmp_path, options=COOLING) as c:
        c.wait_ready()
        pids = {worker["slot"]: worker["pid"] for worker in c.watcher()["workers"]}
        c.set("boot", "die")
        kill(pids[doomed])
        eventually(lambda: c.told("cooldown") and held(c))
        c.set("boot", "")

        c.do("decr", name="web", waiting=True)
        assert (held(c), c.watcher()["cooldown_until"]) == ([], None)
        kill(pids[3 - doomed])
        c.wait_ready(1)

        c.do("incr", name="web", waiting=True)
        c.wait_ready(2)


def test_many_held_slots_cost_circusd_nothing(tmp_path: Path) -> None:
    """Given more held slots than are spawned in one turn, when time goes by, then circusd is idle."""
    options = {**COOLING, "restart.delay_max": 600}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=6, options=options, told={"boot": "die"})]) as c:
        eventually(lambda: len(held(c)) == 6 and all(each["next_try"] > 100 for each in held(c)))
        before, began = psutil.Process(c.pid).cpu_times(), time.monotonic()

        holds(lambda: len(held(c)) == 6, seconds=2, every=0.5)

        after, took = psutil.Process(c.pid).cpu_times(), time.monotonic() - began
        assert (after.user + after.system - before.user - before.system) / took < 0.3


def test_a_held_slot_of_a_watcher_without_respawn_runs_once(tmp_path: Path) -> None:
    """Given respawn = False and run.before that takes a while, when it is over, then the worker runs, and only once."""
    go = tmp_path / "go"
    options = {"respawn": False, "run.before": f"sh -c 'until [ -e {go} ]; do sleep 0.1; done'"}
    with circusd(tmp_path, numprocesses=1, options=options) as c:
        eventually(lambda: [each["held_by"] for each in held(c)] == ["before"])
        go.touch()
        (worker,) = c.wait_ready()

        kill(worker)

        eventually(lambda: c.status() == "stopped")
        assert len(c.starts()) == 1
