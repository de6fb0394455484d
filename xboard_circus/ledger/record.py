"""Convert one event into a record, and a record into a row of the database."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from xboard_circus.core.lost import LOST
from xboard_circus.core.reason import Reason, one_line, reason_in
from xboard_circus.core.sentences import as_heard, as_named, quote_all

REASON_CHARS, EVENT_REASON_CHARS, WHOLE_CHARS = 2000, 1000, 90_000
DATA_CHARS = 100_000  # holds the whole stacks of a hung worker with forty threads
# Names in an event that have a column of their own.
EVENT_COLUMNS = frozenset({"time", "pid", "process_pid", "wid", "cause", "reason", "say", "seq"})
# Of the data these are calculated with, or are keys.
FIGURES, LARGEST_FIGURE, DEEPEST_DATA = frozenset({"slot", "follows", "wait", "took"}), 1e9, 64
COLUMNS = "time, watcher, kind, pid, wid, cause, reason, data, say, seq"


class Record(NamedTuple):
    """One event.

    Attributes:
        time: Wall-clock time of the event, in seconds since 1970, for people.
        kind: Name of the event, such as ``restart`` or ``reap``.
        reason: A `Reason` where the event carried its data; plain text from an earlier version.
        data: The rest of the event.
        seq: Identity of the event, stored once: EPOCH-NUMBER of circusd, or from the content of Circus's own event;
            None: none.
        id: Place in the ledger, rising; None before it is stored.
        stored: False for one in circusd's memory that the ledger lacks.
    """

    time: float
    watcher: str
    kind: str
    pid: int | None = None
    wid: int | None = None
    cause: str | None = None
    reason: str = ""
    data: Mapping[str, Any] = {}
    id: int | None = None
    seq: str | None = None
    stored: bool = True


def record_of(watcher: str, kind: str, data: Mapping[str, Any], *, now: float, longest: int = WHOLE_CHARS) -> Record:
    """Return the record of an event of circusd's; every value is checked, because any sender may reach the bus.

    >>> record = record_of("web", "reap", {"process_pid": 71, "time": 1.5, "exit_code": -9}, now=2.0)
    >>> record.time, record.pid, record.data
    (1.5, 71, {'exit_code': -9})
    """
    time, cause, seq = _time(data.get("time")), data.get("cause"), data.get("seq")
    numbers = {name: data[name] for name in ("pid", "process_pid", "wid") if _whole(data.get(name)) is not None}
    pid = numbers.get("pid", numbers.get("process_pid"))
    if not isinstance(seq, str):
        # Circus numbers nothing, but every receiver of one of its events receives the same time.
        seq = f"{watcher} {kind} {pid} {data['time']}" if time is not None else None
    if kind == LOST and "gone_at" in data:
        # Its plugin may be killed between the record and its note of that; the next circusd then reports it again.
        seq = f"{kind} {pid}:{data.get('started')} {data['gone_at']}"
    time, cause = now if time is None else time, None if cause is None else str(cause)[:100]
    reason = reason_in(data, longest=EVENT_REASON_CHARS)
    rest = fitted({name: value for name, value in data.items() if name not in EVENT_COLUMNS}, longest)
    return Record(time, watcher, kind, pid, numbers.get("wid"), cause, reason, rest, seq=seq)


def fitted(data: Mapping[str, Any], longest: int) -> Mapping[str, Any]:
    """Shorten *data* to *longest* characters of JSON: long texts lose their end first, then the whole is cut.

    >>> fitted({"log": "x" * 100, "wait": 1}, 60)
    {'log': 'xxxxxxxxxxxx...', 'wait': 1}
    """
    text = json.dumps(data, default=str)
    if len(text) <= longest:
        return data
    room = longest // 4
    while room >= 5:
        texts = {key: value for key, value in data.items() if isinstance(value, str) and len(value) > room}
        short = {**data, **{key: f"{value[: room - 3]}..." for key, value in texts.items()}}
        if len(json.dumps(short, default=str)) <= longest:
            return short
        room //= 2
    return {"cut": text[: longest // 2]}


def row_of(record: Record, *, now: float) -> tuple[object, ...]:
    """Return a row of *record* that SQLite can store: the bus is open to others, so a record may hold anything."""
    data = json.dumps(dict(record.data), default=str)
    data = data if len(data) <= DATA_CHARS else json.dumps({"cut": data[: DATA_CHARS // 2]})
    say = json.dumps(record.reason.as_data()) if isinstance(record.reason, Reason) else None
    cause, seq = (each and _text(each, most) for each, most in ((record.cause, 200), (record.seq, 100)))
    at, watcher, kind = record.time, _text(record.watcher, 200), _text(record.kind, 100)
    of = (at if math.isfinite(at) else now, watcher, kind, _whole(record.pid), _whole(record.wid), cause)
    return (*of, _text(record.reason, REASON_CHARS), data, say, seq)


def record_of_row(row: tuple[Any, ...], other: str = "") -> Record | None:
    """Return the record in a row: its id, then `COLUMNS`; None for an invalid one.

    What it says is in quotes where the file is in the hands of an *other* user than root, who looks at it.

    Every user who may write the file, such as a watcher's, may put anything into a row.
    """
    number, at, watcher, kind, pid, wid, *texts = row
    cause, reason, text, say, seq = (each if isinstance(each, str) else None for each in texts)
    if (time := _time(at)) is None or not isinstance(watcher, str) or not isinstance(kind, str):
        return None
    reason, parsed = one_line(Reason.from_data(_parsed(say)) or "") or reason or "", _parsed(text)
    found = parsed if isinstance(parsed, dict) and not _is_deeper(parsed, DEEPEST_DATA) else {}
    data = {name: value for name, value in found.items() if name not in FIGURES or _is_figure(value)}
    if other:
        quote_all(data, other)
        watcher, reason = as_named(watcher, other), as_heard(reason, other)
    return Record(time, watcher, kind, _whole(pid), _whole(wid), cause, reason, data, number, seq)


def _parsed(text: str | None) -> object:
    """Parse a JSON *text*, without numbers that cannot be calculated with; None for an invalid one."""
    try:
        how: dict[str, Any] = {"parse_int": lambda digits: _whole(int(digits)), "parse_float": _float}
        return None if text is None else json.loads(text, parse_constant=_float, **how)
    except (ValueError, RecursionError):
        return None


def _is_deeper(value: object, most: int) -> bool:
    """Return whether objects and lists in *value* are nested more than *most* deep, which ends who goes through it."""
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_is_deeper(each, most - 1) for each in within)


def _is_figure(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and abs(value) < LARGEST_FIGURE)


def _float(text: str) -> float | None:
    return number if math.isfinite(number := float(text)) else None


def _time(value: object) -> float | None:
    """Return a valid wall-clock time: up to the year 9999."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 2.5e11 else None


def _text(value: object, limit: int) -> str:
    return str(value)[:limit].encode("utf-8", errors="replace").decode("utf-8")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
