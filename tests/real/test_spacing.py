"""Restarts keep their schedule where the launcher, which waits in front of each worker, cannot even start."""

import shutil
import time
from pathlib import Path

import xboard_circus

from .facts_of_state import pace_of
from .harness import FAST_RESTARTS, Watcher, circusd, eventually, holds, kill


def copy_of_the_package(folder: Path) -> Path:
    """Return a folder to import our package from, to be damaged."""
    source = Path(xboard_circus.__file__).parent
    target = folder / "copy"
    shutil.copytree(source, target / "xboard_circus", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_starts_are_spaced_where_the_launcher_is_missing(tmp_path: Path) -> None:
    """Given a worker that was killed and no launcher to start another, starts are few, and it is back with that."""
    copy = copy_of_the_package(tmp_path)
    options = {"restart.burst": 3, "restart.delay": 1, "restart.delay_max": 2, "restart.cooldown": 600}
    with circusd(tmp_path, numprocesses=1, options=options, check_delay=1, env={"PYTHONPATH": str(copy)}) as c:
        (pid,) = c.wait_ready()
        launcher = copy / "xboard_circus" / "launch.py"
        launcher.rename(copy / "launch.py")
        before, began = c.last_told(), time.monotonic()

        kill(pid)
        eventually(lambda: len(c.failures(after=before)) >= 6, what="six starts have failed")
        took, failures = time.monotonic() - began, c.failures(after=before)[:6]
        # At once, then 0.8 s after the last start at the soonest, then 1.6 s each; and none came sooner than decided.
        assert [pace_of(each) >= least for each, least in zip(failures, (0, 0.8, 1.6, 1.6, 1.6), strict=False)] == [
            True
        ] * 5
        assert took > sum(each.message["wait"] for each in failures[:-1])

        (copy / "launch.py").rename(launcher)
        c.wait_ready()


def test_a_start_that_no_worker_outlives_is_tried_again(tmp_path: Path) -> None:
    """Given an app that dies at import while Circus still starts it, when it is mended, then it serves."""
    dying = Watcher(numprocesses=1, told={"boot": "die"}, options={**FAST_RESTARTS, "warmup_delay": 1})
    with circusd(tmp_path, watchers=[dying]) as c:
        eventually(lambda: len(c.failures()) > 1)
        c.set("boot", "")

        c.wait_ready()

        assert c.run_circusctl("stop", "web", "--waiting").returncode == 0
        holds(lambda: c.status() == "stopped", seconds=1)
