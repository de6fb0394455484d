"""Serve the plain app that all rivals run. It records when it was imported, got ready and hung, and its pid.

``BENCH_FOLDER`` is where; ``BENCH_DIE_AFTER`` seconds after its start it dies, for the crash loop; ``BENCH_IMPORT`` are
additional imports of a heavy app.
"""

import importlib
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

FOLDER = os.environ["BENCH_FOLDER"]
DIE_AFTER = os.environ.get("BENCH_DIE_AFTER")


def record(what: str) -> None:
    with open(f"{FOLDER}/{what}", "a") as file:  # one short write: lines of several workers do not mix
        file.write(f"{os.getpid()} {time.monotonic()}\n")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    record("ready")
    if DIE_AFTER:
        threading.Timer(float(DIE_AFTER), os._exit, (1,)).start()
    yield


record("starts")
for name in os.environ.get("BENCH_IMPORT", "").split():
    importlib.import_module(name)
app = FastAPI(lifespan=lifespan)


@app.get("/", response_class=PlainTextResponse)
@app.get("/health", response_class=PlainTextResponse)
async def pid() -> str:
    return str(os.getpid())


@app.get("/hang")
async def hang() -> None:
    record("hung")
    time.sleep(3600)
