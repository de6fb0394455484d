"""The harness itself, on stock Circus: what the other files rest on."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from . import forked_commands
from .harness import HERE, PATIENCE, circusd, eventually, kill
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
            # The one that forks, the one that waits for the command, and the command.
            eventually(lambda: sum("forked_commands" in each.command for each in marked(NESTED_RUN=mark)) == 3)
            for of_xdist in [each for each in marked(NESTED_RUN=mark) if each.parent == run.pid and processes == "1"]:
                of_xdist.signal(signal.SIGKILL)  # as xdist does with a test that is not ended after ten seconds

            run.send_signal(signum)
            run.wait(90)

            assert marked(NESTED_RUN=mark) == []
        finally:
            end_marked(NESTED_RUN=mark)


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--json"],
        ["check"],
        ["doctor", "--nope"],
        ["options", "web"],
        ["status", "--nope"],
        ["nope"],
        ["--help"],
    ],
)
def test_a_fork_of_the_command_line_says_what_a_start_of_it_does(tmp_path: Path, words: list[str]) -> None:
    with circusd(tmp_path, start=False) as c:
        words += ["-c", str(c.ini)]
        forked = forked_commands.run(words, cwd=tmp_path, env=c.environ(), timeout=PATIENCE)
        command = [sys.executable, "-m", "xboard_circus", *words]
        started = subprocess.run(command, cwd=tmp_path, env=c.environ(), capture_output=True, text=True, check=False)

    assert forked is not None
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_a_fork_of_the_command_line_has_the_folder_and_environment_of_its_run(tmp_path: Path) -> None:
    """Given runs whose ini stands in another folder, and whose runtime folder is another, then each finds its own."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with circusd(tmp_path / name, numprocesses=1) as c:
            environ = {**c.environ(), "XBOARD_RUNTIME_DIR": str(c.runtime / "r")}
            forked = forked_commands.run(["status", "--json"], cwd=c.folder, env=environ, timeout=PATIENCE)
            assert forked is not None
            assert json.loads(forked.stdout)["circusd"]["pid"] == c.pid


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "LANGUAGE", "TZ", "PYTHONUTF8", "LD_PRELOAD", "XBOARD_INSTANCE"])
def test_a_command_with_a_variable_that_is_read_at_a_start_or_of_it_is_started(tmp_path: Path, name: str) -> None:
    with circusd(tmp_path, start=False) as c:
        environ = c.environ()
        assert forked_commands.run(["--version"], cwd=tmp_path, env=environ, timeout=PATIENCE) is not None
        assert forked_commands.run(["--version"], cwd=tmp_path, env={**environ, name: "x"}, timeout=PATIENCE) is None


def set_umask() -> Iterator[None]:
    before = os.umask(0o007)
    yield
    os.umask(before)


def ignore_hangups() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def block_a_signal() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def limit_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("change", [set_umask, ignore_hangups, block_a_signal, limit_files])
def test_a_command_is_started_where_a_start_would_have_something_else_from_its_parent(
    tmp_path: Path, change: Callable[[], Iterator[None]]
) -> None:
    with circusd(tmp_path, start=False) as c:

        def is_forked() -> bool:
            return forked_commands.run(["--version"], cwd=tmp_path, env=c.environ(), timeout=PATIENCE) is not None

        assert is_forked()
        with contextlib.contextmanager(change)():
            assert not is_forked()
        assert is_forked()


def look(pid: int) -> dict[str, object]:
    """Say what can be seen of a process from outside, but its own numbers and its memory."""
    own = (
        "Tgid",
        "Ngid",
        "Pid",
        "PPid",
        "NS",
        "Vm",
        "Rss",
        "Huge",
        "voluntary",
        "nonvoluntary",
        "State",
        "SigQ",
        "FDSize",
    )
    place = Path("/proc", str(pid))
    status = [line for line in (place / "status").read_text().splitlines() if not line.startswith(own)]
    links = {name.name: re.sub(r"\d+", "", os.readlink(name)) for name in (place / "fd").iterdir()}
    found = psutil.Process(pid)
    return {
        "status": status,
        "links": links,
        "group": (os.getpgid(pid), os.getsid(pid)),
        "folder": (os.readlink(place / "cwd"), os.readlink(place / "exe")),
        "of the parent": [(place / name).read_text() for name in ("limits", "cgroup", "oom_score_adj")],
        "priority": found.nice(),
        "children": found.children(),
    }


def test_a_fork_of_the_command_line_is_seen_from_outside_as_a_start_of_it(tmp_path: Path) -> None:
    """Given a command that waits, forked and started, then both have the same threads, descriptors and signals."""
    words = ["logs", "--follow"]
    with circusd(tmp_path, numprocesses=1) as c, ThreadPoolExecutor() as pool:
        c.wait_ready()
        command = [sys.executable, "-m", "xboard_circus", *words, "-c", str(c.ini)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=c.folder, env=c.environ(), **pipes) as started:  # type: ignore[call-overload]
            pid = 0
            try:
                c.run_cli("--version")
                run = pool.submit(c.run_cli, *words)
                pid = eventually(pid_of_a_run, what="it is forked")

                forked, by_itself = look(pid), look(started.pid)

                def are_alike() -> bool:
                    nonlocal forked, by_itself
                    forked, by_itself = look(pid), look(started.pid)
                    return forked == by_itself

                with contextlib.suppress(AssertionError):  # the next line shows how they differ
                    eventually(are_alike, what="both wait")
                assert forked == by_itself
            finally:
                started.kill()
                if pid:
                    os.kill(pid, signal.SIGKILL)
            assert run.result(PATIENCE).returncode == -signal.SIGKILL


def pid_of_a_run() -> int | None:
    """Find the process of the only run: it has no children, and its parent waits for its end."""
    forking = psutil.Process(forked_commands._RUNNING[0]._popen.pid)
    of_runs = [each for waiting in forking.children() for each in waiting.children()]
    return of_runs[0].pid if of_runs else None


def test_a_run_of_the_command_line_that_hangs_is_killed(tmp_path: Path) -> None:
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        with pytest.raises(subprocess.TimeoutExpired):
            c.run_cli("logs", "--follow", timeout=2)
        eventually(lambda: pid_of_a_run() is None, what="nothing of it is left")


def test_a_run_of_the_command_line_ends_with_the_test_that_is_interrupted(tmp_path: Path) -> None:
    """Given a test that is ended in the middle of a command, as by a time limit, then the command ends too."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    def interrupt_soon() -> None:
        eventually(pid_of_a_run, what="it runs")
        os.kill(os.getpid(), signal.SIGUSR2)

    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        c.run_cli("--version")
        before = signal.signal(signal.SIGUSR2, interrupt)
        another = threading.Thread(target=interrupt_soon)
        another.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                c.run_cli("logs", "--follow")
        finally:
            another.join()
            signal.signal(signal.SIGUSR2, before)
        eventually(lambda: pid_of_a_run() is None, what="nothing of it is left")


def test_a_forking_process_that_was_killed_is_made_again(tmp_path: Path) -> None:
    with circusd(tmp_path, start=False) as c:
        c.run_cli("--version")
        forking = forked_commands._RUNNING[0]._popen
        forking.kill()
        forking.wait(PATIENCE)
        assert c.run_cli("--help").returncode == 0
        assert forked_commands._RUNNING[0]._popen.pid != forking.pid


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
