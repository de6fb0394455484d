"""Convert events of circusd's bus into records of the ledger. No effects."""

import math
from collections import deque

from xboard_circus.core.reason import Reason
from xboard_circus.ledger import Record
from xboard_circus.ledger.record import WHOLE_CHARS, record_of
from xboard_circus.ledger.story import DEATHS, KINDS
from xboard_circus.plugins._base import BusEvent

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
        self.lost = 0
        self._queue: deque[Record] = deque(maxlen=size)
        self._reaped: dict[tuple[str, int], tuple[Record, float]] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._reaped)

    @property
    def size(self) -> int:
        """Return the size of the queue."""
        return self._queue.maxlen or 0

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
