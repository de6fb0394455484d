"""A FastAPI app whose requests last long, each waiting in another way. MIDDLEWARE set: behind one."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from starlette.responses import StreamingResponse

app = FastAPI()
released = threading.Event()
seen: list[str] = []


async def waits_inside() -> None:
    secret = "hunter2"  # a value that no report may show
    await asyncio.sleep(600 + 0 * len(secret))


def blocks_inside() -> None:
    released.wait(600)


@app.api_route("/waits/{what}", methods=["GET", "HEAD"])
async def waits(what: str) -> None:
    await waits_inside()


@app.get("/gathers")
async def gathers() -> None:
    await asyncio.gather(waits_inside())


@app.get("/thread/{what}")
def in_thread(what: str) -> str:
    try:
        blocks_inside()
    finally:
        seen.append("the thread ended")
    return "late"


@app.get("/holds")
async def holds(seconds: float) -> str:
    time.sleep(seconds)
    return "held"


@app.get("/events")
async def events() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        for number in range(10_000):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())


@app.post("/upload")
async def upload(request: Request) -> int:
    return len(await request.body())


@app.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    async def later() -> None:
        seen.append("the background task began")
        await asyncio.sleep(3)
        seen.append("the background task ended")

    tasks.add_task(later)
    return "at once"


@app.get("/cleans-up")
async def cleans_up() -> None:
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.05)
        seen.append("cleaned up")


async def dependency() -> AsyncIterator[str]:
    try:
        yield "session"
    finally:
        await asyncio.sleep(0.05)
        seen.append("the dependency was closed")


def sync_dependency() -> Iterator[str]:
    try:
        yield "session"
    finally:
        seen.append("the sync dependency was closed")


@app.get("/depends")
async def depends(_: str = Depends(dependency), __: str = Depends(sync_dependency)) -> None:
    await asyncio.sleep(600)


@app.get("/suppresses")
async def suppresses() -> str:
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)
        seen.append("suppressed")
    return "a second answer"


@app.get("/seen")
async def what_was_seen() -> list[str]:
    return seen


@app.get("/release")
async def release() -> int:
    released.set()
    return threading.active_count()


@app.get("/threads")
async def threads() -> int:
    return sum("AnyIO" in thread.name for thread in threading.enumerate())


@app.get("/who")
async def who() -> int:
    return os.getpid()


if os.environ.get("MIDDLEWARE"):

    @app.middleware("http")
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call_next(request)
