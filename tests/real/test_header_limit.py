"""No client fills a worker's memory, or holds up its event loop, with headers."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib

import pytest

from xboard_circus.worker.quiet_log import REPORTED_EVERY

from .test_worker import NEEDS_FAST, Place, Worker, get, place, read_answer

__all__ = ["place"]

MIB = 1 << 20
HOST = b"GET / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = b"POST /slow?s=60 HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY = b"".join(b"X-%d: b\r\n" % number for number in range(10_000))
FLOODS = {
    "many headers": (HOST, MANY),
    "one header": (HOST + b"X: ", b"a" * 65536),
    "a query": (b"GET /?", b"a" * 65536),
}
LATE = {"trailers": (CHUNKED + b"1\r\na\r\n0\r\n", MANY), "chunk extensions": (CHUNKED + b"1;", b"a" * 65536)}
each_fast_loop = pytest.mark.parametrize(
    "stack",
    [pytest.param(("--loop", loop, "--http", "httptools"), id=loop) for loop in ("asyncio", "uvloop")],
)


def flood(worker: Worker, begin: bytes, block: bytes, size: int) -> bytes:
    """Send *begin*, then *size* bytes of *block* or until the worker closes; return what it answers."""
    answer = b""
    with worker.connect() as client, contextlib.suppress(ConnectionError):
        client.sendall(begin)
        for _ in range(size // 4096):
            client.sendall(block[:4096])
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                answer += client.recv(4096)
                break
            client.settimeout(90)
        client.settimeout(5)
        with contextlib.suppress(TimeoutError):
            while more := client.recv(4096):
                answer += more
    return answer


@NEEDS_FAST
@each_fast_loop
@pytest.mark.parametrize("kind", [*FLOODS, *LATE])
def test_headers_without_end_are_refused(place: Place, stack: tuple[str, ...], kind: str) -> None:
    """Given headers of 2 MiB on each of 20 connections, then each is answered 431 and closed, and the worker keeps
    none of it."""
    worker = place.start(*stack).wait_ready()
    with worker.connect() as client:
        get(client)
    before, began = worker.tell()["rss"], time.monotonic()

    answers = [flood(worker, *{**FLOODS, **LATE}[kind], 2 * MIB) for _ in range(20)]

    assert {answer[:12] for answer in answers} - {b""} == {b"HTTP/1.1 431"}  # one may be lost in a reset
    assert all(b"connection: close" in answer for answer in answers if answer)
    assert worker.tell()["rss"] - before < 8 * MIB
    assert 1 <= worker.log.count("Request headers too large.") <= 1 + (time.monotonic() - began) // REPORTED_EVERY
    with worker.connect() as client:
        assert get(client).startswith(b"HTTP/1.1 200")


@NEEDS_FAST
@each_fast_loop
def test_bodies_and_pipelined_requests_are_not_counted(place: Place, stack: tuple[str, ...]) -> None:
    """Given a body of 1 MiB, one of small chunks, and 1,500 requests in one piece, then each request is answered, on
    one connection."""
    worker = place.start(*stack).wait_ready()
    chunked = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    with worker.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % MIB + b"a" * MIB)
        assert read_answer(client).startswith(b"HTTP/1.1 200")
        client.sendall(chunked + b"1;name=value\r\na\r\n" * 20_000 + b"0\r\n\r\n")
        assert read_answer(client).startswith(b"HTTP/1.1 200")
        requests = (HOST + b"X: " + b"a" * 100 + b"\r\n\r\n") * 1500
        client.sendall(requests)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 1500:
            more = client.recv(1 << 16)
            assert more, answers[-500:]
            answers += more


@NEEDS_FAST
@pytest.mark.parametrize(("options", "status"), [((), b"431"), (("--h11-max-incomplete-event-size", "400000"), b"200")])
def test_another_limit_holds_for_httptools_too(place: Place, options: tuple[str, ...], status: bytes) -> None:
    worker = place.start("--http", "httptools", *options).wait_ready()
    with worker.connect() as client:
        client.sendall(HOST + MANY[:70_000].rpartition(b"X-")[0])
        if status == b"200":
            client.sendall(b"\r\n")
        assert client.recv(4096)[:12] == b"HTTP/1.1 " + status


def test_websockets_without_the_end_of_a_message_fill_no_memory(place: Place) -> None:
    """Given 60 connections with 4 KB each of a compressed message of 4 MB that has no last piece, then the worker
    closes all but sixteen, of the oldest first."""
    pytest.importorskip("websockets")
    worker = place.start(
        "--ws", "websockets-sansio", "--ws-max-size", "4100000", "--ws-ping-interval", "3600"
    ).wait_ready()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(4_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    piece = struct.pack(">BBHI", 0x42, 0xFE, len(packed), 0) + packed  # binary, compressed, not the last
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    before = worker.tell()["rss"]

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(worker.connect()) for _ in range(60)]
        for client in clients:
            client.sendall(HOST + upgrade + key)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(4096)
            assert b"permessage-deflate" in answer
            client.sendall(piece)
        for client in clients[:44]:
            assert client.recv(4096)[2:4] == struct.pack(">H", 1009)
        assert worker.tell()["rss"] - before < 160 * MIB


def test_a_long_cookie_in_quotes_holds_up_no_event_loop(place: Place) -> None:
    """Given a quoted cookie of 60 KB for an app of FastAPI's, which wants none, then its worker is not seen to hang."""
    worker = place.start(app="xboard_circus.app:app").wait_ready()
    with worker.connect() as client:
        assert get(client, "/health/live", 'cookie: a="' + "\\1" * 30_000 + '"').startswith(b"HTTP/1.1 200")

    assert worker.tell()["lag"] < 2.0  # it was 9 s
