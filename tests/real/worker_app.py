"""An app that does what a worker's tests want, one odd thing per path. Plain ASGI, so that it is up at once.

WORKER_APP_GO      file that the lifespan waits for before it calls itself started
WORKER_APP_READY   file without which ``/ready`` answers 503
WORKER_APP_DIE     set: a module that does not exist is imported
WORKER_APP_STUCK   seconds after which the worker cuts off who takes nothing of an answer
"""

import asyncio
import importlib
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

calls: Counter[str] = Counter()
KIB = b"x" * 1024

if os.environ.get("WORKER_APP_DIE"):
    importlib.import_module("no_such_module_anywhere")
if stuck := os.environ.get("WORKER_APP_STUCK"):
    vars(importlib.import_module("xboard_circus.worker.server"))["STUCK_AFTER"] = float(stuck)


async def respond(send: Send, status: int, text: object, *headers: tuple[bytes, bytes]) -> None:
    body = str(text).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, chunk: bytes, *, times: int, every: float, kind: bytes = b"text/plain") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for _ in range(times):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await asyncio.sleep(every)
    await send({"type": "http.response.body", "body": b""})


async def stream_events(receive: Receive, send: Send) -> None:
    """As Starlette does: whichever comes first, the end of the stream or that of the client."""
    events = asyncio.create_task(stream(send, b"data: tick\n\n", times=10_000, every=0.05, kind=b"text/event-stream"))
    while (await receive())["type"] != "http.disconnect":
        pass
    events.cancel()


def no_delay_of(client: tuple[str, int]) -> int:
    """The TCP_NODELAY of this process's end of the connection from *client*."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername() == tuple(client):
                    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        except OSError:
            continue
    raise LookupError(client)


async def fill_the_pool(threads: int, seconds: float) -> None:
    from anyio import to_thread

    await asyncio.gather(*(to_thread.run_sync(time.sleep, seconds) for _ in range(threads)))


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def ignore_cancellation(seconds: float) -> None:
    """As a call into a thread does, which must be waited for."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


async def answer_http(scope: Message, receive: Receive, send: Send) -> None:
    path, query = scope["path"], parse_qs(scope["query_string"].decode())
    seconds = float(query.get("s", ["0"])[0])
    calls[path] += 1
    if path == "/ready":
        ready = Path(os.environ.get("WORKER_APP_READY", "/")).exists()
        await respond(send, 200 if ready else 503, "")
    elif path == "/calls":
        await respond(send, 200, calls[query["of"][0]])
    elif path.startswith("/status/"):
        await asyncio.sleep(seconds)
        await respond(send, int(path.rpartition("/")[2]), "", (b"location", b"/"))
    elif path == "/drip":
        await stream(send, b".", times=1000, every=0.02)
    elif path == "/huge":
        await stream(send, KIB * 1024, times=1_000_000, every=0)
    elif path == "/whole":
        await respond(send, 200, "x" * (16 << 20))
    elif path == "/one-event":
        await stream(send, b"data: tick\n\n", times=1, every=3600, kind=b"text/event-stream")
    elif path == "/64k":
        await stream(send, KIB, times=64, every=0)
    elif path == "/raise":
        raise RuntimeError("told to raise")
    elif path == "/exit":
        raise SystemExit(7)
    elif path == "/nothing":
        return
    elif path == "/stuck":
        await ignore_cancellation(seconds)
        await respond(send, 200, "")
    elif path == "/lifespan-state":
        await respond(send, 200 if scope["state"] == {"from": "lifespan"} else 500, "")
    elif path == "/headers":
        known = {name: value for name, value in scope["headers"] if name != b"user-agent"}
        await respond(send, 200 if known.get(b"host") == b"localhost" and scope["client"] else 500, "")
    elif path == "/no-delay":
        await respond(send, 200, no_delay_of(scope["client"]))
    elif path == "/pool":
        await fill_the_pool(int(query["n"][0]), seconds)
        await respond(send, 200, "")
    elif path == "/events":
        await stream_events(receive, send)
    else:
        if path == "/block":
            block_the_loop(seconds)
        elif path == "/slow":
            await asyncio.sleep(seconds)
        await respond(send, 200, os.getpid())


async def answer_websocket(receive: Receive, send: Send, path: str) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while path == "/huge":
        await send({"type": "websocket.send", "bytes": KIB * 64})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def serve_lifespan(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    go = os.environ.get("WORKER_APP_GO")
    while go and not Path(go).exists():
        await asyncio.sleep(0.01)
    scope["state"]["from"] = "lifespan"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await serve_lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await answer_websocket(receive, send, scope["path"])
    else:
        await answer_http(scope, receive, send)
