"""A worker that was taken over, against the circusd of another user: it holds up nothing but itself."""

import contextlib
import os
from pathlib import Path

import pytest

from .flooding import LIVING
from .harness import HERE, Watcher, circusd, eventually
from .memory_group import process_group
from .processes import open_files

FLOOD = 10_000
"""Children that have ended."""


def pipes_read_by(pid: int) -> dict[int, bool]:
    """Return the pipes that a process reads, by descriptor: whether a read of an empty one waits."""
    found = {}
    for descriptor in [each for each, what in open_files(pid).items() if what.startswith("pipe:")]:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            flags = int(Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split()[3], 8)
            if flags & os.O_ACCMODE == os.O_RDONLY:
                found[descriptor] = not flags & os.O_NONBLOCK
    return found


@pytest.mark.parametrize("preload", ["server", "off"])
def test_circusd_waits_for_no_output_of_a_worker(tmp_path: Path, preload: str) -> None:
    """Given workers, forked or started, that may take back what they print, then no pipe of circusd's blocks a read."""
    with circusd(tmp_path, watchers=[Watcher(options={"worker.preload": preload})]) as c:
        c.wait_ready()
        eventually(lambda: len(pipes_read_by(c.pid)) >= 2)

        assert [pipe for pipe, waits in pipes_read_by(c.pid).items() if waits] == []


def test_circusd_answers_while_a_worker_floods_it_with_children(tmp_path: Path) -> None:
    """Given 300 living children of circusd's and thousands that end at once, made by a worker, then circusd answers.

    Its log has no traceback for each signal that the loop has not come to: what prints it may hang circusd for good.
    """
    (tmp_path / "flood").mkdir()
    flood = Watcher("flood", 1, command=f"{{python}} -I -S {HERE / 'flooding.py'} {tmp_path / 'flood'}", listens=False)
    made = tmp_path / "flood" / "made"
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1), flood], check_delay=0.1) as c:
        c.wait_ready()
        (pid,) = c.workers("flood")
        with process_group(pid, limit=1000) as group:
            (tmp_path / "flood" / "begin").touch()
            eventually(lambda: int(made.read_text()) >= FLOOD, timeout=90, what="the flood goes on")
            before = int(made.read_text())
            for _ in range(10):
                assert c.call("numwatchers", timeout=5)["status"] == "ok"
            assert eventually(lambda: int(made.read_text()) > before, what="it went on all along")
            (tmp_path / "flood" / "begin").unlink()
            # Whoever still floods leaves the group's limit with it, and takes every process of the machine.
            eventually(lambda: group.processes() <= LIVING, what="the flood has ended")
        assert "signal wakeup fd" not in c.log("circusd")
