"""Which connections a guarded endpoint lets in, with real sockets of this process."""

import asyncio
import contextlib
import errno
import os
import resource
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from xboard_circus.host import sockdiag
from xboard_circus.supervisor import guarded_endpoint
from xboard_circus.supervisor.guarded_endpoint import GuardedEndpoint, is_guarded

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"

pytestmark = pytest.mark.skipif(not sockdiag.knows_users(), reason="this host does not say whose a connection is")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(asyncio.new_event_loop()) as made:
        yield made


def guard(loop: asyncio.AbstractEventLoop) -> GuardedEndpoint:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = GuardedEndpoint(f"tcp://127.0.0.1:{port}", [os.geteuid()], loop)
    made._pid = 0  # the clients are of this process
    return made


@pytest.fixture
def guarded(loop: asyncio.AbstractEventLoop) -> Iterator[GuardedEndpoint]:
    with closing(guard(loop)) as made:
        yield made


@contextlib.contextmanager
def connected(guarded: GuardedEndpoint) -> Iterator[socket.socket]:
    """Connect, and wait for the answer by epoll, as ZeroMQ does."""
    address = "127.0.0.1", int(guarded.endpoint.rpartition(":")[2])
    with socket.create_connection(address) as client, selectors.DefaultSelector() as waiting:
        waiting.register(client, selectors.EVENT_READ)
        yield client


def until(loop: asyncio.AbstractEventLoop, done: Callable[[], object]) -> None:
    """Let the loop run until *done*, 10 s at most."""

    async def wait() -> None:
        while not done():
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(wait(), 60))


def closed(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bool:
    """Return whether the connection of *client* ends without a byte, within 10 s."""
    client.setblocking(False)
    try:
        return loop.run_until_complete(asyncio.wait_for(loop.sock_recv(client, 1), 60)) == b""
    except ConnectionResetError:  # what it sent was not read
        return True


def test_only_tcp_on_loopback_is_guarded() -> None:
    endpoints = [
        "tcp://127.0.0.1:1",
        "tcp://localhost:1",
        "tcp://0.0.0.0:1",
        "tcp://*:1",
        "tcp://[::1]:1",
        "ipc:///run/x.sock",
    ]

    assert [endpoint for endpoint in endpoints if is_guarded(endpoint)] == endpoints[:2]


def test_what_is_let_in_reaches_zeromq_and_its_answer_comes_back(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint
) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server, context.socket(zmq.DEALER) as client:
        server.bind(guarded.inner)
        client.connect(guarded.endpoint)
        client.send(b"q" * 3_000_000)
        until(loop, lambda: server.poll(0))
        sender, question = server.recv_multipart()
        server.send_multipart([sender, question])
        until(loop, lambda: client.poll(0))

        assert client.recv() == b"q" * 3_000_000


def test_who_has_connected_to_a_passed_listener_before_is_served(loop: asyncio.AbstractEventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as last, zmq.Context() as context:
        port = last.getsockname()[1]
        with context.socket(zmq.ROUTER) as server, context.socket(zmq.DEALER) as client:
            client.connect(f"tcp://127.0.0.1:{port}")
            client.send(b"q")
            endpoint = f"tcp://127.0.0.1:{port}"
            with closing(GuardedEndpoint(endpoint, [os.geteuid()], loop, listener=last.dup())) as guarded:
                guarded._pid = 0  # the client is of this process
                server.bind(guarded.inner)
                until(loop, lambda: server.poll(0))


def test_who_fills_the_queue_behind_the_guard_keeps_nobody_out(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint
) -> None:
    inner = guarded.inner.replace("ipc://@", "\0")
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(socket.socket(socket.AF_UNIX))
        behind.bind(inner)
        behind.listen(1)
        behind.setblocking(False)

        def knock() -> bool:
            knocking = stack.enter_context(socket.socket(socket.AF_UNIX))
            knocking.setblocking(False)
            return knocking.connect_ex(inner) == errno.EAGAIN

        while not knock():
            pass
        client = stack.enter_context(connected(guarded))
        client.sendall(SIGNATURE + b"served")
        loop.run_until_complete(asyncio.sleep(0.05))
        accepted: dict[socket.socket, bytes] = {}

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                connection = stack.enter_context(behind.accept()[0])
                connection.setblocking(False)
                accepted[connection] = b""
            for connection in accepted:  # again at each look: the signature may come before the rest
                with contextlib.suppress(BlockingIOError):
                    accepted[connection] += connection.recv(100)
            return SIGNATURE + b"served" in accepted.values()

        until(loop, look)


def test_a_burst_of_connections_keeps_nobody_from_connecting(guarded: GuardedEndpoint) -> None:
    port = int(guarded.endpoint.rpartition(":")[2])
    with contextlib.ExitStack() as held:
        for _ in range(min(1000, int(Path("/proc/sys/net/core/somaxconn").read_text()))):
            held.enter_context(
                socket.create_connection(("127.0.0.1", port), 0.5)
            )  # a dropped SYN comes again after 1 s


def test_it_closes_where_many_descriptors_are_open(loop: asyncio.AbstractEventLoop) -> None:
    guarded = guard(loop)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2048), hard), hard))
    with contextlib.ExitStack() as stack:
        for _ in range(1100):  # select() takes no number above 1023
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        behind = stack.enter_context(socket.socket(socket.AF_UNIX))
        behind.bind(guarded.inner.replace("ipc://@", "\0"))
        behind.listen()
        behind.setblocking(False)
        client = stack.enter_context(connected(guarded))
        client.settimeout(10)
        client.sendall(SIGNATURE)
        accepted = stack.enter_context(loop.run_until_complete(asyncio.wait_for(loop.sock_accept(behind), 60))[0])
        accepted.sendall(b"last")
        guarded.close()

        assert client.recv(10) == b"last"


def test_connections_that_are_reset_fill_no_log(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("circus.logger.warning", lambda text, *words: lines.append(text % words))
    port = int(guarded.endpoint.rpartition(":")[2])
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # What cannot be handed on, because ZeroMQ listens nowhere here, is logged once.
    for _ in range(5):
        with connected(guarded) as client:
            client.sendall(SIGNATURE)
            assert closed(loop, client)

    assert [line.partition(" failed: ")[0] for line in lines] == [f"xboard: a connection to {guarded.endpoint}"]


@pytest.mark.parametrize(
    ("first", "what"),
    [
        pytest.param(b"POST /x HTTP/1.1\r\n\r\n", "an HTTP request", id="a web page's request"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", "a TLS handshake", id="the same over https"),
        pytest.param(b"\x05\x00name\x01\x00", "something else", id="ZMTP 1.0, which is what a request is read as"),
        pytest.param(b"\xff" + bytes(7) + b"\x05\x00name", "something else", id="ZMTP 1.0 with a long length"),
    ],
)
def test_only_what_zeromq_since_3_begins_with_is_handed_on(
    loop: asyncio.AbstractEventLoop,
    guarded: GuardedEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
    what: str,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("circus.logger.warning", lambda text, *words: lines.append(text % words))
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(socket.socket(socket.AF_UNIX))
        behind.bind(guarded.inner.replace("ipc://@", "\0"))
        behind.listen()
        behind.setblocking(False)
        port = int(guarded.endpoint.rpartition(":")[2])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(first)
                assert closed(loop, client)
        with pytest.raises(BlockingIOError):
            behind.accept()

    assert len(lines) == 1
    assert f"to {guarded.endpoint}: it sent {what}, not ZeroMQ's protocol" in lines[0]


def test_a_greeting_may_come_in_pieces(loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint) -> None:
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(socket.socket(socket.AF_UNIX))
        behind.bind(guarded.inner.replace("ipc://@", "\0"))
        behind.listen()
        behind.setblocking(False)
        client = stack.enter_context(connected(guarded))
        for at in range(len(SIGNATURE)):
            client.sendall(SIGNATURE[at : at + 1])
            loop.run_until_complete(asyncio.sleep(0.005))
        client.sendall(b"more")
        accepted = stack.enter_context(loop.run_until_complete(asyncio.wait_for(loop.sock_accept(behind), 60))[0])
        got = bytearray()

        def whole() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.extend(accepted.recv(100))
            return len(got) >= len(SIGNATURE) + 4

        until(loop, whole)

        assert got == SIGNATURE + b"more"


@pytest.mark.parametrize("first", [SIGNATURE, b""])
def test_a_client_that_leaks_connections_keeps_nobody_out(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """Given more idle connections than may be open, when another one comes, then the quietest is closed, and logged."""
    lines: list[str] = []
    monkeypatch.setattr("circus.logger.warning", lambda text, *words: lines.append(text % words))
    guarded._most = 3
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server, contextlib.ExitStack() as held:
        server.bind(guarded.inner)
        for _ in range(5):
            held.enter_context(connected(guarded)).sendall(first)
            until(loop, lambda: guarded._open if first else guarded._ungreeted)
        client = held.enter_context(context.socket(zmq.DEALER))
        client.connect(guarded.endpoint)
        client.send(b"q")
        until(loop, lambda: server.poll(0))

        assert max(len(guarded._open), len(guarded._ungreeted)) <= 3
    assert [" are open: that which was quiet for longest is closed" in line for line in lines] == [True] * bool(first)


def test_who_sends_no_greeting_is_closed_after_a_while(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_endpoint, "GREETING_WITHIN", 0.05)
    for first in (b"", SIGNATURE[:9]):
        with socket.create_connection(("127.0.0.1", int(guarded.endpoint.rpartition(":")[2]))) as client:
            client.sendall(first)
            assert closed(loop, client)

    assert guarded._ungreeted == {}


def test_another_user_is_refused_and_logged_once_a_minute(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("circus.logger.warning", lambda text, *words: lines.append(text % words))
    others = iter([65534, *range(100_000, 100_004)])  # subordinate users, of whom one has thousands
    monkeypatch.setattr(sockdiag, "peer_of", lambda _: sockdiag.Peer(next(others), 1))
    port = int(guarded.endpoint.rpartition(":")[2])
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert closed(loop, client)

    assert len(lines) == 1
    assert "refused a connection of user nobody to tcp://127.0.0.1" in lines[0]


def test_a_reset_behind_the_look_for_its_user_leaves_no_traceback(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = []
    looked = threading.Event()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    client = socket.create_connection(("127.0.0.1", int(guarded.endpoint.rpartition(":")[2])))

    def reset(_: socket.socket) -> sockdiag.Peer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        looked.set()
        return sockdiag.Peer(next(iter(guarded._users)), 1)

    monkeypatch.setattr(sockdiag, "peer_of", reset)
    until(loop, looked.is_set)

    assert failed == []


def test_without_descriptors_it_goes_on_later(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_endpoint, "PAUSE", 0.01)
    listener, tries = guarded.listener, []

    class Exhausted:
        def accept(self) -> None:
            tries.append(1)
            guarded.listener = listener
            raise OSError(errno.EMFILE, "no descriptor left")

        def fileno(self) -> int:
            return listener.fileno()

    guarded.listener = Exhausted()  # type: ignore[assignment]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server, context.socket(zmq.DEALER) as client:
        server.bind(guarded.inner)
        client.connect(guarded.endpoint)
        client.send(b"q")
        until(loop, lambda: server.poll(0))

    assert tries == [1]


def test_a_socket_of_roots_is_refused_by_another_users_circusd(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot see who has it: systemd and nginx hand such sockets on to other users."""
    monkeypatch.setattr(sockdiag, "peer_of", lambda _: sockdiag.Peer(0, 1))
    guarded._users = {65534}
    with socket.create_connection(("127.0.0.1", int(guarded.endpoint.rpartition(":")[2]))) as client:
        assert closed(loop, client)


def test_of_a_listener_that_circusd_shares_with_workers_no_connection_is_accepted(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint
) -> None:
    """A worker that has put its own descriptor aside is not seen, but circusd's is."""
    if os.geteuid() != 0:
        pytest.skip("only root's circusd can see who has a socket")
    guarded._pid = os.getpid()
    with connected(guarded) as client:
        client.sendall(SIGNATURE)
        assert closed(loop, client)


def test_who_has_a_socket_and_does_not_wait_for_what_it_receives_is_no_client(
    loop: asyncio.AbstractEventLoop, guarded: GuardedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd and its journal, and a circusd that takes a listener over, have for a while what any user sends them."""
    if os.geteuid() != 0:
        pytest.skip("only root's circusd can see who has a socket")
    lines: list[str] = []
    monkeypatch.setattr("circus.logger.warning", lambda text, *words: lines.append(text % words))
    port = int(guarded.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as kept, selectors.DefaultSelector() as waiting:
        waiting.register(kept, selectors.EVENT_WRITE)  # not for input, as systemd watches what it keeps
        kept.sendall(SIGNATURE)
        until(loop, lambda: lines)  # not `closed`: the loop would wait for input

    assert len(lines) == 1
    assert f"pid {os.getpid()} (root) has it" in lines[0]
    assert "and waits for answers by epoll" in lines[0]
