"""A hook of the user's that fails once costs a moment, not the watcher."""

import os
import signal
from pathlib import Path

import pytest

from .harness import FAST_RESTARTS, Watcher, circusd, eventually

HOOK = """
import os

def {hook}(**_):
    if os.path.exists({flag!r}):
        os.remove({flag!r})
        {failure}
    return True
"""
RAISES, REFUSES = 'raise RuntimeError("the hook fails this once")', "return False"


def failing_once(folder: Path, failure: str = RAISES, hook: str = "before_spawn") -> tuple[Watcher, Path]:
    """Return a watcher whose *hook* fails where a file is, and that file, which it removes."""
    flag = folder / "fail"
    (folder / "user_hooks.py").write_text(HOOK.format(flag=str(flag), failure=failure, hook=hook))
    return Watcher(options={**FAST_RESTARTS, f"hooks.{hook}": f"user_hooks.{hook}"}), flag


@pytest.mark.parametrize(
    ("hook", "failure", "told"),
    [
        ("before_spawn", "raise RuntimeError", "hook before_spawn raised RuntimeError; restart budget"),
        ("after_spawn", REFUSES, "hook after_spawn returned false; restart budget"),
    ],
    ids=["before_spawn", "after_spawn"],
)
def test_a_hook_that_fails_a_respawn_once_costs_that_slot_a_wait(
    tmp_path: Path, hook: str, failure: str, told: str
) -> None:
    """Given two workers, when one is killed and the hook fails once, perhaps without a word, then the other serves on,
    two serve soon, and the reason is whole."""
    watcher, flag = failing_once(tmp_path, failure, hook)
    with circusd(tmp_path, watchers=[watcher], env={"PYTHONPATH": str(tmp_path)}) as c:
        killed, kept = c.wait_ready()

        flag.touch()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not flag.exists(), what="the hook was called")

        eventually(lambda: f"hook {hook}" in c.log("circusd"), what="the reason is logged")
        assert kept in c.wait_ready(2)
        assert c.status() == "active"
        assert told in c.watcher()["last_reason"]


def test_a_before_spawn_that_refuses_the_first_worker_is_tried_again(tmp_path: Path) -> None:
    """Given a before_spawn that says no to the first worker, when circusd starts, then two workers serve soon."""
    watcher, flag = failing_once(tmp_path, REFUSES)
    flag.touch()
    with circusd(tmp_path, watchers=[watcher], env={"PYTHONPATH": str(tmp_path)}) as c:
        c.wait_ready()

        assert not flag.exists()


def test_a_before_spawn_that_raises_once_leaves_the_others_alone_and_is_tried_again(tmp_path: Path) -> None:
    """Given two workers, when before_spawn raises for a third, then both serve on, and three serve soon."""
    watcher, flag = failing_once(tmp_path)
    with circusd(tmp_path, watchers=[watcher], env={"PYTHONPATH": str(tmp_path)}) as c:
        pids = c.wait_ready()

        flag.touch()
        c.call("incr", name="web", waiting=True)
        eventually(lambda: not flag.exists(), what="the hook was called")

        assert set(pids) < set(c.wait_ready(3))
        assert c.status() == "active"


def test_a_before_spawn_that_raises_at_the_start_is_tried_again(tmp_path: Path) -> None:
    """Given a before_spawn that raises for the first worker, when circusd starts, then two workers serve soon."""
    watcher, flag = failing_once(tmp_path)
    flag.touch()
    with circusd(tmp_path, watchers=[watcher], env={"PYTHONPATH": str(tmp_path)}) as c:
        c.wait_ready()

        assert not flag.exists()
