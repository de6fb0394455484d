"""Hot spares: workers that have imported the app and wait, told by circusd to serve in the tick in which one dies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from circus import logger

from xboard_circus.supervisor.spawning import Wanted, free_slot, may_run

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned

SERVE = b"POST /-/serve HTTP/1.0\r\n\r\n"
RETRY = 0.02
ANSWER_WITHIN = 1.0


def promote(armed: ArmedWatcher) -> bool:
    """Let a spare serve in a free place, if there is one and the place may be taken now.

    It is circusd that decides, not the spares among themselves: a crash-looping app would eat its spares in a second.
    """
    now = armed.clock()
    slot = free_slot(spawned.slot for spawned in armed.live.values() if spawned.counts)
    spares = [spawned for spawned in armed.live.values() if spawned.spare and spawned.released_at is not None]
    if not spares or not may_run(armed, slot, now):
        return False
    spare = max(spares, key=lambda spawned: now - (spawned.released_at or now))
    spare.spare, spare.slot, spare.released_at = False, slot, now
    spare.follows = armed.ended_in.pop(slot, None)
    spare.put_back()
    armed.budget.started(slot, now)
    armed.supervisor.run(_tell(armed, spare), f"the promotion of spare {spare.pid}")
    return True


async def _tell(armed: ArmedWatcher, spare: Spawned) -> None:
    """Tell the spare to serve, until it answers: while it still imports the app, it cannot."""
    path = str(armed.file_of(spare, "sock"))
    while spare.pid in armed.live:
        try:
            if b" 200 " in await asyncio.wait_for(_ask(path), ANSWER_WITHIN):
                logger.info("xboard: %s: spare %s serves", armed.name, spare.pid)
                return
        except (OSError, asyncio.TimeoutError):
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
    wanted = armed.options.worker.spares if armed.has_private_socket else 0
    have = sum(1 for spawned in armed.live.values() if spawned.spare)
    for _ in range(wanted - have):
        armed.spawn_for(Wanted(spare=True))


async def renew(armed: ArmedWatcher, old: list[Spawned], *, by: str) -> None:
    """Replace spares by ones of the code of now."""
    for spare in old:
        if spare.pid in armed.live and spare.spare and armed.is_running():
            spare.commanded_by = by
            spare.process.stopping = False
            await armed.watcher.kill_process(spare.process, graceful_timeout=5.0)
    armed.reap_and_respawn()
