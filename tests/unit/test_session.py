"""Sessions that have lost their leader: what a dead worker left there is ended, and nothing of a later session."""

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
        procs.send_signal(left.pid, left.started, signal.SIGKILL)


def test_what_a_dead_leader_left_is_ended() -> None:
    """Given a process in the session of a dead leader, begun in the tick in which that was last seen, when the session
    is ended, then it is gone, and named."""
    with session_without_leader() as (leader, left):
        name = procs.name_of(left.pid)
        assert session.end(leader, left.started, grace=5) == [f"{left.pid} ({name})"]
        assert not procs.is_running(*left)


def test_a_stranger_in_a_later_session_of_that_number_is_left_alone() -> None:
    """Given a process in a session of the number of a leader that had ended before that process began, when the
    leader's session is ended, then it runs on."""
    with session_without_leader() as (later, stranger):
        ended = procs.Identity(later.pid, later.started - 500)
        assert session.end(ended, stranger.started - 1, grace=0.1) == []
        session.end_with_leader(ended, stranger.started - 1, grace=0.1)
        assert procs.is_running(*stranger)


def test_what_cannot_be_looked_at_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a process of a dead leader's whose facts cannot be read, as without a descriptor, then that is an error."""
    with session_without_leader() as (leader, left):
        with monkeypatch.context() as patch:
            patch.setattr(procs, "read_stat", lambda pid: None)
            with pytest.raises(OSError, match=f"pid {left.pid} is there, and cannot be looked at"):
                session.end(leader, left.started + 1, grace=5)
        assert procs.is_running(*left)
