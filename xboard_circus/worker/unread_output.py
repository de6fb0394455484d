"""Serve on while no process reads a worker's output, because circusd hangs or is under SIGSTOP.

A pipe holds 64 KiB. When it is full, a `print` in a request would block the event loop, and with it a healthy worker,
until a process reads. Output that does not fit within a second is dropped instead, and counted.
"""

import io
import os
import select
import stat
import sys
import threading
import time
from typing import Any

from xboard_circus.core.durations import lasted

PATIENCE = 1.0  # circusd may be busy that long; with less, a busy moment would cost lines


class UnreadOutput(io.RawIOBase):
    """Write to a pipe, without ever waiting longer than *patience* seconds for its reader.

    After the first loss nothing waits until the pipe has room again; then a line reports the loss. Processes that the
    app starts, and C code, write to the pipe itself and wait as ever.
    """

    name = "<pipe>"

    def __init__(self, descriptor: int, *, patience: float = PATIENCE) -> None:
        self._descriptor = descriptor
        self._patience = patience
        self._lost = 0
        self._lost_since = 0.0
        self._is_in_line = False  # the last write ended within a line
        self._free_lock()
        os.register_at_fork(after_in_child=self._free_lock)

    def _free_lock(self) -> None:
        # One writer at a time: with room for one write, the second of two would block.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def _has_room(self, within: float) -> bool:
        poll = select.poll()  # a new one: a handler of a signal may print in the middle of another's wait
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(within * 1000))

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        with self._lock:
            if self._lost and self._has_room(0):
                age = lasted(time.monotonic() - self._lost_since)
                notice = f"xboard-circus: {self._lost} bytes of output were dropped: nothing read them for {age}\n"
                self._lost = 0
                self._put(f"{chr(10) * self._is_in_line}{notice}".encode())
            self._put(rest)
        return len(rest)

    def _put(self, rest: "memoryview | bytes") -> None:
        # A pipe that is ready for writing takes PIPE_BUF bytes at once, and may block for more.
        while rest and self._has_room(0 if self._lost else self._patience):
            written = os.write(self._descriptor, rest[: select.PIPE_BUF])
            self._is_in_line = rest[written - 1] != ord("\n")
            rest = rest[written:]
        if rest and not self._lost:
            self._lost_since = time.monotonic()
        self._lost += len(rest)


def outlast_reader() -> None:
    """Replace stdout and stderr by an `UnreadOutput` if they are pipes."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None and stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
            how = {each: getattr(stream, each) for each in ("encoding", "errors", "line_buffering", "write_through")}
            setattr(sys, name, io.TextIOWrapper(UnreadOutput(stream.fileno()), **how))
