"""The test backend, and two paths that take their time: ``/upload`` reads a body, ``/download?s=0.1`` sends one."""

import asyncio
from urllib.parse import parse_qs

# Workers find it in this folder, and so by this name.
from backend import Message, Receive, Send  # type: ignore[import-not-found]
from backend import app as backend

CHUNK = b"x" * 8192
CHUNKS = 20


async def app(scope: Message, receive: Receive, send: Send) -> None:
    path = scope.get("path")
    if path == "/upload":
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        body = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    elif path == "/download":
        pause = float(parse_qs(scope["query_string"].decode())["s"][0])
        length = b"%d" % (len(CHUNK) * CHUNKS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for left in reversed(range(CHUNKS)):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})
            await asyncio.sleep(pause)
    else:
        await backend(scope, receive, send)
