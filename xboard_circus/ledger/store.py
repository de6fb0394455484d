"""Store events in a SQLite file that stays small, and that may fail without harm to anything else.

One process writes, any number read. Nothing here retries or queues: `append` stores all its records or raises a
LedgerError, and the plugin decides what to do with them.
"""

import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from xboard_circus.ledger import database
from xboard_circus.ledger.database import PAGE, LedgerError, LedgerTrouble, StoredFile, ledger_errors, trouble_of
from xboard_circus.ledger.record import COLUMNS, Record, row_of

log = logging.getLogger(__name__)

MIB = 1 << 20
DAY = 86_400.0
PRUNE_ROWS = 500  # or fewer, so that a small ledger does not lose all at once
PRUNE_SECONDS = 0.1
DAMAGED_AGAIN = 60.0
ONCE = "ON CONFLICT (seq) WHERE seq IS NOT NULL DO NOTHING"


class LedgerStore(StoredFile):
    """Events in the SQLite file at *path*, none older than *keep_days*, in at most *max_mb* MiB.

    The bound holds for all files on the disk: three quarters of it for the database, which SQLite itself refuses to
    grow past, and a quarter for the write-ahead log beside it.

    A damaged file is set aside as ``NAME.damaged-TIME`` and a new one begun. A file that another program wrote is
    left alone. It must be called from one thread at a time; `query.search` reads it from any.

    >>> import tempfile
    >>> from xboard_circus.ledger.query import search
    >>> store = LedgerStore(Path(tempfile.mkdtemp(), "ledger.db"))
    >>> store.append([Record(time=time.time(), watcher="web", kind="restart", reason="died by SIGSEGV")])
    >>> [(record.kind, record.reason) for record in search(store.path, watcher="web")]
    [('restart', 'died by SIGSEGV')]
    >>> store.close()
    """

    def __init__(
        self, path: Path, *, keep_days: float = 30.0, max_mb: float = 64.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.keep_days, self.max_bytes = keep_days, int(max(1.0, max_mb) * MIB)
        self._most_pages = self.max_bytes * 3 // 4 // PAGE
        log_pages = min(1000, max(16, self.max_bytes // 16 // PAGE))
        super().__init__(path, most_pages=self._most_pages, log_pages=log_pages)
        self._clock, self._damaged_at = clock, -math.inf

    # Writing

    def append(self, records: Sequence[Record]) -> None:
        """Store all of *records*, or none and raise LedgerError; an event that is stored already is skipped.

        Two recorders run for a while after a kill of circusd, while its plugin is still starting.
        """
        rows = [row_of(record, now=self._clock()) for record in records]
        with self._guarded():
            while True:
                try:
                    self._insert(rows)
                    break
                except sqlite3.Error as error:
                    if not self._can_go_on(error, rows):
                        raise
            self._shrink(until=time.monotonic() + PRUNE_SECONDS)

    def prune(self) -> bool:
        """Look for damage, delete a little of what is too old or too much; True when there is more to delete."""
        with self._guarded():
            try:
                self._db()
                database.check(self.path)
                return self._shrink(until=time.monotonic() + PRUNE_SECONDS)
            except sqlite3.Error as error:
                if not self._can_go_on(error):
                    raise
                return False

    # The open file

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with ledger_errors(self.path):
                yield
        except LedgerError:
            self.close()
            raise

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        connection = self._db()
        self._bound_log(connection)
        # Several transactions would keep the log smaller still, but could store half of the records.
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {ONCE}", rows)

    def _can_go_on(self, error: sqlite3.Error, rows: Sequence[tuple[object, ...]] = ()) -> bool:
        """Begin a new file after damage, or make room for *rows*; False if neither cures *error*."""
        trouble = trouble_of(error)
        if trouble is LedgerTrouble.DAMAGED:
            return self._set_aside(error)
        # Pages that are partly filled count as full. Only for our own bound: on a full disk deleting the past would not
        # help, and it would soon be gone.
        size = sum(len(each.encode()) for row in rows for each in row if isinstance(each, str))
        is_ours = trouble is LedgerTrouble.FULL and self._pages() + 16 + 2 * size // PAGE > self._most_pages
        return is_ours and self._delete("1", [], order="id")

    # The bounds

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Raise when an open transaction of another process keeps the write-ahead log from starting over."""
        if _size(Path(f"{self.path}-wal")) <= self.max_bytes // 5:
            return
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if _size(Path(f"{self.path}-wal")) > self.max_bytes // 5:
            raise LedgerError(self.path, LedgerTrouble.LOCKED, "another program holds a transaction open on it")

    def _shrink(self, *, until: float) -> bool:
        """Delete and give back in small steps; True when *until* came first."""
        while self._delete("time < ?", [self._clock() - self.keep_days * DAY], order="time") or (
            self._pages() > self._most_pages * 5 // 6 and self._delete("1", [], order="id")
        ):
            if time.monotonic() >= until:
                return True
        return False

    def _pages(self) -> int:
        """Return how many pages of the file are used."""
        connection = self._db()
        used, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int(used - free)

    def _delete(self, where: str, values: list[float], *, order: str) -> bool:
        """Delete a few rows; False when there was nothing to delete."""
        connection = self._db()
        # Queried first, so that nothing to delete needs no lock.
        if connection.execute(f"SELECT 1 FROM events WHERE {where} LIMIT 1", values).fetchone() is None:
            return False
        self._bound_log(connection)
        few = min(PRUNE_ROWS, self._most_pages // 8)
        chosen = f"SELECT id FROM events WHERE {where} ORDER BY {order} LIMIT {few}"
        connection.execute(f"DELETE FROM events WHERE id IN ({chosen})", values)
        # Again, because for a file larger than its bound SQLite used its current size.
        connection.execute(f"PRAGMA max_page_count = {self._most_pages}").fetchone()
        return True

    # Damage

    def _set_aside(self, error: Exception) -> bool:
        """Rename the damaged file; False if that happened a moment ago already, because then the disk is at fault."""
        self.close()
        if time.monotonic() - self._damaged_at < DAMAGED_AGAIN or not os.path.isfile(self.path):
            return False
        self._damaged_at = time.monotonic()
        target = database.set_aside(self.path, now=self._clock())
        log.error("ledger %s is damaged (%s): set aside as %s, a new one is begun", self.path, error, target.name)
        return True


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
