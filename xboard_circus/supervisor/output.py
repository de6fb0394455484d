"""What workers write: kept whole on its way into the log, and the last lines kept at hand as evidence."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

TAIL_BYTES = 4096
STACK_BYTES = 64 * 1024
PIPE_BYTES = 1 << 20
# What Python's faulthandler begins with when a fatal signal ends the process.
STACK = b"Fatal Python error: "


def incomplete_suffix(data: bytes) -> int:
    """Return how many bytes at the end of *data* begin a UTF-8 character that is not all there.

    >>> incomplete_suffix("日志".encode()), incomplete_suffix("日志".encode()[:-1])
    (0, 2)
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if back < needed else 0
    return 0


class LastWords:
    """The last bytes that one process wrote, and, whole, the stacks that faulthandler wrote when it was killed."""

    def __init__(self) -> None:
        self._tail = b""
        self._stack = b""

    def add(self, piece: bytes) -> None:
        """Take note of a further piece."""
        if self._stack:
            self._stack = (self._stack + piece)[:STACK_BYTES]
        else:
            # The mark may lie across the edge of two pieces.
            seen = self._tail[-len(STACK) :] + piece
            at = seen.find(STACK)
            if at >= 0:
                self._stack = seen[at:][:STACK_BYTES]
        self._tail = (self._tail + piece[-TAIL_BYTES:])[-TAIL_BYTES:]

    @property
    def tail(self) -> str:
        """The last bytes as text; the first line may be cut."""
        return self._tail.decode("utf-8", errors="replace")

    @property
    def stack(self) -> str:
        """The stacks of all its threads, empty if none were written."""
        return self._stack.decode("utf-8", errors="replace")


class Tail:
    """A Circus stream that passes everything on to *inner* and remembers the last words of every pid.

    Circus reads 1,024 bytes at a time and decodes each piece alone, so a character of more than one byte that lies
    across the edge comes out as two question marks. Pieces are therefore cut between characters here.
    """

    def __init__(self, inner: Callable[[dict[str, Any]], object], tails: dict[int, LastWords]) -> None:
        self.inner = inner
        self.tails = tails
        self._held: dict[tuple[int, str], bytes] = {}

    def __call__(self, piece: dict[str, Any]) -> None:
        pid, raw = piece["pid"], piece["data"]
        if isinstance(raw, bytes):
            raw = self._held.pop((pid, piece["name"]), b"") + raw
            held = incomplete_suffix(raw)
            if held:
                self._held[pid, piece["name"]] = raw[-held:]
                raw = raw[:-held]
            self.tails.setdefault(pid, LastWords()).add(raw)
        if raw:
            self.inner({**piece, "data": raw})

    def __getattr__(self, name: str) -> Any:
        # `open` and `close` are only called where the stream has them, so they must come from the stream itself.
        return getattr(self.inner, name)

    def forget(self, pid: int) -> None:
        """Write what is still held of *pid* and forget it."""
        for key in [key for key in self._held if key[0] == pid]:
            self.inner({"pid": pid, "name": key[1], "data": self._held.pop(key)})


def drain(watcher: Any, process: Any) -> None:
    """Move what a dead *process* left in its pipes into the log, before Circus closes them unread.

    Circus closes a pipe as soon as it reaps the process. With prompt reaping that would lose the very lines that say
    why the process died. Never waits: a grandchild may hold the other end open.
    """
    redirector = watcher.stream_redirector
    if redirector is None:
        return
    for name, pipe in redirector.get_process_pipes(process):
        if pipe is None or pipe.closed:
            continue
        left = PIPE_BYTES
        waiting = select.poll()  # not select(), which refuses descriptors from 1024 on
        waiting.register(pipe, select.POLLIN)
        while left > 0 and waiting.poll(0):
            data = os.read(pipe.fileno(), 65536)
            if not data:
                break
            left -= len(data)
            redirector.redirect[name]({"data": data, "pid": process.pid, "name": name})
    for stream in (watcher.stdout_stream, watcher.stderr_stream):
        if isinstance(stream, Tail):
            stream.forget(process.pid)
