"""The harness itself, on stock Circus: what the other files rest on."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from .harness import HERE, circusd, eventually, kill
from .load import Load
from .processes import end_marked, marked, process


def test_an_unarmed_watcher_serves_and_everything_ends_with_the_block(tmp_path: Path) -> None:
    """Given two stock uvicorn workers, when the block ends, then nothing that carries the test's mark is left."""
    with circusd(tmp_path, armed=False) as c:
        pids = c.wait_ready()
        served_by = {int(c.get()) for _ in range(20)}
        mark = c.mark

    assert served_by <= set(pids)
    assert marked(XBOARD_TEST=mark) == []
    assert not c.runtime.exists()


def test_stock_circus_replaces_a_dead_worker_at_its_next_check(tmp_path: Path) -> None:
    """Given a check delay of a second, when a worker is killed, then the bus tells of a death and of a spawn."""
    with circusd(tmp_path, armed=False, check_delay=1) as c:
        dead, sibling = c.wait_ready()

        killed_at = kill(dead)

        eventually(lambda: sibling in c.wait_ready() and dead not in c.workers())
        # The bus is not the way by which circusd answers: what it has told may come after the answer.
        eventually(lambda: c.events.named("spawn", since=killed_at), what="the bus tells of the new one")
        assert [event.pid for event in c.events.named("reap", since=killed_at)] == [dead]
        assert len(c.events.named("spawn", since=killed_at)) == 1


def test_a_killed_circusd_leaves_orphans_that_the_harness_finds(tmp_path: Path) -> None:
    """Given circusd killed with SIGKILL, when the block ends, then its orphans are ended too."""
    with circusd(tmp_path, armed=False, numprocesses=1) as c:
        (pid,) = c.wait_ready()
        orphan = process(pid)

        c.kill9()

        assert [found.pid for found in c.processes()] == [pid]
        assert orphan.alive
    eventually(lambda: not orphan.alive, what="the orphan ends")


def test_the_backend_does_as_it_is_told(tmp_path: Path) -> None:
    """Given one worker, when its health answers and orders change, then it follows without a restart."""
    with circusd(tmp_path, armed=False, numprocesses=1) as c:
        (pid,) = c.wait_ready()

        c.set("live", "slow 0.01")
        assert c.get("/health/live") == "ok"
        c.set("live", "500")
        with pytest.raises(OSError, match="500"):
            c.get("/health/live")
        assert c.get("/health/ready") == "ok"
        c.tell(pid, "exit 3")
        eventually(lambda: not c.workers() or not process(pid).alive)


def test_the_load_client_counts_what_a_dying_worker_loses(tmp_path: Path) -> None:
    """Given slow answers of the only worker, when it is killed, then exactly those are lost and seen as cut off."""
    with circusd(tmp_path, armed=False, numprocesses=1, check_delay=1) as c:
        (pid,) = c.wait_ready()

        with Load(c.url + "/slow?s=0.2", rate=100) as load:
            eventually(lambda: load.answered > 20)
            kill(pid)
            dead_at = time.monotonic()
            eventually(lambda: len(load.workers) == 2)

        assert load.lost
        assert {request.outcome for request in load.lost} <= {"reset", "closed"}
        assert all(request.start < dead_at for request in load.lost)


@pytest.mark.parametrize(("signum", "processes"), [(signal.SIGINT, "1"), (signal.SIGTERM, "0")])
def test_a_run_that_is_ended_leaves_nothing_running(tmp_path: Path, signum: int, processes: str) -> None:
    """Given a run, with xdist or not, when its first process alone is told to end, then no circusd of it is left."""
    held, mark = tmp_path / "held", uuid.uuid4().hex
    options = ["-q", "-n", processes, "-p", "no:cacheprovider", "--basetemp", tmp_path / "base", HERE / "held_open.py"]
    command = [sys.executable, "-m", "pytest", *map(str, options)]
    environ = {**os.environ, "HELD_OPEN": str(held), "NESTED_RUN": mark}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as run:
        try:
            eventually(held.exists, what="a circusd runs in it")
            assert len(marked(NESTED_RUN=mark)) > 2
            for of_xdist in [each for each in marked(NESTED_RUN=mark) if each.parent == run.pid and processes == "1"]:
                of_xdist.signal(signal.SIGKILL)  # as xdist does with a test that is not ended after ten seconds

            run.send_signal(signum)
            run.wait(90)

            assert marked(NESTED_RUN=mark) == []
        finally:
            end_marked(NESTED_RUN=mark)


def test_the_mark_is_all_that_is_killed(tmp_path: Path) -> None:
    """Given a process of the test that circusd did not start, when the block ends, then it lives."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with circusd(tmp_path, armed=False):
            pass
        assert stranger.poll() is None
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.wait()
