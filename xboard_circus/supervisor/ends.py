"""How the end of a process is noticed, once and with its cause: Circus itself loses up to a third of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor import evidence
from xboard_circus.supervisor.output import LastWords, drain
from xboard_circus.supervisor.slot import Spawned
from xboard_circus.worker import EXIT_RECYCLED

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher

KILLED_DIES_WITHIN = 1.0
KILLED_POLL = 0.005
OPERATOR = Say.OPERATOR()


class Processes(dict[int, Any]):
    """A watcher's processes, which may be taken out twice.

    Circus takes out what it has killed without a look whether it is still there. With prompt reaping it often is not,
    and the KeyError would end a `reload` or `decr` in the middle.
    """

    def pop(self, pid: int, default: Any = None) -> Any:
        return super().pop(pid, default)


def reap(armed: ArmedWatcher, original: Callable[..., Any], pid: int, status: int | None) -> None:
    """Reap one process, in the place of Circus's own `reap_process`, and count its end.

    A live process is left alone: Circus would wait for it in a busy loop that freezes circusd.
    """
    spawned = armed.live.get(pid)
    if spawned is None:
        original(pid, status)
        return
    if status is None and not spawned.has_ended():
        return
    code = spawned.exit_code() if status is None else os.waitstatus_to_exitcode(status)
    take_output(armed, spawned)
    original(pid, status)
    count(armed, spawned, code)


async def kill_all(armed: ArmedWatcher, killed: Awaitable[None]) -> None:
    """Await Circus's own `kill_processes`, then until what it sent SIGKILL is really dead.

    Circus answers a `stop` right after the signal, while it still lists the process. Bounded, since a process deep in
    the kernel may outlive the signal; and by a coroutine, since circusd has others to look after.
    """
    await killed
    deadline = armed.clock() + KILLED_DIES_WITHIN
    while armed.clock() < deadline and any(
        signal.SIGKILL in spawned.signals and not spawned.has_ended() for spawned in armed.live.values()
    ):
        await asyncio.sleep(KILLED_POLL)


def take_output(armed: ArmedWatcher, spawned: Spawned) -> None:
    """Read what is left in the pipes of a dead process, and take them from the loop.

    Circus closes them without that. The loop then still knows their numbers, and the next spawn that gets one of
    these, in whichever watcher, fails after its fork: a worker that nobody knows of.
    """
    try:
        drain(armed.watcher, spawned.process)
        if armed.watcher.stream_redirector is not None:
            armed.watcher.stream_redirector.remove_redirections(spawned.process)
    except Exception:
        logger.exception("xboard: the last output of %s is lost", spawned.pid)


def settle(armed: ArmedWatcher) -> None:
    """Count every end that Circus saw without telling: it drops dead processes in several places."""
    for spawned in list(armed.live.values()):
        if spawned.pid not in armed.watcher.processes and spawned.has_ended():
            take_output(armed, spawned)
            count(armed, spawned, spawned.exit_code())


def count(armed: ArmedWatcher, spawned: Spawned, code: int | None) -> None:
    """Find the cause of an end, let the budget say when the next of its slot may start, and tell all that is known."""
    if armed.live.pop(spawned.pid, None) is None:
        return
    now = armed.clock()
    if code == EXIT_RECYCLED and armed.has_private_socket:
        spawned.commanded_by = spawned.commanded_by or "recycle"
    words = armed.tails.pop(spawned.pid, None) or LastWords()
    death = Death(
        exit_code=code,
        was_ready=spawned.ready_at is not None or armed.is_ready_by_uptime(spawned),
        commanded_by=spawned.commanded_by,
        signals=tuple(spawned.signals),
        oom=evidence.oom_of(armed, spawned, code),
        our_kill=spawned.our_kill,
        our_reason=spawned.our_reason,
        log_tail=words.tail,
        command=armed.watcher.cmd,
    )
    cause, reason = cause_of(death)
    armed.ends[cause.value] += 1
    if not spawned.retiring:
        armed.ended_in[spawned.slot] = spawned.pid
    armed.remove_files(spawned)
    replacement = armed.replacement
    on_trial = replacement is not None and replacement.is_trying(spawned)
    if replacement is not None:
        replacement.ended(spawned, reason, words.tail)
    told: dict[str, Any] = {"pid": spawned.pid, "wid": spawned.wid, "cause": cause.value, "exit_code": code}
    told |= evidence.of_process(armed, spawned, code, words)
    spent = armed.budget.spent(now)
    if not cause.counts or on_trial or armed.watcher.is_stopping():
        if is_operators(spawned):
            armed.budget.forget(spawned.slot)
        # "end": nobody takes its place, since the watcher stops, or circusd.
        told["budget"] = {"before": spent, "after": armed.budget.spent(now), "limit": armed.budget.limit}
        armed.publish("restart" if armed.is_running() else "end", reason=reason, **told)
        return
    armed.restarts += 1
    was_cooling = armed.budget.is_cooling(spawned.slot, now)
    verdict = armed.budget.failed(spawned.slot, now, jitter=random.uniform(-1, 1))
    if any(other.slot == spawned.slot and other.released_at is not None for other in armed.live.values()):
        armed.budget.started(spawned.slot, now)  # its successor runs already
    armed.tell(Say.COUNTED(why=reason, then=verdict.reason))
    # A slot that cools down is left out of what is spent: it has used up all that it had.
    after = armed.budget.limit if verdict.cooling else armed.budget.spent(now)
    told["budget"] = {"before": spent, "after": after, "limit": armed.budget.limit}
    told |= {"wait": verdict.wait, "failures": verdict.failures, "next": verdict.reason}
    armed.publish("restart", reason=reason, **told)
    if verdict.cooling and not was_cooling:
        named = {key: told[key] for key in ("pid", "wid", "cause", "exit_code")}
        armed.publish("cooldown", reason=Say.COUNTED(why=reason, then=verdict.reason), wait=verdict.wait, **named)


def by_operator(armed: ArmedWatcher) -> str:
    """Return by whom what Circus does to a watcher of its own accord was asked for."""
    asker = armed.supervisor.requests.asker_of(armed.name)
    return Say.OPERATOR_BY(by=asker) if asker else Say.OPERATOR()


def is_operators(spawned: Spawned) -> bool:
    """Say whether an operator wanted it gone."""
    return (spawned.commanded_by or "").startswith(OPERATOR)
