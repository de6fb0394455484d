"""Connections are shared evenly among workers, and none waits for a worker that does not accept."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from xboard_circus.worker.accepting import Acceptor, Counts

BURST = 40


class Worker(Acceptor):
    """Accept, keep what is accepted, and count the pauses."""

    def __init__(self, wid: int, shared: "memoryview[int]", clock: Callable[[], float]) -> None:
        self.kept: list[socket.socket] = []
        self.pauses: list[float] = []
        super().__init__(Counts(wid, shared), attach=self._keep, clock=clock)

    async def _keep(self, connection: socket.socket) -> None:
        self.kept.append(connection)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        self.pauses.append(seconds)
        super()._pause(listener, seconds)


@pytest.fixture
def listeners() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return one listener in two workers, with a burst of connections that wait."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2 * BURST))
        listener.setblocking(False)
        for _ in range(BURST):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield listener, stack.enter_context(listener.dup())


@pytest.fixture
def shared() -> "memoryview[int]":
    return memoryview(bytearray(24)).cast("I")


async def accept_all(*workers: Worker) -> None:
    while sum(len(worker.kept) for worker in workers) < BURST:
        await asyncio.sleep(0)
    for worker in workers:
        worker.stop()
        for connection in worker.kept:
            connection.close()


@pytest.mark.parametrize("before", [0, 600])
def test_a_burst_is_shared_by_workers_that_both_accept(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]", before: int
) -> None:
    """Given two workers, also where one has accepted many before, then each gets about as many of a burst."""
    workers = [Worker(wid, shared, clock=lambda: 9.0) for wid in range(2)]
    workers[0]._counts.note(before, now=8.9)

    async def run() -> None:
        for worker, listener in zip(workers, listeners, strict=True):
            worker.start([listener])
        await accept_all(*workers)

    asyncio.run(run())
    assert max(len(worker.kept) for worker in workers) <= 0.6 * BURST


def test_nothing_waits_long_for_a_sibling_that_is_busy(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]"
) -> None:
    """Given a sibling with fewer connections that accepts none, then twice as many are accepted after each pause."""
    worker = Worker(0, shared, clock=lambda: 9.0)
    Counts(1, shared).note(0, now=9.0)

    async def run() -> None:
        worker.start(listeners[:1])
        await accept_all(worker)

    asyncio.run(run())
    assert (len(worker.kept), max(worker.pauses)) == (BURST, 0.001)
    assert 1 <= len(worker.pauses) <= 7


def test_of_many_connections_a_few_more_are_not_worth_a_pause(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]"
) -> None:
    """Given two workers that have accepted hundreds in this tenth of a second, then neither waits for the other."""
    worker = Worker(0, shared, clock=lambda: 9.0)
    for counts in (worker._counts, Counts(1, shared)):
        counts.note(8 * BURST, now=9.0)

    async def run() -> None:
        worker.start(listeners[:1])
        await accept_all(worker)

    asyncio.run(run())
    assert worker.pauses == []


@pytest.mark.parametrize(("sibling", "pauses"), [(8 * BURST, 0), (0, 1)])
def test_a_tenth_of_a_second_does_not_begin_with_pauses_where_both_accepted_many(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]", sibling: int, pauses: int
) -> None:
    """Given two workers, when they accepted hundreds in the tenth before, then a few more are worth no pause."""
    worker = Worker(0, shared, clock=lambda: 9.0)
    for counts, accepted in ((worker._counts, 8 * BURST), (Counts(1, shared), sibling)):
        counts.note(accepted, now=8.95)
        counts.note(0, now=9.0)

    async def run() -> None:
        worker.start(listeners[:1])
        await accept_all(worker)

    asyncio.run(run())
    assert min(len(worker.pauses), 1) == pauses


def test_nothing_waits_for_the_turns_of_a_busy_loop(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]"
) -> None:
    """Given a loop that is busy for longer than a step back, and a sibling with ever new numbers, all are accepted."""
    worker, sibling = Worker(0, shared, clock=time.monotonic), Counts(1, shared)

    async def run() -> int:
        worker.start(listeners[:1])
        turns = 0
        while len(worker.kept) < BURST:
            sibling.note(turns % 2, now=time.monotonic())
            time.sleep(0.01)
            await asyncio.sleep(0)
            turns += 1
        await accept_all(worker)
        return turns

    assert asyncio.run(run()) <= 20


@pytest.mark.parametrize("noted", [2**32 - 1, 95, 0])
def test_a_false_time_of_a_sibling_is_none(shared: "memoryview[int]", noted: int) -> None:
    """Given what a worker that was taken over wrote in the name of one that is dead, or of none, then it is ignored."""
    shared[3] = noted

    assert Counts(0, shared).of_siblings(now=9.0) == []


@pytest.mark.parametrize("later", [9.3, 3600.0])
def test_a_sibling_that_hangs_or_is_dead_does_not_count(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]", later: float
) -> None:
    worker = Worker(0, shared, clock=lambda: later)
    Counts(1, shared).note(0, now=9.0)

    async def run() -> None:
        worker.start(listeners[:1])
        await accept_all(worker)

    asyncio.run(run())
    assert (len(worker.kept), worker.pauses) == (BURST, [])


def test_a_worker_that_accepts_no_more_does_not_count(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]"
) -> None:
    """Given a worker that drains, and goes on to tick, then its siblings leave nothing to it once its number is old."""
    worker, now = Worker(0, shared, clock=lambda: 9.0), Counts(1, shared)

    async def run() -> None:
        worker.start(listeners[:1])
        worker.stop()
        worker._clock = lambda: 9.3
        worker.note()

    asyncio.run(run())
    assert now.of_siblings(now=9.3) == []


def test_a_listener_that_was_shut_down_is_left_alone_for_a_second(
    listeners: tuple[socket.socket, socket.socket], shared: "memoryview[int]"
) -> None:
    worker = Worker(0, shared, clock=lambda: 9.0)
    listeners[0].shutdown(socket.SHUT_RDWR)

    async def run() -> None:
        worker.start(listeners[:1])
        for _ in range(100):
            await asyncio.sleep(0)
        worker.stop()

    asyncio.run(run())
    assert worker.pauses == [1.0]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_is_attached_without_a_task(
    listeners: tuple[socket.socket, socket.socket], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Given a burst, then the loop serves all of it, and made no task, which takes as long as half of attaching."""
    made: list[asyncio.BaseTransport] = []
    tasks: list[object] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        acceptor = Acceptor(Counts(0), attach=lambda accepted: loop.connect_accepted_socket(Protocol, accepted))

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> "asyncio.Task[Any]":
            tasks.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **named)

        loop.set_task_factory(make_task)
        acceptor.start(listeners[:1])
        until = time.monotonic() + 60
        while (len(made) < BURST or acceptor.attaching) and time.monotonic() < until:
            await asyncio.sleep(0)
        acceptor.stop()
        loop.set_task_factory(None)
        assert (len(made), acceptor.attaching, tasks) == (BURST, {}, [])
        for transport in made:
            transport.close()
        await asyncio.sleep(0)

    loop = new_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


@pytest.mark.parametrize(("error", "is_told"), [(ConnectionResetError(), False), (ValueError("of ours"), True)])
def test_a_connection_that_cannot_be_attached_is_given_up(
    listeners: tuple[socket.socket, socket.socket], error: Exception, is_told: bool
) -> None:
    """Given a handshake that fails, or an error of ours, then all are tried, and errors of ours logged."""
    tried: list[socket.socket] = []
    told: list[Any] = []

    async def attach(connection: socket.socket) -> None:
        with connection:
            await asyncio.sleep(0.001)
            tried.append(connection)
            raise error

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        acceptor = Acceptor(Counts(0), attach=attach)
        acceptor.start(listeners[:1])
        until = time.monotonic() + 60
        while len(tried) < BURST and time.monotonic() < until:
            await asyncio.sleep(0.001)
        acceptor.stop()
        assert acceptor.attaching == {}

    asyncio.run(run())
    assert told == is_told * BURST * [error]
