"""Write what happens to the watchers into SQLite.

`LedgerRecorder` takes events off the bus and hands them to the store in batches, in a thread of its own. While the
store cannot take them they wait in memory, as many as fit into a fixed number; nothing else ever waits for the disk.
``[plugin:ledger] use = xboard_circus.plugins.ledger.Ledger`` runs it alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeGuard

from xboard_circus.ledger import LedgerError, LedgerStore, Record
from xboard_circus.plugins._base import BusEvent, Part, XboardPlugin

log = logging.getLogger("xboard_circus.plugins.ledger")

OURS = frozenset({"restart", "cooldown", "recovered", "unhealthy", "port_freed", "port_refused"})
CIRCUS = frozenset({"spawn", "reap", "kill", "start", "stop"})
KINDS = OURS | CIRCUS
FLUSH_EVERY = 0.5
LONGEST_RETRY = 30.0
PRUNE_EVERY = 600.0
BATCH = 200
QUEUE = 5000
DATA_CHARS, REASON_CHARS = 2000, 1000
CLOSE_SECONDS = 2.0


class LedgerRecorder:
    """Stores every event of a known kind, half a second late.

    What the store refuses stays queued and is tried again, after longer and longer pauses up to 30 s. Past *queue*
    records the oldest is lost, and counted.
    """

    name = "ledger"
    period = FLUSH_EVERY

    def __init__(
        self,
        store: LedgerStore,
        *,
        queue: int = QUEUE,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._queue: deque[Record] = deque(maxlen=queue)
        self._clock = clock
        self._wall_clock = wall_clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        # One batch at a time: a second would store the first one's records again.
        self._lock: asyncio.Lock | None = None
        self._lost = 0
        self._failures = 0
        self._trouble: LedgerError | None = None
        self._prune_at = -math.inf

    @property
    def waiting(self) -> int:
        """How many records are not stored yet."""
        return len(self._queue)

    def handle_event(self, event: BusEvent) -> float | None:
        """Queue an event, and call for a tick in half a second: what comes together is stored together."""
        if event.kind not in KINDS:
            return None
        if len(self._queue) == self._queue.maxlen:
            self._lost += 1
        self._queue.append(record_of(event, now=self._wall_clock()))
        # While the store takes nothing, the pauses between the tries must not shrink with each event.
        return None if self._failures else FLUSH_EVERY

    async def tick(self) -> float:
        """Store what is queued."""
        if await self._flush():
            # What came meanwhile has called for its own tick.
            return max(FLUSH_EVERY, self._prune_at - self._clock())
        return float(min(FLUSH_EVERY * 2**self._failures, LONGEST_RETRY))

    async def close(self) -> None:
        """Store what is queued, if that can be done in a moment."""
        try:
            await asyncio.wait_for(self._flush(), CLOSE_SECONDS)
            await asyncio.wait_for(self._in_thread(self._store.close), CLOSE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            log.error("ledger: %d events are lost: the disk does not answer", len(self._queue))

    async def _flush(self) -> bool:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            try:
                while self._queue:
                    await self._store_batch()
                await self._prune_if_due()
            except LedgerError as error:
                self._failed(error)
                return False
        return True

    async def _store_batch(self) -> None:
        batch = [self._queue[place] for place in range(min(BATCH, len(self._queue)))]
        lost = self._lost
        await self._in_thread(lambda: self._store.append(batch))
        # Whatever was pushed out at the front meanwhile was in the batch, so it is neither queued nor lost.
        pushed_out = min(self._lost - lost, len(batch))
        self._lost -= pushed_out
        for _ in range(len(batch) - pushed_out):
            self._queue.popleft()
        self._succeeded()

    async def _prune_if_due(self) -> None:
        if self._clock() >= self._prune_at:
            more = await self._in_thread(self._store.prune)
            self._prune_at = self._clock() + (0.0 if more else PRUNE_EVERY)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _failed(self, error: LedgerError) -> None:
        self._failures += 1
        if self._trouble is None or self._trouble.trouble is not error.trouble:
            log.error("%s; events wait in memory, the last %d of them", error, self._queue.maxlen)
        self._trouble = error

    def _succeeded(self) -> None:
        if self._trouble is not None:
            log.warning("ledger: written again after %d failures, %d events were lost", self._failures, self._lost)
        self._trouble, self._failures, self._lost = None, 0, 0


class Ledger(XboardPlugin):
    """The recorder alone in a process."""

    name = "ledger"

    def parts(self) -> list[Part]:
        """Return the recorder."""
        return [recorder_of(self)]


def recorder_of(plugin: XboardPlugin) -> LedgerRecorder:
    """Return a recorder for the file that the options of *plugin* name."""
    options = plugin.options.ledger
    return LedgerRecorder(
        LedgerStore(plugin.path(options.file), keep_days=options.keep_days, max_mb=float(options.max_mb))
    )


def record_of(event: BusEvent, *, now: float) -> Record:
    """Return what is kept of *event*; it may come from anybody who reaches the bus, so nothing in it is trusted.

    >>> record = record_of(BusEvent("web", "reap", {"process_pid": 71, "time": 1.5, "exit_code": -9}), now=2.0)
    >>> record.time, record.pid, record.data
    (1.5, 71, {'exit_code': -9})
    """
    rest = dict(event.data)
    at = rest.pop("time", None)
    pids = [rest.pop(name, None) for name in ("pid", "process_pid")]
    cause, reason = rest.pop("cause", None), rest.pop("reason", None)
    return Record(
        time=float(at) if _is_number(at) else now,
        watcher=event.watcher,
        kind=event.kind,
        pid=next((pid for pid in pids if _is_whole(pid)), None),
        wid=wid if _is_whole(wid := rest.pop("wid", None)) else None,
        cause=None if cause is None else str(cause)[:100],
        reason="" if reason is None else str(reason)[:REASON_CHARS],
        data=_short(rest),
    )


def _short(data: Mapping[str, Any]) -> Mapping[str, Any]:
    text = json.dumps(data, default=str)
    return data if len(text) <= DATA_CHARS else {"cut": text[:DATA_CHARS]}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and abs(value) < 1e12


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and abs(value) < 1 << 62
