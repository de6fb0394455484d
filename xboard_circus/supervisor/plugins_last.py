"""Let our plugins be stopped when all workers are gone, so that the last ends are recorded, too.

Circus stops everything at once, and a recorder would be gone long before a worker that drains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

OURS = "xboard_circus.plugins."
POLL = 0.02
SLACK = 2.0


def stop_last(supervisor: Supervisor, watcher: Any) -> None:
    """Make the stop of a plugin of ours wait for the watchers that stop with it."""
    if OURS not in f"{watcher.cmd} {watcher.args}" or getattr(watcher, "xboard_stops_last", False):
        return
    watcher.xboard_stops_last = True
    stop = watcher._stop

    async def later(close_output_streams: bool) -> None:
        await until_workers_are_gone(supervisor)
        await stop(close_output_streams)

    watcher._stop = lambda close_output_streams=False: asyncio.ensure_future(later(close_output_streams))


async def until_workers_are_gone(supervisor: Supervisor) -> None:
    """Wait for armed watchers that are being stopped, no longer than a stop takes."""
    await asyncio.sleep(0)  # Circus begins with all of them in one step of its loop
    watchers = [armed.watcher for armed in supervisor.armed.values()]
    limit = max((float(watcher.graceful_timeout) for watcher in watchers), default=0.0) + SLACK
    deadline = supervisor.clock() + limit
    while supervisor.clock() < deadline and any(watcher.is_stopping() for watcher in watchers):
        await asyncio.sleep(POLL)
