"""Slow uploads and downloads, and what becomes of them; the other end is transfer_app.py."""

import asyncio
import threading
from collections import Counter
from types import TracebackType
from urllib.parse import urlsplit

CHUNK = b"x" * 8192
CHUNKS = 20


class Transfers:
    """Uploads and downloads to *url*, *each* of both at a time, that take about *seconds*, until the block ends."""

    def __init__(self, url: str, *, each: int = 2, seconds: float = 1.0) -> None:
        address = urlsplit(url)
        self.host, self.port = address.hostname, address.port
        self.each = each
        self.pause = seconds / CHUNKS
        self.outcomes: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True, name="transfers")

    def __enter__(self) -> "Transfers":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(90)

    @property
    def lost(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.outcomes.items() if not outcome.endswith(": ok")}

    async def _drive(self) -> None:
        await asyncio.gather(*(self._repeat(name) for name in ("upload", "download") for _ in range(self.each)))

    async def _repeat(self, name: str) -> None:
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._transfer(name), 20)
                self.outcomes[f"{name}: ok"] += 1
            except (asyncio.TimeoutError, OSError, EOFError, AssertionError) as error:
                self.outcomes[f"{name}: {type(error).__name__} {error}"[:200]] += 1
                await asyncio.sleep(0.05)

    async def _transfer(self, name: str) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        length = len(CHUNK) * CHUNKS if name == "upload" else 0
        method = "POST" if name == "upload" else "GET"
        target = f"/{name}?s={self.pause}"
        try:
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n".encode())
            for _ in range(CHUNKS if name == "upload" else 0):
                writer.write(CHUNK)
                await writer.drain()
                await asyncio.sleep(self.pause)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            answer = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        finally:
            writer.close()
        assert head.startswith("http/1.1 200 "), head
        assert answer == (str(length).encode() if name == "upload" else CHUNK * CHUNKS)
