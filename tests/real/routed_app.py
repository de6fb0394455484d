"""A FastAPI app with a few routes, for tests of what is counted by route."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    ready = Path(os.environ["BACKEND_DIR"]) / "ready-at"
    ready.mkdir(exist_ok=True)
    (ready / str(os.getpid())).touch()
    yield


app = FastAPI(lifespan=lifespan)
router = APIRouter(prefix="/v1")


@router.get("/items/{item_id}")
async def item(item_id: int) -> int:
    if item_id == 0:
        raise HTTPException(404)
    return 1 // (item_id - 13)  # of 13 there is none


@router.post("/items")
async def create() -> str:
    return "ok"


@router.get("/slow")
async def slow(seconds: float = 1.0) -> str:
    await asyncio.sleep(seconds)
    return "ok"


@router.get("/health")
async def health() -> str:
    return "ok"


app.include_router(router)
