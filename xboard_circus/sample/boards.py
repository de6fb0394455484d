"""Store the sample backend's boards in SQLite. Every method blocks: call them from the thread pool.

Each call opens a connection of its own: it costs 0.1 ms, and a thread cannot leave anything for the next one. Every
change is one short transaction, so workers wait for each other for milliseconds, and for *timeout* at most.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from fastapi import HTTPException

from xboard_circus.host.mounts import is_mounted_alone

log = logging.getLogger("xboard_circus.app.boards")

SCHEMA = """
CREATE TABLE IF NOT EXISTS boards (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_time TEXT NOT NULL,
    changed_time TEXT NOT NULL
)
"""
MOST_TEXT = 1 << 20
"""Characters of a page. A client that does not read keeps its answer in memory, and JSON makes six of a control one."""
COLUMNS = "id, name, description, created_time, changed_time"


@dataclass(frozen=True)
class Board:
    """One row. Times are UTC, ISO 8601."""

    id: int
    name: str
    description: str
    created_time: str
    changed_time: str


class BoardStore:
    """The boards of the database file *path*, for any number of threads and processes."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self.path = path
        self.timeout = timeout

    def prepare(self) -> sqlite3.Connection:
        """Make the file and its table if they are missing, and return a connection to hold on to.

        While it is open, SQLite does not fold the write-ahead log into the file and delete it whenever a request
        closes the last other connection.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A user who may read the file may lock it for any time. SQLite's files beside it are like it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        connection = sqlite3.connect(self.path, timeout=self.timeout, check_same_thread=False)
        try:
            self._set_journal(connection)
            with connection:
                connection.execute(SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def create(self, *, name: str, description: str) -> Board:
        """Add a board; HTTPException 409 if the name is taken."""
        now = _utc_now()
        with self._changing() as connection:
            row = connection.execute(
                "INSERT INTO boards (name, description, created_time, changed_time) VALUES (?, ?, ?, ?)",
                (name, description, now, now),
            )
            return Board(int(row.lastrowid or 0), name, description, now, now)

    def page(self, *, limit: int, offset: int) -> tuple[list[Board], int]:
        """Return at most *limit* boards, oldest first, from the *offset*-th on, and the number of all.

        Fewer if their texts are longer than a page may be.
        """
        boards, length = [], 0
        with self._connected() as connection:
            connection.execute("BEGIN")  # both answers from one state of the table
            rows = connection.execute(f"SELECT {COLUMNS} FROM boards ORDER BY id LIMIT ? OFFSET ?", (limit, offset))
            for board in (Board(*row) for row in rows):
                boards.append(board)
                length += len(board.description)
                if length >= MOST_TEXT:
                    break
            total: int = connection.execute("SELECT count(*) FROM boards").fetchone()[0]
        return boards, total

    def get(self, board_id: int) -> Board:
        """Return one board; HTTPException 404 without it."""
        with self._connected() as connection:
            return _get(connection, board_id)

    def change(self, board_id: int, *, name: str, description: str) -> Board:
        """Replace a board's name and description; HTTPException 404 or 409."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE boards SET name = ?, description = ?, changed_time = ? WHERE id = ?",
                (name, description, _utc_now(), board_id),
            )
            return _get(connection, board_id)

    def delete(self, board_id: int) -> None:
        """Remove one board; HTTPException 404 without it."""
        with self._changing() as connection:
            if connection.execute("DELETE FROM boards WHERE id = ?", (board_id,)).rowcount == 0:
                raise HTTPException(404, f"there is no board {board_id}")

    def check_writable(self, *, timeout: float) -> None:
        """Raise sqlite3.Error if the table cannot be read or the write lock not be had within *timeout*."""
        with self._connected(timeout=timeout) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT 1 FROM boards LIMIT 1").fetchone()
            connection.rollback()

    @contextmanager
    def _connected(self, *, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        # mode=rw, because a missing database is an error to report, not an empty one to make
        where = f"{self.path.as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(where, uri=True, timeout=self.timeout if timeout is None else timeout)
        ) as connection:
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connected() as connection, connection:
                yield connection
        except sqlite3.IntegrityError as error:
            raise HTTPException(409, "another board has this name") from error

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        """Let readers and a writer work side by side by a write-ahead log, unless the file is mounted alone.

        This one statement does not wait for *timeout*: when several workers start at once, all but one fail at once
        because the database is locked.
        """
        wanted = "delete" if is_mounted_alone(self.path) else "wal"
        give_up_at = time.monotonic() + self.timeout
        while True:
            try:
                mode = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= give_up_at:
                    raise
                time.sleep(0.02)
        if mode != "wal":
            why = "on this file system" if wanted == "wal" else "for a file that is mounted alone; mount its folder"
            log.warning("%s: no write-ahead log %s; readers and writers wait for each other", self.path, why)


def _get(connection: sqlite3.Connection, board_id: int) -> Board:
    row = connection.execute(f"SELECT {COLUMNS} FROM boards WHERE id = ?", (board_id,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no board {board_id}")
    return Board(*row)


def _utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
