"""Clients cannot fill the log of a worker or of the page."""

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import Any

import pytest
import uvicorn

from xboard_circus.worker.quiet_log import QUIET_LOG
from xboard_circus.worker.server import SheddingServer


async def send(config: uvicorn.Config, request: bytes, count: int = 1) -> bytes:
    """Send *request* to *config*'s app *count* times, and return the beginning of the last answer."""
    server = SheddingServer(config)
    loop = asyncio.get_running_loop()
    protocol: Any = config.http_protocol_class
    made = partial(protocol, config=config, server_state=server.server_state, app_state={})
    listener = await loop.create_server(made, "127.0.0.1", 0)
    async with listener:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(100), 10)
            assert answer
            writer.close()
    return answer


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_invalid_requests_fill_no_log(
    http: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given 100 invalid requests, then one is logged, and the next after a while says how many there were."""
    monkeypatch.setattr(QUIET_LOG, "_next_at", {})
    monkeypatch.setattr(QUIET_LOG, "_dropped", Counter())
    config = uvicorn.Config("xboard_circus.app:app", http=http, log_config=None)
    config.load()
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        asyncio.run(send(config, b"no request\r\n\r\n", 100))
        QUIET_LOG._next_at.clear()
        asyncio.run(send(config, b"no request\r\n\r\n"))

    text = "Invalid HTTP request received."
    assert [each.getMessage() for each in caplog.records] == [text, f"{text} 99 more since the last such line"]


async def echo(scope: Any, _: Any, send: Any) -> None:
    """Answer with the header `x-name` of a request."""
    name = dict(scope["headers"])[b"x-name"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-name", name)]})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize(
    ("address", "logged"),
    [("\x9b2J\x9b31mevil", "?2J?31mevil:0"), ("\x9d0;title\x9c", "?0;title?:0"), ("192.0.2.7", "192.0.2.7:0")],
)
def test_no_address_in_the_access_log_moves_a_cursor(
    http: str, address: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Given an `X-Forwarded-For` with C1 controls, which terminals take for escapes, and a header in UTF-8, whose bytes
    are some of them, then the app has both, and the access log none."""
    config = uvicorn.Config(echo, http=http, log_config=None)
    config.load()
    headers = b"X-Forwarded-For: " + address.encode("latin-1") + b"\r\nX-Name: " + "\u00db\u011b".encode()
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        answer = asyncio.run(send(config, b"GET / HTTP/1.1\r\nHost: test\r\n" + headers + b"\r\n\r\n"))

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert "x-name: \u00db\u011b".encode() in answer
    assert [each.getMessage() for each in caplog.records] == [f'{logged} - "GET / HTTP/1.1" 200']
