"""Hot spares: workers that have imported the app and wait, told by circusd to serve in the tick in which one dies."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from circus import logger

from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Order, Ordered, Promoted
from xboard_circus.supervisor.life.spawn import SpawnRequest, may_run
from xboard_circus.supervisor.patches import circus_process, circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

SERVE = b"POST /-/serve HTTP/1.0\r\n\r\n"
RETRY = 0.02
ANSWERS_WITHIN = 2.0
DIES_WITHIN = 10.0


def promote(armed: ArmedWatcher) -> bool:
    """Let a spare serve in a free slot, if there is one and the slot may be taken now.

    circusd decides, not the spares among themselves: a crash-looping app would eat its spares in a second.
    """
    slot = armed.fleet.free_slot(int(armed.watcher.numprocesses))
    return may_run(armed, slot, armed.clock()) and _serve_in(armed, slot)


def take_place_of(armed: ArmedWatcher, held: Worker) -> bool:
    """Let a spare serve in the place of a held worker whose wait is over: it has imported the app already."""
    if not _waiting(armed):
        return False
    order = Order(by="spare", why=Say.SPARE_TOOK_PLACE(pid=_oldest(armed).pid))
    armed.happen(held, Ordered(armed.clock(), order, DIES_WITHIN))
    circus_process.send(held.process, signal.SIGKILL)
    return _serve_in(armed, held.slot)


def _waiting(armed: ArmedWatcher) -> list[Worker]:
    return [worker for worker in armed.fleet.spares() if worker.is_starting]


def _oldest(armed: ArmedWatcher) -> Worker:
    return min(_waiting(armed), key=lambda worker: worker.spawned_at)


def _serve_in(armed: ArmedWatcher, slot: int) -> bool:
    if not _waiting(armed):
        return False
    spare = _oldest(armed)
    spare.slot = slot
    spare.follows = armed.fleet.ended_in.pop(slot, None)
    armed.happen(spare, Promoted(armed.clock()))
    armed.supervisor.run(_tell(armed, spare), f"the promotion of spare {spare.pid}")
    return True


async def _tell(armed: ArmedWatcher, spare: Worker) -> None:
    """Order the spare to serve, until it answers; kill one that has imported the app and does not answer.

    It makes its private socket after the import, so one that has a socket can answer.
    """
    path = armed.file_of(spare, "sock")
    while spare.pid in armed.fleet and path is not None:
        try:
            if b" 200 " in await asyncio.wait_for(_ask(str(path)), ANSWERS_WITHIN):
                logger.info("xboard: %s: spare %s serves", armed.name, spare.pid)
                return
        except asyncio.TimeoutError:
            _discard(armed, spare)
            return
        except OSError:
            pass
        await asyncio.sleep(RETRY)


def _discard(armed: ArmedWatcher, spare: Worker) -> None:
    reason = Say.SPARE_SILENT(pid=spare.pid, timeout=exactly(ANSWERS_WITHIN))
    armed.note_reason(reason)
    armed.happen(spare, Ordered(armed.clock(), Order(by="spare", why=reason), DIES_WITHIN))
    circus_process.send(spare.process, signal.SIGKILL)


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
            armed.happen(spare, Ordered(armed.clock(), Order(by=by), armed.patience))
            await circus_watcher.kill(armed.watcher, spare.process, 5.0)
    armed.keep_up()
