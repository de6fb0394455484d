"""Stop circusd and all its processes."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from xboard_circus.circus_client import CircusdBusy, CircusdGone
from xboard_circus.cli.screen import Progress, complain
from xboard_circus.core.names import some_of
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, procs, runtime, servers
from xboard_circus.host.procs import Identity
from xboard_circus.instance import NAMED, Instance, Silent
from xboard_circus.snapshot import Snapshot

LOOK_EVERY = 0.1
ASK_FOR = 1.0
SLACK = 10.0
KILL_WITHIN = 5.0
REPORT_AFTER = 1.0


def stop(instance: Instance, found: Snapshot | Silent, progress: Progress, *, slack: float = SLACK) -> None:
    """End the circusd that was *found*, its workers and plugins; return when they are gone.

    The command quit ends circusd if it answers, SIGTERM if not. What is left after the largest graceful_timeout and
    *slack* seconds is killed. Every signal goes to a pid with the start time and the user that it had at the
    beginning.
    """
    circusd = found.identity
    children = children_of(instance, found)
    user = instance.user if procs.is_running(*circusd) else None
    if user is not None and user != os.geteuid():  # a monitor of that user does not see the mark in our runtime folder
        name = servers.name_of(user)
        cure = f"`xboard-circus stop` as {name} ends that"
        complain(f"circusd is {name}'s: a monitor of {name} would start it again; {cure}")
    # Not what has ended, or was never there: another process could have that pid and start in a moment.
    elif user is not None and (recorded := runtime.supervisor_of(instance.id)) != circusd:
        if recorded is not None:  # the successor of a restart, which waits for the end of this one
            send([recorded], signal.SIGTERM, user)
        with suppress(XboardError):  # as below
            instance.write_record(circusd)  # it has no armed watcher; the mark needs a record
    with suppress(XboardError):  # a full disk prevents no stop; at its end `mark_stopped` reports it
        instance.mark_stopped()
    family = [circusd, *children()]
    unmarked = [each for each in procs.below(circusd) if each not in family]
    give_up_at = time.monotonic() + instance.graceful_timeout() + slack
    if isinstance(found, Silent):
        progress.report("how", f"circusd (pid {circusd.pid}) does not answer ({found.why}); SIGTERM")
        send([circusd], signal.SIGTERM, user)
    else:
        _quit(instance, circusd, progress, give_up_at=give_up_at)
    # A worker that was spawned meanwhile counts as well.
    family += children()
    if gone([circusd], user, progress, give_up_at=give_up_at):
        send(family, signal.SIGTERM, user)  # its workers stay if it leaves for the next circusd
    if not gone(family, user, progress, give_up_at=give_up_at):
        family += children()
        _kill(circusd, family, user, progress, patience=instance.graceful_timeout())
    if isinstance(found, Silent) and (left := _running(unmarked, user)):
        pids = some_of([each.pid for each in left], NAMED)
        progress.report("unmarked", f"left alone: pid {pids}; nothing shows that this circusd has started them")


def mark_stopped(instance: Instance) -> None:
    """Record that an operator has stopped circusd, or print why that cannot be, such as a full disk."""
    try:
        instance.mark_stopped()
    except XboardError as error:
        complain(f"{error}; not recorded as stopped by you: a monitor of it starts it again")


def children_of(instance: Instance, found: Snapshot | Silent) -> Callable[[], list[Identity]]:
    """Return a function that lists the children which a circusd has started: workers, plugins and forkservers.

    Adopted leftovers of its workers are meant to outlive it, or are strangers. Only a circusd with our guard adopts
    anything; it shows its version, or has marked what it started. One that is not root's starts nothing as another
    user: a process of root's below it is none of its own, whatever it says.
    """
    circusd, user = found.identity, instance.user
    if isinstance(found, Snapshot):
        known, is_guarded = found.processes(), found.circusd["version"] is not None
    else:
        known = list(circusd_record.workers(instance.id))
        is_guarded = any("XBOARD_INSTANCE" in (procs.marks(each.pid) or {}) for each in procs.below(circusd))

    def is_its(child: Identity) -> bool:
        return procs.is_of(child.pid, {user}) and (not is_guarded or child in known or procs.was_started(child.pid))

    return lambda: [*filter(is_its, procs.below(circusd))]


def _kill(circusd: Identity, family: list[Identity], user: int | None, progress: Progress, *, patience: float) -> None:
    if _running([circusd], user):
        progress.report("how", f"circusd (pid {circusd.pid}) has not ended in time; SIGKILL")
        send([circusd], signal.SIGKILL, user)
        # circusd has not sent them a signal, or could not wait for their end.
        send(family, signal.SIGTERM, user)
        gone(family, user, progress, give_up_at=time.monotonic() + patience)
    kill_rest(family, user, progress)


def kill_rest(family: list[Identity], user: int | None, progress: Progress) -> None:
    """Kill what still runs of *family* as *user*; XboardError if that does not end it."""
    for each in _running(family, user):
        progress.report("how", f"pid {each.pid} has not ended in time; SIGKILL")
        send([each], signal.SIGKILL, user)
    if not gone(family, user, progress, give_up_at=time.monotonic() + KILL_WITHIN):
        left = ", ".join(str(each.pid) for each in _running(family, user))
        raise XboardError(f"still there after SIGKILL: pid {left}; they wait for the kernel, see `ps -o stat,wchan`")


def _quit(instance: Instance, circusd: Identity, progress: Progress, *, give_up_at: float) -> None:
    with instance.client() as client:
        while procs.is_running(circusd.pid, circusd.started) and time.monotonic() < give_up_at:
            try:
                client.quit(deadline=ASK_FOR)
                return
            except CircusdBusy as busy:
                if busy.running == "arbiter_stop":
                    return
                progress.report("how", f"circusd has to finish something first: {busy.reason}")
            except CircusdGone:
                # It is ending, or its only thread is at work.
                time.sleep(LOOK_EVERY)


def gone(family: list[Identity], user: int | None, progress: Progress, *, give_up_at: float) -> bool:
    """Wait until none of *family* runs as *user*; after a moment print those left."""
    began_at = time.monotonic()
    while left := _running(family, user):
        if (now := time.monotonic()) > give_up_at:
            return False
        pids = some_of([each.pid for each in left], NAMED)
        progress.waiting_for(f"waiting for pid {pids} to finish")
        if now - began_at > REPORT_AFTER:
            progress.report("left", f"not finished yet: pid {pids}")
        time.sleep(LOOK_EVERY)
    return True


def _running(family: list[Identity], user: int | None) -> list[Identity]:
    return [each for each in dict.fromkeys(family) if procs.is_running(*each, {user})]


def send(family: list[Identity], signum: signal.Signals, user: int | None) -> None:
    """Send *signum* to those of *family* that run as *user*."""
    try:
        for each in _running(family, user):
            procs.send_signal(*each, signum, {user})
    except (PermissionError, ValueError) as error:
        raise XboardError(f"{error}; run this as the user who started circusd") from error
