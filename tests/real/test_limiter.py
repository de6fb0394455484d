"""Restarts have a schedule, a limit and a cooldown, for each worker alone; what an operator asks for costs nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .facts_of_state import paces
from .harness import Circusd, Watcher, circusd, eventually, holds, kill
from .processes import process

FAST = {
    "restart.burst": 4,
    "restart.window": 60,
    "restart.delay": 0.2,
    "restart.delay_max": 1.5,  # no wait is longer while no worker is up
    "restart.cooldown": 1.5,
}


def test_an_app_that_dies_at_import_is_tried_ever_later_and_then_once_in_a_cooldown(tmp_path: Path) -> None:
    """Given two workers whose app raises at import, when they have crash-looped for a while, then the schedule held."""
    begin = time.monotonic()
    with circusd(tmp_path, watchers=[Watcher(options=FAST, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.told("cooldown")) == 2)
        cooling, cpu, size = time.monotonic(), process(c.pid).cpu, len(c.log())
        eventually(lambda: len([start for start in c.starts() if start.at > cooling]) >= 3)
        now = time.monotonic()

        for wid in (1, 2):
            at = [start.at for start in c.starts() if start.wid == wid]
            assert len(at) <= 4 + (now - begin) / 1.5 + 1
            # At once, then 0.2 and 0.4 with a jitter of a fifth; then never sooner than the cooldown.
            first, second, third, *later = paces(c, slot=wid)
            assert (first >= 0, second >= 0.16, third >= 0.32, min(later, default=1.5) >= 1.5) == (True,) * 4
        assert process(c.pid).cpu - cpu < 0.1 * (now - cooling)
        assert len(c.log()) - size < 20_000


def test_a_waiting_worker_shows_why_and_until_when_and_is_up_one_try_after_the_cure(tmp_path: Path) -> None:
    """Given a cooling crash loop, when the app is mended, then each worker is up with its next try."""
    with circusd(tmp_path, watchers=[Watcher(options=FAST, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.told("cooldown")) == 2)

        def cooling() -> dict[str, Any] | None:
            """What the state tells at once of both, at a time when neither is being tried."""
            told = c.watcher()
            return told if [worker["held_by"] for worker in told["workers"]] == ["cooldown"] * 2 else None

        told = eventually(cooling)
        assert all(0 <= worker["next_try"] <= 1.5 for worker in told["workers"])
        assert [worker["reason"] for worker in told["workers"]] == ["cooling down"] * 2
        assert "told to die at import" in told["last_reason"]
        assert 0 <= told["cooldown_until"] <= 1.5
        assert c.status() == "active"

        c.set("boot", "")
        cured_at = time.monotonic()
        c.wait_ready()

        tries = Counter(start.wid for start in c.starts() if start.at > cured_at)
        assert tries.total() > 0
        assert max(tries.values()) == 1


def test_after_the_cure_who_cools_for_what_both_spent_waits_for_no_try_of_its_own(tmp_path: Path) -> None:
    """Given two workers in one loop of which one cools, when the app is mended and the other holds, then both serve."""
    options = {**FAST, "restart.delay": 3, "restart.delay_max": 3, "restart.cooldown": 600}
    with circusd(tmp_path, watchers=[Watcher(options=options, told={"boot": "die"})]) as c:
        eventually(lambda: c.told("cooldown"))
        c.set("boot", "")

        c.wait_ready()  # long before the cooldown is over

        assert len(c.told("cooldown")) == 1


def test_one_crash_looping_worker_of_four_costs_the_others_nothing(tmp_path: Path) -> None:
    """Given four workers of which wid 2 dies at import, when it has cooled down twice, then the others are the same."""
    watcher = Watcher(numprocesses=4, options=FAST, told={"boot.wid-2": "die"})
    with circusd(tmp_path, watchers=[watcher]) as c:
        healthy = c.wait_ready(3)

        eventually(lambda: c.told("cooldown"))
        cooled = len(c.failures())
        eventually(lambda: len(c.failures()) >= cooled + 2)

        assert c.ready() == healthy
        assert {event.message["wid"] for event in c.failures()} == {2}
        assert c.serves()


def test_a_stop_in_a_wait_lasts_and_a_start_begins_anew(tmp_path: Path) -> None:
    """Given a worker that waits for a cooldown, when it is stopped and later started, then it waits no more."""
    options = {**FAST, "restart.cooldown": 600}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options, told={"boot": "die"})]) as c:
        eventually(lambda: c.told("cooldown"))
        eventually(lambda: c.words() == ["held"])

        c.do("stop", name="web", waiting=True)
        c.set("boot", "")
        holds(lambda: c.status() == "stopped" and not c.workers(), seconds=1)
        c.do("start", name="web", waiting=True)

        c.wait_ready()
        assert c.watcher()["budget"]["used"] == 0


def test_a_restart_by_the_operator_ends_the_wait(tmp_path: Path) -> None:
    """Given a worker that waits for a cooldown, when the operator restarts its watcher, then it is tried at once."""
    options = {**FAST, "restart.cooldown": 600, "restart.delay_max": 600}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options, told={"boot": "die"})]) as c:
        eventually(lambda: c.told("cooldown"))

        c.set("boot", "")
        c.do("restart", name="web", waiting=True)

        c.wait_ready()


def reload(c: Circusd) -> None:
    c.do("reload", name="web", waiting=True)


def restart(c: Circusd) -> None:
    c.do("restart", name="web", waiting=True)


def grow_and_shrink(c: Circusd) -> None:
    c.do("incr", name="web", waiting=True)
    c.wait_ready(3)
    c.do("decr", name="web", waiting=True)


def kill_one(c: Circusd) -> None:
    c.do("kill", name="web", pid=c.workers()[0], waiting=True)


def signal_one(c: Circusd) -> None:
    c.do("signal", name="web", pid=c.workers()[0], signum=9)


def expire(c: Circusd) -> None:
    old = c.wait_ready()
    c.do("set", name="web", options={"max_age": 1, "max_age_variance": 0}, waiting=True)
    eventually(lambda: not set(old) & set(c.workers()))
    c.do("set", name="web", options={"max_age": 0}, waiting=True)


@pytest.mark.parametrize("command", [restart, reload, grow_and_shrink, kill_one, signal_one, expire])
def test_what_the_operator_asks_for_costs_nothing(operated: Circusd, command: Callable[[Circusd], None]) -> None:
    """Given two workers, when Circus ends some of them because it was told to, then no failure is counted."""
    before = operated.wait_ready()

    command(operated)

    eventually(lambda: set(operated.workers()) != set(before), what="another set of workers")
    operated.wait_ready()
    assert operated.failures() == []
    assert operated.watcher()["budget"]["used"] == 0
    assert operated.watcher()["restarts"] == 0


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("operated"), check_delay=1) as c:
        yield c


def test_a_worker_that_stays_ready_clears_its_count(tmp_path: Path) -> None:
    """Given one counted failure, when the new worker has been ready for restart.reset_after, then none is left."""
    with circusd(tmp_path, numprocesses=1, options={"restart.reset_after": 4}) as c:
        (pid,) = c.wait_ready()
        kill(pid)
        eventually(lambda: c.watcher()["budget"]["used"] == 1)
        c.wait_ready()

        eventually(lambda: c.watcher()["budget"]["used"] == 0)
        eventually(lambda: len(c.told("recovered")) == 1)


def test_no_app_evades_the_limit_by_the_exit_code_of_a_recycled_worker(tmp_path: Path) -> None:
    """Given an app that ends its workers with code 75 at import, or later with no limit of requests, it is a failure
    as with any code; given one whose limit is reached, it is none."""
    limited = Watcher("limited", 1, arguments="--ws none --limit-max-requests 9")
    evading = Watcher(options=FAST, told={"boot": "exit 75"})
    with circusd(tmp_path, watchers=[evading, limited]) as c:
        eventually(lambda: len(c.told("cooldown")) == 2)
        assert {failure.reason for failure in c.failures()} == {"exited with code 75 before it was up"}

        c.set("boot", "")
        first, _ = c.wait_ready()
        before = c.last_told()
        c.tell(first, "exit 75")
        (failure,) = eventually(lambda: c.failures(after=before))
        assert (failure.pid, failure.reason) == (first, "exited with code 75")

        (first,) = c.wait_ready(name="limited")
        eventually(lambda: c.serves("limited") and first not in c.workers("limited"))
        assert c.failures("limited") == []
