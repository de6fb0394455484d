"""Accept connections from the listener that the workers share, in each worker about as many as in its siblings.

Each connection wakes every idle worker, and the first that runs accepts. asyncio accepts all that wait: of 40
connections at once, one of four workers got 36 to 40; uvloop accepts one in each turn of its loop, and one worker got
16 to 20. Here a worker with more connections than a sibling leaves the next one to it for a moment.
"""

import asyncio
import errno
import logging
import mmap
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

log = logging.getLogger("uvicorn.error")

MOST_AT_ONCE, ALONE = 64, 16
"""Connections accepted in one turn of the loop; fewer where the numbers of the siblings are not known."""
MOST_CONNECTIONS = 1 << 30
STEP_BACK = 0.001
RETRY_AFTER = 1.0
KEPT = 3
"""A number counts for its tenth of a second and two more: not that of a worker that hangs or is dead."""
WORKERS = 512
_SHARED = memoryview(mmap.mmap(-1, 2 * 4 * WORKERS)).cast("I")
"""Of each worker that one forkserver forks: its connections, then when it noted them. A started worker has its own."""


class Counts:
    """Share the number of connections with the siblings, and read theirs.

    >>> shared = memoryview(bytearray(16)).cast("I")
    >>> one, other = Counts(0, shared), Counts(1, shared)
    >>> one.note(7, now=0.0)
    >>> other.note(2, now=0.0)
    >>> one.of_siblings(now=0.1), other.of_siblings(now=0.1), one.of_siblings(now=0.3)
    ([2], [7], [])
    """

    def __init__(self, own: int, shared: "memoryview[int]" = _SHARED) -> None:
        half = len(shared) // 2
        self._own, self._numbers, self._noted_in = own % half, shared[:half], shared[half:]
        self._siblings: list[int] = []
        self._looked_in = -1

    def note(self, number: int, now: float) -> None:
        """Note the number of this worker's connections."""
        self._numbers[self._own], self._noted_in[self._own] = number, int(now * 10) + KEPT

    def of_siblings(self, now: float) -> list[int]:
        """Return the numbers of the siblings whose loops turn."""
        if self._looked_in != (tenth := int(now * 10)):
            self._looked_in = tenth
            noted = enumerate(self._noted_in.tolist())
            self._siblings = [at for at, until in noted if until > tenth and at != self._own]
        return [self._numbers[at] for at in self._siblings]


class Acceptor:
    """Accept connections in turn with the siblings.

    A worker that is ahead leaves the listener alone for a millisecond, and then accepts one connection. If no sibling
    has accepted any meanwhile it accepts two the next time, then four: all may be busy, and nothing waits for them.

    Attributes:
        attaching: Accepted connections that the loop does not serve yet.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        attach: Callable[[socket.socket], Coroutine[Any, Any, None]],
        served: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.attaching: set[asyncio.Task[None]] = set()
        self._counts, self._attach, self._served, self._clock = counts, attach, served, clock
        self._listeners: Sequence[socket.socket] = ()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._patience = 1
        self._seen: list[int] = []

    def start(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = listeners
        self.note()
        for listener in listeners:
            self._listen(listener)

    def stop(self) -> None:
        """Accept no more."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for pause in self._pauses.values():
            pause.cancel()
        self._listeners = ()

    def note(self) -> int:
        """Share the number of connections while we accept any; each tenth of a second, otherwise it counts no more."""
        number = self._served() + len(self.attaching)
        if self._listeners:
            self._counts.note(number, self._clock())
        return number

    def _listen(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept_waiting, listener)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        self._pauses[listener] = loop.call_later(seconds, self._resume, listener)

    def _accept_waiting(self, listener: socket.socket) -> None:
        siblings = self._counts.of_siblings(self._clock())
        for _ in range(MOST_AT_ONCE if siblings else ALONE):
            if self.note() > min(siblings, default=MOST_CONNECTIONS) + 1:
                self._pause(listener, STEP_BACK)
                return
            if not self._accept(listener):
                return

    def _resume(self, listener: socket.socket) -> None:
        siblings = self._counts.of_siblings(self._clock())
        self._patience = 1 if siblings != self._seen else min(2 * self._patience, MOST_AT_ONCE)
        self._seen = siblings
        self._listen(listener)
        for _ in range(self._patience):
            if not self._accept(listener):
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection; return whether there was one."""
        try:
            connection = listener.accept()[0]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            why = "the listener was shut down" if error.errno == errno.EINVAL else error.strerror
            log.error("No connection can be accepted: %s; trying again in %g s", why, RETRY_AFTER)
            self._pause(listener, RETRY_AFTER)
            return False
        task = asyncio.get_running_loop().create_task(self._attach(connection))
        self.attaching.add(task)
        task.add_done_callback(self.attaching.discard)
        return True
