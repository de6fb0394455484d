"""A second circusd, an outage that heals bit by bit, a plugin that comes first: nobody is harmed."""

import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from .facts_of_state import looks_well
from .harness import BUNDLE, FAST_RESTARTS, Watcher, circusd, eventually, holds, kill
from .processes import Process

SICK = {
    "health.live_path": "/health/live",
    "health.period": 1,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    **FAST_RESTARTS,
}


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_second_circusd_on_the_same_ini_ends_with_an_error(tmp_path: Path, transport: str) -> None:
    """Given a circusd that serves, when another is started on its ini, that ends with a code, and the first serves.

    ZeroMQ puts the files of ipc:// endpoints in the place of those that another circusd listens on.
    """
    with circusd(tmp_path, start=False) as c:
        if transport == "ipc":
            c.endpoint, c.pubsub = f"ipc://{tmp_path}/circusd", f"ipc://{tmp_path}/events"
            c.write_ini()
        c.start_again()
        pids = c.wait_ready()

        second = subprocess.run(
            [c.python, "-m", "circus.circusd", str(c.ini)],
            cwd=tmp_path,
            env=c.environ(),
            capture_output=True,
            text=True,
            timeout=180,  # it waits for 10 s, once it has begun
            check=False,
        )

        assert second.returncode == 1, second.stderr
        assert f"circusd with pid {c.pid} runs on" in second.stderr
        assert c.workers() == pids
        assert c.serves()


def test_no_process_inherits_a_block_of_signals(tmp_path: Path) -> None:
    """Given a program that blocks SIGTERM, when it starts circusd, then no process has it blocked: workers drain."""
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        try:
            c.start_again()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        c.wait_ready()

        assert len(c.processes()) > 2
        # Not at the first look: who starts a program by vfork blocks all signals until the program runs.
        eventually(lambda: all(map(blocks_nothing, c.processes())), what="none has one blocked")


def blocks_nothing(process: Process) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended since
        return "\nSigBlk:\t0000000000000000\n" in Path(f"/proc/{process.pid}/status").read_text()
    return True


def test_an_outage_that_heals_for_one_before_the_other_costs_no_worker(tmp_path: Path) -> None:
    """Given two workers sick together, when one is well a round before the other, then neither is replaced."""
    # Between two rounds there is time to see the first one well and to heal the other, on a crowded machine too.
    with circusd(tmp_path, options={**SICK, "health.period": 5}, plugins=BUNDLE, check_delay=1) as c:
        first, second = c.wait_ready()
        eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in (first, second)))
        before = c.last_told()
        c.set("live", "503")
        eventually(lambda: c.told("unhealthy", after=before), what="it is told as a dependency's")

        c.set(f"live.pid-{first}", "200")
        eventually(lambda: looks_well(c.worker(first)), every=0.01, what="one is seen well")
        c.set("live", "")

        eventually(lambda: looks_well(c.worker(second)), what="the other is well, too")
        holds(lambda: set(c.workers()) == {first, second}, seconds=3)
        assert c.failures(after=before) == []
        assert c.told("replace", after=before) == []


def test_our_commands_answer_before_a_watcher_of_ours_has_started(tmp_path: Path) -> None:
    """Given an armed watcher that is not started yet, when a plugin reports, then nothing fails in it for that."""
    watcher = Watcher(options={"autostart": False, "health.period": 0.3, "health.timeout": 1})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE, check_delay=1) as c:
        eventually(lambda: "Bundle" in c.log("plugin-xboard"), what="the plugin runs")
        holds(lambda: "has no attribute" not in c.log("plugin-xboard"), seconds=2.5, what="a plugin's log has it")
        assert "has no attribute" not in str(c.call("xboard_state"))

        c.do("start", name="web", waiting=True)
        c.wait_ready()
        eventually(lambda: c.state()["probers"], what="the prober reports")


def test_a_signal_of_a_users_own_ends_no_circusd(tmp_path: Path) -> None:
    """Given SIGUSR1 and SIGUSR2, as of a line of logrotate's for another server, then circusd logs what each does not
    do, and serves on."""
    with circusd(tmp_path) as c:
        pids = c.wait_ready()

        kill(c.pid, signal.SIGUSR1)
        kill(c.pid, signal.SIGUSR2)
        text = "SIGUSR{} does nothing: logs are opened anew once they are renamed"
        eventually(
            lambda: all(text.format(each) in c.log("circusd") for each in (1, 2)), timeout=60, what="it is logged"
        )

        assert c.wait_ready() == pids
        assert c.serves()
