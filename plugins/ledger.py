"""Record the events of the watchers in SQLite.

`LedgerRecorder` takes events off the bus and passes them to the store in batches, in a thread of its own. While the
store cannot take them they wait in memory, up to a fixed number; nothing else ever waits for the disk.
``[plugin:ledger] use = xboard_circus.plugins.ledger.Ledger`` runs it alone.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from xboard_circus.circus_client import CommandRefused
from xboard_circus.core.durations import backoff
from xboard_circus.errors import XboardError
from xboard_circus.ledger import LedgerError, LedgerStore
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin
from xboard_circus.plugins._records import Waiting
from xboard_circus.plugins._sequence import Sequence

log = logging.getLogger("xboard_circus.plugins.ledger")

FLUSH_EVERY = 0.5
LONGEST_RETRY = 30.0
PRUNE_EVERY = 600.0
ASK_AGAIN = 5.0
BATCH = 200
BATCH_CHARS = 100_000
QUEUE = 5000
CLOSE_SECONDS = 2.0
LAST_WORDS = 0.2  # for events that circusd has published and that are not read from the bus yet


class LedgerRecorder(Part):
    """Store every event of a known kind, half a second late.

    Events that could not be stored stay queued and are retried with a backoff of up to 30 s. Past *queue* records the
    oldest is lost, and counted.
    """

    name = "ledger"
    period = FLUSH_EVERY

    def __init__(
        self,
        store: LedgerStore,
        *,
        commands: Commands,
        queue: int = QUEUE,
        wall_clock: Callable[[], float] = time.time,
        **seams: Any,
    ) -> None:
        super().__init__(commands, **seams)
        self._store = store
        self._sequence = Sequence()
        self._query_at = -math.inf
        self._waiting = Waiting(queue)
        self._wall_clock = wall_clock
        # One batch at a time, because a second would store the first one's records again.
        self._lock = asyncio.Lock()
        self._failures = 0
        self._trouble: LedgerError | None = None
        self._prune_at = -math.inf

    @property
    def waiting(self) -> int:
        """Return how many records are not stored yet."""
        return len(self._waiting)

    def handle_event(self, event: BusEvent) -> float | None:
        """Queue an event, and request a tick in half a second: events that come together are stored together."""
        numbered = event.data.get("seq")
        if not self._sequence.takes(numbered):
            return None
        if numbered is not None and self._query_at == math.inf:
            self._query_at = -math.inf  # a watcher has been armed, so circusd knows the command now
        if not self._waiting.take(event, now=self._clock(), wall_now=self._wall_clock()):
            return None
        # While the store fails, the pauses between the tries must not shrink with each event.
        return None if self._failures else FLUSH_EVERY

    async def tick(self) -> float:
        """Store what is queued."""
        if self._sequence.is_behind and self._clock() >= self._query_at:
            await self._catch_up()
        self._waiting.settle(self._clock())
        if not await self._flush():
            return backoff(self._failures, first=2 * FLUSH_EVERY, longest=LONGEST_RETRY)
        # Events that came meanwhile have requested a tick of their own.
        now = self._clock()
        due = [self._prune_at - now, self._waiting.settles_in(now)]
        if self._sequence.is_behind:
            due.append(self._query_at - now)
        return max(FLUSH_EVERY, min(due))

    async def close(self) -> None:
        """Store what is queued, if that takes only a moment."""
        await asyncio.sleep(LAST_WORDS)
        self._waiting.settle(math.inf)
        try:
            await asyncio.wait_for(self._flush(), CLOSE_SECONDS)
            await asyncio.wait_for(self.in_thread(self._store.close), CLOSE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            log.error("ledger: %d events are lost: the disk does not answer", len(self._waiting))

    async def _catch_up(self) -> None:
        """Query circusd for the events that the bus lost; the store skips those that it has."""
        try:
            missed = await self._commands.call("xboard_events", after=self._sequence.floor)
        except XboardError as error:
            log.debug("ledger: earlier events are unknown: %s", error)
            # A circusd without an armed watcher does not know the command, and has no events of ours.
            self._query_at = math.inf if isinstance(error, CommandRefused) else self._clock() + ASK_AGAIN
            return
        async with self._lock:
            for watcher, kind, data in missed["events"]:
                self.handle_event(BusEvent(watcher, kind, data))
            self._waiting.put_in_order()
        self._sequence.caught_up(str(missed["epoch"]), int(missed["last"]))

    async def _flush(self) -> bool:
        """Store what is queued, and prune; return whether that succeeded."""
        async with self._lock:
            try:
                while self._waiting.has_any():
                    await self._store_batch()
                if self._clock() >= self._prune_at:
                    has_more = await self.in_thread(self._store.prune)
                    self._prune_at = self._clock() + (0.0 if has_more else PRUNE_EVERY)
            except LedgerError as error:
                self._failures += 1
                if self._trouble is None or self._trouble.trouble is not error.trouble:
                    log.error("%s; events wait in memory, the last %d of them", error, self._waiting.size)
                self._trouble = error
                return False
        if self._trouble is not None:
            lost = self._waiting.lost
            log.warning("ledger: written again after %d failures, %d events were lost", self._failures, lost)
        self._trouble, self._failures, self._waiting.lost = None, 0, 0
        return True

    async def _store_batch(self) -> None:
        waiting = self._waiting
        batch = waiting.batch(BATCH, BATCH_CHARS)
        lost = waiting.lost
        await self.in_thread(self._store.append, batch)
        # Records pushed out at the front meanwhile were in the batch, so they are neither queued nor lost.
        pushed_out = min(waiting.lost - lost, len(batch))
        waiting.lost -= pushed_out
        waiting.done(len(batch) - pushed_out)


def recorder_of(plugin: XboardPlugin) -> list[Part]:
    """Return the recorder of a plugin process."""
    options = plugin.options.ledger
    store = LedgerStore(plugin.path(options.file), keep_days=options.keep_days, max_mb=float(options.max_mb))
    return [LedgerRecorder(store, commands=plugin.commands)]


class Ledger(XboardPlugin):
    """Run the recorder alone in a process."""

    name = "ledger"
    parts = recorder_of
