"""Answer requests on the private unix socket of a worker: one request per connection, one answer in JSON.

It is not a second listener of uvicorn's, because it must answer before the app's lifespan starts and until the process
ends, and because the public port must never reach it.
"""

import asyncio
import contextlib
import errno
import json
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from xboard_circus.host import worker_files

log = logging.getLogger("uvicorn.error")

MAX_REQUEST = 8 * 1024
READ_TIMEOUT = 5.0
DEFAULT_TIMEOUT = 1.6
BACKLOG = 64
RESERVE = 4
"""Descriptors that are kept free for probes: one for the connection, the rest for its answer."""
ACCEPT_AGAIN_AFTER = 0.1


class RefusedRequest(Exception):
    """A bad request, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PrivateRequest(NamedTuple):
    """One request on the private socket.

    Attributes:
        route: Method and path, such as ``GET /-/worker``.
        options: Its query, such as ``live=/health/live&timeout=1.6``.
        peer: The user at the other end; None if unknown.
    """

    route: str
    options: Mapping[str, str]
    peer: int | None = None

    def app_path(self, name: str) -> str | None:
        """Return the path of the app in the option *name*; None without that option."""
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
"""Handlers by method and path: each returns the content, and a descriptor to send with it or None."""


def parse_request(head: bytes, peer: int | None = None) -> PrivateRequest:
    """Parse the head of a request.

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
    """Listen at *path* at once, and answer from `serve` on; in between, requests wait in its queue.

    OSError if the path cannot be had. The socket gets its name when it listens already: until then the kernel refuses
    connections, as to a dead worker's.

    If clients have taken all descriptors, the worker still answers: each probe uses the reserve. asyncio and uvloop
    would accept none, and a busy worker be killed as hung.
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
        self._listener.setblocking(False)
        self._reserve: list[int] = []
        self._conversations: set[asyncio.Task[None]] = set()
        fresh.rename(path)

    def fileno(self) -> int:
        """Return the listening descriptor."""
        return self._listener.fileno()

    @property
    def lacks_descriptors(self) -> bool:
        """Return whether this process has no free descriptor except the reserve.

        To be asked during a request: its connection may have taken the last one that is not of the reserve.
        """
        if len(self._reserve) < RESERVE:
            return True
        try:
            os.close(os.dup(self._listener.fileno()))
        except OSError:
            return True
        return False

    async def serve(self, routes: Routes) -> None:
        """Answer from now on, as long as the event loop runs."""
        loop = asyncio.get_running_loop()
        listener = self._listener.fileno()

        def accept() -> None:
            self._fill_reserve()
            try:
                connection = self._accepted()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # not even a descriptor of the reserve: the loop would try at every turn
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_AGAIN_AFTER, loop.add_reader, listener, accept)
                return
            conversation = loop.create_task(self._converse(connection, routes))
            self._conversations.add(conversation)
            conversation.add_done_callback(self._conversations.discard)

        self._fill_reserve()
        loop.add_reader(listener, accept)

    def _fill_reserve(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._reserve) < RESERVE:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _accepted(self) -> socket.socket:
        try:
            return self._listener.accept()[0]
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        while self._reserve:
            os.close(self._reserve.pop())
        return self._listener.accept()[0]

    async def _converse(self, connection: socket.socket, routes: Routes) -> None:
        with connection, contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
            connection.setblocking(False)
            peer = worker_files.peer_of(connection)
            text, descriptor = await reply(connection, routes, None if peer is None else peer[1])
            if descriptor is not None:
                text = text[socket.send_fds(connection, [text], [descriptor]) :]
            await asyncio.get_running_loop().sock_sendall(connection, text)
        self._fill_reserve()  # at once, before a client's connection takes what was closed


async def read_head(connection: socket.socket) -> bytes:
    """Read from *connection* to the end of a request's head."""
    loop, head = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_REQUEST:
            raise RefusedRequest(431, f"more than {MAX_REQUEST} bytes")
        piece = await loop.sock_recv(connection, MAX_REQUEST)
        if not piece:
            raise EOFError
        head += piece
    return head


async def reply(connection: socket.socket, routes: Routes, peer: int | None) -> tuple[bytes, int | None]:
    try:
        request = parse_request(await asyncio.wait_for(read_head(connection), READ_TIMEOUT), peer)
        if request.route not in routes:
            is_path = any(route.partition(" ")[2] == request.route.partition(" ")[2] for route in routes)
            raise RefusedRequest(405 if is_path else 404, f"only {', '.join(routes)} are answered")
        content, descriptor = await routes[request.route](request)
        return render(200, content), descriptor
    except RefusedRequest as error:
        return render(error.status, {"error": str(error)}), None
    except (ConnectionError, EOFError, asyncio.TimeoutError):
        raise
    except Exception:
        log.exception("The private socket could not answer")
        return render(500, {"error": "see the worker's log"}), None
