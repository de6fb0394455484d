"""Answer requests on the private unix socket of a worker: one request per connection, one answer in JSON.

It is not a second listener of uvicorn's, because it must answer before the app's lifespan starts and until the process
ends, and because nothing of it may ever be reachable from the public port.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from xboard_circus.host import worker_files

log = logging.getLogger("uvicorn.error")

MAX_REQUEST = 8 * 1024
READ_TIMEOUT = 5.0
DEFAULT_TIMEOUT = 1.6
BACKLOG = 64


class RefusedRequest(Exception):
    """What is wrong with a request, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class PrivateRequest:
    """One request on the private socket.

    Attributes:
        route: Method and path, such as ``GET /-/worker``.
        options: Its query, such as ``live=/health/live&timeout=1.6``.
        peer: The user at the other end; None where the system does not tell.
    """

    route: str
    options: Mapping[str, str]
    peer: int | None = None

    def app_path(self, name: str) -> str | None:
        """Return the path of the app that the option *name* gives; None without that option."""
        path = self.options.get(name)
        if path is not None and not path.startswith("/"):
            raise RefusedRequest(400, f"{name} must be a path, such as /health/{name}")
        return path

    def timeout(self) -> float:
        """Return the seconds that the app may take."""
        try:
            timeout = float(self.options.get("timeout", DEFAULT_TIMEOUT))
        except ValueError:
            timeout = math.nan
        if not 0 < timeout < math.inf:
            raise RefusedRequest(400, "timeout must be seconds, more than 0")
        return timeout


Routes = Mapping[str, Callable[[PrivateRequest], Awaitable[tuple[dict[str, Any], int | None]]]]
"""By method and path, what answers: the content, and a descriptor to send with it or None."""


def parse_request(head: bytes, peer: int | None = None) -> PrivateRequest:
    """Read the head of a request.

    >>> parse_request(b"GET /-/worker?live=/health/live HTTP/1.1")
    PrivateRequest(route='GET /-/worker', options={'live': '/health/live'}, peer=None)
    """
    method, _, rest = head.decode("latin-1").partition("\r\n")[0].partition(" ")
    path, _, query = rest.partition(" ")[0].partition("?")
    return PrivateRequest(f"{method} {path}", dict(parse_qsl(query)), peer)


def render(status: int, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.0 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


class PrivateSocket:
    """Listens at *path* at once, and answers from `serve` on; in between, requests wait in its queue.

    OSError when the path can't be had. The socket gets its name when it listens already: until then the kernel refuses
    connections, as to a dead worker's.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh = path.with_suffix(".new")
        before = os.umask(0o177)  # a chmod afterwards would leave a moment in which anyone may connect
        try:
            self._listener.bind(os.fspath(fresh))
        finally:
            os.umask(before)
        self._listener.listen(BACKLOG)
        fresh.rename(path)

    def fileno(self) -> int:
        """Return the listening descriptor."""
        return self._listener.fileno()

    async def serve(self, routes: Routes) -> None:
        """Answer from now on, as long as the event loop runs."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            # Cancelled is what the loop does at the end, also to a probe that came while the lifespan failed: asyncio
            # would log each as an error, under which the app's own is lost.
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError):
                peer = worker_files.peer_of(connection)
                text, descriptor = await reply(reader, routes, None if peer is None else peer[1])
                if descriptor is not None:
                    # The descriptor travels with the first bytes; asyncio's transport knows no such thing.
                    with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                        sent = socket.send_fds(plain, [text], [descriptor])
                    text = text[sent:]
                writer.write(text)
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(converse, sock=self._listener, limit=MAX_REQUEST)


async def reply(reader: asyncio.StreamReader, routes: Routes, peer: int | None) -> tuple[bytes, int | None]:
    try:
        request = parse_request(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), READ_TIMEOUT), peer)
        if request.route not in routes:
            is_path = any(route.partition(" ")[2] == request.route.partition(" ")[2] for route in routes)
            raise RefusedRequest(405 if is_path else 404, f"only {', '.join(routes)} are answered")
        content, descriptor = await routes[request.route](request)
        return render(200, content), descriptor
    except RefusedRequest as error:
        return render(error.status, {"error": str(error)}), None
    except asyncio.LimitOverrunError:
        return render(431, {"error": f"more than {MAX_REQUEST} bytes"}), None
    except (ConnectionError, EOFError, asyncio.TimeoutError):
        raise
    except Exception:
        log.exception("The private socket could not answer")
        return render(500, {"error": "see the worker's log"}), None
