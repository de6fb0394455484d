"""What a waiting spare does without its circusd, which alone would tell it to serve.

It ends where others of its watcher serve on: it would only hold memory, and the port without answering there. Where
nobody else serves, it does: it has the app and the port, and the next circusd takes that over from it.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xboard_circus.launch import LaunchError, circusd_is_alive

POLL = 2.0
LONGEST_CONNECT = 0.5

_READY = re.compile(r"([1-9][0-9]{0,9})\.ready", re.ASCII)


async def until_gone(circusd: str) -> None:
    """Return when *circusd* ("pid:started") has ended; never where none started us. Without waking up in between."""
    try:
        alive = circusd_is_alive(circusd)
    except LaunchError:  # a mark that means nobody
        circusd, alive = "", True
    if not circusd:
        await asyncio.Event().wait()
    if not alive:
        return
    descriptor = _pidfd(int(circusd.partition(":")[0]))
    if descriptor is None:
        while circusd_is_alive(circusd):
            await asyncio.sleep(POLL)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        # It may have ended, and another have got its pid, before there was a descriptor.
        if circusd_is_alive(circusd):
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def others_serve(folder: Path | None) -> bool:
    """Say whether a worker in the runtime *folder* but us has been ready and still takes connections."""
    if folder is None:
        return False
    try:
        pids = [int(match[1]) for path in folder.iterdir() if (match := _READY.fullmatch(path.name))]
    except OSError:  # the folder is gone, and with it every way to know
        return False
    return any(_takes_connections(folder / f"{pid}.sock") for pid in pids if pid != os.getpid())


def _takes_connections(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(LONGEST_CONNECT)
        with suppress(OSError):
            door.connect(os.fspath(path))
            return True
    return False


def _pidfd(pid: int) -> int | None:
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def watch(circusd: str, folder: Path | None, decide: Callable[[bool], None]) -> asyncio.Task[None]:
    """Call *decide* when *circusd* is gone, with whether others serve; cancel what is returned to be left alone."""

    async def waited() -> None:
        await until_gone(circusd)
        decide(others_serve(folder))

    return asyncio.create_task(waited())
