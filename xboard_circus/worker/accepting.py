"""Accept connections from the listener that the workers share, in each worker about as many as in its siblings.

Each connection wakes every idle worker, and the first that runs accepts. asyncio accepts all that wait: of 40
connections at once, one of four workers got 36 to 40; uvloop accepts one in each turn of its loop, and one worker got
16 to 20. Here a worker that accepted more than a sibling leaves the next one to it for a moment. What counts is this
tenth of a second: by all connections, a new worker among siblings with idle ones would get each new one for long.
"""

import asyncio
import contextlib
import errno
import logging
import mmap
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

log = logging.getLogger("uvicorn.error")

Attach = Callable[[socket.socket], Coroutine[Any, Any, Any]]
MOST_AT_ONCE, ALONE = 64, 16
"""Connections accepted in one turn of the loop; fewer where the numbers of the siblings are not known."""
AHEAD = 0.25
"""How far ahead a worker may be, beside one connection: of many a few more are not worth a pause, which costs five.

Of what the last one of them has accepted in this tenth of a second, or in the one before, because each begins with
none, and all would pause anew.
"""
STEP_BACK, LATE = 0.001, 0.005
"""Seconds for which a worker leaves the listener to a sibling; a worker that returns so much later is busy itself."""
RETRY_AFTER = 1.0
KEPT = 3
"""A worker that noted nothing for so many tenths of a second hangs or is dead, and nothing is left to it."""
WORKERS = 512
_SHARED = memoryview(mmap.mmap(-1, 3 * 4 * WORKERS)).cast("I")
"""Of each worker that one forkserver forks: what it accepted, in which tenth, and in the one before. A started worker
has its own.
"""


class Counts:
    """Share how many connections were accepted in this tenth of a second with the siblings, and read theirs.

    >>> shared = memoryview(bytearray(24)).cast("I")
    >>> one, other = Counts(0, shared), Counts(1, shared)
    >>> one.note(7, now=9.0), other.note(2, now=9.0), other.note(1, now=9.01)
    (7, 2, 3)
    >>> one.of_siblings(now=9.0), one.of_siblings(now=9.1), one.of_siblings(now=9.3)
    ([3], [0], [])

    Attributes:
        before: What every one of them accepted in the tenth before this, at least.
    """

    def __init__(self, own: int, shared: "memoryview[int]" = _SHARED) -> None:
        third = len(shared) // 3
        self._own, self._numbers, self._noted_in = own % third, shared[:third], shared[third : 2 * third]
        self._numbers_before = shared[2 * third :]
        self._number = 0
        self.before = 0
        self._siblings: list[int] = []
        self._noted = self._looked_in = -1

    def note(self, accepted: int, now: float) -> int:
        """Note that *accepted* more were accepted, and that the loop turns; return the number of this tenth."""
        if self._noted != (tenth := int(now * 10)):
            self._numbers_before[self._own] = self._number if self._noted == tenth - 1 else 0
            self._noted, self._number = tenth, 0
        self._number += accepted
        self._numbers[self._own], self._noted_in[self._own] = self._number, tenth
        return self._number

    def of_siblings(self, now: float) -> list[int]:
        """Return the numbers of the siblings whose loops turn; a time that is to come is false, and counts for none."""
        if self._looked_in != (tenth := int(now * 10)):
            self._looked_in = tenth
            noted = enumerate(self._noted_in.tolist())
            self._siblings = [at for at, then in noted if tenth - KEPT < then <= tenth + 1 and at != self._own]
            self.before = min(self._numbers_before[at] for at in (*self._siblings, self._own))
        return [self._numbers[at] if self._noted_in[at] >= tenth else 0 for at in self._siblings]


class Acceptor:
    """Accept connections in turn with the siblings.

    A worker that is ahead leaves the listener alone for a millisecond, and then accepts one connection. If no sibling
    has accepted any meanwhile it accepts two the next time, then four: all may be busy, and nothing waits for them. Nor
    does anything wait for the turns of a loop that is busy itself: it had left the listener alone for long enough.

    Attributes:
        attaching: Accepted connections that the loop does not serve yet, the oldest first.
    """

    def __init__(self, counts: Counts, *, attach: Attach, clock: Callable[[], float] = time.monotonic) -> None:
        self.attaching: dict[Coroutine[Any, Any, Any], socket.socket] = {}
        self._counts, self._attach, self._clock = counts, attach, clock
        self._listeners: Sequence[socket.socket] = ()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._returns_at = 0.0
        self._patience = 1
        self._seen: list[int] = []

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Accept, unless it does already."""
        if self._listeners:
            return
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

    def end_oldest(self) -> None:
        """End the oldest connection that the loop does not serve yet: its transport reads the end, and closes."""
        with contextlib.suppress(OSError):  # the client has hung up
            self.attaching.pop(next(iter(self.attaching))).shutdown(socket.SHUT_RDWR)

    def note(self) -> None:
        """Note that the loop turns, while we accept any; each tenth of a second."""
        if self._listeners:
            self._counts.note(0, self._clock())

    def _listen(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept_waiting, listener)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        self._pauses[listener] = loop.call_later(seconds, self._resume, listener)
        self._returns_at = self._clock() + seconds

    def _accept_waiting(self, listener: socket.socket) -> None:
        now = self._clock()
        accepted = self._counts.note(0, now)
        siblings = self._counts.of_siblings(now)
        least = min(siblings, default=1 << 30)
        most = least + AHEAD * max(least, self._counts.before) + 1
        for _ in range(MOST_AT_ONCE if siblings else ALONE):
            if accepted > most:
                self._pause(listener, STEP_BACK)
                return
            if not (accepted := self._accept(listener, now)):
                return

    def _resume(self, listener: socket.socket) -> None:
        now = self._clock()
        siblings = self._counts.of_siblings(now)
        self._patience = 1 if siblings != self._seen else min(2 * self._patience, MOST_AT_ONCE)
        self._seen = siblings
        self._listen(listener)
        for _ in range(ALONE if now > self._returns_at + LATE else self._patience):
            if not self._accept(listener, now):
                return

    def _accept(self, listener: socket.socket, now: float) -> int:
        """Accept one connection; return how many were accepted in this tenth of a second, 0 if none waited."""
        try:
            connection = listener.accept()[0]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return 0
        except OSError as error:
            why = "the listener was shut down" if error.errno == errno.EINVAL else error.strerror
            log.error("No connection can be accepted: %s; trying again in %g s", why, RETRY_AFTER)
            self._pause(listener, RETRY_AFTER)
            return 0
        attaching = self._attach(connection)
        self.attaching[attaching] = connection
        self._go_on(attaching)
        return self._counts.note(1, now)

    def _go_on(self, attaching: Coroutine[Any, Any, Any], _: object = None) -> None:
        """Run *attaching* up to the next future that it awaits; a task would cost as much as half of attaching."""
        try:
            attaching.send(None).add_done_callback(partial(self._go_on, attaching))
        except Exception as error:
            self.attaching.pop(attaching, None)
            if not isinstance(error, (StopIteration, OSError)):  # done, or a handshake has failed
                raise
