"""From events of circusd's bus to records of the ledger. No effects."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeGuard

from xboard_circus.core.reason import Reason, reason_in
from xboard_circus.ledger import Record
from xboard_circus.ledger.story import DEATHS, KINDS
from xboard_circus.plugins._base import BusEvent

REASON_CHARS = 1000
WHOLE_CHARS, SHORT_CHARS = 90_000, 2000
MANY = 200
REAP_WAITS = 2.0


class Waiting:
    """Records that are not stored yet, the last *size* of them, each death once.

    Circus says ``reap`` of a process of which circusd tells in the next moment, with all that is known: such a ``reap``
    is kept back for 2 s, and dropped when the other comes.

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
        """How many there can be."""
        return self._queue.maxlen or 0

    def take(self, event: BusEvent, *, now: float, wall_now: float) -> bool:
        """Note an event; return whether it is of a kind that is recorded."""
        if event.kind not in KINDS:
            return False
        # With many in the queue the disk has a problem, and the memory shall not have one.
        record = record_of(event, now=wall_now, longest=WHOLE_CHARS if len(self._queue) < MANY else SHORT_CHARS)
        if record.pid is not None:
            if record.kind == "reap" and len(self._reaped) < self.size:
                self._reaped[record.watcher, record.pid] = record, now
                return True
            if record.kind in DEATHS:
                self._reaped.pop((record.watcher, record.pid), None)
        self._push(record)
        return True

    def settle(self, now: float) -> None:
        """Let go what was kept back for long enough."""
        for key, (record, at) in list(self._reaped.items()):
            if now - at >= REAP_WAITS:
                del self._reaped[key]
                self._push(record)

    def settles_in(self, now: float) -> float:
        """Return the seconds until one that is kept back has to be let go; infinite where none is."""
        return min((at + REAP_WAITS - now for _, at in self._reaped.values()), default=math.inf)

    def put_in_order(self) -> None:
        """Sort by time, after some came late. Nobody may be at work on a batch."""
        ordered = sorted(self._queue, key=lambda record: record.time)
        self._queue.clear()
        self._queue.extend(ordered)

    def batch(self, most: int, longest: int) -> list[Record]:
        """Return the first ones: at most so many, and so many characters unless one alone has more."""
        chosen: list[Record] = []
        left = longest
        for record in self._queue:
            left -= _length(record)
            if len(chosen) == most or (chosen and left < 0):
                break
            chosen.append(record)
        return chosen

    def done(self, number: int) -> None:
        """Drop the first *number*: they are stored."""
        for _ in range(number):
            self._queue.popleft()

    def has_any(self) -> bool:
        """Say whether there is anything to store now."""
        return bool(self._queue)

    def _push(self, record: Record) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.lost += 1
        self._queue.append(record)


def record_of(event: BusEvent, *, now: float, longest: int = WHOLE_CHARS) -> Record:
    """Return what is kept of *event*; it may come from anybody who reaches the bus, so nothing in it is trusted.

    >>> record = record_of(BusEvent("web", "reap", {"process_pid": 71, "time": 1.5, "exit_code": -9}), now=2.0)
    >>> record.time, record.pid, record.data
    (1.5, 71, {'exit_code': -9})
    """
    rest = dict(event.data)
    at = rest.pop("time", None)
    pids = [rest.pop(name, None) for name in ("pid", "process_pid")]
    cause = rest.pop("cause", None)
    reason = reason_in(rest, longest=REASON_CHARS)
    seq = rest.pop("seq", None)
    for name in ("reason", "say"):
        rest.pop(name, None)
    pid = next((pid for pid in pids if _is_whole(pid)), None)
    if not isinstance(seq, str):
        # Circus numbers nothing, but whoever receives one of its events receives the same time.
        seq = f"{event.watcher} {event.kind} {pid} {at}" if _is_number(at) else None
    return Record(
        time=float(at) if _is_number(at) else now,
        watcher=event.watcher,
        kind=event.kind,
        pid=pid,
        wid=wid if _is_whole(wid := rest.pop("wid", None)) else None,
        cause=None if cause is None else str(cause)[:100],
        reason=reason,
        data=fitted(rest, longest),
        seq=seq,
    )


def fitted(data: Mapping[str, Any], longest: int) -> Mapping[str, Any]:
    """Return *data* in at most *longest* characters of JSON: long texts lose their end first, then all is cut.

    >>> fitted({"log": "x" * 100, "wait": 1}, 60)
    {'log': 'xxxxxxxxxxxx...', 'wait': 1}
    """
    text = json.dumps(data, default=str)
    if len(text) <= longest:
        return data
    room = longest // 4
    while room >= 5:
        short = {
            key: f"{value[: room - 3]}..." if isinstance(value, str) and len(value) > room else value
            for key, value in data.items()
        }
        if len(json.dumps(short, default=str)) <= longest:
            return short
        room //= 2
    return {"cut": text[: longest // 2]}


def _length(record: Record) -> int:
    said = record.reason.size if isinstance(record.reason, Reason) else 0
    return 200 + said + sum(len(value) for value in record.data.values() if isinstance(value, str))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and abs(value) < 1e12


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and abs(value) < 1 << 62
