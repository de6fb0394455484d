"""Find and end the processes of a session that has lost its leader."""

import os
import signal

from xboard_circus.host import procs


def members(leader: int) -> list[procs.Identity]:
    """Return the processes in the session of *leader*, without the leader."""
    others = (pid for pid in procs.pids() if pid != leader and procs.session_of(pid) == leader)
    return [found for pid in others if (found := procs.Identity.of(pid)) is not None]


def end(leader: int, grace: float) -> list[str]:
    """End the processes left in the session of *leader*, which has ended; return their names. Blocks for *grace*
    seconds.

    SIGTERM, up to *grace* seconds, SIGKILL. Nothing is done where *leader* is our own session, or runs again: its pid
    can be reused once its session is empty.
    """
    stat = procs.read_stat(leader)
    if leader in (0, 1) or leader == os.getsid(0) or (stat is not None and not stat.has_ended):
        return []
    left = members(leader)
    if not left:
        return []
    names = [f"{each.pid} ({procs.name_of(each.pid)})" for each in left]
    procs.signal_all(procs.signal_all(left, signal.SIGTERM, grace), signal.SIGKILL, 1.0)
    return names


def end_with_leader(leader: procs.Identity, grace: float) -> None:
    """End the session of *leader*, if it still runs, with it. Blocks for *grace* and one second at most."""
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        now = procs.start_time(leader.pid)
        if now not in (None, leader.started):
            return  # its pid was reused, because its session is empty
        procs.signal_all([leader, *members(leader.pid)], signum, patience)
