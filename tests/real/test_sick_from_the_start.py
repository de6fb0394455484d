"""A live path that fails from its first answer on is no good start: the worker is counted, replaced, and told of."""

import signal
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Watcher, circusd, eventually, kill

OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "health.startup_timeout": 15,
    "graceful_timeout": 2,
    **FAST_RESTARTS,
}


@pytest.mark.parametrize("answer", ["500", "hang"])
def test_one_of_three_that_never_answers_well_is_replaced(tmp_path: Path, answer: str) -> None:
    """Given one of three whose live path fails from the first probe on, when its time to start is over, then it is
    counted and replaced, the others are left alone, and all three serve when it is mended."""
    watcher = Watcher(numprocesses=3, options=OPTIONS, told={"live.wid-2": answer})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        sick = eventually(lambda: [start.pid for start in c.starts() if start.wid == 2])[0]
        others = eventually(lambda: set(c.workers()) - {sick} if len(c.workers()) == 3 else None)

        eventually(lambda: sick in [event.pid for event in c.failures()], what="its end is counted and published")
        c.set("live.wid-2", "")

        fresh = c.wait_ready()
        assert sick not in fresh
        assert others <= set(fresh)


def test_one_that_is_sick_before_the_prober_first_sees_it_is_replaced(tmp_path: Path) -> None:
    """Given a worker that came up and is sick by its first probe, then it is replaced and its siblings are left alone.

    The plugin is halted meanwhile, as where it starts late or the machine is busy.
    """
    with circusd(tmp_path, watchers=[Watcher(numprocesses=3, options=OPTIONS)], plugins=BUNDLE) as c:
        first, *others = c.wait_ready()
        kill(c.plugin("xboard").pid, signal.SIGSTOP)
        kill(first)
        (sick,) = eventually(lambda: set(c.wait_ready()) - {first, *others})

        c.set(f"live.pid-{sick}", "500")
        kill(c.plugin("xboard").pid, signal.SIGCONT)

        eventually(lambda: sick not in c.workers(), what="the sick one is replaced")
        assert set(others) < set(c.wait_ready())
