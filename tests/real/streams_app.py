"""What a proxy gets wrong first: ``/upload`` counts a body, ``/events`` sends events, ``/ws`` echoes a WebSocket, and
``/client`` says whose request it is."""

import asyncio

# Workers find it in this folder, and so by this name.
from backend import FOLDER, Message, Receive, Send, setting  # type: ignore[import-not-found]
from backend import app as backend

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope.get("path") == "/upload":
        await count(receive, send)
    elif scope.get("path") == "/events":
        await events(send)
    elif scope.get("path") == "/client":
        await client(scope, send)
    else:
        await backend(scope, receive, send)


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def count(receive: Receive, send: Send) -> None:
    """Answer with the size of the body; ``upload-seen`` holds what has come so far."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        (FOLDER / "upload-seen").write_text(str(size))
    await answer(str(size).encode(), send)


async def client(scope: Message, send: Send) -> None:
    """Answer with the client's address as the app sees it, and with each address that was passed on for it."""
    passed_on = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    await answer(b" ".join([scope["client"][0].encode(), *passed_on]), send)


async def answer(body: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def events(send: Send) -> None:
    """An event at once, and one each time that the test asks for it."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    for number in range(1, 4):
        while int(setting("events") or 0) < number:
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})
