"""A client that counts what it loses: requests leave on a timetable, whether or not the last ones were answered.

That is an open loop. A closed one, which sends the next request when the last is answered, waits with the server it
measures and so never sees the requests that real users would have lost meanwhile; ``wrk`` besides hides resets.

    with Load(url, rate=100, connections=None) as load:     # None: a new connection for each request
        ...
    assert not load.lost

Also a program: ``python load.py URL --rate 100 --seconds 10 --connections 8`` prints one JSON line.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

MOST_AT_ONCE = 500
"""Requests under way; further ones come late, which their latency shows. On a crowded machine a client that opens ever
more connections never catches up, and slows each look at /proc of all other tests."""
MOST_IDLE = 4  # connections that one timetable keeps, for the same reason
IDLE_WITHIN = 3.0
"""Seconds after which a connection that was idle is used no more: uvicorn closes it after 5, and a client that got no
turn for as long would meet that end, and take it for a loss."""


@dataclass(frozen=True)
class Request:
    """One request and what became of it.

    Attributes:
        start: When it was due, on the monotonic clock; latency counts from here, so a late client is no excuse.
        outcome: ``ok`` (2xx), ``status`` (another one), ``refused``, ``reset``, ``closed`` (the connection ended before
            a whole answer), ``timeout``.
        body: The answer's text; the test backend answers with its pid.
        worker: The body of the answer before this one on the same connection: who had the connection.
    """

    start: float
    latency: float
    outcome: str
    status: int = 0
    body: str = ""
    worker: str = ""

    @property
    def lost(self) -> bool:
        return self.outcome != "ok"


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    worker: str = ""
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def usable(self) -> bool:
        """No end of it seen yet. What the server closes a moment later is a loss, as for every HTTP client."""
        is_fresh = time.monotonic() - self.idle_since < IDLE_WITHIN
        return is_fresh and not self.reader.at_eof() and not self.writer.is_closing()


@dataclass
class Answer:
    status: int
    body: str
    kept: bool


@dataclass
class Load:
    """Requests to *url*, *rate* a second, until the block ends or *seconds* are over.

    Attributes:
        connections: How many kept-alive connections share the requests, each on its own timetable, so a worker that
            hangs holds up none but its own; None makes a new connection for each request.
        path: A unix socket to connect to, in the place of the host and port of *url*.
        timeout: Seconds after which a request counts as lost.
        requests: What was done, in the order of the answers.
    """

    url: str
    rate: float = 100.0
    connections: int | None = None
    timeout: float = 10.0
    seconds: float = float("inf")
    path: str | None = None
    requests: list[Request] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _under_way: int = 0

    def __enter__(self) -> "Load":
        self._thread = threading.Thread(target=lambda: asyncio.run(self.drive()), daemon=True, name="load")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more; wait for the answers to what was sent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.timeout + 5)

    @property
    def lost(self) -> list[Request]:
        return [request for request in list(self.requests) if request.lost]

    @property
    def answered(self) -> int:
        return sum(not request.lost for request in list(self.requests))

    @property
    def workers(self) -> set[int]:
        """The pids that answered."""
        return {int(request.body) for request in list(self.requests) if request.body.isdigit()}

    def summary(self) -> dict[str, object]:
        latencies = sorted(request.latency for request in self.requests) or [0.0]
        return {
            "requests": len(self.requests),
            "outcomes": dict(Counter(request.outcome for request in self.requests)),
            "latency": {name: round(latencies[int(part * (len(latencies) - 1))], 5) for name, part in PARTS.items()},
        }

    async def drive(self) -> None:
        """The whole run; for callers that have a loop of their own."""
        start = time.monotonic()
        # One timetable for all, of which each connection has its share: one that sleeps costs less than eight.
        idle: list[deque[Connection]] = [deque() for _ in range(self.connections or 1)]
        tasks: set[asyncio.Task[None]] = set()
        for number, due in enumerate(ticks(start, self.rate)):
            if due - start > self.seconds:
                break
            await self._sleep_until(due)
            await self._until_fewer()
            if self._stop.is_set():
                break
            share = idle[number % len(idle)]
            task = asyncio.create_task(self._request(due, share, kept=self.connections is not None))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in itertools.chain(*idle):
            connection.writer.close()

    async def _sleep_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
            await asyncio.sleep(min(left, 0.05))

    async def _until_fewer(self) -> None:
        while self._under_way >= MOST_AT_ONCE and not self._stop.is_set():
            await asyncio.sleep(0.01)

    async def _request(self, due: float, idle: deque[Connection], *, kept: bool) -> None:
        taken: list[Connection] = []
        answer = Answer(0, "", False)
        self._under_way += 1
        try:
            answer = await asyncio.wait_for(self._exchange(idle, taken, kept=kept), self.timeout)
            outcome = "ok" if 200 <= answer.status < 300 else "status"
        except (asyncio.TimeoutError, OSError, EOFError, ValueError) as error:
            outcome = outcome_of(error)
        finally:
            self._under_way -= 1
        worker = taken[0].worker if taken else ""
        self.requests.append(Request(due, time.monotonic() - due, outcome, answer.status, answer.body, worker))
        for connection in taken:
            if kept and answer.kept and len(idle) < MOST_IDLE:
                connection.worker, connection.idle_since = answer.body, time.monotonic()
                idle.append(connection)
            else:
                connection.writer.close()

    async def _exchange(self, idle: deque[Connection], taken: list[Connection], *, kept: bool) -> Answer:
        connection = take_usable(idle) or await self._connect()
        taken.append(connection)  # before the wait, so that a request that times out still closes it
        return await ask(connection, self.url, kept=kept)

    async def _connect(self) -> Connection:
        address = urlsplit(self.url)
        if self.path is not None:
            return Connection(*await asyncio.open_unix_connection(self.path))
        return Connection(*await asyncio.open_connection(address.hostname, address.port))


PARTS = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def ticks(start: float, rate: float) -> Iterator[float]:
    number = 0
    while True:
        yield start + number / rate  # by multiplication: adding up would drift
        number += 1


def take_usable(idle: deque[Connection]) -> Connection | None:
    while idle:
        connection = idle.popleft()
        if connection.usable:
            return connection
        connection.writer.close()
    return None


async def ask(connection: Connection, url: str, *, kept: bool) -> Answer:
    address = urlsplit(url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    keep = "keep-alive" if kept else "close"
    connection.writer.write(f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: {keep}\r\n\r\n".encode())
    head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    body = await connection.reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), body.decode(errors="replace"), headers.get("connection") != "close")


def outcome_of(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):  # not yet the built-in one in Python 3.10
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    return "closed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=None, help="kept-alive ones; a new one each time otherwise")
    parser.add_argument("--timeout", type=float, default=10)
    options = parser.parse_args()
    load = Load(options.url, options.rate, options.connections, options.timeout, options.seconds)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(load.drive())
    json.dump(load.summary(), sys.stdout)
    print()


if __name__ == "__main__":
    main()
