"""The test backend, which prints a line for each request, as many an app does."""

# Workers find it in this folder, and so by this name.
from backend import Message, Receive, Send  # type: ignore[import-not-found]
from backend import app as backend


async def app(scope: Message, receive: Receive, send: Send) -> None:
    print("a request" * 20, flush=True)
    await backend(scope, receive, send)
