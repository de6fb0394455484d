"""Record the traffic that workers report: rates and gauges over a week, and counters for `/metrics`.

It stays in the process of the prober: circusd needs none of it, and 200 busy workers report hundreds of KiB in a round.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from xboard_circus.core.durations import backoff
from xboard_circus.core.history import Point, WatcherHistory
from xboard_circus.ledger import LedgerError
from xboard_circus.ledger.history_store import HistoryStore, Totals, read_totals
from xboard_circus.plugins._base import Commands, Part
from xboard_circus.plugins._sightings import ProbeRound, key

log = logging.getLogger("xboard_circus.plugins.traffic_recorder")

FLUSH_EVERY = 4.0
LONGEST_RETRY = 30.0
MOST_POINTS = 3000
CLOSE_SECONDS = 2.0
LOOK_SECONDS = 1.0


class TrafficRecorder(Part):
    """Make points of the rounds of probes, and store them in a thread of its own, some seconds late.

    While the disk takes nothing, the last `MOST_POINTS` points wait in memory; nothing else waits for the disk.
    """

    name = "traffic_recorder"
    period = FLUSH_EVERY

    def __init__(
        self, commands: Commands, store: HistoryStore, *, wall_clock: Callable[[], float] = time.time, **seams: Any
    ) -> None:
        super().__init__(commands, **seams)
        self._store = store
        self._wall_clock = wall_clock
        self._stored: dict[str, Totals] | None = None  # by an earlier plugin; None until they are read
        self._watchers: dict[str, WatcherHistory] = {}
        self._points: deque[tuple[str, Point]] = deque(maxlen=MOST_POINTS)
        self._folders: dict[str, str] = {}  # by watcher that of its log, or of this history
        self._free: Mapping[str, float] = {}
        self._looker = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-disks")
        self._look: asyncio.Future[dict[str, float]] | None = None
        self._failures = 0

    def take(self, finding: ProbeRound) -> None:
        """Take the sightings of a round of probes."""
        if self._stored is None:
            return
        name, now = finding.view["name"], self._clock()
        if name not in self._watchers:
            stored = self._stored.get(name)
            known: Any = {} if stored is None else {"totals": stored.traffic, "until": stored.until}
            self._watchers[name] = WatcherHistory(now=now, **known)
        slots = {key(worker): worker["slot"] for worker in finding.view["workers"]}
        reports = {worker: (slots[worker], seen.report) for worker, seen in finding.seen.items() if seen.report}
        output = finding.view["output"]
        log_file = "" if output is None else output["file"] or ""
        self._folders[name] = os.path.dirname(log_file) or str(self._store.path.parent)
        at, disk = self._wall_clock(), self._free.get(name)
        points = self._watchers[name].take(reports, alive=slots, now=now, at=at, disk=disk)
        self._points += [(name, point) for point in points]

    async def tick(self) -> float:
        """Store the points since the last tick, and look how much is free on the disks."""
        await self._look_at_disks()
        await self._flush()
        return backoff(self._failures, first=FLUSH_EVERY, longest=LONGEST_RETRY) if self._failures else FLUSH_EVERY

    async def _look_at_disks(self) -> None:
        """Look how much is free; a disk that does not answer, such as one of a network, holds up nothing else."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(self._looker, _free_in, {**self._folders})
        done, _ = await asyncio.wait({self._look}, timeout=LOOK_SECONDS)
        self._free = self._look.result() if done else {}

    async def close(self) -> None:
        """Store what is queued, if that takes only a moment."""
        for name, history in self._watchers.items():
            self._points += [(name, point) for point in history.close()]
        await asyncio.wait_for(self._flush(), CLOSE_SECONDS)
        self._thread.submit(self._store.close)

    async def _flush(self) -> None:
        try:
            if self._stored is None:
                self._stored = await self.in_thread(read_totals, self._store.path)
                return
            if points := [*self._points]:
                now, names = self._clock(), {name for name, _ in points}
                totals = {name: Totals(now, self._watchers[name].as_report()) for name in names}
                await self.in_thread(self._store.write, points, totals)
        except LedgerError as error:
            self._stored = self._stored or {}
            self._failures += 1
            if self._failures == 1:
                log.error("history of traffic: %s; the last %d points wait in memory", error, MOST_POINTS)
            return
        if self._failures:
            log.warning("history of traffic: written again after %d failures", self._failures)
        self._failures = 0
        for point in points:  # later ones stay; a full queue has dropped some of these already
            if self._points and self._points[0] is point:
                self._points.popleft()


def _free_in(folders: Mapping[str, str]) -> dict[str, float]:
    """Return by watcher the bytes that a plain user may still write into its folder."""
    found = {}
    for name, folder in folders.items():
        with suppress(OSError):
            room = os.statvfs(folder)
            found[name] = float(room.f_bavail * room.f_frsize)
    return found
