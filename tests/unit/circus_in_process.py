"""A small real Circus inside the test's own process: an arbiter, its watchers, and real processes that only sleep."""

import asyncio
import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from circus.arbiter import Arbiter
from circus.process import Process
from circus.sockets import CircusSocket
from circus.watcher import Watcher
from tornado.ioloop import IOLoop

from xboard_circus.supervisor import circusd_lifetime

PATIENCE = 60.0
SLEEP = f"{sys.executable} -S -c '__import__(\"time\").sleep(600)'"
ARMED = {"before_start": ("xboard_circus.plugins.guard.arm", False)}


def watcher_of(name: str, *, hooks: Mapping[str, Any] = ARMED, args: str = "", **options: Any) -> Any:
    """Return a watcher of one sleeping process."""
    return Watcher(name, SLEEP, args=args, copy_env=True, use_sockets=True, hooks=dict(hooks), **options)


@asynccontextmanager
async def running(*watchers: Any, monkeypatch: pytest.MonkeyPatch, sockets: tuple[str, ...] = ()) -> AsyncIterator[Any]:
    """Run an arbiter with *watchers* until the end of the block; *sockets* are left for the port guard to bind."""
    folder = Path(tempfile.mkdtemp(prefix="xc", dir="/tmp"))
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder / "r"))
    shared = [CircusSocket(name, host="127.0.0.1", port=0, so_reuseport=True) for name in sockets]
    spawn, spawned = Process.spawn, []

    def noted(process: Any) -> Any:
        spawned.append(process)
        return spawn(process)

    Process.spawn = noted
    arbiter = Arbiter(
        list(watchers),
        f"ipc://{folder}/e",
        f"ipc://{folder}/p",
        check_delay=60,
        loop=IOLoop.current(),
        sockets=shared,
    )
    arbiter.config_file = str(folder / "circus.ini")
    try:
        await arbiter.start()
        yield arbiter
    finally:
        await arbiter.stop()
        await asyncio.sleep(0.05)  # Circus closes its sockets in the next turn of the loop
        Process.spawn = spawn
        for process in spawned:
            process._worker.wait(PATIENCE)  # Circus has reaped it behind the back of Popen, which would complain
        atexit.unregister(circusd_lifetime._wound_up)
        shutil.rmtree(folder, ignore_errors=True)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, which something else on the loop brings about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.02)


def process_of(watcher: Any) -> psutil.Process:
    """Return the only process of a watcher, by the system's own account."""
    (pid,) = watcher.processes
    return psutil.Process(pid)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
