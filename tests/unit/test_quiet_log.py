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


async def send_invalid_requests(config: uvicorn.Config, count: int) -> None:
    server = SheddingServer(config)
    loop = asyncio.get_running_loop()
    protocol: Any = config.http_protocol_class
    made = partial(protocol, config=config, server_state=server.server_state, app_state={})
    listener = await loop.create_server(made, "127.0.0.1", 0)
    async with listener:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
            writer.write(b"no request\r\n\r\n")
            assert await asyncio.wait_for(reader.read(100), 10)
            writer.close()


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
        asyncio.run(send_invalid_requests(config, 100))
        QUIET_LOG._next_at.clear()
        asyncio.run(send_invalid_requests(config, 1))

    text = "Invalid HTTP request received."
    assert [each.getMessage() for each in caplog.records] == [text, f"{text} 99 more since the last such line"]
