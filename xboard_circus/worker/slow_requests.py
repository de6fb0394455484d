"""Report requests that last longer than `request.slow`, with the stack that shows where each waits.

A request costs nothing for that: once a second the tasks of those in flight are looked at, and of one that is old
enough its frames, in which `RequestRecord` keeps what it knows of the request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from types import FrameType
from typing import Any

from xboard_circus.core.in_flight import MOST_SLOW, SeenRequest
from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.task_stack import Stack, calls, place, shown, stack_of, suspended

log = logging.getLogger("uvicorn.error")

LOOK_EVERY = 1.0
ONCE_IN = 60.0
MOST_ROUTES = 100
MOST_LOOKED_AT = 100  # at once: a stack takes a fifth of a millisecond, and a client can keep thousands of requests
SETTLED = float("inf")


class SlowRequests:
    """Look for requests that last longer than *limit* seconds, 0 for none, and report each route once a minute.

    *app* is the name of the app's package, whose frames are shown even where it is installed among the libraries.
    """

    def __init__(
        self, record: RequestRecord, *, limit: float, app: str, clock: Callable[[], float] = monotonic
    ) -> None:
        self._record = record
        self._limit = limit
        self._app = app
        self._clock = clock
        self._looked_at, self._was_late = clock(), False
        self._since: dict[asyncio.Task[Any], float] = {}  # when it was seen first, or SETTLED
        self._reported: dict[tuple[str, str, str], float] = {}
        self._kept: deque[dict[str, Any]] = deque(maxlen=MOST_SLOW)

    def look(self, tasks: Iterable["asyncio.Task[Any]"]) -> None:
        """Report the slow ones of *tasks*, in which uvicorn runs requests; to be called by each tick of its loop."""
        now = self._clock()
        passed = now - self._looked_at
        if not self._limit or passed < LOOK_EVERY:
            return
        was_late, self._was_late = self._was_late, passed > 2 * LOOK_EVERY
        self._looked_at = now
        self._since = {task: self._since.get(task, now) for task in tasks}
        if self._was_late and not was_late:
            return  # something held the loop: what waited for that alone ends in a moment
        due = [task for task, since in self._since.items() if now - since >= self._limit - LOOK_EVERY]
        for task in sorted(due, key=self._since.__getitem__)[:MOST_LOOKED_AT]:
            self._since[task] = now - self._limit + LOOK_EVERY  # the next time behind those that were not looked at
            try:
                self._look_at(task, now)
            except Exception:  # must not end the server
                self._since[task] = SETTLED
                log.exception("The stack of a request cannot be read")

    def _look_at(self, task: "asyncio.Task[Any]", now: float) -> None:
        found = self._record.found_in(suspended(task))
        if found is None or found.is_answered:  # a WebSocket, or an answer that has begun
            self._since[task] = SETTLED
        elif now - found.request.began_at >= self._limit:
            frames = stack_of(task).frames
            if not waits_for_client(frames) and self.report(found.request, frames, "has no answer yet"):
                self._since[task] = SETTLED

    def look_at_held(self, serial: int, frame: FrameType, held: float) -> None:
        """Report the request that has held the event loop for so long, by the frame of the loop's thread.

        To be called by another thread.
        """
        if not self._limit or held < self._limit or (request := self._record.noted(serial)) is None:
            return
        if self._clock() - request.began_at < self._limit:
            return  # others held it before
        try:
            self.report(request, [*calls(frame)][::-1], "holds the event loop")
        except Exception:  # must not end the thread
            log.exception("The stack of a request cannot be read")

    def report_late(self, task: "asyncio.Task[Any]", stack: Stack) -> None:
        """Report a request that is answered 504 because it has no answer in time."""
        if (found := self._record.found_in(suspended(task))) is not None:
            what = "was answered 504, and its thread runs on" if stack.in_thread else "was answered 504"
            self.report(found.request, stack.frames, what, timed_out=True)

    def report(self, request: SeenRequest, frames: Sequence[FrameType], what: str, *, timed_out: bool = False) -> bool:
        """Log a request with its stack, and keep it for the prober, unless its route was reported lately."""
        now, key = self._clock(), (request.method, request.route, what)
        self._reported = {known: at for known, at in self._reported.items() if now - at < ONCE_IN}
        if key in self._reported or len(self._reported) >= MOST_ROUTES:
            return False
        self._reported[key] = now
        named = {"method": request.method, "route": request.route, "id": request.id}
        age = now - request.began_at
        stack = "\n".join(shown(frames, self._app))
        log.warning("%s %s (request %s) %s after %.1f s. Its stack:\n%s", *named.values(), what, age, stack)
        where = place(frames, self._app)
        self._kept.append({**named, "age": round(age, 3), "at": now, "where": where, "timed_out": timed_out})
        return True

    def reported(self) -> list[dict[str, Any]]:
        """Return what was reported last, for the prober."""
        return [*self._kept]


def waits_for_client(frames: Sequence[FrameType]) -> bool:
    """Return whether the app waits for what its client sends, such as a body: that is no slow app."""
    return any(
        frame.f_code.co_name == "receive" and str(frame.f_globals.get("__name__")).startswith("uvicorn.protocols.")
        for frame in frames[-2:]  # the last one is that of an asyncio.Event
    )
