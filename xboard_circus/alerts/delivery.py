"""Deliver the messages of one sink in a thread of its own: in order, with retries, blocking nothing else."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable

from xboard_circus.alerts.message import Message, Sink
from xboard_circus.alerts.secrets import AlertError
from xboard_circus.core.alert_gate import backoff

log = logging.getLogger("xboard_circus.alerts")

QUEUE = 200
SAY_EVERY = 10


class Delivery:
    """The queue of a sink, and the thread that empties it.

    What the sink does not take stays in front and is tried again after longer and longer pauses, for as long as it
    takes. A queue that is full loses its oldest message that is not being tried, and counts it.

    Attributes:
        lost: How many messages the full queue has lost.
        trouble: Why the last try failed, "" where it did not.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        waiting: Iterable[Message] = (),
        limit: int = QUEUE,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.lost = 0
        self.trouble = ""
        self.sink = sink
        self._limit = limit
        self._on_change = on_change
        self._clock = clock
        self._queue = deque(waiting)
        self._changed = threading.Condition()
        self._ended = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"alert:{name}")

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Queue a message; returns at once."""
        with self._changed:
            if message.fold:
                # The first may be under way.
                rest = [each for each in list(self._queue)[1:] if each.fold != message.fold]
                self._queue = deque([*list(self._queue)[:1], *rest])
            if len(self._queue) >= self._limit:
                del self._queue[min(1, len(self._queue) - 1)]
                self.lost += 1
                log.error("alert:%s: the queue of %d is full: an alert is lost", self.name, self._limit)
            self._queue.append(message)
            self._changed.notify_all()

    def waiting(self) -> list[Message]:
        """Return what is not delivered yet, in its order."""
        with self._changed:
            return list(self._queue)

    def use(self, sink: Sink) -> None:
        """Switch to another sink after a change of the ini file; waiting messages are tried at once."""
        with self._changed:
            self.sink = sink
            self._failures = 0
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until nothing waits any more; return whether it came to that in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, seconds)

    def end(self) -> None:
        """Stop after the try that is under way; what waits stays in `waiting`."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (message := self._next()) is not None:
            pause = self._try(message)
            if pause:
                self._rest(pause)

    def _next(self) -> Message | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            return None if self._ended else self._queue[0]

    def _try(self, message: Message) -> float:
        """Return the seconds to wait before the next try; 0 where it was delivered."""
        sink = self.sink
        try:
            sink.deliver(message)
        except AlertError as error:
            return self._failed(str(error), error.retry_after)
        except Exception as error:
            # Where it was raised, without its message, which may quote a secret.
            log.error("alert:%s: internal error:\n%s", self.name, "".join(traceback.format_tb(error.__traceback__)))
            return self._failed(f"a bug in xboard-circus: {type(error).__name__}", 0.0)
        failures, self._failures, self.trouble = self._failures, 0, ""
        tries = f", at try {failures + 1}" if failures else ""
        log.info("alert:%s: delivered%s: %s", self.name, tries, message.title)
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()
        self._on_change()
        return 0.0

    def _failed(self, why: str, asked: float) -> float:
        self._failures += 1
        if why != self.trouble:
            self.trouble = why
            self._on_change()
        pause = max(backoff(self._failures), asked)
        if self._failures == 1 or self._failures % SAY_EVERY == 0:
            log.warning("alert:%s: not delivered: %s; next try in %g s", self.name, why, pause)
        return pause

    def _rest(self, seconds: float) -> None:
        with self._changed:
            sink = self.sink
            self._changed.wait_for(lambda: self._ended or self.sink is not sink, seconds)
