"""A backend whose every request waits in the event loop for a database, as an app with a blocking driver does."""

import os
import socket

# Workers find it in this folder, and so by this name.
from backend import Message, Receive, Send  # type: ignore[import-not-found]
from backend import app as backend


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope.get("path") == "/query":
        wait_for_database()
    await backend(scope, receive, send)


def wait_for_database() -> None:
    """Block until the database has answered: a byte, or the end of the connection."""
    with socket.create_connection(("127.0.0.1", int(os.environ["DATABASE_PORT"]))) as database:
        database.recv(1)
