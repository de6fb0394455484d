"""Measure loop lag, thread pool and memory of this worker. Each costs microseconds and imports nothing new."""

import math
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable


class LoopLag:
    """Measure how late the event loop calls `tick`, which is due every *period* seconds.

    uvicorn's own tick calls it: a task of ours would cost every idle worker a second wake-up.

    >>> now = iter([0.0, 0.1, 0.75, 0.8]).__next__
    >>> lag = LoopLag(period=0.1, clock=now)
    >>> lag.tick(), lag.tick(), lag.tick()
    (None, None, None)
    >>> round(lag.largest(), 2)
    0.55
    """

    def __init__(self, *, period: float, kept: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self.period = period
        self._clock = clock
        self._lags: deque[float] = deque(maxlen=kept)
        self._last: float | None = None

    def tick(self) -> None:
        now = self._clock()
        if self._last is not None:
            self._lags.append(max(0.0, now - self._last - self.period))
        self._last = now

    @property
    def last(self) -> float | None:
        """Return when the last tick came."""
        return self._last

    def stop(self) -> None:
        """Stop measuring, because no more ticks will come, which is no lag."""
        self._last = None

    def largest(self) -> float:
        """Return the largest lag of the *kept* last ticks, or of the next one if it is later already."""
        overdue = 0.0 if self._last is None else self._clock() - self._last - self.period
        return max(0.0, overdue, *self._lags)


def thread_pool() -> tuple[int | None, int | None]:
    """Return the busy threads of the app's pool, and their limit; None without a pool.

    The pool is anyio's, in which FastAPI runs every endpoint that is not async. Call it from the event loop: each loop
    has a pool of its own.
    """
    to_thread = sys.modules.get("anyio.to_thread")
    if to_thread is None:
        return None, None
    limiter = to_thread.current_default_thread_limiter()
    limit = limiter.total_tokens
    return limiter.borrowed_tokens, None if math.isinf(limit) else int(limit)


def resident_bytes() -> int:
    """Return the resident memory of this process; without /proc, its peak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
