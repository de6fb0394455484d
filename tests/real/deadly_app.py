"""A FastAPI app whose requests kill or hang their worker, each in another way. MIDDLEWARE set: behind one."""

import asyncio
import ctypes
import mmap
import os
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, WebSocket

waiting = 0
kept: list[mmap.mmap] = []
kept_tasks: list[asyncio.Task[None]] = []


def leak() -> None:
    """Take memory until the kernel's OOM killer ends it; the test bounds it by a cgroup."""
    with open("/dev/zero", "rb", buffering=0) as zeros:
        for _ in range(400):
            kept.append(mmap.mmap(-1, 1 << 20))
            zeros.readinto(kept[-1])


def own_memory() -> int:
    """Return the descriptor of the memory in which this worker notes its requests."""
    for entry in os.listdir("/proc/self/fd"):
        if os.path.exists(path := f"/proc/self/fd/{entry}") and "xboard-requests" in os.readlink(path):
            return int(entry)
    raise LookupError("no memory")


def scribble() -> None:
    os.pwrite(own_memory(), secrets.token_bytes(os.fstat(own_memory()).st_size), 0)
    os._exit(1)


def fork() -> None:
    """Leave a child that lives on as a server would, and end."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(1)


def claim() -> None:
    """Write that a request to /claimed ran, and end."""
    memory = own_memory()
    os.pwrite(memory, struct.pack("<Q", 1), 8)
    os.pwrite(memory, struct.pack("<B11s64s156sQQd", 1, b"GET", b"", b"/claimed", 0, 1, time.monotonic()), 64)
    os._exit(7)


WAYS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(7),
    "hang": lambda: time.sleep(600),
    "gil": lambda: ctypes.PyDLL(None).sleep(600),
    "leak": leak,
    "scribble": scribble,
    "fork": fork,
    "claim": claim,
}
router = APIRouter()


@router.get("/die/{how}/{token}")
async def die(how: str, token: str) -> None:
    WAYS[how]()


@router.get("/task/{how}/{token}")
async def die_in_a_task(how: str, token: str) -> None:
    async def work() -> None:
        WAYS[how]()

    await asyncio.gather(work())


@router.get("/later/{how}/{token}")
async def die_in_the_background(how: str, token: str) -> None:
    async def work() -> None:
        await asyncio.sleep(0.2)
        WAYS[how]()

    kept_tasks.append(asyncio.create_task(work()))


@router.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()


@router.api_route("/wait/{what}", methods=["GET", "POST"])
async def wait(what: str) -> None:
    global waiting
    waiting += 1
    await asyncio.sleep(600)


app = FastAPI()
app.include_router(router, prefix="/v1")


@app.get("/waiting")
async def how_many() -> int:
    return waiting


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/busy")
async def busy() -> int:
    await asyncio.sleep(0.1)
    return os.getpid()


if os.environ.get("EXITS_ON_SIGNAL"):  # as a thread of the app's may do, whatever is in flight
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))


@app.get("/child")
async def child() -> str:
    """Return what a child of ours has open."""
    return subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout


if os.environ.get("MIDDLEWARE"):

    @app.middleware("http")
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call_next(request)
