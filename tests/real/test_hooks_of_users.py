"""A hook of the user's that fails once costs a moment, not the watcher."""

from __future__ import annotations

from pathlib import Path

from .harness import FAST_RESTARTS, Watcher, circusd, eventually

HOOK = """
import os

def before_spawn(**_):
    if os.path.exists({flag!r}):
        os.remove({flag!r})
        raise RuntimeError("the hook fails this once")
    return True
"""


def failing_once(folder: Path) -> tuple[Watcher, Path]:
    """Return a watcher whose before_spawn raises where a file is, and that file, which it removes."""
    flag = folder / "fail"
    (folder / "user_hooks.py").write_text(HOOK.format(flag=str(flag)))
    return Watcher(options={**FAST_RESTARTS, "hooks.before_spawn": "user_hooks.before_spawn"}), flag


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
