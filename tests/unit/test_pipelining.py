"""No client fills a worker's memory with pipelined requests, and each of them is answered."""

import asyncio
import functools
import importlib.util
import os
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols import utils

from xboard_circus.worker.header_limit import limited
from xboard_circus.worker.pipelining import one_at_a_time
from xboard_circus.worker.server import SheddingServer
from xboard_circus.worker.upgrades import without_upgrades

KIB = 1024
READ = 250 * KIB  # as much as one read of an event loop brings
GET = b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s"
CHUNKED = b"POST /%d HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
each_parser = pytest.mark.parametrize(
    "parser",
    [
        "h11",
        pytest.param(
            "httptools",
            marks=pytest.mark.skipif(importlib.util.find_spec("httptools") is None, reason="needs httptools"),
        ),
    ],
)


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**named: Any) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(test(**named), 90)  # h11 takes long on a crowded machine

        asyncio.run(bounded())

    return run


class Transport(asyncio.Transport):
    """One end of a connection whose other end sends *data*, a read at a time, while nobody has paused it."""

    def __init__(self) -> None:
        super().__init__()
        self.socket: socket.socket | None = None
        self.written = b""
        self.is_paused = self.is_closed = False
        self.untaken = 0

    def write(self, data: Any) -> None:
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Connection:
    """A connection to an app that reads the whole request, listens for its end, and answers when *may_answer* is set.

    Attributes:
        taken: Bytes that were read of what the client sends.
        bodies: What the app has read, by path.
    """

    def __init__(self, parser: str) -> None:
        self.may_answer = asyncio.Event()
        self.taken = self.began = 0
        self.bodies: dict[str, bytes] = {}
        config = uvicorn.Config(
            self._app, http=parser, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        self.server = SheddingServer(config)
        self.protocol: Any = one_at_a_time(without_upgrades(limited(config.http_protocol_class)))(  # type: ignore[call-arg]
            config=config, server_state=self.server.server_state, app_state={}
        )
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def _app(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.began += 1
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        listening = asyncio.ensure_future(receive())  # as Starlette does while it streams
        await self.may_answer.wait()
        self.bodies[scope["path"]] = body
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(scope["path"]))]}
        )
        await send({"type": "http.response.body", "body": scope["path"].encode()})
        await listening

    async def send(self, data: bytes, *, read: int = READ) -> None:
        """Send *data* in pieces of *read* bytes, as far as the worker reads it."""
        while self.taken < len(data):
            if self.transport.is_paused or self.transport.is_closed:
                return
            piece = data[self.taken : self.taken + read]
            self.taken += len(piece)
            self.protocol.data_received(piece)
            await turns(1)

    @property
    def parsed(self) -> int:
        return self.began + len(getattr(self.protocol, "pipeline", ()))

    @property
    def answered(self) -> list[int]:
        return [int(path) for path in re.findall(rb"\r\n\r\n/(\d+)", self.transport.written)]


class Looked(list[Any]):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Any:
        self.times += 1
        return super().__iter__()


async def answer_at_once(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@each_parser
@in_a_loop
async def test_of_pipelined_requests_none_is_parsed_or_read_on_before_an_answer(parser: str) -> None:
    """Given 4 MiB of small requests on a connection whose client reads no answer, then one is parsed, and after as many
    answers as a socket takes no more than the first reads are in memory."""
    connection = Connection(parser)
    requests = b"".join(GET % number for number in range(4096 * KIB // len(GET)))

    await connection.send(requests)
    await turns()

    assert connection.parsed == 1
    assert connection.taken <= READ
    connection.protocol.pause_writing()
    connection.may_answer.set()
    for _ in range(10):
        await connection.send(requests)
        await turns()
    assert connection.parsed <= 2
    assert connection.taken <= READ
    connection.protocol.connection_lost(None)
    await turns()


@each_parser
@pytest.mark.parametrize("read", [1, 7, 100, READ])
@in_a_loop
async def test_pipelined_requests_are_answered_in_their_order(parser: str, read: int) -> None:
    """Given 60 requests, with and without bodies that look like headers, in pieces of any size, then each is answered
    once, in order, with its body."""
    connection = Connection(parser)
    connection.may_answer.set()
    text = b"a\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    requests = b"".join(GET % n + POST % (n + 1, len(text), text) + CHUNKED % (n + 2) for n in range(0, 60, 3))

    for _ in range(100):
        await connection.send(requests, read=read)
        await turns()

    assert connection.answered == list(range(60))
    assert connection.bodies == {f"/{number}": (b"", text, b"abc")[number % 3] for number in range(60)}
    assert not connection.transport.is_paused
    assert not connection.transport.is_closed


@each_parser
@in_a_loop
async def test_megabytes_of_pipelined_requests_and_bodies_are_all_answered(parser: str) -> None:
    connection = Connection(parser)
    connection.may_answer.set()
    body = b"\r\n\r\n" * 50_000
    requests = b"".join(POST % (number, len(body), body) + GET % (number + 1) for number in range(0, 10, 2))
    requests += b"".join(GET % number for number in range(10, 10_000))

    while connection.taken < len(requests):
        await connection.send(requests)
        await turns()
    while len(connection.answered) < 10_000:
        before = len(connection.answered)
        await turns(1000)
        assert len(connection.answered) > before, "it has stopped"

    assert connection.answered == list(range(10_000))
    assert {connection.bodies[f"/{number}"] for number in range(0, 10, 2)} == {body}


@each_parser
@in_a_loop
async def test_a_chunked_body_full_of_what_ends_headers_is_parsed_in_few_pieces(parser: str) -> None:
    """Given a request with 2,000 headers and a chunk of blank lines, each of which may end headers, then the worker
    looks at its headers for each KiB at most: it was killed as hung."""
    connection = Connection(parser)
    connection.may_answer.set()
    headers, lines = b"".join(b"a%d:b\r\n" % number for number in range(2_000)), b"\r\n\r\n" * 25_000
    head = b"POST /1 HTTP/1.1\r\nHost: test\r\n" + headers + b"Transfer-Encoding: chunked\r\n\r\n"
    connection.protocol.data_received(head)
    looked_at = connection.protocol.cycle.scope["headers"] = Looked(connection.protocol.cycle.scope["headers"])

    connection.protocol.data_received(b"%x\r\n%s\r\n0\r\n\r\n" % (len(lines), lines) + GET % 2)
    await turns()

    assert connection.answered == [1, 2]
    assert connection.bodies["/1"] == lines
    assert looked_at.times <= len(lines) // KIB + 2


@pytest.mark.parametrize("zeros", [b"", b"0" * 5000 + b"5", b"0" * 5000])
@in_a_loop
async def test_a_length_with_thousands_of_zeros_is_a_number(zeros: bytes) -> None:
    """Given a body whose length Python does not read, then its request is answered, as h11 alone refuses it."""
    pytest.importorskip("httptools")
    connection = Connection("httptools")
    connection.may_answer.set()
    length, body = zeros or b"5 ", b"" if zeros.endswith(b"0") else b"ab\r\n\r"[:5]

    await connection.send(b"POST /1 HTTP/1.1\r\nHost: test\r\nContent-Length: %s\r\n\r\n" % length)
    await connection.send(b"x" * connection.taken + body)
    await connection.send(b"x" * connection.taken + GET % 2)
    await turns()

    assert connection.answered == [1, 2]


@each_parser
@in_a_loop
async def test_a_client_that_goes_is_noticed_behind_pipelined_requests(parser: str) -> None:
    """Given a few pipelined requests behind one without an answer, then the worker reads on, so it sees their end."""
    connection = Connection(parser)

    await connection.send(b"".join(GET % number for number in range(10)))
    await turns()

    assert connection.parsed == 1
    assert not connection.transport.is_paused
    connection.protocol.connection_lost(None)
    connection.may_answer.set()
    await turns()
    assert connection.began == 1
    assert not connection.transport.written


@each_parser
@pytest.mark.parametrize("number", [2_000, 2_100])
@in_a_loop
async def test_a_request_of_very_many_headers_is_refused(parser: str, number: int) -> None:
    """Given headers of a few bytes each, also behind another request, which take 25 times as much memory, then from
    2,048 on the request reaches no app."""
    connection = Connection(parser)
    connection.may_answer.set()
    many = b"GET /2 HTTP/1.1\r\nHost: test\r\n" + b"a:\r\n" * number + b"\r\n"

    await connection.send(GET % 1 + many)
    await turns()

    assert connection.answered == ([1, 2] if number < 2_048 else [1])
    assert connection.began == len(connection.answered)
    assert connection.transport.is_closed is (number > 2_048)
    assert (b" 400 Bad Request" in connection.transport.written) is (number > 2_048)


@each_parser
@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        pytest.param(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", True, id="two lengths"),
        pytest.param(b"transfer-encoding: chunked\r\ncontent-length: 13\r\n", True, id="two lengths, small letters"),
        pytest.param(b"Transfer-Encoding: chunked\r\nX-Forwarded-For: \x1b[2J1.2.3.4\r\n", True, id="escape"),
        pytest.param(b"Transfer-Encoding: chunked\r\nX: a\x07b\r\n", True, id="bell"),
        pytest.param(b"Transfer-Encoding: chunked\r\nX: a\x7f\r\n", True, id="delete"),
        pytest.param("Transfer-Encoding: chunked\r\nX: ü\tu\r\n".encode(), False, id="a tab and other bytes"),
    ],
)
@in_a_loop
async def test_an_ambiguous_length_and_control_characters_are_refused(
    parser: str, headers: bytes, is_refused: bool
) -> None:
    """Given a length of two kinds, behind which two servers see two requests, or what moves the cursor of who reads the
    access log, also behind another request, then the answer is 400, the connection closed, and no app has it."""
    connection = Connection(parser)
    connection.may_answer.set()

    await connection.send(GET % 1 + b"POST /2 HTTP/1.1\r\nHost: test\r\n%s\r\n3\r\nabc\r\n0\r\n\r\n" % headers)
    await turns()

    assert connection.answered == ([1] if is_refused else [1, 2])
    assert (b" 400 Bad Request" in connection.transport.written, connection.transport.is_closed) == (is_refused,) * 2
    assert connection.bodies == {"/1": b""} | ({} if is_refused else {"/2": b"abc"})


UPGRADE = b"POST /%d HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: %s\r\n%s\r\n"


@each_parser
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("length", [b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("split", ["whole", "in two", "in bytes"])
@in_a_loop
async def test_the_body_of_a_request_to_upgrade_is_no_request(
    parser: str, protocol: bytes, length: bytes, split: str
) -> None:
    """Given a request in the body of one with `Upgrade`, also behind another, then the app gets it as a body."""
    connection = Connection(parser)
    connection.may_answer.set()
    inner = GET % 8
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    head, body = (
        (UPGRADE % (2, protocol, length % len(inner)), inner)
        if b"%d" in length
        else (UPGRADE % (2, protocol, length), chunked)
    )
    sent = {
        "whole": [CHUNKED % 1 + head + body + GET % 3],
        "in two": [CHUNKED % 1, head, body + GET % 3],
        "in bytes": [bytes([byte]) for byte in CHUNKED % 1 + head + body + GET % 3],
    }

    for piece in sent[split]:
        connection.protocol.data_received(piece)
        await turns()

    assert connection.answered == [1, 2, 3]
    assert connection.bodies["/2"] == inner
    assert not connection.transport.is_closed


@each_parser
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 40, None])
@in_a_loop
async def test_a_request_to_upgrade_without_a_body_is_answered_as_any(parser: str, at: int | None) -> None:
    """Given some behind each other, also where a read ends within the end of its headers, then none is lost."""
    connection = Connection(parser)
    connection.may_answer.set()
    first = UPGRADE % (1, b"h2c", b"Content-Length: 0\r\n")
    sent = first + UPGRADE % (2, b"h2c", b"") + GET % 3
    cut = 0 if at is None else len(first) - at

    for piece in [bytes([byte]) for byte in sent] if at is None else [sent[:cut], sent[cut:]]:
        connection.protocol.data_received(piece)
        await turns()

    assert connection.answered == [1, 2, 3]


@in_a_loop
async def test_headers_with_an_upgrade_are_no_longer_for_being_parsed_twice() -> None:
    """Given 80 KiB of headers with `Upgrade`, and a body, all in one read, then the app gets it as ever."""
    pytest.importorskip("httptools")
    connection = Connection("httptools")
    connection.may_answer.set()
    more = b"X-Long: %s\r\nContent-Length: 3\r\n" % (b"x" * 80 * KIB)

    connection.protocol.data_received(UPGRADE % (1, b"h2c", more) + b"abc" + GET % 2)
    await turns()

    assert connection.answered == [1, 2]
    assert connection.bodies["/1"] == b"abc"


@each_parser
@in_a_loop
async def test_the_body_of_a_tunnel_is_no_request(parser: str) -> None:
    connection = Connection(parser)
    connection.may_answer.set()
    inner = GET % 8

    connection.protocol.data_received(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner))
    connection.protocol.data_received(inner)
    await turns()

    assert b"/8" not in b"".join(path.encode() for path in connection.bodies)


@each_parser
@in_a_loop
async def test_a_connection_that_is_not_used_is_closed_in_time_and_no_other(parser: str) -> None:
    """Given an answer, then the connection is closed 5 s later, but not once a part of the next request has come."""
    idle, half_sent, unread = (Connection(parser) for _ in range(3))
    for connection in (idle, half_sent, unread):
        connection.may_answer.set()
        await connection.send(GET % 1)
        await turns()
        assert connection.answered == [1]
        assert (connection.protocol.timeout_keep_alive_task is None) == (parser == "httptools")
    half_sent.protocol.data_received(GET[:9])
    client, server = socket.socketpair()

    with client, server:
        for connection, is_closed in ((idle, True), (half_sent, False), (unread, False)):
            connection.transport.socket = server
            if connection is unread:
                client.send(GET[:1])
            for now in (10.0, 14.4):
                connection.server.end_idle(now)
                assert not connection.transport.is_closed
            connection.server.end_idle(15.0)
            assert connection.transport.is_closed == (is_closed and parser == "httptools")  # with h11 uvicorn does it


@each_parser
@in_a_loop
async def test_a_body_that_comes_after_its_answer_keeps_the_connection_open(parser: str) -> None:
    """Given an answer before the whole body, then the connection is left to uvicorn, which sees whether more comes."""
    connection = Connection(parser)
    connection.protocol.app = answer_at_once
    connection.protocol.data_received(POST[: POST.index(b"%s")] % (1, 9) + b"some")
    await turns()

    connection.server.end_idle(10.0)
    connection.server.end_idle(20.0)

    assert connection.transport.written
    assert connection.protocol.timeout_keep_alive_task is not None
    assert not connection.transport.is_closed
    connection.protocol.timeout_keep_alive_task.cancel()


@in_a_loop
async def test_only_a_connection_that_takes_nothing_of_a_long_answer_is_cut_off() -> None:
    """Given what five clients have not taken yet, at each look, then only the one is cut off of which it never shrinks,
    also where more is added, and after a minute."""
    looks = {
        "reads nothing": [90_000] * 5,
        "gets more and reads nothing": [90_000, 91_000, 92_000, 93_000, 94_000],
        "reads slowly": [90_000, 90_000, 89_999, 89_999, 89_998],
        "reads, and more comes": [90_000, 80_000, 120_000, 110_000, 150_000],
        "has not read a short one": [16_000] * 5,
    }
    server = Connection("h11").server
    connections = {name: Connection("h11").protocol for name in looks}
    quiet, other = socket.socketpair()
    for connection in connections.values():
        connection.transport.socket = quiet
    server.server_state.connections.clear()
    server.server_state.connections.update(connections.values())

    with quiet, other:
        for look, now in enumerate((10.0, 39.0, 69.0, 71.0, 100.0)):
            for name, connection in connections.items():
                connection.transport.untaken = looks[name][look]
            server.end_idle(now)
            cut = {name for name, connection in connections.items() if connection.transport.is_closed}
            assert cut == ({"reads nothing", "gets more and reads nothing"} if now > 70 else set())


@in_a_loop
async def test_a_connection_has_one_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a new connection, then one parser is made for it: two took as long as a hundredth of a request."""
    httptools: Any = pytest.importorskip("httptools")
    made: list[Any] = []

    class Noted(httptools.HttpRequestParser):  # type: ignore[misc]
        def __init__(self, connection: Any) -> None:
            made.append(connection)
            super().__init__(connection)

    monkeypatch.setattr(httptools, "HttpRequestParser", Noted)
    connection = Connection("httptools")
    connection.may_answer.set()
    await connection.send(GET % 1)
    await turns()

    assert (connection.answered, made) == ([1], [connection.protocol])


class Known(Transport):
    """A transport whose loop knows its addresses; no one has to ask its socket."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        assert name != "socket"
        return {"sockname": ("10.0.0.1", 80), "peername": ("10.0.0.2", 4711)}.get(name, default)


@each_parser
@in_a_loop
async def test_the_addresses_of_a_connection_are_those_that_its_loop_knows(parser: str) -> None:
    protocol = Connection(parser).protocol
    protocol.connection_made(Known())

    assert (protocol.server, protocol.client) == (("10.0.0.1", 80), ("10.0.0.2", 4711))


@each_parser
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_addresses_are_what_uvicorn_finds(
    tmp_path: Path, parser: str, new_loop: Callable[[], asyncio.AbstractEventLoop], family: socket.AddressFamily
) -> None:
    of_ip: dict[int, Any] = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}

    async def found(listener: socket.socket) -> None:
        accepted = listener.accept()[0]
        protocol = Connection(parser).protocol
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
        assert protocol.transport is transport
        assert protocol.server == utils.get_local_addr(transport)
        assert protocol.server or family == socket.AF_UNIX  # an older uvicorn has none there
        assert protocol.client == utils.get_remote_addr(transport)
        transport.close()

    with socket.socket(family) as listener, socket.socket(family) as client:
        try:
            listener.bind(of_ip.get(family, os.fspath(tmp_path / "x")))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        listener.listen()
        client.connect(listener.getsockname())
        loop = new_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(found(listener), 60))
        finally:
            loop.close()
