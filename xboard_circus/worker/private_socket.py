"""The unix socket on which a worker tells about itself: one question per connection, answered in JSON.

It is not a second listener of uvicorn's, because it must answer before the app's lifespan starts and until the process
ends, and because nothing of it may ever be reachable from the public port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from xboard_circus.host import worker_files

log = logging.getLogger("uvicorn.error")

WORKER_PATH = "/-/worker"
SERVE_PATH = "/-/serve"
HANDOVER_PATH = "/-/handover"
MAX_REQUEST = 8 * 1024
READ_TIMEOUT = 5.0
DEFAULT_TIMEOUT = 1.6
BACKLOG = 64


class BadQuestion(Exception):
    """What is wrong with a request, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Question:
    """``GET /-/worker?live=/health/live&ready=/health/ready&timeout=1.6``: None is a path that nobody asks for."""

    live: str | None
    ready: str | None
    timeout: float


@dataclass(frozen=True)
class SocketOrder:
    """``POST /-/serve``, by which a spare begins to serve, or ``POST /-/handover?instance=ID``, for the port.

    Attributes:
        peer: The user that asks, None where the system does not tell.
    """

    path: str
    instance: str
    peer: int | None = None


Answer = Callable[[Question], Awaitable[dict[str, Any]]]
Obey = Callable[[SocketOrder], tuple[dict[str, Any], int | None]]
"""Does what is ordered; the answer may carry a descriptor."""


def parse_question(head: bytes) -> Question | SocketOrder:
    """Read the head of a request.

    >>> parse_question(b"GET /-/worker?live=/health/live HTTP/1.1")
    Question(live='/health/live', ready=None, timeout=1.6)
    """
    method, _, rest = head.decode("latin-1").partition("\r\n")[0].partition(" ")
    target, _, _version = rest.partition(" ")
    path, _, query = target.partition("?")
    options = dict(parse_qsl(query))
    if path in (SERVE_PATH, HANDOVER_PATH):
        if method != "POST":
            raise BadQuestion(405, "only POST changes anything")
        return SocketOrder(path, options.get("instance", ""))
    if path != WORKER_PATH:
        raise BadQuestion(404, f"only {WORKER_PATH} is here")
    if method != "GET":
        raise BadQuestion(405, "only GET is answered")
    for name in ("live", "ready"):
        if not options.get(name, "/").startswith("/"):
            raise BadQuestion(400, f"{name} must be a path, such as /health/{name}")
    try:
        timeout = float(options.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise BadQuestion(400, "timeout must be seconds, more than 0")
    return Question(options.get("live"), options.get("ready"), timeout)


def render(status: int, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.0 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


class PrivateSocket:
    """Listens at *path* from `bind` on, and answers from `serve` on; in between, questions wait in its queue."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None

    def bind(self) -> None:
        """Listen at the path. OSError when it can't be had.

        It gets its name when it listens already: until then the kernel refuses connections, as to a dead worker's.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh = self.path.with_suffix(".new")
        before = os.umask(0o177)  # a chmod afterwards would leave a moment in which anyone may connect
        try:
            listener.bind(os.fspath(fresh))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        fresh.rename(self.path)
        self._listener = listener

    def fileno(self) -> int:
        """Return the listening descriptor, -1 where there is none."""
        return -1 if self._listener is None else self._listener.fileno()

    async def serve(self, answer: Answer, obey: Obey) -> None:
        """Answer from now on, as long as the event loop runs."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            # Cancelled is what the loop does at the end, also to a probe that came while the lifespan failed: asyncio
            # would log each as an error, under which the app's own is lost.
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError):
                peer = worker_files.peer_of(connection)
                text, descriptor = await reply(reader, answer, obey, None if peer is None else peer[1])
                if descriptor is not None:
                    # The descriptor travels with the first bytes; asyncio's transport knows no such thing.
                    with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                        sent = socket.send_fds(plain, [text], [descriptor])
                    text = text[sent:]
                writer.write(text)
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(converse, sock=self._listener, limit=MAX_REQUEST)


async def reply(reader: asyncio.StreamReader, answer: Answer, obey: Obey, peer: int | None) -> tuple[bytes, int | None]:
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), READ_TIMEOUT)
        asked = parse_question(head)
        if isinstance(asked, Question):
            return render(200, await answer(asked)), None
        content, descriptor = obey(replace(asked, peer=peer))
        return render(200, content), descriptor
    except BadQuestion as error:
        return render(error.status, {"error": str(error)}), None
    except asyncio.LimitOverrunError:
        return render(431, {"error": f"more than {MAX_REQUEST} bytes"}), None
    except (ConnectionError, EOFError, asyncio.TimeoutError):
        raise
    except Exception:
        log.exception("The private socket could not answer")
        return render(500, {"error": "see the worker's log"}), None
