"""Keep what happened in a SQLite file that stays small, and that may fail without harm to anything else.

One process writes, any number read. Nothing here retries or queues: `append` stores all that it is given or raises a
LedgerError, and the plugin decides what to do with records that could not be stored.
"""

from __future__ import annotations

import enum
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xboard_circus.errors import XboardError

log = logging.getLogger(__name__)

MIB = 1 << 20
DAY = 86_400.0
# "xbLG": tells our file from another program's database that somebody named by mistake.
APPLICATION_ID = 0x78624C47
SCHEMA_VERSION = 1
PAGE = 4096
BUSY_MS = 250
PRUNE_ROWS = 500  # or fewer, so that a small ledger does not lose all at once
PRUNE_SECONDS = 0.1
REASON_CHARS, DATA_CHARS = 2000, 8000
KEPT_DAMAGED = 3
DAMAGED_AGAIN = 60.0

SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    watcher TEXT NOT NULL,
    kind TEXT NOT NULL,
    pid INTEGER,
    wid INTEGER,
    cause TEXT,
    reason TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_watcher ON events (watcher, kind, time);
"""
COLUMNS = "time, watcher, kind, pid, wid, cause, reason, data"


class Trouble(enum.Enum):
    """Why the ledger could not do something."""

    FULL = "disk full"
    LOCKED = "locked"
    DAMAGED = "damaged"
    UNUSABLE = "unusable"


class LedgerError(XboardError):
    """The ledger at *path* could not be written or read.

    Attributes:
        trouble: What is in the way.
    """

    def __init__(self, path: Path, trouble: Trouble, what: str) -> None:
        super().__init__(f"ledger {path}: {what}")
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class Record:
    """One event.

    Attributes:
        time: When it happened, in seconds since 1970 by the wall clock: it is for people to read.
        kind: Name of the event, such as ``restart`` or ``reap``.
        data: Whatever else the event carried.
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


class LedgerStore:
    """Events in the SQLite file at *path*, none older than *keep_days*, in at most *max_mb* MiB.

    The bound holds for all that lies on the disk: three quarters of it for the database, which SQLite itself refuses to
    grow past, and a quarter for the write-ahead log beside it.

    A damaged file is set aside as ``NAME.damaged-TIME`` and a new one begun. A file that another program wrote is
    left alone. All methods but `query` must be called from one thread at a time.

    >>> import tempfile
    >>> store = LedgerStore(Path(tempfile.mkdtemp(), "ledger.db"))
    >>> store.append([Record(time=time.time(), watcher="web", kind="restart", reason="died by SIGSEGV")])
    >>> [(record.kind, record.reason) for record in store.query(watcher="web")]
    [('restart', 'died by SIGSEGV')]
    >>> store.close()
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_days: float = 30.0,
        max_mb: float = 64.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.keep_days = keep_days
        self.max_bytes = int(max(1.0, max_mb) * MIB)
        self._most_pages = self.max_bytes * 3 // 4 // PAGE
        self._log_pages = min(1000, max(16, self.max_bytes // 16 // PAGE))
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._damaged_at = -math.inf

    # Writing

    def append(self, records: Sequence[Record]) -> None:
        """Store all of *records*, or none and raise LedgerError."""
        with self._guarded():
            try:
                self._insert(records)
            except sqlite3.Error as error:
                trouble = trouble_of(error)
                if trouble is Trouble.DAMAGED and self._set_aside(error):
                    self._insert(records)
                elif trouble is Trouble.FULL and self._is_full() and self._shrink_a_little():
                    # Full by our own bound. Of a full disk the past must not be eaten: it would soon be gone.
                    self._insert(records)
                else:
                    raise
            self._shrink(until=time.monotonic() + PRUNE_SECONDS)

    def prune(self) -> bool:
        """Delete a little of what is too old or too much; True when there is more to delete."""
        with self._guarded():
            try:
                return self._shrink(until=time.monotonic() + PRUNE_SECONDS)
            except sqlite3.Error as error:
                if trouble_of(error) is not Trouble.DAMAGED or not self._set_aside(error):
                    raise
                return False

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def size(self) -> int:
        """Return the bytes that the ledger takes on the disk, its write-ahead log included."""
        return sum(_size(Path(f"{self.path}{suffix}")) for suffix in ("", "-wal"))

    # Reading

    def query(
        self,
        *,
        since: float | None = None,
        watcher: str | None = None,
        kind: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Record]:
        """Return the newest *limit* records that fit, oldest first; none when there is no file.

        Args:
            since: Only what happened at or after this wall-clock time.
            after: Only what was stored after the record of this id.
        """
        if not self.path.exists():
            return []
        tests = [
            ("time >= ?", since),
            ("watcher = ?", watcher),
            ("kind = ?", kind),
            ("id > ?", after),
        ]
        wanted = [(test, value) for test, value in tests if value is not None]
        where = " AND ".join(["1", *(test for test, _ in wanted)])
        sql = f"SELECT id, {COLUMNS} FROM events WHERE {where} ORDER BY id DESC LIMIT ?"
        try:
            with closing(self._open_to_read()) as connection:
                rows = connection.execute(sql, [*(value for _, value in wanted), max(0, limit)]).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(self.path, trouble_of(error), str(error)) from error
        return [_record(row) for row in reversed(rows)]

    def _open_to_read(self) -> sqlite3.Connection:
        # Without the mode a reader would create the file, and with the wrong owner when root looks at another's.
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        connection.execute("PRAGMA query_only = ON")
        return connection

    # The open file

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except LedgerError:
            self.close()
            raise
        except sqlite3.Error as error:
            self.close()
            raise LedgerError(self.path, trouble_of(error), str(error)) from error
        except OSError as error:
            self.close()
            raise LedgerError(self.path, Trouble.UNUSABLE, error.strerror or str(error)) from error

    def _db(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode(self.path):
            log.warning("ledger %s was moved or deleted; a new one is begun", self.path)
            self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Made here and not by SQLite, which would give it the umask's mode; its log takes the mode of the file.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid() and status.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        self._inode = status.st_dev, status.st_ino
        connection = sqlite3.connect(
            self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        def pragma(text: str) -> Any:
            row = connection.execute(f"PRAGMA {text}").fetchone()
            return row[0] if row else None

        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not is_new and pragma("application_id") != APPLICATION_ID:
            raise LedgerError(self.path, Trouble.UNUSABLE, "is another program's database; name another file")
        if pragma("user_version") > SCHEMA_VERSION:
            raise LedgerError(self.path, Trouble.UNUSABLE, "was written by a newer version of xboard-circus")
        if is_new:
            pragma(f"page_size = {PAGE}")
            pragma("auto_vacuum = INCREMENTAL")
        pragma("journal_mode = WAL")
        pragma("synchronous = NORMAL")
        pragma(f"wal_autocheckpoint = {self._log_pages}")
        pragma(f"journal_size_limit = {self._log_pages * PAGE}")
        # For a file that is larger already, SQLite takes the size that it has.
        pragma(f"max_page_count = {self._most_pages}")
        if is_new:
            with _transaction(connection):
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                pragma(f"application_id = {APPLICATION_ID}")
                pragma(f"user_version = {SCHEMA_VERSION}")

    def _insert(self, records: Sequence[Record]) -> None:
        connection = self._db()
        self._bound_log(connection)
        # Several transactions would keep the log smaller still, but then half of the records could be stored.
        with _transaction(connection):
            connection.executemany(
                f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [self._row(record) for record in records],
            )

    def _row(self, record: Record) -> tuple[object, ...]:
        """Return what SQLite can store of *record*: the bus is open to others, who may send anything."""
        data = json.dumps(dict(record.data), default=str)
        return (
            record.time if math.isfinite(record.time) else self._clock(),
            _text(record.watcher, 200),
            _text(record.kind, 100),
            _whole(record.pid),
            _whole(record.wid),
            None if record.cause is None else _text(record.cause, 200),
            _text(record.reason, REASON_CHARS),
            data if len(data) <= DATA_CHARS else json.dumps({"cut": data[: DATA_CHARS // 2]}),
        )

    # The bounds

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Raise when somebody's open transaction keeps the write-ahead log from starting over."""
        if _size(Path(f"{self.path}-wal")) <= self.max_bytes // 5:
            return
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if _size(Path(f"{self.path}-wal")) > self.max_bytes // 5:
            raise LedgerError(self.path, Trouble.LOCKED, "another program holds a transaction open on it")

    def _shrink(self, *, until: float) -> bool:
        """Delete and give back in small steps; True when *until* came first."""
        while self._shrink_a_little():
            if time.monotonic() >= until:
                return True
        return False

    def _shrink_a_little(self) -> bool:
        if self._has_expired():
            return self._delete("time < ?", [self._horizon()], order="time")
        if self._is_full():
            return self._delete("1", [], order="id")
        used, free = self._pages()
        return (used > self._most_pages or free > max(64, used // 4)) and self._give_back(used)

    def _has_expired(self) -> bool:
        oldest: float | None = self._db().execute("SELECT min(time) FROM events").fetchone()[0]
        return oldest is not None and oldest < self._horizon()

    def _horizon(self) -> float:
        return self._clock() - self.keep_days * DAY

    def _is_full(self) -> bool:
        used, free = self._pages()
        return used - free > self._most_pages * 5 // 6

    def _pages(self) -> tuple[int, int]:
        """Return how many pages the file has, and how many of these hold nothing."""
        connection = self._db()
        used, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return used, free

    def _delete(self, where: str, values: list[float], *, order: str) -> bool:
        """Delete a few rows; False when there was nothing to delete."""
        connection = self._db()
        self._bound_log(connection)
        with _transaction(connection):
            chosen = (
                f"SELECT id FROM events WHERE {where} ORDER BY {order} LIMIT {min(PRUNE_ROWS, self._most_pages // 8)}"
            )
            return connection.execute(f"DELETE FROM events WHERE id IN ({chosen})", values).rowcount > 0

    def _give_back(self, used: int) -> bool:
        """Give a few empty pages back to the disk; False when there was none to give."""
        connection = self._db()
        self._bound_log(connection)
        # As a script, because a plain execute stops after the first page.
        connection.executescript(f"PRAGMA incremental_vacuum({self._log_pages})")
        connection.execute(f"PRAGMA max_page_count = {self._most_pages}").fetchone()
        return self._pages()[0] < used

    # Damage

    def _set_aside(self, error: Exception) -> bool:
        """Rename the damaged file; False when that happened a moment ago already, for then the disk is at fault."""
        self.close()
        if time.monotonic() - self._damaged_at < DAMAGED_AGAIN or not self.path.is_file():
            return False
        self._damaged_at = time.monotonic()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(self._clock()))
        target = Path(f"{self.path}.damaged-{stamp}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{target}{suffix}")
        log.error("ledger %s is damaged (%s): set aside as %s, a new one is begun", self.path, error, target.name)
        self._forget_old_damage()
        return True

    def _forget_old_damage(self) -> None:
        found = [path for path in self.path.parent.glob(f"{self.path.name}.damaged-*") if path.name[-4:] not in _SIDE]
        for old in sorted(found)[:-KEPT_DAMAGED]:
            for suffix in ("", *_SIDE):
                Path(f"{old}{suffix}").unlink(missing_ok=True)


_SIDE = ("-wal", "-shm")


def trouble_of(error: sqlite3.Error) -> Trouble:
    """Say what *error* means for the ledger.

    >>> trouble_of(sqlite3.OperationalError("database is locked"))
    <Trouble.LOCKED: 'locked'>
    """
    text = str(error)
    # By the text: Python 3.10 does not hand out SQLite's code, and the texts have not changed since SQLite 3.0.
    if "malformed" in text or "not a database" in text:
        return Trouble.DAMAGED
    if "locked" in text or "busy" in text:
        return Trouble.LOCKED
    # A write beyond a quota or a limit on file sizes comes back as an I/O error.
    if "disk is full" in text or "disk I/O error" in text:
        return Trouble.FULL
    return Trouble.UNUSABLE


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, and says so with another.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _record(row: tuple[Any, ...]) -> Record:
    number, at, watcher, kind, pid, wid, cause, reason, data = row
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = {}
    return Record(at, watcher, kind, pid, wid, cause, reason, parsed if isinstance(parsed, dict) else {}, number)


def _text(value: object, limit: int) -> str:
    return str(value)[:limit].encode("utf-8", errors="replace").decode("utf-8")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
