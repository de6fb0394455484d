"""How long a slot waits after a death: from its last start, and never longer than need be where nothing is up."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from .facts_of_state import held, wait_for_spare
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
    with circusd(tmp_path, options={**LONG_WAIT, "restart.delay": 10, "restart.delay_max": 10}) as c:
        first, sibling = c.wait_ready()
        kill(first)
        (second,) = set(c.wait_ready()) - {sibling}
        eventually(lambda: lived(c, second) > 5)

        before = c.last_told()
        kill(second)
        (failure,) = eventually(lambda: c.failures(after=before))

        # 8 to 12 s by the jitter, of which 5 are over.
        assert 0 < failure.message["wait"] < 7.5
        assert eventually(lambda: held(c))[0]["next_try"] < 7.5


def starts_of(c: Circusd) -> Mapping[int, list[float]]:
    found: dict[int, list[float]] = {}
    for start in c.starts():
        found.setdefault(start.wid, []).append(start.at)
    return found


def test_where_nothing_is_up_no_wait_is_longer_than_delay_max(tmp_path: Path) -> None:
    """Given an app that dies at import, when its burst is used up, it is tried each restart.delay_max, and comes up."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=COOLING, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.failures()) >= 6, what="six tries, four of them beyond the burst")
        c.set("boot", "")
        c.wait_ready()

        gaps = [later - earlier for earlier, later in pairwise(start.at for start in c.starts())]
        # 0.64 s is the longest wait less its jitter; from a start to the next import, imports counted alike.
        assert min(gaps[3:]) > 0.5
        assert all(worker["next_try"] is None for worker in c.watcher()["workers"])


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
        eventually(lambda: c.events.named("cooldown") and held(c))
        tries = len(c.starts())

        holds(lambda: len(c.starts()) == tries, seconds=1.5)
        assert held(c)[0]["next_try"] > 500

        # Now nothing is up any more, and a cooldown would be an outage.
        c.set("boot.wid-2", "")
        c.set("boot", "slow 2")  # a forked worker is up before anybody has seen that none is
        assert process(serving).signal(9)
        eventually(lambda: len(c.ready()) == 2, what="the held one is let go too")


def test_a_held_slot_is_on_show_and_is_retried_though_its_launcher_was_killed(tmp_path: Path) -> None:
    """Given a slot that cools down, when its launcher is killed, then it is shown as held as before, and a retry
    starts it."""
    with circusd(tmp_path, watchers=[Watcher(options=COOLING, told={"boot.wid-2": "die"})]) as c:
        (serving,) = c.wait_ready(1)
        (launcher,) = eventually(lambda: held(c) if c.events.named("cooldown") else [])
        kill(launcher["pid"])

        (entry,) = eventually(lambda: [each for each in held(c) if each["pid"] == 0], what="held without a process")
        shown = {name: entry[name] for name in ("slot", "held_by", "reason")}
        assert shown == {"slot": launcher["slot"], "held_by": "cooldown", "reason": "cooling down"}
        assert entry["next_try"] > 500

        c.set("boot.wid-2", "")
        c.do("xboard_retry", name="web", slot=entry["slot"])
        assert serving in c.wait_ready(2)
        assert [each["pid"] for each in c.watcher()["workers"] if not each["pid"]] == []


def test_a_spare_takes_the_place_when_the_wait_ends(tmp_path: Path) -> None:
    """Given a lone worker and a spare, when it is killed again and again, then each time the spare serves next."""
    options = {**COOLING, "worker.spares": 1, "restart.delay": 1, "restart.delay_max": 1.5}
    with circusd(tmp_path, numprocesses=1, options=options) as c:
        (serving,) = c.wait_ready()
        for _ in range(4):
            spare = wait_for_spare(c, other_than=serving)
            kill(serving)
            eventually(lambda gone=serving: c.ready() and gone not in c.ready())  # type: ignore[misc]

            assert c.ready() == [spare]
            assert c.get() == str(spare)
            serving = spare
