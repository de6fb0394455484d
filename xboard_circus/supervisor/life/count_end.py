"""Count each end of a process once, with its cause: Circus itself loses up to a third of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.causes import Cause
from xboard_circus.core.in_flight import in_common
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker_phases import Ended, Gone
from xboard_circus.host import procs, session, worker_files
from xboard_circus.supervisor.boundary import SHORTAGE_RETRY, contained, is_shortage
from xboard_circus.supervisor.life import evidence, output
from xboard_circus.supervisor.patches import circus_process, circus_watcher
from xboard_circus.worker import EXIT_RECYCLED

if TYPE_CHECKING:
    from xboard_circus.core.poison import Poisons
    from xboard_circus.core.restart_limits import RestartBudget
    from xboard_circus.supervisor.bus.journal import Journal
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

KILLED_DIES_WITHIN = 1.0
KILLED_POLL = 0.005
LOOKS_FOR_LEFT = 10
LEFT_BEHIND_GRACE = 2.0


def reap(armed: ArmedWatcher, original: Callable[..., Any], pid: int, status: int | None) -> None:
    """Reap one process, in the place of Circus's own `reap_process`, and count its end.

    A live process is left alone: Circus would wait for it in a busy loop that freezes circusd.
    """
    worker = armed.fleet.workers.get(pid)
    if worker is None:
        original(pid, status)
        return
    if status is None and not worker.has_ended():
        return
    code = circus_process.exit_code(worker.process) if status is None else os.waitstatus_to_exitcode(status)
    _take_output(armed.watcher, worker)
    try:
        original(pid, status)
    finally:
        count(armed, worker, code)


async def until_dead(workers: Iterable[Worker], clock: Callable[[], float]) -> None:
    """Wait until each worker that was sent SIGKILL is really dead.

    Circus answers a `stop` right after the signal, while it still lists the process. Bounded, because a process deep in
    the kernel may outlive the signal; and by a coroutine, because circusd has others to look after.
    """
    deadline = clock() + KILLED_DIES_WITHIN
    while clock() < deadline and any(
        signal.SIGKILL in worker.life.signals and not worker.has_ended() for worker in workers
    ):
        await asyncio.sleep(KILLED_POLL)


def _take_output(watcher: Any, worker: Worker) -> None:
    streams = (watcher.stdout_stream, watcher.stderr_stream)
    circus_watcher.take_pipes(watcher, worker.process, partial(output.drain, streams=streams))


@contained(None)
def settle(armed: ArmedWatcher) -> None:
    """Count each end that Circus did not report: it drops dead processes in several places."""
    for worker in armed.fleet:
        if worker.pid not in armed.watcher.processes and worker.has_ended():
            _take_output(armed.watcher, worker)
            count(armed, worker, circus_process.exit_code(worker.process))


def count(armed: ArmedWatcher, worker: Worker, code: int | None) -> None:
    """Find the cause of an end, count it against the restart budget of its slot, and publish the evidence.

    No file operation keeps a death from being counted: what is read before the bookkeeping is contained.
    """
    if not armed.fleet.drop(worker):
        return
    now, fleet, budget = armed.clock(), armed.fleet, armed.budget
    words = armed.tails.pop(worker.pid, None) or output.LastWords()
    before, recycled = worker.life, code == EXIT_RECYCLED and armed.limits_requests
    oom, limit = evidence.oom_of(armed.supervisor.oom, worker, code), float(armed.watcher.graceful_timeout)
    cut = contained((0, 0.0))(worker_files.cut_of)(armed.folder, worker.token)
    armed.happen(worker, Ended(now, code, oom, words.tail, armed.watcher.cmd, recycled, *cut, limit))
    assert isinstance(worker.life.phase, Gone)
    gone = worker.life.phase
    cause, reason = gone.cause, gone.reason
    fleet.ends[cause.value] += 1
    if before.counts:
        fleet.ended_in[worker.slot] = worker.pid
    fleet.note_up()
    swap = armed.swap_of(worker)
    on_trial = swap is not None and swap.ended(worker)
    requests = evidence.of_requests(worker, before, code, gone, armed.poisons)
    fleet.last_requests = {worker.pid: requests}
    data: dict[str, Any] = {**worker.ids, "cause": cause.value}
    data |= evidence.of_process(worker, before, code, words, now) | requests
    if cause is Cause.OUT_OF_MEMORY and (common := _in_common(armed.supervisor.journal, armed.watcher.res_name, data)):
        data |= with_say(common, "common")
    used = budget.used(now)
    if not cause.counts or on_trial or armed.watcher.is_stopping():
        budget.try_over(worker.slot)
        if before.order is not None and before.order.by_operator:
            budget.forget(worker.slot)
        # "end": no worker takes its place, because the watcher or circusd stops; "surplus": because fewer are wanted.
        data["surplus"] = armed.missing() <= 0 and worker.slot not in armed.fleet.used_slots()
        data["budget"] = {"before": used, "after": budget.used(now), "limit": budget.limit}
        armed.publish("restart" if armed.is_running() else "end", reason=reason, **data)
    else:
        _count_failure(armed, worker, gone, data, used, now)
    if armed.folder is not None:
        worker_files.remove(armed.folder, worker.token, worker_files.LEFT)
    if armed.is_running():
        armed.port.look_again()
    armed.supervisor.run(_end_left_behind(armed, worker), f"the end of what {worker.pid} left behind")


def _count_failure(
    armed: ArmedWatcher, worker: Worker, gone: Gone, data: dict[str, Any], used: int, now: float
) -> None:
    budget, cause, reason = armed.budget, gone.cause, gone.reason
    armed.fleet.failures += 1
    was_cooling = budget.is_cooling(worker.slot, now)
    poison, is_new = _poison(armed.poisons, budget, worker, data, now)
    armed.last_failure = poison or reason
    if poison:
        data |= with_say(poison, "poison")
        decision = budget.excuse(worker.slot, now, started=worker.spawned_at, why=poison)
    else:
        jitter, up_for = random.uniform(-1, 1), data.get("ready_for") or 0.0
        killed, younger = cause is Cause.KILLED, (each for each in armed.fleet if each.spawned_at > worker.spawned_at)
        replaced = any(each.slot == worker.slot and each.life.counts for each in younger)
        decision = budget.failed(worker.slot, now, jitter=jitter, up_for=up_for, killed=killed, replaced=replaced)
    if any(other.slot == worker.slot for other in armed.fleet):
        budget.started(worker.slot, now)  # its successor runs already
    then = Say.COUNTED(why=reason, then=decision.reason)
    armed.note_reason(then)
    data["budget"] = {"before": used, "after": budget.used(now), "limit": budget.limit}
    data |= {"wait": decision.wait, "failures": decision.failures, **with_say(decision.reason, "next")}
    armed.publish("restart", reason=reason, **data)
    if is_new:
        armed.publish("poison", reason=poison, **worker.ids)
    if decision.cooling and not was_cooling:
        more = {"cause": cause.value, "exit_code": data["exit_code"]}
        armed.publish("cooldown", reason=then, wait=decision.wait, **worker.ids, **more)


def _in_common(journal: Journal, watcher: str, data: dict[str, Any]) -> str:
    """Return what this death for want of memory has in common with the earlier ones that are in the journal."""
    earlier = [fields for name, kind, fields in journal.after(0)["events"] if (name, kind) == (watcher, "restart")]
    return in_common([each for each in earlier if each.get("cause") == data["cause"]] + [data])


def _poison(
    poisons: Poisons, budget: RestartBudget, worker: Worker, data: dict[str, Any], now: float
) -> tuple[str, bool]:
    """Return why a death is the request's and not the slot's, "" where it is not, and whether that is news.

    Then the deaths by such requests that were counted before are given back.
    """
    if not (route := data.get("blames")):
        return "", False
    earlier = poisons.died(route, data["requests"][0]["id"], slot=worker.slot, now=now)
    for slot, failed_at in earlier or ():
        budget.give_back(slot, failed_at)
    return ("", False) if earlier is None else (poisons.reason(now), bool(earlier))


async def _end_left_behind(armed: ArmedWatcher, worker: Worker) -> None:
    """End the processes that a dead worker has left in its session, such as those of a process pool.

    Circus gives each worker a session of its own, and the kernel does not use its number again while a process is in
    it. What the app has put into a session of its own is left alone: it is meant to outlive the worker. So is what
    another user's has got into it, as by sudo, which the worker could not end: only the log names it.
    """
    leader, seen_at = procs.Identity(worker.pid, worker.started), worker.ended_at or procs.now()
    ended, others, looks = list[str](), list[str](), 0
    while looks < LOOKS_FOR_LEFT:  # until nothing is found: without a descriptor a process may seem to be gone
        try:
            found, others = await asyncio.to_thread(session.end, leader, seen_at, LEFT_BEHIND_GRACE, worker.user)
        except (OSError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            await asyncio.sleep(SHORTAGE_RETRY)
            continue
        if not found:
            break
        ended += [each for each in found if each not in ended]
        looks += 1
        if looks > 1:
            await asyncio.sleep(SHORTAGE_RETRY)
    if others:
        what = "left alone, as other users', what worker %s has left behind: %s"
        logger.warning(f"xboard: %s: {what}", armed.name, worker.pid, ", ".join(others))
    if ended:
        reason = Say.LEFT_BEHIND(pid=worker.pid, processes=ended)
        logger.warning("xboard: %s: %s", armed.name, reason)
        armed.publish("swept", reason=reason, **worker.ids)
