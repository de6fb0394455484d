"""How a process of an armed watcher comes to be: behind the launcher, and behind a gate where it has to wait."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.sentences import Say
from xboard_circus.host import procs
from xboard_circus.supervisor.environment import launch_command
from xboard_circus.supervisor.slot import Spawned

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher

NO_SLOT = 0  # slots begin at 1, those of spares go down from -1; a spawn that failed inside circusd has none


@dataclass(frozen=True)
class Wanted:
    """What the next spawn is for.

    Attributes:
        successor_of: The worker whose slot it is counted in, and takes over.
        spare: It is to import the app and wait.
        at_once: Somebody asked for it: no wait for a restart.
    """

    successor_of: Spawned | None = None
    spare: bool = False
    at_once: bool = False


def spawn(armed: ArmedWatcher, original: Callable[..., Any], recovery_wid: int | None) -> Any:
    """Spawn one process behind the launcher, in the place of Circus's own `spawn_process`.

    Never answers False for a failure and never raises: Circus would stop the whole watcher, the healthy workers too, or
    leave the rest of its boot undone.
    """
    watcher = armed.watcher
    if watcher.is_stopped() or watcher.is_stopping():
        return True
    try:
        armed.settle()
        if watcher.is_active() and armed.start_failed_until is not None and armed.clock() < armed.start_failed_until:
            return True
        return _spawn(armed, original, recovery_wid)
    except Exception as error:
        logger.exception("xboard: a spawn of %s failed", armed.name)
        _failed(armed, str(error))
        return True


def _spawn(armed: ArmedWatcher, original: Callable[..., Any], recovery_wid: int | None) -> Any:
    watcher, wanted, now = armed.watcher, armed.wanted, armed.clock()
    armed.budget.slots = max(1, watcher.numprocesses)
    slot = _slot_for(armed, wanted)
    armed.port.look_again()
    gate = None if wanted.at_once or may_run(armed, slot, now) else armed.new_gate()
    known = set(watcher.processes)
    changed = ("cmd", "working_dir", "uid", "gid", "rlimits", "max_retry", "numprocesses")
    saved = {name: getattr(watcher, name) for name in changed}
    try:
        # Circus has wids for twice `numprocesses`; with a spare and a successor one worker needs three.
        watcher.numprocesses = max(watcher.numprocesses, len(watcher.processes) + 1)
        wid = recovery_wid or watcher._nextwid
        watcher.cmd = launch_command(watcher, wid=wid, gate=gate, spare=wanted.spare)
        watcher.working_dir = watcher.working_dir if os.path.isdir(watcher.working_dir) else "/"
        watcher.uid = watcher.gid = None
        watcher.rlimits = {}
        # With -1 Circus would try a fork that fails again and again without a pause, and never answer anybody.
        watcher.max_retry = 1
        answer = original(recovery_wid)
    finally:
        for name, value in saved.items():
            setattr(watcher, name, value)
    fresh = [process for pid, process in watcher.processes.items() if pid not in known]
    for process in fresh:
        _note(armed, process, wid, slot, gate, spare=wanted.spare)
    if fresh:
        _worked(armed)
        return answer
    if gate is not None:
        gate.unlink(missing_ok=True)
    if answer is False and armed.hooks.answers.get("before_spawn") is not False:
        _failed(armed, Say.NO_LAUNCHER())
        return True
    return answer


def _slot_for(armed: ArmedWatcher, wanted: Wanted) -> int:
    if wanted.successor_of is not None:
        return wanted.successor_of.slot
    if wanted.spare:
        return -free_slot(-spawned.slot for spawned in armed.live.values() if spawned.spare)
    return free_slot(spawned.slot for spawned in armed.live.values() if not spawned.retiring)


def free_slot(taken: Iterable[int]) -> int:
    """Return the lowest slot from 1 on that is not taken."""
    used = set(taken)
    return next(slot for slot in range(1, len(used) + 2) if slot not in used)


def _note(armed: ArmedWatcher, process: Any, wid: int, slot: int, gate: Path | None, *, spare: bool) -> None:
    now = armed.clock()
    spawned = Spawned(
        process=process,
        pid=process.pid,
        wid=wid,
        slot=slot,
        started=procs.start_time(process.pid) or 0,
        spawned_at=now,
        circus_started=process.started,
        gate=gate,
        spare=spare,
    )
    armed.live[spawned.pid] = spawned
    old = armed.wanted.successor_of
    spawned.follows = armed.ended_in.pop(slot, None) if old is None else old.pid
    if spare:
        spawned.set_aside()
    if gate is None:
        spawned.released_at = now
        armed.budget.started(slot, now)
    else:
        armed.supervisor.soon(min(armed.budget.wait(slot, now), armed.supervisor.tick_slow))


def _failed(armed: ArmedWatcher, why: str) -> None:
    verdict = armed.budget.failed(NO_SLOT, armed.clock(), jitter=random.uniform(-1, 1))
    armed.start_failed_until = armed.clock() + max(1.0, verdict.wait)
    armed.tell(Say.COUNTED(why=Say.CANNOT_RUN(why=why), then=verdict.reason))


def _worked(armed: ArmedWatcher) -> None:
    if armed.start_failed_until is not None:
        armed.start_failed_until = None
        armed.budget.forget(NO_SLOT)


# Gates: a file that a launcher waits for to go away


def may_run(armed: ArmedWatcher, slot: int, now: float) -> bool:
    """Say whether a worker of *slot* may run now: the port is ours, and its wait is over."""
    return armed.port.is_ready and armed.budget.may_start(slot, now)


def open_gates(armed: ArmedWatcher) -> None:
    """Let go every launcher whose wait is over."""
    now = armed.clock()
    for spawned in armed.live.values():
        waits = spawned.gate is not None and spawned.released_at is None and not spawned.commanded_by
        if waits and may_run(armed, spawned.slot, now):
            armed.budget.started(spawned.slot, now)
            spawned.released_at = now
            spawned.open_gate()
