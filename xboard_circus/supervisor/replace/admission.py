"""Admit or refuse, with the reason, the replacement that the prober (`core/health.py`) or an operator requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circus.exc import MessageError

from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import seconds
from xboard_circus.core.in_flight import with_requests
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say, state_named
from xboard_circus.core.state_names import BLOCKED, Health, Role
from xboard_circus.core.worker_phases import Judged, Order
from xboard_circus.supervisor.held_slots import hold_of
from xboard_circus.supervisor.life import evidence
from xboard_circus.supervisor.replace.swap import Swap

if TYPE_CHECKING:
    from xboard_circus.host.procs import Identity
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher


def replace(armed: ArmedWatcher, identity: Identity, *, kind: str, probed_at: float, reason: str) -> None:
    """Replace a worker that the prober found hung, sick or blocked, or that an operator named.

    Raises MessageError with the reason for a refusal, which circusd sends back as the answer.
    """
    worker, now, pid = armed.fleet.find(identity.pid, identity.started), armed.clock(), identity.pid
    if worker is None:
        raise MessageError(Say.NO_SUCH_WORKER(watcher=armed.name, pid=pid, started=identity.started))
    if not armed.is_running():
        raise MessageError(Say.WATCHER_IS(watcher=armed.name, state=state_named(armed.watcher.status())))
    may_hang = kind == Health.HUNG.value and any(swap.blocked and swap.old is worker for swap in armed.swaps)
    if worker.is_leaving:
        raise MessageError(Say.BEING_ENDED(pid=pid))
    if worker.life.role is Role.RETIRING and not may_hang:
        swap = armed.swap_of(worker)
        new = None if swap is None else swap.new
        raise MessageError(Say.BEING_REPLACED(pid=pid) if new is None else Say.BEING_REPLACED_BY(pid=pid, new=new.pid))
    if kind == "operator":  # a person requests it; the other kinds are `BLOCKED` and values of `Health`
        _for_operator(armed, worker, reason)
        return
    if worker.up_since is None:
        raise MessageError(Say.STILL_STARTING(pid=pid))
    health = armed.options.health
    if probed_at < (worker.up_since or worker.spawned_at) or now - probed_at > health.timeout + health.period + 1.0:
        raise MessageError(Say.PROBE_TOO_OLD(pid=pid, age=seconds(now - probed_at)))
    if kind == Health.HUNG.value:
        order = Order(by="probe", why=Say.HUNG(why=reason), cause=Cause.UNHEALTHY)
        armed.supervisor.run(armed.kill_hung(worker, order), f"the end of {pid}")
        return
    if kind == BLOCKED:
        _refuse_ahead(armed, worker, now)
    if armed.busy or len(armed.swaps_in_the_making()) >= health.max_unavailable:
        raise MessageError(Say.TOO_MANY_REPLACED(n=len(armed.swaps_in_the_making()), limit=health.max_unavailable))
    if (wait := armed.budget.wait(worker.slot, now)) > 0:
        raise MessageError(Say.RESTARTS_USED_UP(wait=seconds(round(wait))))
    if not armed.may_run(worker.slot):
        raise MessageError(hold_of(armed, worker.slot, now).reason)
    if kind == BLOCKED:
        blocked = with_requests(reason, evidence.of_live_requests(worker, blames_last=True, now=now, most=1))
        order = Order(by="probe", why=Say.SUCCESSOR_AHEAD(why=blocked))
        armed.note_reason(order.why)
        # Not only once the probe that found it is over: until then all would seem well.
        armed.happen(worker, Judged(probed_at, Health.FAILING, reason))
        _begin(armed, worker, order, blocked=blocked)
    else:
        _begin(armed, worker, Order(by="probe", why=Say.SICK(why=reason), cause=Cause.UNHEALTHY))


def _refuse_ahead(armed: ArmedWatcher, worker: Worker, now: float) -> None:
    """Raise MessageError if a blocked worker may not get a successor now.

    Nor does the successor of one that is still blocked: under load that blocks each, there would be more without end.
    """
    if alone := armed.why_alone():
        raise MessageError(alone)
    is_second = any(swap.blocked and swap.old.slot == worker.slot for swap in armed.swaps)
    if is_second or (armed.reload is not None and armed.reload.is_running):
        raise MessageError(Say.ANOTHER_REPLACED())
    if now < armed.ahead_not_before:
        raise MessageError(Say.CAME_BACK_LATELY(wait=seconds(round(armed.ahead_not_before - now))))
    if not armed.has_room():
        raise MessageError(Say.NO_MEMORY_FOR_ONE())


def _for_operator(armed: ArmedWatcher, worker: Worker, reason: str) -> None:
    """Begin a reload of one worker; it uses no restart budget, however it ends."""
    if armed.swaps_in_the_making() or armed.busy:
        raise MessageError(Say.ANOTHER_REPLACED())
    if alone := armed.why_alone():
        raise MessageError(alone)
    why = Say.REPLACEMENT_ASKED_FOR(by=reason)
    _begin(armed, worker, Order(by=Say.OPERATOR_BY(by=reason), why=why, by_operator=True))


def _begin(armed: ArmedWatcher, worker: Worker, order: Order, *, blocked: str = "") -> None:
    armed.supervisor.run(Swap(armed, worker, order, blocked=blocked).run(), f"the replacement of {worker.pid}")


def retry(armed: ArmedWatcher, *, slot: int | None, by: str) -> None:
    """Start a worker in the held *slot*, or in all of them, now, and forget its failures.

    Raises MessageError if it is not held.
    """
    held = armed.held_slots()
    if slot is not None and slot not in held:
        raise MessageError(Say.NO_SUCH_SLOT(watcher=armed.name, slot=slot))
    if armed.before.pending is not None:
        raise MessageError(armed.before.pending.reason)
    if not armed.port.is_ready:
        raise MessageError(Say.WAITS_FOR_PORT(why=armed.port.reason))
    reason = Say.RETRY_ASKED_FOR(by=by)
    armed.note_reason(reason)
    for each in sorted(held) if slot is None else [slot]:
        armed.budget.forget(each)
        armed.publish("retry", reason=reason, slot=each, **with_say(by, "by"))
    armed.keep_up()
