"""Follow workers from their start until they are up; terminate those that miss `health.startup_timeout`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import LATE_START_GRACE, BecameReady, CameUp, Ticked
from xboard_circus.supervisor.patches import circus_arbiter, circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

UP_BY_UPTIME = 1.0
"""Seconds after which another server than our worker counts as up: it does not report that its start is complete."""


def count_start(armed: ArmedWatcher, worker: Worker) -> None:
    """Count a start of the worker's slot from now on."""
    worker.released_at = armed.clock()
    armed.budget.started(worker.slot, worker.released_at)


def count_up(armed: ArmedWatcher, worker: Worker) -> None:
    """Count a worker as up."""
    armed.fleet.note_up()
    armed.budget.ready(worker.slot, armed.clock())


def see_progress(armed: ArmedWatcher) -> None:
    """Note which workers report that they are up, or ready; forgive the failures of those that are up for long."""
    now = armed.clock()
    for worker in armed.fleet:
        if worker.is_starting and not worker.is_spare and _is_up(armed, worker, now):
            armed.happen(worker, CameUp(now))
        if not worker.is_up or worker.up_since is None:
            continue
        if not worker.life.was_ready and (
            not (armed.has_private_socket and armed.can_use_folder()) or armed.has_file(worker, "ready")
        ):
            armed.happen(worker, BecameReady())
        up_for = now - worker.up_since
        if armed.budget.reset_if_held(worker.slot, up_for):
            reason = Say.FORGIVEN(held=exactly(armed.budget.limits.reset_after))
            armed.publish("recovered", reason=reason, **worker.ids)
        else:
            armed.budget.holds(worker.slot, up_for, now)


def _is_up(armed: ArmedWatcher, worker: Worker, now: float) -> bool:
    if armed.has_private_socket and armed.can_use_folder():
        return armed.has_file(worker, "up")
    standing = worker.life.standing
    return standing is not None and now - standing.since > UP_BY_UPTIME


def pass_time(armed: ArmedWatcher) -> None:
    """End late starts, and let orders expire that brought no end."""
    if not armed.is_running():
        return
    limit = armed.options.health.startup_timeout
    grace = min(LATE_START_GRACE, armed.watcher.graceful_timeout)
    why = Say.NOT_READY_IN_TIME(timeout=exactly(limit))
    tick = Ticked(armed.clock(), startup_timeout=limit, grace=grace + armed.slack, why_late=why)
    for worker in armed.fleet:
        armed.happen(worker, tick)


def terminate_late(armed: ArmedWatcher, worker: Worker) -> None:
    """Terminate a worker that missed `health.startup_timeout`; `graceful_timeout` would only delay the next."""

    async def work() -> None:
        grace = min(LATE_START_GRACE, armed.watcher.graceful_timeout)
        await circus_watcher.kill(armed.watcher, worker.process, grace)
        armed.keep_up()

    armed.supervisor.run(work(), f"the end of {worker.pid}")


def start_again(armed: ArmedWatcher) -> None:
    """Start a watcher that stopped because nothing could be spawned, not because of a stop request."""
    if armed.spawns_again_at is None or armed.clock() < armed.spawns_again_at or not armed.watcher.is_stopped():
        return
    if circus_arbiter.running_command(armed.supervisor.arbiter) is None and armed.is_current():
        armed.spawns_again_at = None
        armed.supervisor.run(_start(armed), f"the start of {armed.name}")


async def _start(armed: ArmedWatcher) -> None:
    await armed.watcher.start()
