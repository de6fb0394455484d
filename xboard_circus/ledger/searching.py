"""Query records in a ledger's file, even while it is written."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from xboard_circus.ledger.opening import SCHEMA_VERSION, open_to_read
from xboard_circus.ledger.record import COLUMNS, Record, record_of_row
from xboard_circus.ledger.trouble import told_as_ledger_errors

LARGEST = (1 << 63) - 1  # that SQLite can be asked for


def search(
    path: Path,
    *,
    since: float | None = None,
    watcher: str | None = None,
    kind: str | Collection[str] | None = None,
    after: int | None = None,
    pid: int | None = None,
    limit: int = 100,
    earliest: bool = False,
) -> list[Record]:
    """Return the newest *limit* records that fit, oldest first; none when there is no file yet.

    Args:
        since: Only what happened at or after this wall-clock time.
        kind: Only this kind, or only these.
        after: Only what was stored after the record of this id.
        earliest: Return the oldest *limit* in place of the newest.

    Raises:
        LedgerError: The file can't be read.
    """
    if not path.exists() or any(abs(number) > LARGEST for number in (after, pid) if number is not None):
        return []
    kinds = None if kind is None else [kind] if isinstance(kind, str) else list(kind)
    tests: list[tuple[str, list[object]]] = [("1", [])]
    for test, value in (("time >= ?", since), ("watcher = ?", watcher), ("id > ?", after), ("pid = ?", pid)):
        if value is not None:
            tests.append((test, [value]))
    if kinds is not None:
        tests.append((f"kind IN ({', '.join('?' * len(kinds))})", [*kinds]))
    where = " AND ".join(test for test, _ in tests)
    sql = f"SELECT id, {{columns}} FROM events WHERE {where} ORDER BY id {'ASC' if earliest else 'DESC'} LIMIT ?"
    values = [value for _, each in tests for value in each]
    with told_as_ledger_errors(path), closing(open_to_read(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return []  # it is being made in this very moment
        is_old = connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION
        columns = COLUMNS.replace("say, seq", "NULL, NULL") if is_old else COLUMNS
        rows = connection.execute(sql.format(columns=columns), [*values, max(0, limit)]).fetchall()
    return [record_of_row(row) for row in (rows if earliest else reversed(rows))]
