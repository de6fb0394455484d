"""How a run of `run.before` is judged, when it is tried again, and what the verdict on its watcher is meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.core.durations import backoff
from xboard_circus.core.one_shot import RunEnd, failure_of
from xboard_circus.core.state_schema import watcher_entry
from xboard_circus.core.verdict import Preparation, judge
from xboard_circus.host import procs
from xboard_circus.options.reading import parse_watcher
from xboard_circus.supervisor.run_once import OneShot


@pytest.mark.parametrize(
    ("end", "failure"),
    [
        pytest.param(RunEnd(code=0, output="done"), None, id="good"),
        pytest.param(RunEnd(code=3), "run.before exited with code 3", id="without a word"),
        pytest.param(RunEnd(code=1, output="a\nno such table \n\n"), 'run.before exited with code 1: "no such table"'),
        pytest.param(RunEnd(code=137, output="Killed"), "run.before was killed by SIGKILL", id="a signal"),
        pytest.param(RunEnd(code=255), "run.before exited with code 255", id="no signal"),
        pytest.param(RunEnd(output="half"), "run.before was killed", id="its shell too"),
        pytest.param(
            RunEnd(output="xboard-circus launcher: no working directory /x"),
            'run.before cannot be run: "no working directory /x"',
            id="the launcher",
        ),
        pytest.param(RunEnd(not_run="too many open files"), "run.before cannot be run: too many open files"),
        pytest.param(
            RunEnd(timeout=300.0, output="half"),
            "run.before did not end within run.before_timeout = 300 s, and was killed",
        ),
        pytest.param(
            RunEnd(stopped=True, not_run="x"), "the watcher was stopped while run.before ran, which was ended"
        ),
    ],
)
def test_how_a_run_ended(end: RunEnd, failure: str | None) -> None:
    assert failure_of(end) == failure


def test_it_is_tried_again_by_the_rhythm_of_workers_while_none_is_up() -> None:
    assert [backoff(each, first=2, longest=10) for each in (1, 2, 3, 4, 9999)] == [2, 4, 8, 10, 10]


def judged(before: Preparation | None, predecessors: int = 0) -> tuple[object, ...]:
    """Return the verdict on a watcher whose workers wait for what is to be done before the start."""
    entry = {"slot": 1, "phase": "held", "health": "unknown", "held_by": "before"}
    watcher = {"name": "web", "status": "active", "armed": True, "numprocesses": 1, "workers": [{"pid": 7, **entry}]}
    found = judge(watcher_entry(**watcher), before, predecessors=predecessors)
    return found["word"], found["cause"], found["next"], found["next_in"], found["cure"]


def test_a_start_is_deploying_while_it_runs_and_blocked_when_it_failed() -> None:
    running = Preparation(reason="run.before is running: x", runs=True)
    failed = Preparation(reason="no worker is started: y", cure="z", retry_in=4.0)

    assert judged(running) == (
        "deploying",
        "starting, 0 of 1 workers up: run.before is running: x",
        "the missing workers are started",
        None,
        "",
    )
    assert judged(failed) == ("blocked", "no worker is started: y", "the start is tried again", 4.0, "z")


def test_no_outage_is_told_while_workers_of_an_earlier_circusd_serve() -> None:
    running = Preparation(reason="run.before is running: x", runs=True)
    failed = Preparation(reason="no worker is started: y", cure="z", retry_in=4.0)
    serve_on = "2 of the workers of an earlier circusd serve on: "
    word, cause, *others = judged(running)

    assert judged(failed, 2) == ("degraded", f"{serve_on}no worker is started: y", "the start is tried again", 4.0, "z")
    assert judged(running, 2) == (word, f"{serve_on}{cause}", *others)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        pytest.param("alembic -x 'a b' upgrade head", None, id="sound"),
        pytest.param("alembic 'upgrade", "a quote is not closed", id="a quote"),
        pytest.param("''", None, id="an empty word is one"),
        pytest.param("", "no value", id="nothing"),
    ],
)
def test_what_may_stand_as_the_command(command: str, problem: str | None) -> None:
    problems = parse_watcher({"run.before": command})[1]

    assert [each.what for each in problems] == ([problem] if problem else [])


CHILD_THAT_LIVES_ON = """
import os, sys, time
def is_written(fd):
    try:
        return os.get_inheritable(fd) and os.path.isfile(f"/proc/self/fd/{fd}")
    except OSError:
        return False
wait, ready = os.pipe()
print("files:", [fd for fd in range(100) if is_written(fd)], flush=True)
if (child := os.fork()) == 0:
    os.setsid()
    os.close(1), os.close(2)
    os.write(ready, b"x")
    time.sleep(60)
open("children", "a").write(f"{child}\\n")
os.read(wait, 1)
"""


def run_once(folder: Path, *, timeout: float = 30.0) -> RunEnd:
    watcher = SimpleNamespace(
        working_dir=folder, uid=None, gid=None, rlimits={}, stderr_stream=None, stdout_stream=None
    )
    armed = SimpleNamespace(
        name="web",
        watcher=watcher,
        hide=lambda text: text,
        tails={},
        clock=time.monotonic,
        supervisor=SimpleNamespace(instance="test-one-shot"),
        environment_of_spawn=lambda: dict(os.environ),
    )
    shot = OneShot(cast(Any, armed), f"{sys.executable} run.py", timeout=timeout)
    return asyncio.run(shot.run())


def test_a_folder_has_one_lock_through_a_link_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a folder and a link to it, when two watchers run the same command there, then they take turns."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "current").symlink_to(tmp_path)
    armed = [
        SimpleNamespace(watcher=SimpleNamespace(working_dir=str(each)), hide=str)
        for each in (tmp_path, tmp_path / "current")
    ]
    first, second = (OneShot(cast(Any, each), "migrate", timeout=1)._lock_file() for each in armed)
    assert first == second


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "run.py").write_text("print('done')")
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_what_a_run_leaves_behind_keeps_no_lock_and_the_run_gets_no_file_of_circusds(place: Path) -> None:
    (place / "run.py").write_text(CHILD_THAT_LIVES_ON)
    try:
        first = run_once(place)
        second = run_once(place, timeout=10)
    finally:
        for child in (place / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    assert [(each.code, each.output) for each in (first, second)] == [(0, "files: []\n")] * 2


def test_no_run_begins_while_that_of_a_killed_circusd_goes_on(place: Path) -> None:
    assert run_once(place).code == 0
    (lock,) = (place / "runtime").glob("before-*.lock")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as left:
        lock.write_text(f"{left.pid}:{procs.start_time(left.pid)}")
        waited = run_once(place, timeout=0.5)
        left.kill()
    after = run_once(place)

    assert (waited.code, "before-" in waited.not_run, after.code) == (None, True, 0)


FLOODS_ITS_CODE = """
import ctypes, os, time
shell, libc = os.getppid(), ctypes.CDLL(None, use_errno=True)
try:
    pipes = {os.readlink(f"/proc/{shell}/fd/{each}"): int(each) for each in os.listdir(f"/proc/{shell}/fd")}
    (taken,) = [each for name, each in pipes.items() if "pipe" in name and name != os.readlink("/proc/self/fd/1")]
    code = libc.syscall(438, os.pidfd_open(shell), taken, 0)  # pidfd_getfd
except PermissionError:
    code = -1
if code < 0:
    print("refused:", os.strerror(ctypes.get_errno()))
    raise SystemExit(99)
for _ in range(256):
    os.write(code, b"0" * 65536)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has pidfd_getfd")
def test_of_what_a_command_writes_in_the_place_of_its_code_a_few_bytes_are_read(place: Path) -> None:
    """Given a run that takes the pipe of its exit code and writes 16 MiB into it, then that ends the run, as failed."""
    (place / "run.py").write_text(FLOODS_ITS_CODE)

    end = run_once(place, timeout=20)

    if end.code == 99:
        pytest.skip(end.output)
    assert (end.code, end.timeout) == (None, None), end
    assert failure_of(end) == "run.before was killed"
