"""Whether a worker may be replaced, and in which way, when the prober or an operator asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circus.exc import MessageError

from xboard_circus.core.causes import Cause
from xboard_circus.core.sentences import Say
from xboard_circus.core.states import WorkerState
from xboard_circus.supervisor import ends, view
from xboard_circus.supervisor.replacement import Replacement, decided, kill_wedged

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned


def replace(armed: ArmedWatcher, *, pid: int, started: int, kind: str, probed_at: float, reason: str) -> None:
    """Replace a worker that the prober found wedged or sick, or that an operator wants replaced.

    Raises MessageError, which circusd sends back as the answer, where there is a reason not to.
    """
    spawned = armed.live.get(pid)
    now = armed.clock()
    if spawned is None or spawned.started != started:
        raise MessageError(Say.NO_SUCH_WORKER(watcher=armed.name, pid=pid, started=started))
    if not armed.is_running():
        raise MessageError(Say.WATCHER_IS(watcher=armed.name, state=armed.watcher.status()))
    if spawned.commanded_by or spawned.our_kill or spawned.retiring:
        raise MessageError(Say.BEING_ENDED(pid=pid))
    if kind == ends.OPERATOR:
        _for_operator(armed, spawned, reason)
        return
    if spawned.ready_at is None:
        raise MessageError(Say.STILL_STARTING(pid=pid))
    health = armed.options.health
    if probed_at < spawned.ready_at or now - probed_at > health.timeout + health.period + 1.0:
        raise MessageError(Say.PROBE_TOO_OLD(pid=pid, age=f"{now - probed_at:.1f} s"))
    if kind == WorkerState.WEDGED.value:
        armed.supervisor.run(kill_wedged(armed, spawned, Say.WEDGED(why=reason)), f"the end of {pid}")
        return
    if armed.replacement is not None or armed.busy:
        raise MessageError(Say.ANOTHER_REPLACED())
    wait = armed.budget.wait(spawned.slot, now)
    if wait > 0:
        raise MessageError(Say.RESTARTS_USED_UP(wait=f"{wait:.0f} s"))
    if armed.port.is_bound_by_the_server:
        # Its successor could not bind the port beside it, so here the old one has to go first.
        armed.supervisor.run(_end_sick(armed, spawned, Say.SICK(why=reason)), f"the end of {pid}")
        return
    work = Replacement(armed, spawned, cause=Cause.UNHEALTHY, by="probe", reason=Say.SICK(why=reason))
    armed.supervisor.run(_replace(armed, work), f"the replacement of {pid}")


def _for_operator(armed: ArmedWatcher, spawned: Spawned, reason: str) -> None:
    """Begin what a rolling reload does, for one worker; it costs no restart, however it ends."""
    if spawned.released_at is None or spawned.spare:
        raise MessageError(Say.DOES_NOT_SERVE(pid=spawned.pid, state=view.state_of(armed, spawned).value))
    if armed.replacement is not None or armed.busy:
        raise MessageError(Say.ANOTHER_REPLACED())
    if armed.port.is_bound_by_the_server:
        raise MessageError(Say.BINDS_BY_ITSELF(watcher=armed.name))
    by, told = Say.OPERATOR_BY(by=reason), Say.REPLACEMENT_ASKED_FOR(by=reason)
    work = Replacement(armed, spawned, cause=None, by=by, reason=told)
    armed.supervisor.run(_replace(armed, work), f"the replacement of {spawned.pid}")


async def _replace(armed: ArmedWatcher, work: Replacement) -> None:
    failure = await work.run()
    if failure is not None:
        armed.tell(Say.KEPT(why=work.reason, failure=failure))


async def _end_sick(armed: ArmedWatcher, spawned: Spawned, reason: str) -> None:
    decided(armed, spawned, Cause.UNHEALTHY, by="probe", reason=reason)
    spawned.our_kill, spawned.our_reason = Cause.UNHEALTHY, reason
    await armed.watcher.kill_process(spawned.process)
    armed.reap_and_respawn()
