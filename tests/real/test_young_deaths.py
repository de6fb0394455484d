"""A worker dies young, while the kernel kills somebody else's process for want of memory."""

import subprocess
import sys
from pathlib import Path

from xboard_circus.host.oom import HOST, count_in

from . import held_looks
from .harness import FAST_RESTARTS, Circusd, circusd, eventually, kill
from .memory_group import memory_group

GREEDY = "import sys; sys.stdin.readline(); x = b'x' * (400 << 20)"


def kill_for_want_of_memory() -> None:
    """Let the kernel kill a process that is none of circusd's."""
    before = count_in(HOST) or 0
    greedy = subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE)
    try:
        with memory_group(greedy.pid, limit=64 << 20):
            assert greedy.stdin is not None
            greedy.stdin.write(b"\n")
            greedy.stdin.flush()
            eventually(lambda: (count_in(HOST) or 0) > before, every=0.01, what="an OOM kill")
    finally:
        greedy.kill()
        greedy.communicate()


def cause_of_a_young_death(c: Circusd) -> str:
    """Kill a worker a moment after its spawn; return what circusd takes for the cause."""
    known, before = set(c.workers()), c.last_told()
    c.do("incr", name="web", waiting=True)
    young = eventually(lambda: set(c.workers()) - known, every=0.005).pop()
    kill(young)
    (failure,) = eventually(lambda: [each for each in c.failures(after=before) if each.pid == young])
    return str(failure.message["cause"])


def looks(folder: Path) -> int:
    """Count circusd's looks at its workers so far."""
    return (folder / "seen").read_text().count("\n")


def test_an_oom_kill_elsewhere_is_no_cause_of_the_death_of_a_worker_that_was_never_looked_at(tmp_path: Path) -> None:
    """Given an OOM kill of another process, when a worker is killed that circusd has not looked at, somebody did.

    circusd has looked at other workers before the OOM kill, and looks at none until the death.
    """
    folder = tmp_path / "looks"
    folder.mkdir()
    options = {"hooks.before_spawn": "held_looks.install", **FAST_RESTARTS}
    with circusd(tmp_path, numprocesses=1, options=options, env={held_looks.FOLDER: str(folder)}) as c:
        c.wait_ready()
        before = eventually(lambda: looks(folder))
        eventually(lambda: looks(folder) >= before + 2, what="circusd knows the count of OOM kills")
        (folder / "hold").touch()
        eventually((folder / "held").exists, what="no look is under way, and none begins")

        kill_for_want_of_memory()

        assert cause_of_a_young_death(c) == "killed from outside"
