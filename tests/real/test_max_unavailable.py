"""Several sick workers are replaced at once where `health.max_unavailable` allows it; a drain holds nobody up."""

from pathlib import Path

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds
from .state_words import is_leaving, is_starting

QUICK = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 3,  # eleven processes on a crowded machine answer late, and are not to be taken for hung
    "health.failure_threshold": 2,
    "graceful_timeout": 600,
    **FAST_RESTARTS,
}

PATIENT = "--ws none --timeout-graceful-shutdown 590"


def probed(c: Circusd) -> list[int]:
    pids = c.wait_ready()
    eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in pids), what="each was probed")
    return pids


def starting(c: Circusd) -> int:
    return sum(map(is_starting, c.watcher()["workers"]))


def test_three_of_eight_are_replaced_at_once(tmp_path: Path) -> None:
    """Given eight workers and max_unavailable = 3, when three turn sick, then three successors start together, all
    eight serve on meanwhile, and in the end the three are gone."""
    watcher = Watcher(numprocesses=8, options={**QUICK, "health.max_unavailable": 3})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)
        sick = pids[:3]

        c.set("boot", "held")
        for pid in sick:
            c.set(f"live.pid-{pid}", "500")
        eventually(lambda: starting(c) == 3, what="three successors are starting")
        assert set(pids) <= set(c.workers())
        c.set("boot", "")

        eventually(lambda: not set(sick) & set(c.workers()), what="the sick ones are gone")
        assert set(pids) - set(sick) <= set(c.wait_ready())


def test_no_more_than_allowed_are_replaced_at_once(tmp_path: Path) -> None:
    """Given eight workers and max_unavailable = 2, when three turn sick, then two successors start, and then one."""
    watcher = Watcher(numprocesses=8, options={**QUICK, "health.max_unavailable": 2})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        sick = probed(c)[:3]

        c.set("boot", "held")
        for pid in sick:
            c.set(f"live.pid-{pid}", "500")
        eventually(lambda: starting(c) == 2, what="two successors are starting")
        holds(lambda: starting(c) <= 2, seconds=2)
        c.set("boot", "")

        eventually(lambda: not set(sick) & set(c.workers()), what="the sick ones are gone")
        c.wait_ready()


def test_a_drain_holds_back_no_other_replacement(tmp_path: Path) -> None:
    """Given two sick of five with a long request each, when both are replaced, then the second one's successor serves
    while the first one drains, and both requests are answered."""
    watcher = Watcher(numprocesses=5, options=QUICK, arguments=PATIENT)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)
        sick = pids[:2]
        held = c.hold_each(sick)

        for pid in sick:
            c.set(f"live.pid-{pid}", "500")

        def both_drain() -> bool:
            return all(is_leaving(c.worker(pid)) for pid in sick) and len(c.ready()) == 5

        eventually(both_drain, what="both drain, and five others serve")
        c.finish(held)
        eventually(lambda: not set(sick) & set(c.workers()), what="the sick ones are gone")
