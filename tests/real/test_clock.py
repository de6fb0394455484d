"""The clock is set by an hour, either way, under a running backend: nothing happens, and nothing due is missed."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .facts_of_state import paces
from .harness import BUNDLE, FAST_RESTARTS, HERE, Circusd, Watcher, circusd, eventually, holds, kill

OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 2,
    "health.failure_threshold": 2,
    **FAST_RESTARTS,
}
COOLING = {**FAST_RESTARTS, "restart.burst": 2, "restart.delay_max": 1.5, "restart.cooldown": 1.5}


def set_clock(file: Path, offset: float) -> None:
    with file.open("r+b") as clock:  # in place: the processes have this file mapped, not its name
        clock.write(struct.pack("d", offset))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, Path]]:
    """Two sound workers and one in a crash loop, under circusd, plugin and workers whose clock can be set."""
    folder = tmp_path_factory.mktemp("clock")
    clock = folder / "offset"
    clock.write_bytes(struct.pack("d", 0.0))
    env = {"PYTHONPATH": str(HERE / "clock"), "CLOCK_FILE": str(clock)}
    loop = Watcher("loop", numprocesses=1, options=COOLING, told={"boot": "die"})
    watchers = [Watcher(options=OPTIONS), loop]
    with circusd(folder, watchers=watchers, plugins=BUNDLE, check_delay=1, env=env) as c:
        c.wait_ready()
        eventually(lambda: c.told("cooldown", "loop"))
        yield c, clock


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_an_hour_more_or_less_changes_nothing(shared: tuple[Circusd, Path], offset: float) -> None:
    """Given a steady backend and a cooldown, when the clock steps, then no worker dies and the cooldown stays."""
    c, clock = shared
    pids, before = c.wait_ready(), c.last_told()
    tried = len(c.starts("loop"))
    eventually(lambda: len(c.starts("loop")) > tried, what="a wait begins")
    start = time.monotonic()

    set_clock(clock, offset)
    eventually(
        lambda: abs(c.events.all()[-1].message["time"] - time.time() - offset) < 60, what="circusd's clock moved"
    )
    holds(lambda: c.ready() == pids, seconds=3.5)
    eventually(lambda: [each for each in c.starts("loop") if each.at > start], what="the next try comes all the same")

    assert c.failures(after=before) == []
    # None is sooner than decided, also in the wait in which the clock was set, and none is decided by that clock.
    assert [pace for pace in paces(c, slot=1, name="loop")[tried - 1 :] if not 1.5 <= pace < 600] == []
    assert c.told("unhealthy", after=before) == []
    assert c.plugin("xboard").alive


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_after_the_step_all_is_watched_as_before(shared: tuple[Circusd, Path], offset: float) -> None:
    """Given the clock set, when one worker is killed and another turns sick, then both are replaced as ever."""
    c, clock = shared
    set_clock(clock, 0.0)
    dead, sick = c.wait_ready()

    set_clock(clock, offset)
    before = c.last_told()
    kill(dead)
    c.wait_ready()
    (death,) = c.failures(after=before)
    assert (death.pid, death.message["wait"]) == (dead, 0)
    c.set(f"live.pid-{sick}", "500")

    eventually(lambda: [each.pid for each in c.failures(after=before)] == [dead, sick], what="both are told")
    c.wait_ready()
