"""Sessions that have lost their leader: what a dead worker left there is ended, and nothing of a later session."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xboard_circus.host import procs, session

LEADER = """
import os, time
if os.fork():
    os._exit(0)
time.sleep(600)
"""


@contextmanager
def session_without_leader() -> Iterator[tuple[procs.Identity, procs.Identity]]:
    """A leader that has ended, whose pid may be given away again once its session is empty, and what it left."""
    leader = subprocess.Popen([sys.executable, "-c", LEADER], start_new_session=True)
    identity = procs.Identity.of(leader.pid)
    leader.wait(30)
    (left,) = session.members(leader.pid)
    assert identity is not None
    try:
        yield identity, left
    finally:
        procs.send_signal(left.pid, left.started, signal.SIGKILL, {os.geteuid()})


def test_what_a_dead_leader_left_is_ended() -> None:
    """Given a process in the session of a dead leader, begun in the tick in which that was last seen, when the session
    is ended, then it is gone, and named."""
    with session_without_leader() as (leader, left):
        name = procs.name_of(left.pid)
        assert session.end(leader, left.started, 5, os.geteuid()) == ([f"{left.pid} ({name})"], [])
        assert not procs.is_running(*left)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may end what is another user's")
def test_what_another_user_has_in_the_session_of_a_dead_leader_is_named_and_left_alone() -> None:
    """Given a process of root's in the session of a leader that was another user's, as sudo makes it, when what that
    user has there is ended, then root's is named, and runs on."""
    with session_without_leader() as (leader, roots):
        name = f"{roots.pid} ({procs.name_of(roots.pid)})"
        assert session.end(leader, roots.started, 5, 65534) == ([], [name])
        session.end_with_leader(leader, roots.started, 0.1, 65534)
        assert procs.is_running(*roots)


def test_a_stranger_in_a_later_session_of_that_number_is_left_alone() -> None:
    """Given a process in a session of the number of a leader that had ended before that process began, when the
    leader's session is ended, then it runs on."""
    with session_without_leader() as (later, stranger):
        ended = procs.Identity(later.pid, later.started - 500)
        assert session.end(ended, stranger.started - 1, 0.1, os.geteuid()) == ([], [])
        session.end_with_leader(ended, stranger.started - 1, 0.1, os.geteuid())
        assert procs.is_running(*stranger)


def test_what_cannot_be_looked_at_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a process of a dead leader's whose facts cannot be read, as without a descriptor, then that is an error."""
    with session_without_leader() as (leader, left):
        with monkeypatch.context() as patch:
            patch.setattr(procs, "read_stat", lambda pid: None)
            with pytest.raises(OSError, match=f"pid {left.pid} is there, and cannot be looked at"):
                session.end(leader, left.started + 1, 5, os.geteuid())
        assert procs.is_running(*left)


MEMBER = """
import os, sys
from xboard_circus.host import session
if os.fork():  # what leads the group, as the first of a pipeline
    os.wait()
    os._exit(0)
os.environ["XBOARD_SESSION"] = str(os.getsid(0))
{group}
session.leave_workers()
print(os.getsid(0) == os.getpid())
"""


@pytest.mark.parametrize("group", ["", "os.setpgid(0, 0)"], ids=["of a group", "a group's leader"])
def test_a_command_of_an_app_leaves_the_session_of_its_worker(group: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMBER.replace("{group}", group)],
        start_new_session=True,
        capture_output=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == (b"True\n", b"")


def test_a_command_leaves_the_session_of_a_worker_that_is_gone() -> None:
    """Given another group than the worker's, which no process is in any more, then the command leaves all the same."""
    script = MEMBER.replace("    os.wait()\n", "").replace("{group}", WAITING)
    leader = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    leader.wait(60)
    with leader:
        assert leader.stdout is not None
        assert leader.stdout.read() == b"True\n"


WAITING = """
import time
if os.fork():  # it leads a group of its own, and runs on
    os.setpgid(0, 0)
    os.wait()
    os._exit(0)
while os.getpgid(0) == os.getsid(0):
    try:
        os.setpgid(0, os.getppid())
    except PermissionError:
        time.sleep(0.01)
while os.path.exists(f"/proc/{os.getsid(0)}"):
    time.sleep(0.01)
"""
