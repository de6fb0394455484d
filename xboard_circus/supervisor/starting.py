"""From the start of a worker until it is ready: who is, who takes too long, and who could not be started at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xboard_circus.core.causes import Cause
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor import evidence

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned

LATE_START_GRACE = 5.0


def see_ready(armed: ArmedWatcher) -> None:
    """Look which workers told that they are ready; forget the restarts of those that have been so for long."""
    now = armed.clock()
    for spawned in armed.live.values():
        if spawned.released_at is None or spawned.spare:
            continue
        if spawned.ready_at is None:
            told = armed.has_private_socket and armed.file_of(spawned, "ready").exists()
            if told or armed.is_ready_by_uptime(spawned):
                spawned.became_ready(now)
                evidence.tell_ready(armed, spawned)
                armed.budget.ready(spawned.slot, now)
        elif armed.budget.reset_if_held(spawned.slot, now - spawned.ready_at):
            reason = Say.FORGIVEN(held=f"{armed.budget.limits.reset_after:g} s")
            armed.publish("recovered", reason=reason, pid=spawned.pid, wid=spawned.wid)
        else:
            armed.budget.holds(spawned.slot, now - spawned.ready_at, now)


def end_late_starts(armed: ArmedWatcher) -> None:
    """End who is not ready within `health.startup_timeout`; it serves nobody. Whom a stop ends is no failed start."""
    if not armed.is_running():
        return
    now, limit = armed.clock(), armed.options.health.startup_timeout
    for spawned in list(armed.live.values()):
        if spawned.ready_at is not None or spawned.released_at is None or spawned.spare:
            continue
        on_trial = armed.replacement is not None and armed.replacement.new is spawned
        if now - spawned.released_at > limit and not spawned.our_kill and not on_trial:
            reason = Say.NOT_READY_IN_TIME(timeout=f"{limit:g} s")
            armed.supervisor.run(_end_late_start(armed, spawned, reason), f"the end of {spawned.pid}")


async def _end_late_start(armed: ArmedWatcher, spawned: Spawned, reason: str) -> None:
    spawned.our_kill, spawned.our_reason = Cause.FAILED_START, reason
    # It serves nobody, so the full graceful timeout would only delay its successor.
    grace = min(LATE_START_GRACE, armed.watcher.graceful_timeout)
    await armed.watcher.kill_process(spawned.process, graceful_timeout=grace)
    armed.reap_and_respawn()


def start_again(armed: ArmedWatcher) -> None:
    """Start a watcher that stopped because nothing could be spawned, which no operator asked for."""
    if armed.start_failed_until is None or armed.clock() < armed.start_failed_until or not armed.watcher.is_stopped():
        return
    if armed.supervisor.arbiter._exclusive_running_command is None and armed.is_current():
        armed.start_failed_until = None
        armed.supervisor.run(_start(armed), f"the start of {armed.name}")


async def _start(armed: ArmedWatcher) -> None:
    await armed.watcher.start()
