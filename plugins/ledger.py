"""Record the events of the watchers in SQLite.

`LedgerRecorder` takes events off the bus and passes them to the store in batches, in a thread of its own. While the
store cannot take them they wait in memory, up to a fixed number; nothing else ever waits for the disk.
``[plugin:ledger] use = xboard_circus.plugins.ledger.Ledger`` runs it alone.
"""

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from xboard_circus.circus_client import CommandRefused
from xboard_circus.core.durations import backoff
from xboard_circus.core.lost import LOST
from xboard_circus.core.names import event_number
from xboard_circus.core.reason import Reason
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime
from xboard_circus.ledger import LedgerError, LedgerStore, Record, left_records
from xboard_circus.ledger.record import WHOLE_CHARS, record_of
from xboard_circus.ledger.story import DEATHS, KINDS
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin

log = logging.getLogger("xboard_circus.plugins.ledger")

FLUSH_EVERY = 0.5
LONGEST_RETRY = 30.0
PRUNE_EVERY = 600.0
ASK_AGAIN = 5.0
LONGEST_UNHEARD = 60.0
"""The longest pause between queries of events where none came from the bus: the last one may be lost there."""
BATCH = 200
BATCH_CHARS = 100_000
QUEUE = 5000
CLOSE_SECONDS, LOST_SECONDS = 2.0, 12.0
"""For the disk to take the last events; the second where one of them is that circusd is gone."""
LAST_WORDS = 0.2  # for events that circusd has published and that are not read from the bus yet
SHORT_CHARS = 2000
MANY = 200
REAP_WAITS = 2.0


class Waiting:
    """Queue the records that are not stored yet, the last *size* of them, each death once.

    Circus publishes ``reap`` for a death that our event reports a moment later, in full. Such a ``reap`` is kept for 2
    s, and dropped when the event comes.

    Attributes:
        lost: How many were pushed out by later ones.
    """

    def __init__(self, size: int) -> None:
        self.lost, self.size = 0, size
        self._queue: deque[Record] = deque(maxlen=size)
        self._reaped: dict[tuple[str, int], tuple[Record, float]] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._reaped)

    def take(self, event: BusEvent, *, now: float, wall_now: float) -> bool:
        """Queue an event; return whether it is of a kind that is recorded."""
        if event.kind not in KINDS:
            return False
        # A long queue means trouble with the disk; it must not become trouble with the memory.
        longest = WHOLE_CHARS if len(self._queue) < MANY else SHORT_CHARS
        record = record_of(event.watcher, event.kind, event.data, now=wall_now, longest=longest)
        if record.pid is not None:
            if record.kind == "reap" and len(self._reaped) < self.size:
                self._reaped[record.watcher, record.pid] = record, now
                return True
            if record.kind in DEATHS:
                self._reaped.pop((record.watcher, record.pid), None)
        self._push(record)
        return True

    def settle(self, now: float) -> None:
        """Queue each ``reap`` that was kept for long enough."""
        for key, (record, at) in list(self._reaped.items()):
            if now - at >= REAP_WAITS:
                del self._reaped[key]
                self._push(record)

    def settles_in(self, now: float) -> float:
        """Return the seconds until the next `settle` has work; infinite without any."""
        return min((at + REAP_WAITS - now for _, at in self._reaped.values()), default=math.inf)

    def take_over(self, records: Iterable[Record]) -> None:
        """Queue *records* of an earlier circusd."""
        for record in records:
            self._push(record)

    def put_in_order(self) -> None:
        """Sort by time, after late arrivals. No batch may be under way."""
        ordered = sorted(self._queue, key=lambda record: record.time)
        self._queue.clear()
        self._queue.extend(ordered)

    def batch(self, most: int, longest: int) -> list[Record]:
        """Return the first records, at most *most* of them and *longest* characters, but at least one."""
        chosen: list[Record] = []
        left = longest
        for record in self._queue:
            left -= _length(record)
            if len(chosen) == most or (chosen and left < 0):
                break
            chosen.append(record)
        return chosen

    def all(self) -> list[Record]:
        """Return all records to store now."""
        return list(self._queue)

    def done(self, number: int) -> None:
        """Drop the first *number*, which are stored."""
        for _ in range(number):
            self._queue.popleft()

    def has_any(self) -> bool:
        """Return whether there is anything to store now."""
        return bool(self._queue)

    def _push(self, record: Record) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.lost += 1
        self._queue.append(record)


def _length(record: Record) -> int:
    size = record.reason.size if isinstance(record.reason, Reason) else 0
    return 200 + size + sum(len(value) for value in record.data.values() if isinstance(value, str))


class Sequence:
    """Take each event once, and notice gaps.

    >>> sequence = Sequence()
    >>> sequence.caught_up("e", 3)
    >>> sequence.takes("e-4"), sequence.takes("e-4"), sequence.is_behind
    (True, False, False)
    >>> sequence.takes("e-6"), sequence.is_behind
    (True, True)

    Attributes:
        epoch: Names the circusd of these events; "" before the first.
        floor: All events up to this number are known.
        is_behind: Events are missing; query circusd for them.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.floor = 0
        self.is_behind = True
        self._seen: set[int] = set()

    def takes(self, name: object) -> bool:
        """Note an event by its ``seq``; return whether it is new. One without a ``seq`` always is."""
        if (known := event_number(name)) is None:
            return True
        epoch, place = known
        self._enter(epoch)
        if place <= self.floor or place in self._seen:
            return False
        self._seen.add(place)
        while self.floor + 1 in self._seen:
            self.floor += 1
            self._seen.discard(self.floor)
        self.is_behind = self.is_behind or bool(self._seen)
        return True

    def caught_up(self, epoch: str, last: int) -> None:
        """Note that circusd has answered with all events that it keeps, up to number *last*."""
        self._enter(epoch)
        self.floor = max(self.floor, last)
        self._seen = {place for place in self._seen if place > self.floor}
        self.is_behind = bool(self._seen)

    def _enter(self, epoch: str) -> None:
        if epoch != self.epoch:
            self.epoch, self.floor, self.is_behind = epoch, 0, True
            self._seen.clear()


class LedgerRecorder(Part):
    """Store every event of a known kind, half a second late.

    Events that could not be stored stay queued and are retried with a backoff of up to 30 s. Past *queue* records the
    oldest is lost, and counted. Those that wait at the end, as in a restart on a full disk, are saved in the file
    *left* for the next recorder.
    """

    name = "ledger"
    period = FLUSH_EVERY

    def __init__(
        self,
        store: LedgerStore,
        *,
        commands: Commands,
        queue: int = QUEUE,
        left: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
        **seams: Any,
    ) -> None:
        super().__init__(commands, **seams)
        self._store, self._left, self._has_begun = store, left, False
        self._sequence = Sequence()
        self._query_at = -math.inf
        self._recheck_pause, self._recheck_at = 0.5, math.inf
        self._waiting = Waiting(queue)
        self._wall_clock = wall_clock
        # One batch at a time, because a second would store the first one's records again.
        self._lock = asyncio.Lock()
        self._failures = 0
        self._trouble: LedgerError | None = None
        self._prune_at = -math.inf
        self._has_loss = False

    def handle_event(self, event: BusEvent) -> float | None:
        """Queue an event, and request a tick in half a second: events that come together are stored together."""
        self._has_loss = self._has_loss or event.kind == LOST
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
        if self._left is not None and not self._has_begun:
            self._waiting.take_over(await self.in_thread(left_records.load, self._left))
            self._waiting.put_in_order()
        self._has_begun = True
        if self._queries_in(self._clock()) <= 0:
            await self._catch_up()
        self._waiting.settle(self._clock())
        if not await self._flush():
            return backoff(self._failures, first=2 * FLUSH_EVERY, longest=LONGEST_RETRY)
        if self._left is not None:
            with suppress(OSError):
                self._left.unlink()  # all of it is stored by now
        # Events that came meanwhile have requested a tick of their own.
        now = self._clock()
        return max(FLUSH_EVERY, min(self._prune_at - now, self._waiting.settles_in(now), self._queries_in(now)))

    async def close(self) -> bool:
        """Store what is queued, if that takes only a moment; return whether it did."""
        await asyncio.sleep(LAST_WORDS)
        self._waiting.settle(math.inf)
        try:
            await asyncio.wait_for(self._flush(), LOST_SECONDS if self._has_loss else CLOSE_SECONDS)
            await asyncio.wait_for(self.in_thread(self._store.close), CLOSE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            log.error("ledger: the disk does not answer")
        if self._waiting.has_any():
            self._leave()
        return not self._waiting.has_any()

    def _leave(self) -> None:
        """Save for the next recorder what this one could not store, and log what is lost."""
        records = self._waiting.all()
        lost, why = len(records), "no circusd of ours runs this"
        if self._left is not None:
            try:
                lost, why = left_records.save(self._left, records, now=self._wall_clock()), "they are too many"
            except OSError as error:
                why = f"{self._left} cannot be written: {error.strerror}"
        if lost < len(records):
            log.warning("ledger: %d events wait in %s for the next circusd", len(records) - lost, self._left)
        if lost:
            log.error("ledger: %d events are lost: %s", lost, why)

    def _queries_in(self, now: float) -> float:
        """Return the seconds until circusd is to be queried: at a gap, and now and then without one.

        Nothing shows that the last event is lost. The bus loses what is published before it knows of a subscription.
        """
        return max(self._query_at, -math.inf if self._sequence.is_behind else self._recheck_at) - now

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
        self._recheck_pause = min(2 * self._recheck_pause, LONGEST_UNHEARD)
        self._recheck_at = self._clock() + self._recheck_pause

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
    instance, name = os.environ.get("XBOARD_INSTANCE"), plugin.config.get("name") or plugin.name
    left = runtime.state_root_path() / instance / f"{runtime.safe_name(name)}-left.json" if instance else None
    return [LedgerRecorder(store, commands=plugin.commands, left=left)]


class Ledger(XboardPlugin):
    """Run the recorder alone in a process."""

    name = "ledger"
    parts = recorder_of
