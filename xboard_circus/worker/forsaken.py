"""What a worker does when the process that it depends on is gone: a spare's circusd, or the wrapper in front of it.

Circus signals the process that it spawned. Where that is a wrapper (``uv run``) and it is killed, its worker would live
on, unknown to circusd, and hold the port; so it ends by itself.

Only circusd tells a waiting spare to serve. Without it, the spare ends where others of its watcher serve on: it would
only hold memory, and the port without answering there. Where nobody else serves, it does: it has the app and the port,
and the next circusd takes that over from it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xboard_circus.host.worker_files import takes_connections
from xboard_circus.launch import LaunchError, circusd_is_alive

log = logging.getLogger("uvicorn.error")

POLL = 2.0


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


def others_serve(folder: Path | None, token: str) -> bool:
    """Say whether a worker in the runtime *folder* other than *token* is up and takes connections."""
    if folder is None:
        return False
    try:
        up = [path for path in folder.iterdir() if path.suffix == ".up" and path.stem != token]
    except OSError:  # the folder is gone, and with it every way to know
        return False
    return any(takes_connections(path.with_suffix(".sock")) for path in up)


def end_with(launcher: str, *, grace: float) -> None:
    """End this worker when *launcher* ("pid:started") has ended: SIGTERM, and SIGKILL *grace* seconds later.

    A thread does this, because the launcher may end while the app is imported, or while the event loop stands still.
    Does nothing where the launcher became this very process, which is so without a wrapper.
    """
    pid = launcher.partition(":")[0]
    if not pid or int(pid) == os.getpid():
        return
    threading.Thread(target=_end_with, args=(launcher, grace), daemon=True, name="launcher").start()


def _end_with(launcher: str, grace: float) -> None:
    descriptor = _pidfd(int(launcher.partition(":")[0]))
    while circusd_is_alive(launcher):
        if descriptor is None:
            time.sleep(POLL)
        else:
            select.select([descriptor], [], [])
    log.warning("The process in front of this worker, pid %s, is gone; ending", launcher.partition(":")[0])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)


def _pidfd(pid: int) -> int | None:
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def watch(circusd: str, folder: Path | None, token: str, decide: Callable[[bool], None]) -> asyncio.Task[None]:
    """Call *decide* when *circusd* is gone, with whether others serve; cancel what is returned to be left alone."""

    async def waited() -> None:
        await until_gone(circusd)
        decide(others_serve(folder, token))

    return asyncio.create_task(waited())
