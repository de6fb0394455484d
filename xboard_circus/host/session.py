"""Find and end the processes of a session that has lost its leader; leave that of a worker."""

import errno
import os
import signal
import sys
from contextlib import suppress

from xboard_circus.host import procs


def members(leader: int) -> list[procs.Identity]:
    """Return the processes in the session of *leader*, without the leader; OSError if no descriptor is left to look."""
    found = []
    for pid in procs.pids():
        if pid == leader or procs.session_of(pid) != leader:
            continue
        if (each := procs.Identity.of(pid)) is not None:
            found.append(each)
        elif sys.platform == "linux" and procs.session_of(pid) == leader:
            raise OSError(errno.EMFILE, f"pid {pid} is there, and cannot be looked at")
    return found


def left_by(leader: procs.Identity, seen_at: int) -> list[procs.Identity]:
    """Return the members of the session that *leader* has led, which was there at *seen_at*; none of a later session.

    A number is given away again once neither a process nor a session has it. So the session is still the same one where
    its leader is there, also as a zombie, or where a member had begun by then: also in that very tick of the clock,
    since the kernel gives away all other numbers before that one comes again.
    """
    found = members(leader.pid)
    now = procs.start_time(leader.pid)
    is_same = now == leader.started or (now is None and any(each.started <= seen_at for each in found))
    return found if is_same else []


def end(leader: procs.Identity, seen_at: int, grace: float, user: int) -> tuple[list[str], list[str]]:
    """End the processes of *user* left in the session of *leader*, which has ended since *seen_at*; return their names,
    and those of other users' processes, which are left alone. Blocks for *grace* seconds.

    SIGTERM, up to *grace* seconds, SIGKILL. Nothing is done where *leader* is our own session, or runs. Where a
    descriptor is missing it raises OSError, or some may be left that seemed to be gone.
    """
    is_over = leader.pid not in (0, 1, os.getsid(0)) and not procs.is_running(leader.pid, leader.started)
    left = left_by(leader, seen_at) if is_over else []
    names = {each: f"{each.pid} ({procs.name_of(each.pid)})" for each in left}
    procs.signal_all(procs.signal_all(dict.fromkeys(left, (user,)), signal.SIGTERM, grace), signal.SIGKILL, 1.0)
    others = [names.pop(each) for each in left if procs.is_running(*each) and not procs.is_of(each.pid, {user})]
    return [*names.values()], others


def end_with_leader(leader: procs.Identity, seen_at: int, grace: float, user: int) -> None:
    """End what *user* has in the session of *leader*, which was there at *seen_at*, with it. Blocks for *grace* and one
    second at most."""
    own = {leader: procs.users_of(leader.pid)}  # root's until the launcher becomes *user*
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        procs.signal_all({**own, **dict.fromkeys(left_by(leader, seen_at), (user,))}, signum, patience)


def leave_workers() -> None:
    """Leave the session of the worker whose app has run this program, because what is in it ends with the worker."""
    own = os.getsid(0)
    if str(own) in (os.environ.get("XBOARD_SESSION"), procs.launcher_in(os.environ)):
        with suppress(PermissionError):  # no group of that session is left to go to
            if os.getpgid(0) == os.getpid():  # a group's leader makes no session
                os.setpgid(0, own)
            os.setsid()
