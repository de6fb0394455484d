"""Take a listening socket over from a worker that outlived its circusd, so that the port always has a listener.

`xboard_circus.worker.server` answers. All of this blocks for a short time, so it runs in a thread.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from xboard_circus.host import procs, unix_sockets
from xboard_circus.host.worker_files import beat_of, is_socket, names_in, peer_of, takes_connections
from xboard_circus.supervisor.listener_check import is_listening, unreachable_because

log = logging.getLogger("circus")

LARGEST_ANSWER = 64 * 1024


def candidates(folder: Path, known: Collection[str] = ()) -> list[Path]:
    """Return the private sockets of live workers in the runtime folder of a watcher, those that are up first.

    A worker that imports its app does not answer, and would be waited for. Among those that are up the newest is first;
    before them are those with a *known* token, because any other may be another's.
    """
    named = {f"{token}.sock" for token in known}

    def order(path: Path) -> tuple[bool, bool, float]:
        age = 0.0
        with suppress(OSError):  # it has gone meanwhile
            age = -path.lstat().st_mtime
        return path.name not in named, not os.path.exists(path.with_suffix(".up")), age

    names = named | {name for name in names_in(folder) if name.endswith(".sock")}
    found = sorted((folder / name for name in names), key=order)
    return [path for path in found if is_socket(path) and takes_connections(path)]


def answers(path: Path, *, within: float) -> bool:
    """Return whether the worker at *path* serves, as far as that is known without a wait for it.

    One that hangs takes connections too, until its queue is full. It does not serve while a signal has stopped it, or
    its event loop has been in one callback for more than *within* seconds.
    """
    with unix_sockets.opened() as door:
        door.setblocking(False)
        try:
            door.connect(os.fspath(path))
        except OSError as error:
            return isinstance(error, PermissionError)  # nothing is known of it then
        peer = peer_of(door)
    thread = None if peer is None else procs.first_thread(peer[0])
    beat = beat_of(os.fspath(path))
    stands = 0.0 if beat is None or beat.stands_since <= 0 else time.monotonic() - beat.stands_since
    return not (thread is not None and thread.is_stopped) and stands <= within


def take_over(
    socket_path: Path, *, instance: str, address: tuple[str, int], timeout: float = 1.0
) -> socket.socket | None:
    """Return the listening socket of the worker at *socket_path*; None if it hands none over within *timeout*.

    *address* is numeric, as Circus holds it; a socket that listens elsewhere, or that no client reaches, is closed. The
    worker goes on with the same socket, not with a copy: a change of its blocking mode changes it for the worker too.
    """
    descriptors: list[int] = []
    try:
        _check(_request(socket_path, instance, time.monotonic() + timeout, descriptors))
        if not descriptors:
            raise OSError("it passed 0 descriptors")
        listener = socket.socket(fileno=descriptors[0])
        try:
            check_reachable(listener, address)
        except BaseException:
            listener.detach()
            raise
        descriptors.clear()
        listener.set_inheritable(False)
        return listener
    except OSError as error:
        log.info("xboard: no handover from %s: %s", socket_path, error.strerror or error)
        return None
    finally:
        unix_sockets.discard(descriptors)


def check_reachable(listener: socket.socket, address: tuple[str, int]) -> None:
    """Raise OSError if *listener*, which was passed on, is not at *address*, or no client reaches it."""
    if not listens_on(listener, address):
        raise OSError(f"it passed {listener}")
    if why := unreachable_because(listener):
        raise OSError(f"clients do not reach what it passed: {why}")


def listens_on(listener: socket.socket, address: tuple[str, int]) -> bool:
    """Return whether *listener* accepts connections at *address*, "" being all of IPv4.

    0.0.0.0 and :: are not the same: Circus would have an IPv4 socket that speaks IPv6.
    """
    if listener.type != socket.SOCK_STREAM or not is_listening(listener):
        return False
    if listener.family == socket.AF_UNIX:
        return bool(address[1] == 0 and listener.getsockname() == address[0])
    host, port = listener.getsockname()[:2]
    with suppress(ValueError):
        return bool(ip_address(host) == ip_address(address[0] or "0.0.0.0") and port == address[1])
    return False


def _request(socket_path: Path, instance: str, deadline: float, descriptors: list[int]) -> bytes:
    """Return the answer of the worker; passed sockets are put into *descriptors* as they come, to be closed."""
    received = bytearray()
    with unix_sockets.opened(takes_descriptors=True) as connection:
        connection.settimeout(_left(deadline))
        connection.connect(os.fspath(socket_path))
        connection.sendall(f"POST /-/handover?instance={quote(instance, safe='')} HTTP/1.0\r\n\r\n".encode())
        while len(received) <= LARGEST_ANSWER:
            connection.settimeout(_left(deadline))
            piece, passed, _ = unix_sockets.receive(connection, 4096)
            descriptors += passed
            if len(descriptors) > 1:
                raise OSError("it passed more than one descriptor")
            if not piece:
                break
            received += piece
    return bytes(received)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:  # and 0 would mean: do not wait
        raise TimeoutError("no answer in time")
    return left


def _check(answer: bytes) -> None:
    """Raise OSError with the worker's reason for a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line = head.partition(b"\r\n")[0]
    if line.startswith(b"HTTP/") and line.split()[1:2] == [b"200"]:
        return
    try:
        refusal = str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        refusal = f"it answers {line[:80].decode('ascii', errors='replace')!r}"
    raise OSError(refusal)
