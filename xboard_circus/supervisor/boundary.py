"""Contain our work: a failure is logged here and never reaches circusd, and no thread keeps circusd from ending."""

import asyncio
import errno
import functools
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from circus import logger

P = ParamSpec("P")
T = TypeVar("T")

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""Errors of a circusd that lacks descriptors or memory: no fault of the app, and over soon."""
SHORTAGE_RETRY = 1.0
NO_THREAD = "can't start new thread"


def is_shortage(error: Exception) -> bool:
    """Return whether *error* says that circusd lacks descriptors, memory, or room for a thread.

    >>> is_shortage(RuntimeError(NO_THREAD)), is_shortage(OSError())
    (True, False)
    >>> [is_shortage(OSError(getattr(errno, name), "")) for name in ("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EPERM")]
    [True, True, True, True, False]
    """
    return str(error) == NO_THREAD or (isinstance(error, OSError) and error.errno in SHORTAGES)


def contained(default: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that circusd calls return *default* where it would have raised.

    A hook that raises counts as a refusal in Circus, and a refusal stops the whole watcher (healthy workers too).
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except Exception:
                logger.exception("xboard: %s failed; circusd goes on without it", function.__qualname__)
                answer: T = default
                return answer

        return call

    return decorate


async def contained_task(work: Awaitable[T], what: str, default: T) -> T:
    """Run *work* to its end and return its result; an exception is logged as a failure of *what*."""
    try:
        return await work
    except Exception:
        logger.exception("xboard: %s failed; circusd goes on without it", what)
        return default


class DaemonThread:
    """A thread for work that blocks. circusd's end does not wait for it, as it does for one of `asyncio.to_thread`.

    It starts at once, so that work finds it also in a circusd that has no room for another thread by then; or, unless
    it *starts_now*, with its first work.
    """

    def __init__(self, *, starts_now: bool = True) -> None:
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._has_started = False
        if starts_now:
            with suppress(RuntimeError):
                self._start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of *work*, in its turn.

        It begins when there is room for the thread: a sweep of leftovers that gave up would not be tried again.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(done: Callable[[Any], None], outcome: object) -> None:
            if not result.done():
                done(outcome)

        def run() -> None:
            done: Callable[[Any], None]
            outcome: object
            try:
                done, outcome = result.set_result, work()
            except Exception as error:
                done, outcome = result.set_exception, error
            with suppress(RuntimeError):  # circusd has ended
                loop.call_soon_threadsafe(settle, done, outcome)

        self._work.put(run)
        while not self._has_started:
            try:
                self._start()
            except RuntimeError:
                await asyncio.sleep(SHORTAGE_RETRY)
        return await result

    def end(self) -> None:
        """End the thread when it has done what it was given."""
        self._work.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()
        self._has_started = True

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of *work*, which blocks, from a `DaemonThread` of its own."""
    thread = DaemonThread()
    try:
        return await thread.run(work)
    finally:
        thread.end()
