"""An app with two pools of forked processes: one in a session of its own, which outlives its worker, one plain."""

import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Message = MutableMapping[str, Any]

FORK = multiprocessing.get_context("fork")
pools = {"/fork": ProcessPoolExecutor(2, mp_context=FORK, initializer=os.setsid), "/pool": ProcessPoolExecutor(2, FORK)}


def pid_of_child(_: int) -> int:
    time.sleep(0.2)  # so that each child gets one
    return os.getpid()


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b"ok"
    if scope["path"] in pools:
        body = " ".join(str(pid) for pid in set(pools[scope["path"]].map(pid_of_child, range(2)))).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
