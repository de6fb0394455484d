"""Keep hot spares: workers that have imported the app and wait until circusd lets them serve, when another dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Order, Promoted
from xboard_circus.host import worker_files

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

SERVE = b"POST /-/serve HTTP/1.0\r\n\r\n"
RETRY = 0.02
ANSWERS_WITHIN = 2.0
DIES_WITHIN = 10.0


def promote(armed: ArmedWatcher) -> bool:
    """Let a spare serve in a free slot, if the slot may be taken now; return whether one does.

    circusd decides, not the spares among themselves, because a crash-looping app would use them up in a second.
    """
    slot, spare = armed.fleet.free_slot(int(armed.watcher.numprocesses)), armed.fleet.oldest_spare()
    if spare is None or not armed.may_run(slot):
        return False
    spare.slot = slot
    spare.follows = armed.fleet.ended_in.pop(slot, None)
    armed.happen(spare, Promoted(armed.clock()))
    armed.supervisor.run(_promoted(armed, spare), f"the promotion of spare {spare.pid}")
    return True


async def _promoted(armed: ArmedWatcher, spare: Worker) -> None:
    """Order a spare to serve; kill one that has imported the app and does not answer."""
    path = worker_files.path_of(armed.folder, spare.token, "sock")
    if path is None or await serves(path, is_there=lambda: spare.pid in armed.fleet):
        return
    reason = Say.SPARE_SILENT(pid=spare.pid, timeout=exactly(ANSWERS_WITHIN))
    armed.note_reason(reason)
    armed.kill_now(spare, Order(by="spare", why=reason), DIES_WITHIN)


async def serves(private_socket: Path, *, is_there: Callable[[], bool]) -> bool:
    """Order a spare to serve until it answers, for as long as it *is_there*; return False if it is silent.

    A spare makes its private socket after the import, so one that has a socket can answer.
    """
    while is_there():
        try:
            if b" 200 " in await asyncio.wait_for(_order(str(private_socket)), ANSWERS_WITHIN):
                break
        except asyncio.TimeoutError:
            return False
        except OSError:
            pass
        await asyncio.sleep(RETRY)
    return True


async def _order(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(SERVE)
        return await reader.readline()
    finally:
        writer.close()
