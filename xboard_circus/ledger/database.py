"""Open or create the ledger's file: readable for its user only, bounded by SQLite itself."""

import enum
import errno
import logging
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from xboard_circus.errors import XboardError
from xboard_circus.host.file_rights import others_at, take
from xboard_circus.host.mounts import is_mounted_alone, why_unwritten
from xboard_circus.host.written_files import NO_PLAIN_FILE, opener, plain_opener

log = logging.getLogger(__name__)

PAGE = 4096
BUSY_MS = 250
OPENS_WITHIN = 10.0  # for another user's file
VACUUM_ON_REQUEST = 2  # as in a file of an earlier version
KEPT_DAMAGED = 3
LONGEST_TEXT = 1 << 17  # bytes; what we write is shorter
LARGEST_VALUE, MOST_TEXT, MOST_HEAP = 12 << 20, 32 << 20, 128 << 20
TOO_LARGE = "claims more text than a ledger of ours has; move the file away"

MIGRATIONS = (
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, watcher TEXT NOT NULL, kind TEXT NOT NULL, pid INTEGER, wid INTEGER,
        cause TEXT, reason TEXT NOT NULL, data TEXT NOT NULL
    );
    CREATE INDEX events_by_time ON events (time);
    CREATE INDEX events_by_watcher ON events (watcher, kind, time);
    """,
    """
    ALTER TABLE events ADD COLUMN say TEXT;
    ALTER TABLE events ADD COLUMN seq TEXT;
    CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
    """,
)
"""Statements that make each version of the schema from the one before."""

SCHEMA_VERSION = len(MIGRATIONS)


class Schema(NamedTuple):
    """Schema of a file of ours.

    Attributes:
        application_id: Distinguishes it from another program's database that was named by mistake.
        migrations: Statements that make each version from the one before.
    """

    application_id: int
    migrations: tuple[str, ...]


LEDGER = Schema(0x78624C47, MIGRATIONS)  # "xbLG"
_BESIDE = ("-wal", "-shm")  # SQLite's files beside the database
_HEADS = {"": (b"SQLite format 3\0",), "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")}

Inode = tuple[int, int]


class LedgerTrouble(enum.Enum):
    """Reason of a failure of the ledger."""

    FULL = "disk full"
    LOCKED = "locked"
    DAMAGED = "damaged"
    UNUSABLE = "unusable"


# By the text, because Python 3.10 does not expose SQLite's code; the texts have not changed since SQLite 3.0.
# "disk I/O error" is a write beyond a quota or a limit on file sizes.
_SIGNS = {"DAMAGED": ("malformed", "not a database"), "LOCKED": ("locked", "busy")}
_SIGNS |= {"FULL": ("disk is full", "disk I/O error")}
_TROUBLES = {sign: LedgerTrouble[name] for name, signs in _SIGNS.items() for sign in signs}


class LedgerError(XboardError):
    """The ledger at *path* could not be written or read.

    Attributes:
        trouble: Why.
    """

    def __init__(self, path: Path, trouble: LedgerTrouble, what: str) -> None:
        super().__init__(f"ledger {path}: {what}")
        self.trouble = trouble


def trouble_of(error: sqlite3.Error) -> LedgerTrouble:
    """Return the trouble of the ledger that *error* means.

    >>> trouble_of(sqlite3.OperationalError("database is locked"))
    <LedgerTrouble.LOCKED: 'locked'>
    """
    return next((trouble for sign, trouble in _TROUBLES.items() if sign in str(error)), LedgerTrouble.UNUSABLE)


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the system as a LedgerError of the ledger at *path*."""
    try:
        yield
    except (sqlite3.Error, OSError, MemoryError) as error:
        trouble = trouble_of(error) if isinstance(error, sqlite3.Error) else LedgerTrouble.UNUSABLE
        if trouble is LedgerTrouble.FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            full = why_unwritten(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), str(path))
            raise LedgerError(path, LedgerTrouble.FULL, full) from error
        is_large = isinstance(error, (sqlite3.DataError, MemoryError))
        what = TOO_LARGE if is_large else (isinstance(error, OSError) and error.strerror) or str(error)
        raise LedgerError(path, trouble, what) from error


def open_to_write(
    path: Path, *, most_pages: int, log_pages: int, schema: Schema = LEDGER
) -> tuple[sqlite3.Connection, Inode]:
    """Return the database at *path* and its inode; sqlite3.Error, OSError or LedgerError where that is not possible.

    SQLite refuses to let it grow past *most_pages*, and starts its write-ahead log over after *log_pages*.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Created here because SQLite would give it the umask's mode; its log takes the mode of the file.
    descriptor = opener(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    how: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "cached_statements": 16}
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, **how)
    try:
        _prepare(connection, path, schema, most_pages=most_pages, log_pages=log_pages)
    except BaseException:
        connection.close()
        raise
    return connection, (status.st_dev, status.st_ino)


class StoredFile:
    """The file at *path*, opened to write when that is needed, and again after it was moved or deleted."""

    def __init__(self, path: Path, *, most_pages: int, log_pages: int, schema: Schema = LEDGER) -> None:
        self.path = path
        self._open = partial(open_to_write, path, most_pages=most_pages, log_pages=log_pages, schema=schema)
        self._connection: sqlite3.Connection | None = None
        self._inode: Inode | None = None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _db(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != inode_of(self.path):
            log.warning("ledger %s was moved or deleted; a new one is begun", self.path)
            self.close()
        if self._connection is not None:
            check_heads(self.path)
        else:
            self._connection, self._inode = self._open()
        return self._connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Return the database at *path*, read-only; LedgerError where we may not read it."""
    if not os.access(path, os.R_OK):
        why = "may be read by its own user alone; ask as that user, or as root"
        raise LedgerError(path, LedgerTrouble.UNUSABLE, why)
    known = {name: facts for name in _files_of(path) if (facts := _facts_of(name)) is not None}
    others = {name: facts for name, facts in known.items() if facts.st_uid != os.geteuid()}
    for name in (name for name, facts in others.items() if stat.S_ISLNK(facts.st_mode)):
        raise LedgerError(path, LedgerTrouble.UNUSABLE, f"{name} is a link of another user's; name another file")
    try:
        other = others_at(path)
    except FileNotFoundError as gone:
        raise LedgerError(path, LedgerTrouble.UNUSABLE, "is gone") from gone
    return _opened_in_time(path, other) if others or other is not None else _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    for name in _files_of(path):
        # SQLite would wait for a pipe or a lease. Ours are not opened: the close would free a lock of this process.
        if (facts := _facts_of(name, follow=True)) is None:
            continue
        if facts.st_uid != os.geteuid():
            os.close(plain_opener(name, os.O_RDONLY))
        elif not stat.S_ISREG(facts.st_mode):
            raise LedgerError(path, LedgerTrouble.UNUSABLE, f"{name}: {NO_PLAIN_FILE}; name another file")
    # Without the mode a reader would create the file, and with the wrong owner when root looks at another's.
    address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if _is_at_rest(path) else ''}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000, check_same_thread=False)
    _bound(connection, MOST_TEXT + 2 * sum(facts.st_size for name in _files_of(path) if (facts := _facts_of(name))))
    connection.execute("PRAGMA query_only = ON")
    return connection


def _bound(connection: sqlite3.Connection, room: int) -> None:
    """Bound what a read takes of memory: by a page that leads to itself, a file of 24 KB has texts of 1 GB in each row.

    SQLite has loaded a text before we can cut it. Of all texts together *room* bytes are read.
    """
    if sys.version_info >= (3, 11):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
    else:  # of all of SQLite in this process, far beyond what we use
        connection.execute(f"PRAGMA hard_heap_limit = {MOST_HEAP}")

    def decoded(text: bytes) -> str:
        nonlocal room
        room -= len(text := text[:LONGEST_TEXT])
        if room < 0:
            raise sqlite3.DataError(TOO_LARGE)
        return text.decode("utf-8", errors="replace")  # one damaged text must not hide all other records

    connection.text_factory = decoded


def _files_of(path: Path) -> tuple[Path, ...]:
    return path, *(Path(f"{path}{suffix}") for suffix in _BESIDE)


def _facts_of(name: Path, *, follow: bool = False) -> os.stat_result | None:
    with suppress(FileNotFoundError):  # SQLite removes what lies beside it with its last connection
        return os.stat(name, follow_symlinks=follow)
    return None


def _opened_in_time(path: Path, user: tuple[int, int] | None) -> sqlite3.Connection:
    """Open another user's file, as root with the rights of *user*; LedgerError if that takes long.

    Its owner may put a pipe in its place, or a link in that of its folder, whenever we have looked. SQLite waits at a
    pipe for ever, and begins again after each Ctrl-C, so a separate thread opens the file, and is left behind if
    that takes too long. SQLite also makes files beside the database and gives them to its owner: behind a link that
    user would get files that root has made elsewhere.
    """
    opened: Future[sqlite3.Connection] = Future()

    def connect() -> None:
        try:
            if user is not None:
                take(*user)
            connection = _opened(path)
            with ExitStack() as failed:
                failed.callback(connection.close)
                # What lies beside it is opened here, and not at a later read, by the thread of that.
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                failed.pop_all()
            opened.set_result(connection)
        except BaseException as error:
            opened.set_exception(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        return opened.result(OPENS_WITHIN)
    except FutureTimeoutError:  # not the built-in one before Python 3.11
        why = f"its owner does not let it be opened within {OPENS_WITHIN:g} s"
        raise LedgerError(path, LedgerTrouble.UNUSABLE, why) from None


def check(path: Path) -> None:
    """Raise sqlite3.DatabaseError if any part of the database at *path* is damaged.

    An open connection has pages in memory, and never reads again what is only appended to: neither notices. This reads
    all of the file: 0.1 s for 40 MiB.
    """
    with closing(open_to_read(path)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {' '.join(found.split())}")


def check_heads(path: Path) -> None:
    """Do as `check` if the file at *path*, or its log, begins with what SQLite does not write there.

    A writer that has both open notices nothing, and would go on writing what no reader can read.
    """
    for suffix, heads in _HEADS.items():
        with suppress(FileNotFoundError), open(f"{path}{suffix}", "rb") as file:
            if (head := file.read(16)) and not head.startswith(heads):
                try:
                    check(path)
                except sqlite3.Error as error:
                    raise sqlite3.DatabaseError(f"malformed: it was overwritten: {error}") from error


def set_aside(path: Path, *, now: float) -> Path:
    """Rename the damaged file at *path*, and its companions, to ``NAME.damaged-TIME``; keep the last three."""
    target = Path(f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.localtime(now))}")
    for suffix in (*_BESIDE, ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    found = [each for each in path.parent.glob(f"{path.name}.damaged-*") if each.name[-4:] not in _BESIDE]
    for old in sorted(found)[:-KEPT_DAMAGED]:
        for suffix in ("", *_BESIDE):
            Path(f"{old}{suffix}").unlink(missing_ok=True)
    return target


def inode_of(path: Path) -> Inode | None:
    """Return the inode of the file at *path*, None without one."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _is_at_rest(path: Path) -> bool:
    """Return whether the file has no writer, in a folder where SQLite may create no file beside it."""
    is_open = any(os.path.exists(Path(f"{path}{suffix}")) for suffix in _BESIDE)
    of_thread = os.access in os.supports_effective_ids  # see `file_rights.take`
    return not is_open and not os.access(path.parent, os.W_OK, effective_ids=of_thread)


def _prepare(connection: sqlite3.Connection, path: Path, schema: Schema, *, most_pages: int, log_pages: int) -> None:
    version = len(schema.migrations)

    def pragma(text: str) -> Any:
        row = connection.execute(f"PRAGMA {text}").fetchone()
        return row[0] if row else None

    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_new and pragma("application_id") != schema.application_id:
        raise LedgerError(path, LedgerTrouble.UNUSABLE, "is another program's database; name another file")
    if pragma("user_version") > version:
        raise LedgerError(path, LedgerTrouble.UNUSABLE, "was written by a newer version of xboard-circus")
    if is_new:
        pragma(f"page_size = {PAGE}")
    if is_new or pragma("auto_vacuum") == VACUUM_ON_REQUEST:
        pragma("auto_vacuum = FULL")  # deleted pages are given back to the disk
    # A log beside a file that is mounted alone would be lost with the container, and the events in it.
    pragma("journal_mode = DELETE" if is_mounted_alone(path) else "journal_mode = WAL")
    pragma("synchronous = NORMAL")
    pragma(f"wal_autocheckpoint = {log_pages}")
    pragma(f"journal_size_limit = {log_pages * PAGE}")
    # Before the bound below, because a full ledger could not take the index.
    if pragma("user_version") < version:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            # Queried again, because another recorder may have come first.
            for script in schema.migrations[pragma("user_version") :]:
                for statement in script.split(";"):  # as a script, the transaction would be committed
                    connection.execute(statement)
            pragma(f"application_id = {schema.application_id}")
            pragma(f"user_version = {version}")
    # For a file that is larger already, SQLite uses its current size.
    pragma(f"max_page_count = {most_pages}")
