"""No client of a WebSocket fills a worker's memory, or keeps a connection that nothing comes of."""

import asyncio
import struct
from typing import Any

import pytest
import uvicorn
from test_pipelining import Transport, in_a_loop, turns

from xboard_circus.worker import websocket_bounds
from xboard_circus.worker.header_limit import limited
from xboard_circus.worker.pipelining import one_at_a_time
from xboard_circus.worker.server import SheddingServer
from xboard_circus.worker.websocket_bounds import bounded

websockets = pytest.importorskip("websockets")
ANSWERS = int(websockets.__version__.partition(".")[0]) >= 17
"""Whether the library has an answer for a handshake that it refuses; an older one has it closed without."""

UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)
CONTINUED, TEXT, BINARY, PINGED = 0, 1, 2, 9
each_parser = pytest.mark.parametrize("parser", ["h11", "httptools"])


class Upgraded(Transport):
    """A transport whose protocol changes with the upgrade."""

    protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return struct.pack(">BBI", opcode | fin << 7, 0x80 | len(data), 0) + data


PING = frame(PINGED, b"x" * 125)


def upgraded(
    parser: str, path: bytes = b"/", headers: bytes = b"", heard: "list[Any] | None" = None
) -> tuple[Upgraded, SheddingServer]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if heard is not None:
                heard.append(message.get("text", message.get("bytes")))

    if parser == "httptools":
        pytest.importorskip("httptools")
    config = uvicorn.Config(
        app, http=parser, interface="asgi3", ws="websockets-sansio", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    config.ws_protocol_class = bounded(config.ws_protocol_class)
    server, transport = SheddingServer(config), Upgraded()
    protocol: Any = one_at_a_time(limited(config.http_protocol_class))(  # type: ignore[call-arg]
        config=config, server_state=server.server_state, app_state={}
    )
    protocol.connection_made(transport)
    protocol.data_received(UPGRADE % (path, headers))
    return transport, server


@each_parser
@pytest.mark.parametrize("is_noted", [True, False], ids=["uvicorn notes it", "uvicorn before 0.53"])
@in_a_loop
async def test_of_pings_whose_answers_are_not_read_few_are_answered(
    parser: str, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given pings without end of a client that reads nothing, then the worker reads on only when it has read some, also
    where uvicorn does not note that a connection is full."""
    if not is_noted:
        for name in ("pause_writing", "resume_writing"):
            protocol = "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol"
            monkeypatch.setattr(f"{protocol}.{name}", getattr(asyncio.Protocol, name), raising=False)
    transport, _ = upgraded(parser)
    await turns()
    assert transport.written.startswith(b"HTTP/1.1 101")
    transport.protocol.data_received(PING * 1000)
    is_paused = [transport.is_paused]
    transport.protocol.pause_writing()
    for _ in range(2):
        transport.protocol.data_received(PING * 400)
        is_paused.append(transport.is_paused)
    transport.protocol.resume_writing()

    assert [*is_paused, transport.is_paused] == [False, False, True, False]
    transport.protocol.connection_lost(None)
    await turns()


@each_parser
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [(b"/", b"a: b\r\n" * 200, b"431"), (b"/" * 9000, b"", b"414"), (b"/", b"Content-Length: 3\r\n", b"")],
    ids=["headers", "path", "body"],
)
@in_a_loop
async def test_a_handshake_that_the_library_refuses_is_answered_and_closed(
    parser: str, path: bytes, headers: bytes, status: bytes
) -> None:
    transport, server = upgraded(parser, path, headers)
    await turns()

    assert transport.written[9:12] == (status if ANSWERS else b"")
    assert transport.is_closed
    transport.protocol.connection_lost(None)
    assert not server.server_state.connections


@each_parser
@in_a_loop
async def test_an_accepted_handshake_stays_open(parser: str) -> None:
    transport, server = upgraded(parser)
    await turns()

    assert not transport.is_closed
    assert server.server_state.connections == {transport.protocol}
    transport.protocol.connection_lost(None)
    await turns()


@pytest.mark.parametrize(("opcode", "whole"), [(TEXT, "abab.."), (BINARY, b"abab..")])
@in_a_loop
async def test_of_a_message_in_very_many_pieces_the_bytes_are_kept_and_not_each_piece(opcode: int, whole: Any) -> None:
    """Given thousands of pieces, of which empty ones count for no size, then they are kept as one, and come whole."""
    heard: list[Any] = []
    transport, _ = upgraded("h11", heard=heard)
    await turns()

    pieces = frame(CONTINUED, b"", fin=False) * 5000 + frame(CONTINUED, b"ab", fin=False)
    transport.protocol.data_received(frame(opcode, b"ab", fin=False) + pieces + frame(CONTINUED, b".", fin=False))
    kept = len(getattr(transport.protocol, "frames", ["older versions of uvicorn keep the bytes by themselves"]))
    transport.protocol.data_received(frame(CONTINUED, b".") + frame(opcode, b"next"))
    await turns()

    assert kept == 1
    assert heard == [whole, whole[:0] + ("next" if opcode == TEXT else b"next")]
    assert [type(each) for each in heard] == [type(whole)] * 2
    transport.protocol.connection_lost(None)
    await turns()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@in_a_loop
async def test_the_oldest_of_too_many_unfinished_messages_of_a_worker_is_closed(
    opcode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given messages without a last piece on more and more connections, then the oldest are closed with 1009 and freed,
    and messages that are finished come whole."""
    heard: list[Any] = []
    transports = [upgraded("h11", heard=heard)[0] for _ in range(8)]
    await turns()
    for transport in transports:
        transport.protocol.config.ws_max_size = 1000
    monkeypatch.setattr(websocket_bounds, "MOST_UNFINISHED", 4)
    *holding, sender, last = transports

    for transport in (*holding[:3], sender):
        transport.protocol.data_received(
            frame(opcode, b"a" * 100, fin=False) + frame(CONTINUED, b"b" * 100, fin=False) * 8
        )
    assert not any(each.is_closed for each in transports)
    sender.protocol.data_received(frame(CONTINUED, b"."))
    for transport in (*holding[3:], last):
        transport.protocol.data_received(
            frame(opcode, b"a" * 100, fin=False) + frame(CONTINUED, b"b" * 100, fin=False) * 8
        )
    await turns()

    assert [each.is_closed for each in transports] == [True] * 3 + [False] * 5
    assert {each.written[-30:-28] for each in holding[:3]} == {struct.pack(">H", 1009)}
    kept = [each.protocol for each in holding[:3]]
    assert not any(getattr(each, "frames", None) or getattr(each, "bytes", None) for each in kept)
    assert [len(each) for each in heard] == [901]
    for transport in transports:
        transport.protocol.connection_lost(None)
    await turns()
    assert not transports[0].protocol._unfinished
