"""Query records in a ledger's file, even while it is written, and find the one that `why` explains."""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from xboard_circus.core.names import bus_name
from xboard_circus.ledger.database import SCHEMA_VERSION, ledger_errors, open_to_read
from xboard_circus.ledger.record import COLUMNS, Record, record_of_row
from xboard_circus.ledger.story import TOLD, subject

LARGEST = (1 << 63) - 1  # that SQLite can be asked for
BEFORE, AROUND = 200, 1000  # records about the one that is explained, for who took its place and what came next
LAST = 200  # deaths and decisions among which the last is looked for


def search(
    path: Path,
    *,
    since: float | None = None,
    watcher: str | None = None,
    kind: Collection[str] | None = None,
    after: int | None = None,
    pid: int | None = None,
    limit: int = 100,
    earliest: bool = False,
) -> list[Record]:
    """Return the newest *limit* records that fit, oldest first; none when there is no file yet.

    Args:
        since: Only what happened at or after this wall-clock time.
        kind: Only these kinds.
        after: Only what was stored after the record of this id.
        earliest: Return the oldest *limit* in place of the newest.

    Raises:
        LedgerError: The file can't be read.
    """
    if not path.exists() or any(abs(number) > LARGEST for number in (after, pid) if number is not None):
        return []
    equal = {"time >= ?": since, "watcher = ?": watcher, "id > ?": after, "pid = ?": pid}
    tests: dict[str, list[object]] = {test: [value] for test, value in equal.items() if value is not None}
    if kind is not None:
        tests[f"kind IN ({', '.join('?' * len(kind))})"] = [*kind]
    where = " AND ".join(tests) or "1"
    values = [value for each in tests.values() for value in each]
    with ledger_errors(path), closing(open_to_read(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return []  # it is being made in this very moment
        is_old = connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION
        columns = COLUMNS.replace("say, seq", "NULL, NULL") if is_old else COLUMNS
        sql = f"SELECT id, {columns} FROM events WHERE {where} ORDER BY id {'ASC' if earliest else 'DESC'} LIMIT ?"
        rows = connection.execute(sql, [*values, max(0, limit)]).fetchall()
    return [record_of_row(row) for row in (rows if earliest else reversed(rows))]


def asked(path: Path, *, watcher: str | None = None, pid: int | None = None) -> tuple[Record, list[Record]] | None:
    """Return the last record that needs a reason, of a process, of a watcher or of anything, and those around it.

    None where nothing is recorded; LedgerError where the ledger at *path* can't be read.
    """
    if pid is not None:
        found = subject(search(path, pid=pid, limit=LAST), pid=pid)
    else:
        name = None if watcher is None else bus_name(watcher)
        # Of a watcher that is not armed Circus reports that a process ended, and no more.
        told = search(path, watcher=name, kind=TOLD, limit=LAST) or search(path, watcher=name, kind={"reap"}, limit=1)
        found = subject(told) or (told[-1] if told else None)
    if found is None:
        return None
    after = max(0, (found.id or 0) - BEFORE)
    return found, search(path, watcher=found.watcher, after=after, limit=AROUND, earliest=True)
