"""Spawn a worker behind the launcher; a slot with a wait stays without a process until its time has come."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from circus import logger

from xboard_circus.core.durations import exactly
from xboard_circus.core.reason import raised
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Role
from xboard_circus.core.worker_phases import Life, Starting
from xboard_circus.host import procs, request_slots
from xboard_circus.host.users import uid_of
from xboard_circus.host.worker_files import new_token
from xboard_circus.supervisor.boundary import SHORTAGE_RETRY, SHORTAGES
from xboard_circus.supervisor.fleet import Worker
from xboard_circus.supervisor.life import count_end
from xboard_circus.supervisor.life.command_line import launch_command
from xboard_circus.supervisor.patches import circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

NO_SLOT = 0
"""The slot of spawns that failed inside circusd. Slots begin at 1."""

LOOK_AGAIN = 0.2


class SpawnRequest(NamedTuple):
    """Purpose of the next spawn.

    Attributes:
        slot: Slot of the new worker; None for any free one.
        successor_of: The worker that it replaces, in the same slot.
        at_once: It was requested, so it does not wait for the restart budget.
    """

    slot: int | None = None
    successor_of: Worker | None = None
    at_once: bool = False


def spawn(armed: ArmedWatcher, original: Callable[[], Any]) -> Any:
    """Spawn one process in place of Circus's own `spawn_process`. Nothing is raised into Circus.

    Circus stops the whole watcher if a spawn returns False or raises, and so would end healthy workers, or leave the
    rest of its boot undone. So this returns True even if nothing could be spawned, and tries again later.
    """
    if not armed.is_running():
        return True
    try:
        count_end.settle(armed)
        if armed.spawns_again_at is not None and armed.watcher.is_active() and armed.clock() < armed.spawns_again_at:
            return True
        return _spawn(armed, original)
    except Exception as error:
        logger.exception("xboard: a spawn of %s failed", armed.name)
        _failed(armed, error)
        return True


def _spawn(armed: ArmedWatcher, original: Callable[[], Any]) -> Any:
    watcher, wanted, fleet, now = armed.watcher, armed.wanted, armed.fleet, armed.clock()
    armed.note_number()
    slot = wanted.slot or fleet.free_slot(int(watcher.numprocesses))
    if not (wanted.at_once or armed.may_run(slot)):
        armed.supervisor.soon(max(LOOK_AGAIN, armed.budget.wait(slot, now)))
        return True
    known, token = set(watcher.processes), new_token()
    wid = fleet.free_wid(slot, int(watcher.numprocesses))
    env, requests = armed.environment_of_spawn(), armed.memory_for_requests()
    command = launch_command(watcher, wid=wid, token=token, requests=None if requests is None else requests.fileno())
    with (
        circus_watcher.spawning_with(watcher, command=command, env=env, wid=wid, inherits=requests is not None),
        request_slots.inherited(requests),
    ):
        answer = original()
    fresh = [process for pid, process in watcher.processes.items() if pid not in known]
    for process in fresh:
        _note(armed, process, wid=wid, slot=slot, token=token, requests=requests)
    if fresh:
        if armed.spawns_again_at is not None:
            armed.spawns_again_at = None
            armed.budget.forget(NO_SLOT)
        return answer
    if requests is not None:
        requests.close()
    if answer is False:
        _failed(armed, circus_watcher.spawn_error(watcher))
        return True
    return answer


def _note(armed: ArmedWatcher, process: Any, *, wid: int, slot: int, token: str, requests: io.FileIO | None) -> None:
    now, wanted = armed.clock(), armed.wanted
    old = wanted.successor_of
    role = Role.SERVING if old is None else Role.SUCCESSOR
    started, life = procs.start_time(process.pid) or 0, Life(phase=Starting(now), role=role)
    ids, user = (process, process.pid, wid, slot, started, token), uid_of(armed.watcher)
    worker = Worker(*ids, spawned_at=now, life=life, user=user, requests=requests)
    armed.fleet.workers[worker.pid] = worker
    worker.follows = armed.fleet.ended_in.pop(slot, None) if old is None else old.pid
    armed.budget.started(slot, now)
    if role is Role.SERVING:
        armed.left_to_spawn -= 1
    armed.supervisor.soon(LOOK_AGAIN)  # whether it is up: where nothing else is under way, the next tick is far


def _failed(armed: ArmedWatcher, error: Exception | None) -> None:
    now = armed.clock()
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        armed.spawns_again_at = now + SHORTAGE_RETRY
        armed.note_reason(Say.SHORT_OF(why=os.strerror(error.errno), wait=exactly(SHORTAGE_RETRY)))
    else:
        refusal = armed.hooks.failed.get("before_spawn") or armed.hooks.failed.get("after_spawn")
        why = refusal or (Say.NO_LAUNCHER() if error is None else raised(error))
        decision = armed.budget.failed(NO_SLOT, now, jitter=random.uniform(-1, 1))
        armed.spawns_again_at = now + max(1.0, decision.wait)
        armed.last_failure = Say.CANNOT_RUN(why=why)
        armed.note_reason(Say.COUNTED(why=armed.last_failure, then=decision.reason))
    armed.supervisor.soon(armed.spawns_again_at - now)
