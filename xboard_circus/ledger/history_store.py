"""Keep the history of watchers in a SQLite file beside the ledger: points of `core.history`, and totals by route.

A table for each step; points are added at its end and deleted at its start, so pages are full, and given back. The id
of a point is made of its time and its watcher, which makes a table its own index.
"""

import json
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from xboard_circus.core.history import FIGURES, FULL_SLOTS, STEPS, WHOLE_WATCHER, Figures, Point, kept_points
from xboard_circus.core.state_schema import MOST_SLOTS, TrafficReport, parse_traffic
from xboard_circus.ledger import database
from xboard_circus.ledger.database import LedgerError, LedgerTrouble, Schema, StoredFile, ledger_errors, trouble_of

MOST_WATCHERS = 1024
MOST_PAGES = 1 << 16  # 256 MiB: only a stop for the unforeseen
LOG_PAGES = 64
PRUNE_EVERY = 60.0
READS_WITHIN = 5.0
RECENT = 15.0  # seconds within which a watcher has figures: the plugin stores them every few seconds


class Totals(NamedTuple):
    """Counts of all workers of a watcher, until that moment of the monotonic clock."""

    until: float
    traffic: TrafficReport


_TABLES = ["watchers (id INTEGER PRIMARY KEY, name TEXT UNIQUE, totals TEXT, until REAL)"]
_NAMES = [f"{kind}_{step}" for kind in ("watcher", "slots") for step in STEPS]
_TABLES += [f"{name} (id INTEGER PRIMARY KEY, figures BLOB NOT NULL)" for name in _NAMES]
_HISTORY = Schema(0x78624849, (";".join(f"CREATE TABLE {table}" for table in _TABLES),))  # "xbHI"

# Half-precision floats, because a chart shows no more than three digits: up to 65,504, so memory is in GiB.
_UNITS = tuple(2.0**30 if name in ("rss", "disk") else 1.0 for name in FIGURES)
_SIZE = 2 * len(FIGURES)
_SLOT_SIZE = _SIZE - 2  # no slot has a disk of its own; so long was a watcher's, too, in files of earlier versions
_LARGEST = 65504.0
_NONE = float("nan")


def history_of(ledger: Path) -> Path:
    """Return the file of the history beside a ledger.

    >>> history_of(Path("/var/lib/web/ledger.db"))
    PosixPath('/var/lib/web/ledger-history.db')
    """
    return ledger.with_name(f"{ledger.stem}-history.db")


class HistoryStore(StoredFile):
    """Points and totals in the SQLite file at *path*; a damaged one is set aside. To be called from one thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, most_pages=MOST_PAGES, log_pages=LOG_PAGES, schema=_HISTORY)
        self._clock = clock
        self._ids: dict[str, int] = {}
        self._prune_at = 0.0

    def write(self, points: Sequence[tuple[str, Point]], totals: Mapping[str, Totals]) -> None:
        """Store *points* by watcher, and the *totals* of watchers: all or nothing, LedgerError."""
        with ledger_errors(self.path):
            try:
                self._write(points, totals)
            except (sqlite3.Error, OSError, LedgerError) as error:
                self.close()
                if not isinstance(error, sqlite3.Error) or trouble_of(error) is not LedgerTrouble.DAMAGED:
                    raise
                database.set_aside(self.path, now=self._clock())
                self._write(points, totals)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        super().close()
        self._ids = {}

    def _write(self, points: Sequence[tuple[str, Point]], totals: Mapping[str, Totals]) -> None:
        connection = self._db()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for name, point in points:
                if (watcher := self._id(connection, name)) is None:
                    continue
                key = point.time // point.step * MOST_WATCHERS + watcher
                slots = dict(point.figures)
                of_all = slots.pop(WHOLE_WATCHER)
                put = "INSERT OR REPLACE INTO {}_{} VALUES (?, ?)"
                connection.execute(put.format("watcher", point.step), (key, _packed(of_all)))
                if slots:
                    of_slots = b"".join(bytes([slot - 1]) + _packed(each[:-1]) for slot, each in slots.items())
                    connection.execute(put.format("slots", point.step), (key, of_slots))
            for name, total in totals.items():
                values = (json.dumps(total.traffic), total.until, self._id(connection, name))
                connection.execute("UPDATE watchers SET totals = ?, until = ? WHERE id = ?", values)
            if time.monotonic() >= self._prune_at:
                self._prune(connection, points)
                self._prune_at = time.monotonic() + PRUNE_EVERY

    def _id(self, connection: sqlite3.Connection, name: str) -> int | None:
        """Return the number of a watcher, None if there are too many."""
        if name not in self._ids:
            connection.execute("INSERT OR IGNORE INTO watchers (name, totals, until) VALUES (?, '{}', 0)", (name,))
            (self._ids[name],) = connection.execute("SELECT id FROM watchers WHERE name = ?", (name,)).fetchone()
        return self._ids[name] if self._ids[name] < MOST_WATCHERS else None

    def _prune(self, connection: sqlite3.Connection, points: Sequence[tuple[str, Point]]) -> None:
        """Delete points that are too old, or in the future because the clock was set back."""
        slots = {name: len(point.figures) - 1 for name, point in points}
        for step in STEPS:
            now = int(self._clock() // step)
            bounds = [(now - kept_points(step) + 1) * MOST_WATCHERS, (now + 2) * MOST_WATCHERS]
            for kind in ("watcher", "slots"):
                connection.execute(f"DELETE FROM {kind}_{step} WHERE id < ? OR id > ?", bounds)
            for name in (each for each, count in slots.items() if count > FULL_SLOTS):
                first = (now - kept_points(step, slots[name]) + 1) * MOST_WATCHERS
                one = f"id < {first} AND id % {MOST_WATCHERS} = ?"
                connection.execute(f"DELETE FROM slots_{step} WHERE {one}", [self._id(connection, name)])


def read_totals(path: Path) -> dict[str, Totals]:
    """Return by watcher the counts of all its workers; LedgerError. Nothing without a file."""
    with _reading(path) as connection:
        rows = connection.execute("SELECT name, totals, until FROM watchers LIMIT ?", (MOST_WATCHERS,)).fetchall()
    parsed = ((str(name), _parsed(text), until) for name, text, until in rows)
    return {name: Totals(until, traffic) for name, traffic, until in parsed if traffic and isinstance(until, float)}


def read_points(
    path: Path, watcher: str, *, slot: int, step: int, since: float, until: float
) -> list[tuple[int, Figures]]:
    """Return the time and the figures of each point of a slot, or of all, in their order; LedgerError."""
    kind, found = "slots" if slot != WHOLE_WATCHER else "watcher", []
    bounds = [int(at // step) * MOST_WATCHERS for at in (since, until + step)]
    with _reading(path) as connection:
        ids = connection.execute("SELECT id FROM watchers WHERE name = ?", (watcher,)).fetchall()
        if not ids:
            return []
        test = f"id BETWEEN ? AND ? AND id % {MOST_WATCHERS} = ?"
        figures = f"substr(figures, 1, {MOST_SLOTS * (_SLOT_SIZE + 1)})"
        query = f"SELECT id, {figures} FROM {kind}_{step} WHERE {test} ORDER BY id LIMIT ?"
        for key, blob in connection.execute(query, [*bounds, ids[0][0], STEPS[step] + 2]):
            known = _unpacked(blob if slot == WHOLE_WATCHER else _slots(blob).get(slot, b""))
            if known is not None:
                found.append((key // MOST_WATCHERS * step, known))
    return found


def last_figures(path: Path, *, now: float) -> dict[str, dict[int, Figures]]:
    """Return by watcher and slot, or `WHOLE_WATCHER`, the figures of the newest short point, if any; LedgerError."""
    step, found = min(STEPS), dict[str, dict[int, Figures]]()
    first = int((now - RECENT) // step) * MOST_WATCHERS
    with _reading(path) as connection:
        names = dict(connection.execute("SELECT id, name FROM watchers LIMIT ?", (MOST_WATCHERS,)))
        for kind, size in (("watcher", _SIZE), ("slots", MOST_SLOTS * (_SLOT_SIZE + 1))):
            query = f"SELECT id, substr(figures, 1, ?) FROM {kind}_{step} WHERE id >= ? ORDER BY id LIMIT ?"
            for key, blob in connection.execute(query, (size, first, STEPS[step] * MOST_WATCHERS)):
                name = str(names.get(key % MOST_WATCHERS))
                packed = {WHOLE_WATCHER: blob} if kind == "watcher" else _slots(blob)
                known = {slot: each for slot, part in packed.items() if (each := _unpacked(part)) is not None}
                found.setdefault(name, {}).update(known)
    return found


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    ends_at = time.monotonic() + READS_WITHIN
    with ledger_errors(path):
        if not os.path.exists(path):
            connection = sqlite3.connect(":memory:")
            connection.executescript(_HISTORY.migrations[0])
        else:
            connection = database.open_to_read(path)
        with closing(connection):
            # A user who may write the file could have a view compute without end.
            connection.set_progress_handler(lambda: time.monotonic() > ends_at, 10_000)
            yield connection


def _parsed(text: object) -> TrafficReport | None:
    with suppress(ValueError, RecursionError, TypeError):
        return parse_traffic(json.loads(str(text)))
    return None


def _packed(figures: Figures) -> bytes:
    """Return figures in two bytes each.

    >>> [each and round(each, 3) for each in _unpacked(_packed((12.5, *[None] * 7, 0.02, 2.0**26, 0.25)))]
    [12.5, None, None, None, None, None, None, None, 0.02, 67108864.0, 0.25, None]
    """
    pairs = zip(figures, _UNITS, strict=False)
    values = [_NONE if each is None else min(each / unit, _LARGEST) for each, unit in pairs]
    return struct.pack(f"<{len(values)}e", *values)


def _unpacked(blob: bytes) -> Figures | None:
    if not isinstance(blob, bytes) or len(blob) not in (_SIZE, _SLOT_SIZE):
        return None
    values = zip(struct.unpack(f"<{len(blob) // 2}e", blob), _UNITS, strict=False)
    return (*(each * unit if 0 <= each <= _LARGEST else None for each, unit in values), None)[: len(FIGURES)]


def _slots(blob: bytes) -> dict[int, bytes]:
    """Return the figures of each slot, packed."""
    places = range(0, len(blob) if isinstance(blob, bytes) else 0, _SLOT_SIZE + 1)
    return {blob[at] + 1: blob[at + 1 : at + 1 + _SLOT_SIZE] for at in places}
