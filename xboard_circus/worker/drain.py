"""Drain the open connections of a worker, so that none of their requests is lost.

uvicorn's own shutdown closes every connection without a request in flight: the request that a kept-alive client is just
sending, and the one on a connection accepted a moment ago, are lost. Here every open connection may have one more
answer, with ``connection: close``; those without a request are closed when an ordinary keep-alive would have ended too.
WebSockets have no end of their own: they are closed with code 1012 (service restart) evenly over a few seconds, so that
their clients do not all reconnect at once. Event streams live until the limit.

Uses only public attributes of uvicorn's protocol classes; tested with httptools, h11 and zttp.
"""

import asyncio
import contextlib
import fcntl
import logging
import struct
import termios
from collections.abc import Collection, Iterable, Sequence
from socket import socket
from typing import Any

import uvicorn

log = logging.getLogger("uvicorn.error")

CUT = "Cut %d request(s) at the drain limit of %g s; raise --timeout-graceful-shutdown / graceful_timeout"
ENDED = "Ended %d WebSocket(s), event stream(s) or idle connection(s) at the drain limit of %g s"
CLOSE_HEADER = (b"connection", b"close")
TICK = 0.1
LAST_WORDS = 0.5
CANCEL_TIMEOUT = 1.0
LOOP_TURNS = 5


async def drain(
    server: uvicorn.Server, handshakes: Collection[Any], *, idle_limit: float, limit: float, websocket_spread: float
) -> int:
    """Wait until all connections and tasks of *server* have ended; at *limit* seconds, end them and log the number.

    WebSockets are closed over *websocket_spread* seconds, connections without a request after *idle_limit* seconds, and
    those whose TLS *handshakes* have not ended by then too. ``server.force_exit`` ends the wait. Return how many
    requests were cut off.
    """
    loop = asyncio.get_running_loop()
    state = server.server_state
    began_at = loop.time()
    ticks = websockets_closed = 0
    while not server.force_exit:
        await server.on_tick(ticks)  # keeps the Date header and the lag up to date
        await asyncio.sleep(TICK)
        ticks += 1
        elapsed = loop.time() - began_at
        is_waited_for = handshakes and elapsed < idle_limit
        if not state.connections and not state.tasks and not is_waited_for:
            break
        if elapsed >= limit:
            connections = list(state.connections)
            cut = sum(is_answering(connection) for connection in connections)
            await end_connections(connections, state.tasks)
            log.warning(CUT if cut else ENDED, cut or len(connections), limit)  # after the tracebacks of cut ones
            return cut
        if elapsed >= idle_limit:
            close_idle(list(state.connections))
        websockets = [connection for connection in state.connections if is_open_websocket(connection)]
        surplus = websockets_to_close(len(websockets), websockets_closed, elapsed, websocket_spread)
        for connection in websockets[:surplus]:
            close(connection)
        websockets_closed += surplus
    return 0


async def stop_accepting(servers: Iterable[asyncio.AbstractServer], sockets: Iterable[socket]) -> None:
    """Close the listeners, without losing connections that asyncio has accepted and not yet attached.

    It accepts in one turn of the loop and attaches the connection to its server in the next; if the server is closed in
    between, an assertion fails there, unseen, and the client is reset. So: stop accepting, let the turn end, then
    close.
    """
    loop = asyncio.get_running_loop()
    servers = list(servers)
    for server in servers:
        for listener in getattr(server, "sockets", ()):
            loop.remove_reader(listener.fileno())  # uvloop knows no reader here, and attaches in the same turn
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
    for sock in sockets:
        sock.close()


def websockets_to_close(are_open: int, closed: int, elapsed: float, spread: float) -> int:
    """Return how many WebSockets to close now so that their number falls evenly to 0 within *spread* seconds.

    >>> [websockets_to_close(4, 0, 0.1, 2.0), websockets_to_close(3, 1, 1.0, 2.0), websockets_to_close(1, 3, 2.0, 2.0)]
    [1, 1, 1]
    """
    return max(0, are_open - (int((are_open + closed) * (1 - elapsed / spread)) if elapsed < spread else 0))


def is_open_websocket(connection: Any) -> bool:
    """Return whether *connection* is a WebSocket that the app has accepted and neither side has closed."""
    accepted = getattr(connection, "handshake_complete", None)  # wsproto, websockets-sansio
    if accepted is None and hasattr(connection, "handshake_completed_event"):  # websockets
        accepted = connection.handshake_completed_event.is_set()
    return bool(accepted) and not connection.transport.is_closing()


def is_idle(connection: Any) -> bool:
    """Return whether no part of a request has arrived on *connection* since its last answer."""
    if (streams := getattr(connection, "cycles", None)) is not None:  # HTTP/2
        return not streams
    if not hasattr(connection, "cycle"):  # a WebSocket
        return False
    cycle = connection.cycle
    if cycle is not None and not cycle.response_complete:
        return False
    if connection.scope is not (cycle and cycle.scope):  # httptools begins a scope at the first byte of a request
        return False
    return not getattr(getattr(connection, "conn", None), "trailing_data", (b"",))[0]  # h11; zttp does not expose it


def is_silent(connection: Any) -> bool:
    """Return whether no whole request has arrived on *connection* since its last answer; part of one may have."""
    if not hasattr(connection, "cycle"):  # HTTP/2, or a WebSocket
        return is_idle(connection)
    return connection.cycle is None or bool(connection.cycle.response_complete)


def is_answering(connection: Any) -> bool:
    """Return whether *connection* has a request with an answer that ends by itself."""
    is_http = hasattr(connection, "cycle") or hasattr(connection, "cycles")
    return is_http and not is_idle(connection) and not is_event_stream(connection)


def is_event_stream(connection: Any) -> bool:
    """Return whether the client requested server-sent events, and nothing else."""
    cycle = getattr(connection, "cycle", None)
    accepted = dict(cycle.scope["headers"]).get(b"accept", b"") if cycle is not None else b""
    return bool(accepted.strip().lower().startswith(b"text/event-stream"))


def has_unread(connection: Any) -> bool:
    """Return whether the kernel holds bytes of *connection* that the loop has not read yet."""
    return bool(queued(connection, termios.FIONREAD))


def queued(connection: Any, which: int) -> int:
    """Return how many bytes of *connection* the kernel holds: not read yet, or not taken by its client yet."""
    sock = connection.transport.get_extra_info("socket")
    if sock is None:  # that of TLS, once it is closed
        return 0
    try:
        (length,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), which, struct.pack("i", 0)))
    except (OSError, ValueError):  # closed meanwhile
        return 0
    return int(length)


def close_idle(connections: Sequence[Any]) -> None:
    for connection in connections:
        if not connection.transport.is_closing() and is_idle(connection) and not has_unread(connection):
            close(connection)


def close(connection: Any) -> None:
    """Close as its protocol does: an idle one now, a WebSocket with code 1012, a busy one after its answer."""
    try:
        connection.shutdown()
    except Exception:  # h11 cannot close politely in a state of error
        connection.transport.close()


def close_for_good(connections: Iterable[Any]) -> None:
    """Close *connections*, and let uvicorn's shutdown close their transports alone.

    Its own way is for one call. At a WebSocket that was closed, and whose client does not read, the second one raises:
    then no lifespan ends, and a recycled worker has the exit code of a crash.
    """
    for connection in connections:
        close(connection)
        connection.shutdown = connection.transport.close


async def end_connections(connections: Sequence[Any], tasks: Collection[asyncio.Task[None]]) -> None:
    """End the remaining connections: close them, then cancel their tasks."""
    await asyncio.gather(*(end_event_stream(connection) for connection in connections))
    for connection in connections:
        close(connection)
    await wait_for_end(tasks, LAST_WORDS)
    for task in list(tasks):
        task.cancel("the drain is at its limit")
    await wait_for_end(tasks, CANCEL_TIMEOUT)


async def wait_for_end(tasks: Collection[asyncio.Task[None]], timeout: float) -> None:
    if tasks:
        await asyncio.wait(set(tasks), timeout=timeout)


async def end_event_stream(connection: Any) -> None:
    """Send the end of a server-sent event stream; its client then reconnects.

    Only for a client that requested nothing but events: any other answer must look cut off when it is.
    """
    cycle = getattr(connection, "cycle", None)
    if cycle is None or not cycle.response_started or cycle.response_complete:
        return
    if is_event_stream(connection):
        cycle.keep_alive, last = False, {"type": "http.response.body", "body": b"", "more_body": False}
        with contextlib.suppress(Exception):
            await asyncio.wait_for(cycle.send(last), LAST_WORDS)
