"""More work than one turn of the event loop can do in time: the worker is overloaded, not hung, and lives."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill

OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 0.5,
    "health.failure_threshold": 3,
    **FAST_RESTARTS,
}
HEAD = b"POST /compute?s=%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n"
# Each takes seconds of one turn of the loop, in pieces of a twentieth of a second or so.
ATTACKS = {
    "bodies in chunks of one byte": (
        80,
        HEAD % (b"0", b"Transfer-Encoding: chunked"),
        b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n",
    ),
    "requests that compute": (120, HEAD % (b"0.05", b"Content-Length: 1"), b"x"),
}


def sent_at_once(c: Circusd, pid: int, clients: contextlib.ExitStack, attack: str) -> list[socket.socket]:
    """Send what the loop of the worker *pid* then finds in one turn; return the connections."""
    count, head, rest = ATTACKS[attack]
    address = ("127.0.0.1", c.watchers["web"].port)
    connections = [clients.enter_context(socket.create_connection(address, 120)) for _ in range(count)]
    for connection in connections:
        connection.sendall(head)
    kill(pid, signal.SIGSTOP)
    for connection in connections:
        connection.sendall(rest)
    kill(pid, signal.SIGCONT)
    return connections


def body(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
        piece = connection.recv(4096)
        assert piece, "the connection was lost"
        received += piece
    return received.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_overloaded_worker_is_not_taken_for_hung(tmp_path: Path, attack: str, loop: str) -> None:
    """Given more work than a turn of the loop does in the time of many probes, then the worker is shown as busy, does
    all of it and is well; when it hangs after that, then it is replaced."""
    web = Watcher(numprocesses=1, options=OPTIONS, arguments=f"--ws none --http h11 --loop {loop}")
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c, contextlib.ExitStack() as clients:
        (pid,) = c.wait_ready()
        eventually(lambda: c.worker(pid)["latency"] is not None, what="it was probed")

        connections = sent_at_once(c, pid, clients, attack)

        def overloaded() -> dict[str, Any] | None:
            found = c.watcher()
            return found if found["workers"][0]["say"] and "overloaded" in found["workers"][0]["reason"] else None

        found = eventually(overloaded)
        assert [worker["pid"] for worker in found["workers"]] == [pid]
        assert found["workers"][0]["health"] == "busy"
        assert (found["verdict"]["word"], "overloaded" in found["verdict"]["cause"]) == ("degraded", True)
        assert [body(connection) for connection in connections] == [str(pid)] * len(connections)
        eventually(lambda: c.words() == ["up"], what="it is well")
        assert c.workers() == [pid]
        assert c.told("unhealthy") == []
        assert c.failures() == []

        c.tell(pid, "block 600")
        eventually(lambda: pid not in c.workers(), what="it is replaced as hung")
        (failure,) = eventually(c.failures)
        assert "no answer 3 times in a row" in failure.reason
