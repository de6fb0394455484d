"""Poll one circusd in the background: in a thread, its answer kept with its age, never waited for."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from xboard_circus.core.headlines import Answering, Headline, Recent, gone, headlines
from xboard_circus.core.reason import one_line, with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.circusd_queries import CircusdQueries, Clock, Data
from xboard_circus.dashboard.settings import LOCAL
from xboard_circus.errors import XboardError
from xboard_circus.host import procs
from xboard_circus.host.servers import EndpointServer
from xboard_circus.local_time import since
from xboard_circus.survivors import served, serving_on

log = logging.getLogger("uvicorn.error")

HISTORY, HISTORY_STEP = 300.0, 2.0  # seconds
MOST_WORKERS = 2048  # another user's circusd could name thousands of new ones at each poll, a GiB in all
STALE = 8.0  # seconds without an answer after which circusd counts as gone
_OF_CIRCUSD = ("pid", "version", "uptime", "cpu", "rss")
Point = tuple[float, float | None, int | None, float | None]


class History:
    """Processor use, memory and probe latency of each worker of one circusd, every 2 s for 5 minutes."""

    def __init__(self) -> None:
        self._rings: dict[str, deque[Point]] = {}
        self._taken_at = float("-inf")

    def take(self, watchers: Iterable[Mapping[str, Any]], *, now: float, at: float) -> None:
        """Record a point of each worker when it is due; *now* is monotonic, *at* the wall time that is shown."""
        if now - self._taken_at < HISTORY_STEP - 0.1:
            return
        self._taken_at = now
        for watcher in watchers:
            for worker in watcher["workers"]:
                key, empty = f"{worker['pid']}:{worker['started']}", deque[Point](maxlen=int(HISTORY / HISTORY_STEP))
                if key in self._rings or len(self._rings) < MOST_WORKERS:
                    ring = self._rings.setdefault(key, empty)
                    ring.append((round(at, 1), worker["cpu"], worker["rss"], worker["latency"]))
        for key in [key for key, ring in self._rings.items() if ring[-1][0] < at - HISTORY]:
            del self._rings[key]

    def view(self) -> dict[str, Any]:
        """Return the JSON of ``/api/history``."""
        names = ("t", "cpu", "rss", "latency")
        workers = {
            key: dict(zip(names, map(list, zip(*points, strict=True)), strict=True))
            for key, points in [(key, list(ring)) for key, ring in list(self._rings.items())]
        }
        return {"step": HISTORY_STEP, "workers": workers}


class Server:
    """Keep the last answer of the circusd at *endpoint*, and its time.

    Attributes:
        state: Its last good answer; None before the first.
        listener: Who gave that, and so who gets the orders of the page.
        owner: See `servers.users_of`: who added it says where it is, and the circusd beside us is root's or ours.
        is_reachable: It answered the last poll.
        error: The error in place of an answer.
        was_polled: Set once the first poll is over, answered or not.
    """

    def __init__(self, server_id: str, label: str, endpoint: str, *, deadline: float, clock: Clock = time.monotonic):
        self.id, self.label, self.endpoint = server_id, label, endpoint
        self.state: Data | None = None
        self.listener: EndpointServer | None = None
        self.is_reachable = False
        self.error: str | None = Answer.NOT_ASKED()
        self.history = History()
        self._clock, self._answered_at = clock, 0.0
        self.owner = 0 if server_id == LOCAL else None
        self._queries = CircusdQueries(endpoint, deadline=deadline, owner=self.owner, clock=clock)
        # A pool of one thread for each, so that a circusd that hangs, or a slow name look-up, delays no other.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"circusd-{server_id}")
        self._poll_now = asyncio.Event()
        self.was_polled = asyncio.Event()
        self._is_dead: bool | None = None
        self._is_others = True
        self._serving_on: list[Answering] = []
        self._task: asyncio.Task[None] | None = None

    def start(self, period: Callable[[], float]) -> None:
        """Poll from now on, with a pause of *period* between the beginnings of two polls; once is enough."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(period), name=f"poll {self.endpoint}")

    async def _run(self, period: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_at = self._clock()
            self._poll_now.clear()
            await loop.run_in_executor(self._pool, self._poll)
            self.was_polled.set()
            wait = began_at + period() - self._clock()
            if wait > 0:
                with anyio.move_on_after(wait):
                    await self._poll_now.wait()

    def poll_soon(self) -> None:
        """Poll now instead of at the end of the pause."""
        self._poll_now.set()

    def close(self) -> None:
        """Stop polling; the thread ends when its poll is over."""
        if self._task is not None:
            self._task.cancel()
        self._pool.submit(self._queries.client.close)
        self._pool.shutdown(wait=False)

    def age(self) -> float | None:
        """Return the seconds since the last good answer."""
        return None if self.state is None else round(self._clock() - self._answered_at, 2)

    def watcher(self, name: str) -> Data | None:
        """Return what is known of a watcher; names have no case in Circus."""
        watchers: list[Data] = (self.state or {"watchers": []})["watchers"]
        return next((each for each in watchers if each["name"].lower() == name.lower()), None)

    def troubled(self) -> list[str]:
        """Return the watchers that have an incident."""
        watchers = self.state["watchers"] if self.state is not None else []
        return [each["name"] for each in watchers if each["incident"] is not None]

    def headlines(self, traffic: Recent | None) -> list[Headline]:
        """Return what the page begins with."""
        age, aged = self.age(), since(time.time())
        if not self.is_reachable and (self._is_dead or age is None or age > STALE):
            why = str(self.error)
            return [gone(age=age, why=why, is_dead=self._is_dead, serving_on=self._serving_on, aged=aged)]
        if self.state is None:
            return []
        return headlines(self.state["watchers"], elapsed=age or 0.0, aged=aged, traffic=traffic)

    def view(self, traffic: Recent | None = None, **more: object) -> dict[str, Any]:
        """Return its part of the page's state."""
        state = self.state or {"circusd": None, "probers": [], "watchers": [], "sockets": []}
        circusd = state["circusd"]
        own = {"id": self.id, "label": self.label, "endpoint": self.endpoint, "reachable": self.is_reachable}
        own |= {"age": self.age(), **with_say(self.error, "error"), "headlines": self.headlines(traffic)}
        own["traffic"] = {} if traffic is None else traffic["watchers"]
        own["circusd"] = circusd and {name: circusd.get(name) for name in _OF_CIRCUSD}
        return {**state, **own, **more}

    def _poll(self) -> None:
        try:
            state = self._queries.state()
        except Exception as error:  # the boundary of this thread: a circusd of another version may report anything
            is_ours = isinstance(error, XboardError)
            if not is_ours and (self.is_reachable or self.state is None):
                log.exception("The state of circusd at %s cannot be parsed", self.endpoint)
            self._look_after_workers()
            self.error = one_line(str(error) if is_ours else Answer.UNREADABLE(error=repr(error)))
            self.is_reachable = False
            return
        self.state, self._answered_at, self.listener = state, self._clock(), self._queries.client.listener
        self.is_reachable, self.error, self._is_dead, self._serving_on = True, None, None, []
        self._is_others = bool(self._queries.client.others)
        self.history.take(state["watchers"], now=self._answered_at, at=time.time())

    def _look_after_workers(self) -> None:
        """Find whether a circusd of this host that does not answer has ended, and which ports answer without it.

        Another user's is as one of another host: it could name any address, and our request may have rights there.
        """
        if self.state is None or not self._queries.is_here or self._is_others:
            return
        pid, started = self.state["circusd"]["pid"], self.state["circusd"]["started"]
        self._is_dead, self._serving_on = not procs.is_running(pid, started), []
        if self._is_dead or (self.age() or 0.0) > STALE:
            self._serving_on = serving_on(served(self.state["watchers"]))
