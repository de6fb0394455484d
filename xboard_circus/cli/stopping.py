"""Stop circusd and everything below it, or circusd without its workers."""

import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

from xboard_circus.circus_client import CircusdBusy, CircusdGone, CommandRefused
from xboard_circus.cli.screen import Progress
from xboard_circus.config import WatcherConfig, is_armed
from xboard_circus.core.names import some_of
from xboard_circus.core.ports import Policy
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, procs, runtime
from xboard_circus.host.procs import Identity
from xboard_circus.instance import NAMED, Instance, Silent
from xboard_circus.snapshot import Snapshot
from xboard_circus.worker import runs_worker

LOOK_EVERY = 0.1
ASK_FOR = 1.0
SLACK = 10.0
KILL_WITHIN = 5.0
REPORT_AFTER = 1.0


def stop(instance: Instance, found: Snapshot | Silent, progress: Progress, *, slack: float = SLACK) -> None:
    """End the circusd that was *found*, its workers and plugins; return when they are gone.

    The command quit ends circusd where it answers, SIGTERM where not. What is left after the largest graceful_timeout
    and *slack* seconds is killed. Every signal goes to a pid with the start time that it had at the beginning.
    """
    circusd = found.circusd.identity if isinstance(found, Snapshot) else found.identity
    if runtime.supervisor_of(instance.id) != circusd:
        instance.write_record(circusd)  # no watcher of it is armed; the mark needs a record
    instance.mark_stopped()
    # Its children are workers and launchers, plugins and circusd-stats.
    family = [circusd, *procs.below(circusd)]
    give_up_at = time.monotonic() + instance.graceful_timeout() + slack
    if isinstance(found, Silent):
        progress.report("how", f"circusd (pid {circusd.pid}) does not answer ({found.why}); SIGTERM")
        _signal(circusd, signal.SIGTERM)
    else:
        _quit(instance, circusd, progress, give_up_at=give_up_at)
    # A worker that was spawned meanwhile counts as well.
    family += procs.below(circusd)
    if not _gone(family, progress, give_up_at=give_up_at):
        _kill(circusd, family, progress, patience=instance.graceful_timeout())


def can_stay(watcher: WatcherConfig) -> bool:
    """Return whether workers of *watcher* can serve on while another circusd takes the place of theirs."""
    is_overlapping = watcher.respawn and not watcher.singleton and watcher.options.port.policy != Policy.NEVER.value
    return (
        is_armed(watcher) and is_overlapping and bool(watcher.sockets_used) and runs_worker(watcher.cmd, watcher.args)
    )


@dataclass(frozen=True, slots=True)
class Departure:
    """A circusd that ends without its workers, and the *others* of its processes, which end with it."""

    circusd: Identity
    others: list[Identity]

    def await_end(self, instance: Instance, progress: Progress, *, slack: float = SLACK) -> None:
        """Return when circusd and the others are gone; what has not ended in time is killed."""
        give_up_at = time.monotonic() + instance.graceful_timeout() + slack
        if not _gone([self.circusd, *self.others], progress, give_up_at=give_up_at):
            _kill_rest([self.circusd, *self.others], progress)


def leave(instance: Instance, found: Snapshot | Silent, progress: Progress) -> Departure | None:
    """Have the circusd that was *found* end without the workers that can stay; None, with nothing done, without such.

    One that does not answer, or knows no such command (an older release), is killed: its workers serve on, too.
    """
    circusd = found.circusd.identity if isinstance(found, Snapshot) else found.identity
    staying = {watcher.name for watcher in instance.config.watchers if can_stay(watcher)}
    try:
        with instance.client() as client:
            staying = set(client.leave())
    except (CircusdGone, CommandRefused) as error:
        if isinstance(error, CommandRefused) and "unknown command" not in error.reason:
            progress.report("how", f"no worker can serve on meanwhile: {error.reason}")
            return None
        others = _others(circusd, staying)
        progress.report("how", f"circusd (pid {circusd.pid}) is killed, its workers serve on: {error}")
        circusd_record.order_end(instance.id)
        _signal(circusd, signal.SIGKILL)
        for each in others:
            _signal(each, signal.SIGTERM)
        return Departure(circusd, others)
    return Departure(circusd, _others(circusd, staying))


def _others(circusd: Identity, staying: Collection[str]) -> list[Identity]:
    """Return the children of *circusd* that do not stay: plugins, and workers of other watchers."""
    children = procs.below(circusd)
    return [each for each in children if (procs.environ(each.pid) or {}).get("XBOARD_WATCHER") not in staying]


def _kill(circusd: Identity, family: list[Identity], progress: Progress, *, patience: float) -> None:
    if procs.is_running(circusd.pid, circusd.started):
        family += procs.below(circusd)
        progress.report("how", f"circusd (pid {circusd.pid}) has not ended in time; SIGKILL")
        _signal(circusd, signal.SIGKILL)
        # circusd has not sent them a signal, or could not wait for their end.
        for each in _running(family):
            _signal(each, signal.SIGTERM)
        _gone(family, progress, give_up_at=time.monotonic() + patience)
    _kill_rest(family, progress)


def _kill_rest(family: list[Identity], progress: Progress) -> None:
    for each in _running(family):
        progress.report("how", f"pid {each.pid} has not ended in time; SIGKILL")
        _signal(each, signal.SIGKILL)
    if not _gone(family, progress, give_up_at=time.monotonic() + KILL_WITHIN):
        left = ", ".join(str(each.pid) for each in _running(family))
        raise XboardError(
            f"still there after SIGKILL: pid {left}; they wait for the kernel, look at `ps -o stat,wchan`"
        )


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


def _gone(family: list[Identity], progress: Progress, *, give_up_at: float) -> bool:
    """Wait until none of *family* runs; print those left when it takes longer than a moment."""
    began_at = time.monotonic()
    while left := _running(family):
        now = time.monotonic()
        if now > give_up_at:
            return False
        pids = some_of([each.pid for each in left], NAMED)
        progress.waiting_for(f"waiting for pid {pids} to finish")
        if now - began_at > REPORT_AFTER:
            progress.report("left", f"not finished yet: pid {pids}")
        time.sleep(LOOK_EVERY)
    return True


def _running(family: list[Identity]) -> list[Identity]:
    return [each for each in dict.fromkeys(family) if procs.is_running(each.pid, each.started)]


def _signal(target: Identity, signum: signal.Signals) -> None:
    try:
        procs.send_signal(target.pid, target.started, signum)
    except (PermissionError, ValueError) as error:
        raise XboardError(f"{error}; run this as the user who started circusd") from error
