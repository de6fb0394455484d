"""More work than one turn of the event loop can do in time: the worker is overloaded, not hung, and lives."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
HEAD = b"POST /compute?s=0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# Each takes seconds of one turn of the loop, in pieces of a twentieth of a second or so.
BODY, BODIES = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n", 80
CONNECTIONS = 128
ROUTES = {"fast": "/", "computes in the loop": "/compute?s={s}", "fills the thread pool": "/pool?s={s}"}
OVERLOADED = {"fast": "", "computes in the loop": "overloaded", "fills the thread pool": "thread pool full"}


@dataclass
class Saturation:
    """Connections each of which sends its next request when the last one is answered, until `stop`."""

    port: int
    path: str
    answered: int = 0
    is_over: bool = False

    async def drive(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(CONNECTIONS)))

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not self.is_over:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
            self.answered += 1
        writer.close()


@contextlib.contextmanager
def saturated(c: Circusd, path: str) -> Iterator[Saturation]:
    """Keep the workers busy for as long as the block takes, and until the last answer."""
    load = Saturation(c.watchers["web"].port, path)
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, load.drive())
        try:
            yield load
        finally:
            load.is_over = True
        done.result()


def shows(c: Circusd, words: str) -> dict[str, Any] | None:
    """Return the state of the watcher if it has a busy worker whose reason has these *words*."""
    found = c.watcher()
    is_shown = any(worker["health"] == "busy" and words in worker["reason"] for worker in found["workers"])
    return found if is_shown else None


def is_well(c: Circusd) -> bool:
    return c.watcher()["verdict"]["word"] == "ok" and {worker["health"] for worker in c.watcher()["workers"]} == {"ok"}


def sent_at_once(c: Circusd, pid: int, clients: contextlib.ExitStack) -> list[socket.socket]:
    """Send what the loop of the worker *pid* then finds in one turn; return the connections."""
    address = ("127.0.0.1", c.watchers["web"].port)
    connections = [clients.enter_context(socket.create_connection(address, 120)) for _ in range(BODIES)]
    for connection in connections:
        connection.sendall(HEAD)
    kill(pid, signal.SIGSTOP)
    for connection in connections:
        connection.sendall(BODY)
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
def test_an_overloaded_worker_is_not_taken_for_hung(tmp_path: Path, loop: str) -> None:
    """Given bodies in chunks of a byte, more than a turn of the loop reads in the time of many probes, then the worker
    is shown as busy, reads all of them and is well; when it hangs after that, then it is replaced."""
    web = Watcher(numprocesses=1, options=OPTIONS, arguments=f"--ws none --http h11 --loop {loop}")
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c, contextlib.ExitStack() as clients:
        (pid,) = c.wait_ready()
        eventually(lambda: c.worker(pid)["latency"] is not None, what="it was probed")

        connections = sent_at_once(c, pid, clients)

        verdict = eventually(lambda: shows(c, "overloaded"))["verdict"]
        assert (verdict["word"], "overloaded" in verdict["cause"]) == ("degraded", True)
        assert c.workers() == [pid]
        assert [body(connection) for connection in connections] == [str(pid)] * len(connections)
        eventually(lambda: c.words() == ["up"], what="it is well")
        assert c.workers() == [pid]
        # None, or one of each, by how fast the machine is.
        eventually(lambda: len(c.told("unhealthy")) == len(c.told("recovered")) <= 1, what="the end of what was told")
        assert all("overloaded" in event.reason for event in c.told("unhealthy"))
        assert c.failures() == []

        c.tell(pid, "block 600")
        eventually(lambda: pid not in c.workers(), what="it is replaced as hung")
        (failure,) = eventually(c.failures)
        assert "no answer 3 times in a row" in failure.reason


def test_saturation_kills_nobody_and_is_shown_while_it_lasts(tmp_path: Path) -> None:
    """Given 128 connections whose requests are fast, compute in the loop or fill the thread pool, then both workers do
    all of it, and are well again; for the full length see tests/real/saturation.py."""
    with circusd(tmp_path, watchers=[Watcher(options=OPTIONS)], plugins=BUNDLE) as c:
        pids = c.wait_ready()
        eventually(lambda: is_well(c), what="they were probed")
        for name, path in ROUTES.items():
            with saturated(c, path.format(s=0.025)) as load:
                if OVERLOADED[name]:
                    eventually(lambda name=name: shows(c, OVERLOADED[name]), what=name)  # type: ignore[misc]
                else:
                    eventually(lambda load=load: load.answered >= 10 * CONNECTIONS, timeout=120)  # type: ignore[misc]
            assert load.answered >= CONNECTIONS
            eventually(lambda: is_well(c), what=f"well after {name}")

        assert sorted(c.workers()) == sorted(pids)
        assert all("overloaded" in event.reason for event in c.told("unhealthy"))
        assert c.failures() == []
