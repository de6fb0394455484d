"""Keep hot spares: workers that have imported the app and wait until circusd lets them serve, when another one dies."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from circus import logger

from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Order, Ordered, Promoted
from xboard_circus.supervisor.life.spawn import SpawnRequest
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.replace.terminate import end

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

SERVE = b"POST /-/serve HTTP/1.0\r\n\r\n"
RETRY = 0.02
ANSWERS_WITHIN = 2.0
DIES_WITHIN = 10.0
LEAVES_WITHIN = 5.0


def promote(armed: ArmedWatcher) -> bool:
    """Let a spare serve in a free slot, if the slot may be taken now; return whether one does.

    circusd decides, not the spares among themselves: otherwise a crash-looping app would use them up in a second.
    """
    slot, spare = armed.fleet.free_slot(int(armed.watcher.numprocesses)), _oldest(armed)
    if spare is None or not armed.may_run(slot):
        return False
    _serve_in(armed, spare, slot)
    return True


def take_place_of(armed: ArmedWatcher, held: Worker) -> bool:
    """Let a spare serve in the place of a held worker whose wait is over: it has imported the app already."""
    spare = _oldest(armed)
    if spare is None:
        return False
    _kill(armed, held, Say.SPARE_TOOK_PLACE(pid=spare.pid))
    _serve_in(armed, spare, held.slot)
    return True


def _oldest(armed: ArmedWatcher) -> Worker | None:
    waiting = (worker for worker in armed.fleet.spares() if worker.is_starting)
    return min(waiting, key=lambda worker: worker.spawned_at, default=None)


def _kill(armed: ArmedWatcher, worker: Worker, reason: str) -> None:
    armed.happen(worker, Ordered(armed.clock(), Order(by="spare", why=reason), DIES_WITHIN))
    circus_process.send(worker.process, signal.SIGKILL)


def _serve_in(armed: ArmedWatcher, spare: Worker, slot: int) -> None:
    spare.slot = slot
    spare.follows = armed.fleet.ended_in.pop(slot, None)
    armed.happen(spare, Promoted(armed.clock()))
    armed.supervisor.run(_tell(armed, spare), f"the promotion of spare {spare.pid}")


async def _tell(armed: ArmedWatcher, spare: Worker) -> None:
    """Order a spare to serve until it answers; kill one that has imported the app and does not answer.

    A spare makes its private socket after the import, so one that has a socket can answer.
    """
    path = armed.file_of(spare, "sock")
    while spare.pid in armed.fleet and path is not None:
        try:
            if b" 200 " in await asyncio.wait_for(_ask(str(path)), ANSWERS_WITHIN):
                logger.info("xboard: %s: spare %s serves", armed.name, spare.pid)
                return
        except asyncio.TimeoutError:
            reason = Say.SPARE_SILENT(pid=spare.pid, timeout=exactly(ANSWERS_WITHIN))
            armed.note_reason(reason)
            _kill(armed, spare, reason)
            return
        except OSError:
            pass
        await asyncio.sleep(RETRY)


async def _ask(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(SERVE)
        return await reader.readline()
    finally:
        writer.close()


def fill_up(armed: ArmedWatcher) -> None:
    """Spawn spares until there are as many as `worker.spares` says."""
    wanted = armed.options.worker.spares if armed.has_private_socket and not armed.watcher.singleton else 0
    for _ in range(wanted - len(armed.fleet.spares())):
        armed.spawn_for(SpawnRequest(spare=True))


async def renew(armed: ArmedWatcher, old: list[Worker], *, by: str) -> None:
    """Replace spares by ones of the code of now."""
    for spare in old:
        if spare.pid in armed.fleet and spare.is_spare and armed.is_running():
            await end(armed, spare, Order(by=by), within=LEAVES_WITHIN)
