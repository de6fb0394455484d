"""Open the ledger's file, or create it: readable for its user only, bounded by SQLite itself."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xboard_circus.ledger.trouble import LedgerError, Trouble

# "xbLG": tells our file from another program's database that somebody named by mistake.
APPLICATION_ID = 0x78624C47
SCHEMA_VERSION = 2
PAGE = 4096
BUSY_MS = 250

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
    data TEXT NOT NULL,
    say TEXT,
    seq TEXT
);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_watcher ON events (watcher, kind, time);
CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
"""
FROM_VERSION_1 = """
ALTER TABLE events ADD COLUMN say TEXT;
ALTER TABLE events ADD COLUMN seq TEXT;
CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
"""

Inode = tuple[int, int]


def open_to_write(path: Path, *, most_pages: int, log_pages: int) -> tuple[sqlite3.Connection, Inode]:
    """Return the database at *path* and its inode; sqlite3.Error, OSError or LedgerError where that is not possible.

    SQLite refuses to let it grow past *most_pages*, and starts its write-ahead log over after *log_pages*.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made here and not by SQLite, which would give it the umask's mode; its log takes the mode of the file.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    connection = sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=16
    )
    try:
        _prepare(connection, path, most_pages=most_pages, log_pages=log_pages)
    except BaseException:
        connection.close()
        raise
    return connection, (status.st_dev, status.st_ino)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Return the database at *path*, read-only; LedgerError where we may not read it."""
    if not os.access(path, os.R_OK):
        raise LedgerError(path, Trouble.UNUSABLE, "may be read by its own user alone; ask as that user, or as root")
    # Without the mode a reader would create the file, and with the wrong owner when root looks at another's.
    mode = "mode=ro&immutable=1" if _is_at_rest(path) else "mode=ro"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=BUSY_MS / 1000)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _is_at_rest(path: Path) -> bool:
    """Return whether the file has no writer, in a folder where SQLite may create no file beside it."""
    is_open = any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm"))
    return not is_open and not os.access(path.parent, os.W_OK)


def inode_of(path: Path) -> Inode | None:
    """Return which file is at *path* now, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep all of what is done inside, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, and says so with another.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: sqlite3.Connection, path: Path, *, most_pages: int, log_pages: int) -> None:
    def pragma(text: str) -> Any:
        row = connection.execute(f"PRAGMA {text}").fetchone()
        return row[0] if row else None

    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_new and pragma("application_id") != APPLICATION_ID:
        raise LedgerError(path, Trouble.UNUSABLE, "is another program's database; name another file")
    if pragma("user_version") > SCHEMA_VERSION:
        raise LedgerError(path, Trouble.UNUSABLE, "was written by a newer version of xboard-circus")
    if is_new:
        pragma(f"page_size = {PAGE}")
        pragma("auto_vacuum = INCREMENTAL")
    pragma("journal_mode = WAL")
    pragma("synchronous = NORMAL")
    pragma(f"wal_autocheckpoint = {log_pages}")
    pragma(f"journal_size_limit = {log_pages * PAGE}")
    # Before the bound below: a ledger that is full could not take the index.
    if is_new or pragma("user_version") < SCHEMA_VERSION:
        with transaction(connection):
            # Asked again: another recorder may have come first.
            if not pragma("user_version"):
                _run(connection, SCHEMA)
            elif pragma("user_version") == 1:
                _run(connection, FROM_VERSION_1)
            pragma(f"application_id = {APPLICATION_ID}")
            pragma(f"user_version = {SCHEMA_VERSION}")
    # For a file that is larger already, SQLite takes the size that it has.
    pragma(f"max_page_count = {most_pages}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript: that would commit the transaction.
    for statement in script.split(";"):
        connection.execute(statement)
