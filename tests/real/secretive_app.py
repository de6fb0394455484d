"""A FastAPI app that takes secrets from its clients and fails with them. MESSAGES: what it says then, a list."""

import asyncio
import json
import os
import time
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from starlette.responses import PlainTextResponse

app = FastAPI()
QUOTED = ("authorization", "proxy-authorization", "cookie", "referer", "x-api-key", "x-auth-token")
"""Headers that a message quotes: what stands under a name that tells nothing, nobody can know for a secret."""
told: list[tuple[bytes, bytes]] = []


async def given(request: Request) -> list[Any]:
    """Return all that came with a request, so that frames and tracebacks hold it."""
    return [await request.body(), request.url, request.headers, request.cookies, request.path_params]


@app.post("/waits/{token}")
async def waits(token: str, request: Request) -> None:
    everything = await given(request)
    await asyncio.sleep(600 + 0 * len(everything))


@app.post("/hangs/{token}")
async def hangs(token: str, request: Request) -> None:
    everything = await given(request)
    time.sleep(600 + 0 * len(everything))


@app.post("/fails/{token}")
async def fails(token: str, request: Request) -> None:
    everything = await given(request)
    told.extend((name, value) for name, value in request.scope["headers"] if name.decode() in QUOTED)
    raise ValueError(f"rejected ?{request.url.query}" if everything else "")


@app.get("/exits")
async def exits() -> None:
    """Complain as apps do, and end."""
    named = {name.decode(): value.decode() for name, value in told}
    cookie = named.get("cookie")
    messages = [f"rejected {told}", f"rejected {named}", f"Cookie: {cookie}", *json.loads(os.environ["MESSAGES"])]
    print(*messages, sep="\n", flush=True)
    os._exit(7)


@app.get("/answers")
async def answers() -> str:
    return "ok"


@app.get("/ready")
async def ready() -> PlainTextResponse:
    said = f"{'x' * 150} the database does not take {os.environ['DB_PASSWORD']}" if told else "ok"
    return PlainTextResponse(said, 503 if told else 200)


@app.websocket("/ws/{token}")
async def ws(websocket: WebSocket, token: str) -> None:
    await websocket.accept()
    while await websocket.receive_text():
        await websocket.send_text("taken")
