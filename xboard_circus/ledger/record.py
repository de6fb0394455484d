"""One record, and how it lies in a row of the database."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.reason import Reason, one_line

REASON_CHARS = 2000
DATA_CHARS = 100_000  # the stacks of a hung worker with forty threads are whole in it
COLUMNS = "time, watcher, kind, pid, wid, cause, reason, data, say, seq"


@dataclass(frozen=True, slots=True)
class Record:
    """One event.

    Attributes:
        time: When it happened, in seconds since 1970 by the wall clock: it is for people to read.
        kind: Name of the event, such as ``restart`` or ``reap``.
        reason: A `Reason` where the event carried its data; plain text for one of an earlier version.
        data: Whatever else the event carried.
        seq: Identity of the event, stored once: EPOCH-NUMBER of circusd, or what Circus's own event holds; None: none.
        id: Place in the ledger, rising; None before it is stored.
    """

    time: float
    watcher: str
    kind: str
    pid: int | None = None
    wid: int | None = None
    cause: str | None = None
    reason: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
    seq: str | None = None


def row_of(record: Record, *, now: float) -> tuple[object, ...]:
    """Return what SQLite can store of *record*: the bus is open to others, so a record may hold anything."""
    data = json.dumps(dict(record.data), default=str)
    return (
        record.time if math.isfinite(record.time) else now,
        _text(record.watcher, 200),
        _text(record.kind, 100),
        _whole(record.pid),
        _whole(record.wid),
        None if record.cause is None else _text(record.cause, 200),
        _text(record.reason, REASON_CHARS),
        data if len(data) <= DATA_CHARS else json.dumps({"cut": data[: DATA_CHARS // 2]}),
        json.dumps(record.reason.as_data()) if isinstance(record.reason, Reason) else None,
        None if record.seq is None else _text(record.seq, 100),
    )


def record_of_row(row: tuple[Any, ...]) -> Record:
    """Return the record in a row: its id, then `COLUMNS`."""
    number, at, watcher, kind, pid, wid, cause, reason, data, say, seq = row
    parsed = _parsed(data)
    said = Reason.from_data(_parsed(say)) if say else None
    reason = reason if said is None else one_line(said)
    return Record(at, watcher, kind, pid, wid, cause, reason, parsed if isinstance(parsed, dict) else {}, number, seq)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(value: object, limit: int) -> str:
    return str(value)[:limit].encode("utf-8", errors="replace").decode("utf-8")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
