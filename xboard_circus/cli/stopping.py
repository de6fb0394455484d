"""Stop circusd and everything below it."""

from __future__ import annotations

import signal
import time

import psutil

from xboard_circus.circus_client import CircusdBusy, CircusdGone
from xboard_circus.cli.screen import Progress
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot

LOOK_EVERY = 0.1
ASK_FOR = 1.0
SLACK = 10.0
KILL_WITHIN = 5.0
TELL_AFTER = 1.0
NAMED = 8


def stop(instance: Instance, found: Snapshot | Silent, progress: Progress, *, slack: float = SLACK) -> None:
    """End the circusd that was *found*, its workers and plugins; return when they are gone.

    It is asked to quit where it answers, else sent SIGTERM. What is left after the largest graceful_timeout and *slack*
    seconds is killed. Every signal goes to a pid with the start time that it had at the beginning.
    """
    circusd = found.circusd.identity if isinstance(found, Snapshot) else found.identity
    if runtime.supervisor_of(instance.id) != circusd:
        instance.write_record(circusd)  # no watcher of it is armed; the mark needs a record
    instance.mark_stopped()
    others = below(circusd)
    if isinstance(found, Snapshot):
        others = list(dict.fromkeys([*others, *found.processes()]))
    give_up_at = time.monotonic() + instance.graceful_timeout() + slack
    if isinstance(found, Silent):
        progress.tell("how", f"circusd (pid {circusd.pid}) does not answer ({found.why}); SIGTERM")
        _signal(circusd, signal.SIGTERM)
    else:
        _quit(instance, circusd, progress, give_up_at=give_up_at)
    # A worker that was spawned meanwhile counts as well.
    others = list(dict.fromkeys([*others, *below(circusd)]))
    if not _gone([circusd, *others], progress, give_up_at=give_up_at):
        _kill(circusd, others, progress, patience=instance.graceful_timeout())


def _kill(circusd: procs.Identity, others: list[procs.Identity], progress: Progress, *, patience: float) -> None:
    if procs.is_running(circusd.pid, circusd.started):
        others = list(dict.fromkeys([*others, *below(circusd)]))
        progress.tell("how", f"circusd (pid {circusd.pid}) has not ended in time; SIGKILL")
        _signal(circusd, signal.SIGKILL)
        # They have not been told to stop, or by a circusd that was not able to see to it.
        for each in others:
            _signal(each, signal.SIGTERM)
        _gone([circusd, *others], progress, give_up_at=time.monotonic() + patience)
    for each in _running(others):
        progress.tell("how", f"pid {each.pid} has not ended in time; SIGKILL")
        _signal(each, signal.SIGKILL)
    if not _gone([circusd, *others], progress, give_up_at=time.monotonic() + KILL_WITHIN):
        left = ", ".join(str(each.pid) for each in _running([circusd, *others]))
        raise XboardError(
            f"still there after SIGKILL: pid {left}; they wait for the kernel, look at `ps -o stat,wchan`"
        )


def _quit(instance: Instance, circusd: procs.Identity, progress: Progress, *, give_up_at: float) -> None:
    with instance.client() as client:
        while procs.is_running(circusd.pid, circusd.started) and time.monotonic() < give_up_at:
            try:
                client.quit(deadline=ASK_FOR)
                return
            except CircusdBusy as busy:
                if busy.running == "arbiter_stop":
                    return
                progress.tell("how", f"circusd has to finish something first: {busy.reason}")
            except CircusdGone:
                # It is on its way out, or at work in its only thread.
                time.sleep(LOOK_EVERY)


def _gone(wanted: list[procs.Identity], progress: Progress, *, give_up_at: float) -> bool:
    """Wait until none of the *wanted* runs; print those left when it takes longer than a moment."""
    began_at = time.monotonic()
    while left := _running(wanted):
        now = time.monotonic()
        if now > give_up_at:
            return False
        pids = ", ".join(str(each.pid) for each in left[:NAMED])
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        progress.waiting_for(f"waiting for pid {pids}{more} to finish")
        if now - began_at > TELL_AFTER:
            progress.tell("left", f"not finished yet: pid {pids}{more}")
        time.sleep(LOOK_EVERY)
    return True


def _running(wanted: list[procs.Identity]) -> list[procs.Identity]:
    return [each for each in wanted if procs.is_running(each.pid, each.started)]


def below(circusd: procs.Identity, *, recursive: bool = False) -> list[procs.Identity]:
    """Return circusd's children (workers and launchers, plugins, circusd-stats), or all that is below it."""
    if not procs.is_running(circusd.pid, circusd.started):
        return []
    try:
        children = psutil.Process(circusd.pid).children(recursive=recursive)
    except psutil.Error:
        return []
    return [found for child in children if (found := procs.Identity.of(child.pid)) is not None]


def _signal(target: procs.Identity, signum: signal.Signals) -> None:
    try:
        procs.send_signal(target.pid, target.started, signum)
    except (PermissionError, ValueError) as error:
        raise XboardError(f"{error}; run this as the user who started circusd") from error
