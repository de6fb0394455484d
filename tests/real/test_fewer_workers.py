"""Fewer workers are wanted, by whichever way: those that do not serve go first, so that nobody waits for an answer."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from .harness import Circusd, circusd, eventually, kill
from .state_words import is_held, is_starting

OPTIONS = {
    "graceful_timeout": 2,
    "restart.burst": 2,
    "restart.delay": 0.1,
    "restart.delay_max": 0.1,
    "restart.cooldown": 600,
}


def decr(c: Circusd) -> None:
    c.do("decr", name="web", waiting=True)


def set_numprocesses(c: Circusd) -> None:
    c.do("set", name="web", options={"numprocesses": 1}, waiting=True)


def edit_and_reloadconfig(c: Circusd) -> None:
    c.write_ini(watcher__web={"numprocesses": 1})
    c.do("reloadconfig", waiting=True)


def cool_one(c: Circusd) -> int:
    """Crash one of two workers until its slot cools down; return the pid of the other."""
    healthy, doomed = c.wait_ready()
    c.set("boot", "die")
    kill(doomed)
    eventually(lambda: c.told("cooldown") and any(map(is_held, c.watcher()["workers"])), what="one cools down")
    c.set("boot", "")
    return healthy


def start_one(c: Circusd) -> int:
    """Kill one of two workers, whose successor goes on starting; return the pid of the other."""
    healthy, killed = c.wait_ready()
    c.set("boot", "held")
    kill(killed)
    eventually(lambda: any(map(is_starting, c.watcher()["workers"])), what="one is starting")
    return healthy


def block_one(c: Circusd) -> int:
    """Have the younger of two workers blocked, whose successor goes on starting; return the pid of the other."""
    healthy, blocked = c.wait_ready()
    c.set("boot", "held")
    assert c.replace(blocked, "blocked")["status"] == "ok"
    eventually(lambda: any(map(is_starting, c.watcher()["workers"])), what="its successor is starting")
    return healthy


@pytest.mark.parametrize(
    ("spoil", "ask"),
    [*product([cool_one, start_one], [decr, set_numprocesses, edit_and_reloadconfig]), (block_one, decr)],
)
def test_the_one_that_does_not_serve_goes(
    tmp_path: Path, spoil: Callable[[Circusd], int], ask: Callable[[Circusd], None]
) -> None:
    """Given a worker that serves and one that cools, starts, or is blocked and has a successor that starts, when one
    fewer is wanted, then the first serves on, and no other is said to be kept."""
    with circusd(tmp_path, options=OPTIONS) as c:
        healthy = spoil(c)

        ask(c)

        eventually(lambda: len(c.workers()) == 1, what="one worker is left")
        assert c.workers() == [healthy]
        assert {c.get() for _ in range(5)} == {str(healthy)}
        assert c.watcher()["numprocesses"] == 1
        assert c.told("kept") == []


def test_a_reload_goes_on_with_those_that_are_left(tmp_path: Path) -> None:
    """Given a reload whose first new worker starts, when one fewer is wanted, then the rest are reloaded."""
    with circusd(tmp_path, options=OPTIONS) as c:
        before = c.wait_ready()
        c.set("boot", "held")
        c.do("xboard_reload", name="web")
        eventually(lambda: any(map(is_starting, c.watcher()["workers"])), what="a new one is starting")

        decr(c)
        c.set("boot", "")

        ended = eventually(lambda: reload if (reload := c.watcher()["reload"])["state"] != "running" else None)
        assert (ended["state"], ended["reason"]) == ("done", "")
        assert not set(c.wait_ready(1)) & set(before)
