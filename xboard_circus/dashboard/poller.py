"""Poll one circusd in the background: in a thread, its answer kept with its age, never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from xboard_circus.core.reason import one_line, with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.circusd_queries import Questions, Told
from xboard_circus.dashboard.history import History
from xboard_circus.errors import XboardError

log = logging.getLogger("uvicorn.error")


class Server:
    """Keep the last answer of the circusd at *endpoint*, and when it came.

    Attributes:
        told: Its last good answer; None before the first.
        is_reachable: It answered the last poll.
        error: What came in the place of an answer.
        was_asked: Set once the first poll is over, answered or not.
    """

    def __init__(
        self, server_id: str, label: str, endpoint: str, *, deadline: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.id = server_id
        self.label = label
        self.endpoint = endpoint
        self.told: Told | None = None
        self.is_reachable = False
        self.error: str | None = Answer.NOT_ASKED()
        self.history = History()
        self._clock = clock
        self._answered_at = 0.0
        self._questions = Questions(endpoint, deadline=deadline, clock=clock)
        # A pool of one thread for each: a circusd that hangs, or a name that is looked up for long, holds up no other.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"circusd-{server_id}")
        self._wanted = asyncio.Event()
        self.was_asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, period: Callable[[], float]) -> None:
        """Poll from now on, with a pause of *period* between the beginnings of two polls; once is enough."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(period), name=f"poll {self.endpoint}")

    async def _run(self, period: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_at = self._clock()
            self._wanted.clear()
            await loop.run_in_executor(self._pool, self._ask)
            self.was_asked.set()
            wait = began_at + period() - self._clock()
            if wait > 0:
                with anyio.move_on_after(wait):
                    await self._wanted.wait()

    def ask_soon(self) -> None:
        """Poll now instead of at the end of the pause."""
        self._wanted.set()

    def close(self) -> None:
        """Poll no more; the thread ends when it has done what it is at."""
        if self._task is not None:
            self._task.cancel()
        self._pool.submit(self._questions.client.close)
        self._pool.shutdown(wait=False)

    def age(self) -> float | None:
        """Return the seconds since the last good answer."""
        return None if self.told is None else round(self._clock() - self._answered_at, 2)

    def watcher(self, name: str) -> Told | None:
        """Return what is known of a watcher; names have no case in Circus."""
        watchers: list[Told] = self.told["watchers"] if self.told is not None else []
        return next((each for each in watchers if each["name"].lower() == name.lower()), None)

    def view(self, **more: object) -> dict[str, Any]:
        """Return what the page is shown of it."""
        told = self.told or {"circusd": None, "probers": [], "watchers": [], "sockets": []}
        circusd = told["circusd"]
        return {
            **told,
            "id": self.id,
            "label": self.label,
            "endpoint": self.endpoint,
            "reachable": self.is_reachable,
            "age": self.age(),
            **with_say(self.error, "error"),
            "circusd": circusd and {name: circusd.get(name) for name in ("pid", "version", "uptime")},
            **more,
        }

    def _ask(self) -> None:
        try:
            told = self._questions.ask()
        except Exception as error:  # the boundary of this thread: a circusd of another version may report anything
            is_ours = isinstance(error, XboardError)
            if not is_ours and (self.is_reachable or self.told is None):
                log.exception("The state of circusd at %s cannot be parsed", self.endpoint)
            self.error = one_line(str(error) if is_ours else Answer.UNREADABLE(error=repr(error)))
            self.is_reachable = False
            return
        self.told, self._answered_at = told, self._clock()
        self.is_reachable, self.error = True, None
        self.history.take(told["watchers"], now=self._answered_at, at=time.time())
