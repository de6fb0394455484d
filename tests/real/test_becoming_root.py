"""Root ends a user's processes while one of them becomes root's by execve, as `exec sudo` does: it runs on."""

import asyncio
import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from xboard_circus import preflight
from xboard_circus.cli import stopping
from xboard_circus.cli.screen import Progress
from xboard_circus.core.lost import CircusdLife
from xboard_circus.host import circusd_record, listeners, procs, session
from xboard_circus.host.procs import Identity
from xboard_circus.instance import Instance
from xboard_circus.supervisor.replace import terminate

from .attacker import PYTHON
from .harness import Watcher, circusd, eventually
from .processes import process
from .test_impostor import folder_of_theirs, impostor  # noqa: F401 - a fixture
from .test_users import USER, climbs_in, in_session_of, library_path, open_folder, python, www_data  # noqa: F401 - fixtures

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of another user"),
    pytest.mark.skipif(www_data() is None, reason=f"there is no user {USER}"),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run"),
]
GRACE = 3.0  # in which it becomes root's

# Becomes root's at SIGTERM, with the same pid and start time. The other one passes SIGTERM on, and heeds none itself.
CLIMBS = """
import os, signal, sys, time
def climb(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.execv(sys.argv[1], [sys.argv[1], "-I", "-c", "import os, time; os.setuid(0); time.sleep(600)"])
signal.signal(signal.SIGTERM, climb)
print(os.getpid(), flush=True)
while True:
    time.sleep(600)
"""
LEADS = """
import signal, subprocess, sys, time
climbs = subprocess.Popen([sys.executable, "-I", "-c", *sys.argv[1:]])
for each in (signal.SIGTERM, signal.SIGABRT):
    signal.signal(each, lambda *_: climbs.terminate())
while True:
    time.sleep(600)
"""


class Climber:
    """A process of *user* that becomes root's at SIGTERM, and what leads its session: itself, or a parent."""

    def __init__(self, sudo: Path, *, is_below: bool, **marks: str) -> None:
        words = [LEADS, CLIMBS] if is_below else [CLIMBS]
        self.popen = subprocess.Popen(
            [PYTHON, "-I", "-c", *words, str(sudo)],
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            env=marks,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        pid = int(self.popen.stdout.readline())
        self._its = [process(self.popen.pid), process(pid)]
        self.leader, self.identity = (Identity(each.pid, each.started) for each in self._its)

    @property
    def user(self) -> int:
        user = www_data()
        assert user is not None
        return user.pw_uid

    @property
    def is_roots(self) -> bool:
        return self._its[1].alive and 0 in procs.users_of(self.identity.pid)

    def end(self) -> None:
        for each in self._its:
            each.signal(signal.SIGKILL)
        self.popen.communicate()


@pytest.fixture
def climber(open_folder: Path) -> Iterator[Callable[..., Climber]]:  # noqa: F811
    sudo, made = open_folder / "sudo", []
    shutil.copy(PYTHON, sudo)
    sudo.chmod(0o4755)

    def make(**how: Any) -> Climber:
        made.append(Climber(sudo, **how))
        return made[-1]

    yield make
    for each in made:
        each.end()


def of_dead_worker(it: Climber) -> None:
    it.popen.kill()
    it.popen.wait()
    ended, others = session.end(it.leader, procs.now(), GRACE, it.user)
    assert (ended, [each.partition(" ")[0] for each in others]) == ([], [str(it.identity.pid)])


def of_run_before(it: Climber) -> None:
    session.end_with_leader(it.leader, procs.now(), GRACE, it.user)


def of_trial(it: Climber) -> None:
    began = time.monotonic()
    preflight._end(it.popen, it.leader, it.user, patience=GRACE)
    assert time.monotonic() - began < GRACE + 30, "it has waited for what is root's"


def of_orphan(it: Climber) -> None:
    holder = listeners.holder_of(it.popen.pid)
    assert holder is not None
    assert listeners.stop([holder], grace=GRACE) == []


def of_hung_worker(it: Climber, private_socket: Path | None = None) -> None:
    process = SimpleNamespace(pid=it.popen.pid, _worker=psutil.Process(it.popen.pid))
    worker: Any = SimpleNamespace(**it.leader._asdict(), process=process, user=it.user, has_ended=it.popen.poll)
    asyncio.run(terminate.kill_with_stacks(worker, private_socket))


def of_hung_worker_behind_a_wrapper(it: Climber) -> None:
    def listener_of(_: Path) -> int:
        os.kill(it.identity.pid, signal.SIGTERM)
        eventually(lambda: it.is_roots)
        return it.identity.pid

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(terminate, "listener_of", listener_of)
        of_hung_worker(it, Path("web.sock"))


@pytest.mark.parametrize(
    ("end", "is_below"),
    [
        (of_dead_worker, True),
        (of_run_before, True),
        (of_run_before, False),
        (of_trial, True),
        (of_trial, False),
        (of_orphan, True),
        (of_orphan, False),
        (of_hung_worker, True),
        (of_hung_worker_behind_a_wrapper, True),
    ],
)
def test_what_becomes_roots_while_it_is_ended_runs_on(
    climber: Callable[..., Climber], end: Callable[[Climber], None], is_below: bool
) -> None:
    """Given a process of another user's that becomes root's at the first signal, when root ends that user's processes,
    then it gets no other one, and nobody waits for it; what is still that user's is ended."""
    it = climber(is_below=is_below, XBOARD_INSTANCE="gone", XBOARD_CIRCUSD="4190000:1")

    end(it)

    assert it.is_roots
    assert (it.popen.poll() is not None) == is_below


@pytest.mark.parametrize("is_of_older", [False, True], ids=["its user recorded", "of an older release"])
def test_a_recorded_worker_that_has_become_roots_is_no_orphan(
    climber: Callable[..., Climber], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_of_older: bool
) -> None:
    """Given a worker of another user's that its circusd, which is gone, has recorded, and whose mark cannot be read,
    when it becomes root's, then it is no orphan; before that it is one."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    it = climber(is_below=False)
    recorded = str(it.identity) if is_of_older else f"{it.identity} {it.user}"
    life = CircusdLife(4190000, 1, boot=circusd_record.boot(), workers={"web": {"a1": recorded}})
    circusd_record.write("gone", life)

    (orphan,) = listeners.orphans("gone")
    it.popen.terminate()
    eventually(lambda: it.is_roots)

    assert listeners.orphans("gone") == []
    assert (orphan.pid, listeners.stop([orphan], grace=0.1), it.is_roots) == (it.identity.pid, [], True)


@pytest.mark.parametrize("end", [of_run_before, of_trial])
def test_what_circusd_started_is_ended_also_where_it_was_roots_before(
    climber: Callable[..., Climber], end: Callable[[Climber], None]
) -> None:
    """Given what root's circusd or trial has started as another user, which has become root's as by `exec sudo`, when
    its end begins, then it is ended: otherwise no stop would end a worker that does so."""
    it = climber(is_below=False)
    it.popen.terminate()
    eventually(lambda: it.is_roots)

    end(it)

    assert it.popen.poll() is not None


def test_a_circusd_that_becomes_roots_is_not_ended_by_the_order_to_stop_it(
    climber: Callable[..., Climber],
    folder_of_theirs: Path,  # noqa: F811
) -> None:
    """Given a process of another user's that is circusd of its own ini, and one below it, when both become root's after
    root has found it, then root's stop ends neither, nor advises it."""
    it = climber(is_below=True)
    with circusd(folder_of_theirs, watchers=[Watcher(options={"graceful_timeout": 0.1})], start=False) as c:
        for place in (folder_of_theirs, c.ini):
            os.chown(place, it.user, -1)
        of_circusd: dict[str, Any] = {
            "pid": it.identity.pid,
            "started": it.identity.started,
            "version": None,
            "uptime": 60.0,
        }
        of_circusd |= {"endpoint": c.endpoint, "config_file": str(c.ini), "python": "3.13.5", "instance": "3f2a"}
        with impostor(c, {"circusd": of_circusd, "probers": [], "watchers": []}):
            instance = Instance(c.ini)
            found = instance.find()
            assert found is not None
            it.popen.terminate()
            eventually(lambda: it.is_roots)
            screen = io.StringIO()

            stopping.stop(instance, found, Progress(Console(file=screen)), slack=0.3)

        assert "SIGKILL" not in screen.getvalue()
        assert (it.is_roots, instance.left_alone([it.identity])) == (True, "")


@pytest.mark.parametrize("stop_children", [False, True])
def test_a_stop_that_has_to_kill_ends_no_process_of_roots_below_a_worker(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
    stop_children: bool,
) -> None:
    """Given a worker of www-data's that drains for longer than graceful_timeout, with a helper of its own and a process
    that has become root's in its session, when it is stopped, then the helper is ended with it, and root's runs on,
    also where Circus's `stop_children` has the stop signal sent to a worker's children."""
    user, folder = www_data(), open_folder / f"drains{stop_children}"
    assert user is not None
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web, _ = climbs_in(folder, user, told={"drain": "60"})
    web = dataclasses.replace(web, options={**web.options, "stop_children": stop_children})
    with circusd(folder, watchers=[web], python=python, env=env) as c:
        (pid,) = c.wait_ready()
        found = eventually(lambda: in_session_of(pid, user.pw_uid), what="both have their user")
        left = {uid: process(each.pid) for uid, each in found.items()}
        try:
            c.do("stop", name="web", waiting=True)
            eventually(lambda: not left[user.pw_uid].alive, what="the worker's own is ended")
            assert left[0].alive
        finally:
            left[0].signal(signal.SIGKILL)
