"""Deliver the messages of one sink in the background: in order, with retries, blocking nothing else."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from xboard_circus.alerts.message import Message, Sink
from xboard_circus.alerts.secrets import AlertError
from xboard_circus.core.durations import backoff

log = logging.getLogger("xboard_circus.alerts")

QUEUE = 200
SAY_EVERY = 10


class Delivery:
    """The queue of a sink, and the task that empties it; each try runs in a thread of its own.

    A message that cannot be delivered stays in front and is retried with a backoff, for ever; one that the receiver
    refuses, or at which we fail ourselves, goes behind the others, also those that come later: these wait for none of
    its tries. A full queue drops its oldest message, first of those that were refused, except the one that is being
    tried. To be used on one loop.

    Attributes:
        trouble: Why the last try failed, "" after a success.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        waiting: Iterable[Message] = (),
        limit: int = QUEUE,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.sink, self.trouble = name, sink, ""
        self._limit, self._on_change, self._failures = limit, on_change, 0
        self._queue, self._refused = list(waiting), list[Message]()
        self._is_filled, self._is_empty, self._is_replaced = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"alert:{name}")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the delivery."""
        self._task = asyncio.ensure_future(self._run())

    def put(self, message: Message) -> None:
        """Queue a message; returns at once."""
        if message.fold:
            # The first may be under way.
            self._queue[1:] = [each for each in self._queue[1:] if each.fold != message.fold]
            self._refused[:] = [each for each in self._refused if each.fold != message.fold]
        if len(self._queue) + len(self._refused) >= self._limit:
            del (self._refused or self._queue)[0 if self._refused else min(1, len(self._queue) - 1)]
            log.error("alert:%s: the queue of %d is full: an alert is lost", self.name, self._limit)
        self._queue.append(message)
        self._is_empty.clear()
        self._is_filled.set()

    def waiting(self) -> list[Message]:
        """Return the messages that are not delivered yet, in their order."""
        return [*self._queue, *self._refused]

    def use(self, sink: Sink) -> None:
        """Switch to another sink after a change of the ini file; waiting messages are tried at once."""
        self.sink = sink
        self._queue, self._refused = self.waiting(), []
        self._failures = 0
        self._is_replaced.set()
        self._is_filled.set()

    async def drain(self, seconds: float) -> bool:
        """Wait until the queue is empty; return whether it was in time."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            return await asyncio.wait_for(self._is_empty.wait(), seconds)
        return False

    def end(self) -> None:
        """Stop after the current try; the rest stays in `waiting`."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            if not self._queue and self._refused:
                self._queue.append(self._refused.pop(0))
            if not self._queue:
                self._is_empty.set()
                self._is_filled.clear()
                await self._is_filled.wait()
            self._is_replaced.clear()
            self._is_filled.clear()
            pause, is_demanded = await self._try(self._queue[0])
            if pause:
                # A new message waits for no other's refusal, but for what the server itself demands.
                is_refused = not self._queue and not is_demanded
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for((self._is_filled if is_refused else self._is_replaced).wait(), pause)

    async def _try(self, message: Message) -> tuple[float, bool]:
        """Return the seconds to wait before the next try, 0 after a success, and whether the server demands that."""
        if most := getattr(self.sink, "most_cuts", 0):
            if message.cuts >= most:
                why = f"this plugin has ended {most} times while {self.sink.place} ran, as when that restarts circusd"
                cure = "have it do so in the background, such as by `setsid -f xboard-circus restart`"
                log.error("alert:%s: given up: %s; %s: %s", self.name, why, cure, message.title)
                return self._done()
            self._queue[0] = message._replace(cuts=message.cuts + 1)
            self._on_change()  # before it runs
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.sink.deliver, message)
        except AlertError as error:
            self._queue[0] = message
            return self._failed(str(error), error.retry_after, is_refused=error.refused)
        except Exception as error:
            self._queue[0] = message
            # Only where it was raised, because its message may quote a secret.
            log.error("alert:%s: internal error:\n%s", self.name, "".join(traceback.format_tb(error.__traceback__)))
            # It may be what the message says.
            return self._failed(f"a bug in xboard-circus: {type(error).__name__}", 0.0, is_refused=True)
        tries = f", at try {self._failures + 1}" if self._failures else ""
        log.info("alert:%s: delivered%s: %s", self.name, tries, message.title)
        return self._done()

    def _done(self) -> tuple[float, bool]:
        self._failures, self.trouble = 0, ""
        self._queue.pop(0)
        asyncio.get_running_loop().call_soon(self._on_change)
        return 0.0, False

    def _failed(self, why: str, retry_after: float, *, is_refused: bool) -> tuple[float, bool]:
        self._failures += 1
        if is_refused:
            self._refused.append(self._queue.pop(0))
        if why != self.trouble:
            self.trouble = why
            asyncio.get_running_loop().call_soon(self._on_change)
        pause = max(backoff(self._failures), retry_after)
        if self._failures == 1 or self._failures % SAY_EVERY == 0:
            log.warning("alert:%s: not delivered: %s; next try in %g s", self.name, why, pause)
        return (retry_after if is_refused and self._queue else pause), retry_after > 0
