"""Serve requests of the plain app without a socket, to be counted: ``python -m bench.serving PATH NUMBER [record]``.

uvicorn's own protocol parses each one and runs the app; with ``record`` the record of requests is around that, as in
our worker. What a request takes beside that (the socket, the loop's turn) is the same with it and without.
"""

import asyncio
import sys

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.route_names import name_routes
from xboard_circus.worker.traffic import Traffic


class Client(asyncio.Transport):
    """A connection whose other end notes that the answer has come."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answered = asyncio.Event()
        self.status = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.status = self.status or bytes(data[:12])
        self.answered.set()

    def is_closing(self) -> bool:
        return False


async def serve(path: str, number: int, *, with_record: bool) -> None:
    config = Config("bench.plain_app:app", http="httptools", access_log=False, log_level="error")
    config.load()
    if with_record:
        record = RequestRecord(config.loaded_app, None, traffic=Traffic())
        name_routes(record)
        config.loaded_app = record.__call__
    state, client = ServerState(), Client()
    protocol = HttpToolsProtocol(config, state, {})
    protocol.connection_made(client)
    sent = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
    for _ in range(number):
        client.answered.clear()
        client.status = b""
        protocol.data_received(sent)
        await client.answered.wait()
        if client.status != b"HTTP/1.1 200":
            raise SystemExit(f"{path} was answered {client.status!r}")
        while state.tasks:
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), with_record="record" in sys.argv))
