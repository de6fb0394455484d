"""Query records in a ledger's file, even while it is written, and find the record that `why` explains."""

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from xboard_circus.core.incidents import KINDS as OF_INCIDENTS
from xboard_circus.core.incidents import SHARES, IncidentRecord, Present, fold
from xboard_circus.core.names import bus_name
from xboard_circus.host.file_rights import others_at
from xboard_circus.host.servers import name_of
from xboard_circus.ledger.database import SCHEMA_VERSION, LedgerError, LedgerTrouble, ledger_errors, open_to_read
from xboard_circus.ledger.record import COLUMNS, Record, record_of, record_of_row
from xboard_circus.ledger.story import DEATHS, EXPLAINED, KINDS, TROUBLE, subject

LARGEST = (1 << 63) - 1  # largest integer of SQLite
BEFORE, AROUND = 200, 1000  # records around the one to explain, for its successor and what followed
READS_WITHIN = 60.0
LAST = 200  # deaths and decisions that are searched for the last one
MOST_FOLDED = 10_000  # events that incidents are folded from

_BRIEF = "CASE WHEN json_valid(data) THEN json_object({}) END".format(
    ", ".join(f"'{name}', json_extract(data, '$.{name}')" for name in ("slot", "state", "wait", "gap", "follows"))
)
# A view and a virtual table have no page of their own; "hidden" are generated columns.
_IS_OURS = """
    SELECT 1 FROM sqlite_master WHERE name = 'events' AND type = 'table' AND rootpage > 0
    AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo('events') WHERE hidden)
"""


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
    unstored: Iterable[Record] = (),
    is_brief: bool = False,
) -> list[Record]:
    """Return the newest *limit* matching records, oldest first; without a file only *unstored* ones.

    Args:
        since: Only events at or after this wall-clock time.
        kind: Only these kinds.
        after: Only records stored after the one with this id.
        earliest: Return the oldest *limit* in place of the newest.
        unstored: Records that are not in the file yet, see `unstored_of`.
        is_brief: Of the data of an event only what `core.incidents` needs: a death has some KiB of evidence.

    Raises:
        LedgerError: The file can't be read.
    """
    if any(abs(number) > LARGEST for number in (after, pid) if number is not None):
        return []
    equal = {"time >= ?": since, "watcher = ?": watcher, "id > ?": after, "pid = ?": pid}
    tests: dict[str, list[object]] = {test: [value] for test, value in equal.items() if value is not None}
    if kind is not None:
        tests[f"kind IN ({', '.join('?' * len(kind))})"] = [*kind]
    most = max(0, limit)
    found = _stored(path, tests, limit=most, earliest=earliest, is_brief=is_brief)
    stored = {each.seq for each in found}  # also between the look at circusd and this one
    for each in (each for each in unstored if each.seq is None or each.seq not in stored):
        is_of_them = watcher in (None, each.watcher) and pid in (None, each.pid) and (kind is None or each.kind in kind)
        if is_of_them and (since is None or each.time >= since) and (after is None or (each.id or 0) > after):
            found.append(each)
    return found[:most] if earliest else found[max(0, len(found) - most) :]


def _stored(
    path: Path, tests: dict[str, list[object]], *, limit: int, earliest: bool, is_brief: bool = False
) -> list[Record]:
    if not os.path.exists(path):
        return []
    where, values = " AND ".join(tests) or "1", [value for each in tests.values() for value in each]
    ends_at = time.monotonic() + READS_WITHIN
    with ledger_errors(path), closing(open_to_read(path)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > ends_at, 10_000)
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return []  # it is being made at this moment
        # A user who may write the file could have a view or a generated column compute without end.
        if connection.execute(_IS_OURS).fetchone() is None:
            raise LedgerError(path, LedgerTrouble.UNUSABLE, "its events are no table of ours; move the file away")
        is_old = connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION
        columns = COLUMNS.replace("say, seq", "NULL AS say, NULL AS seq") if is_old else COLUMNS
        columns = columns.replace("data,", f"{_BRIEF} AS data,") if is_brief else columns
        events = f"(SELECT id, {columns} FROM events)"
        sql = f"SELECT id, {COLUMNS} FROM {events} WHERE {where} ORDER BY id {'ASC' if earliest else 'DESC'} LIMIT ?"
        other = "" if (user := others_at(path)) is None else name_of(user[0])
        try:
            records = [each for row in connection.execute(sql, [*values, limit]) if (each := record_of_row(row, other))]
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            what = f"reading it takes longer than {READS_WITHIN:g} s; move the file away"
            raise LedgerError(path, LedgerTrouble.UNUSABLE, what) from error
    return records if earliest else records[::-1]


def unstored_of(path: Path, events: Sequence[object], *, since: float, now: float) -> list[Record]:
    """Return records of the last *events* of circusd that the ledger at *path* lacks, numbered as if they came next.

    They wait in memory while the disk is full. An event before *since*, or before a stored one, was stored once and has
    been deleted. The events must have been queried before this reads the ledger.
    """
    lacking: list[Record] = []
    newest_first = _records_of(reversed(events), now)
    while some := [*islice(newest_first, LAST)]:
        is_one = f"seq IN ({', '.join('?' * len(some))})"
        known = {each.seq for each in _stored(path, {is_one: [each.seq for each in some]}, limit=LAST, earliest=True)}
        missing = next((n for n, each in enumerate(some) if each.seq in known or each.time < since), len(some))
        lacking += some[:missing]
        if missing < len(some):
            break
    last = max((each.id or 0 for each in search(path, limit=1)), default=0)
    return [each._replace(id=last + place, stored=False) for place, each in enumerate(reversed(lacking), 1)]


def _records_of(events: Iterable[object], now: float) -> Iterator[Record]:
    for event in events:
        match event:
            case [str() as watcher, str() as kind, dict() as data] if kind in KINDS:
                yield record_of(watcher, kind, data, now=now)


def last_with_reason(
    path: Path,
    *,
    watcher: str | None = None,
    pid: int | None = None,
    unstored: Sequence[Record] = (),
    current: Present | None = None,
) -> tuple[Record, list[Record]] | None:
    """Return the last record that needs a reason, of a process, of a watcher or of any, and those around it.

    None without a record; LedgerError if the ledger at *path* cannot be read.

    Args:
        current: How the watcher is now: of trouble the last record of what is not over is returned, and of a failed
            reload that is news its end.
    """
    query = partial(search, path, unstored=unstored)
    if pid is not None:
        found = subject(query(pid=pid, limit=LAST), pid=pid)
    elif watcher is None or current is None or (found := _of_now(path, bus_name(watcher), current, unstored)) is None:
        name = None if watcher is None else bus_name(watcher)
        # For an unarmed watcher Circus reports that a process ended, and no more.
        events = query(watcher=name, kind=EXPLAINED, limit=LAST) or query(watcher=name, kind={"reap"}, limit=1)
        found = subject(events) or (events[-1] if events else None)
    return None if found is None else (found, around(path, found, unstored))


def _of_now(path: Path, name: str, current: Present, unstored: Sequence[Record]) -> Record | None:
    """Return the record that explains what is wrong with a watcher now; None where nothing is, or that is unknown."""
    if current.is_troubled:
        known, _ = month_of(path, now=time.time(), unstored=unstored)
        own = [each for each in known if each.watcher == name]
        last = next((each for each in reversed(fold(own, [name])) if each.until is None and each.problems), None)
        return None if last is None else explaining(path, last, own, unstored)
    if current.has_failed_reload:
        return next(iter(search(path, watcher=name, kind={"reload_end"}, limit=1, unstored=unstored)), None)
    return None


def explaining(
    path: Path, incident: IncidentRecord, known: Iterable[Record], unstored: Sequence[Record] = ()
) -> Record | None:
    """Return the whole record that explains an incident, one of the *known* events; None if it has been deleted."""
    name, begin, end = incident.first.watcher, incident.first.id, incident.subject.id
    brief = subject([each for each in known if each.watcher == name and begin <= (each.id or 0) <= end])
    after = ((brief or incident.first).id or 0) - 1
    found = search(path, watcher=name, after=after, limit=1, earliest=True, unstored=unstored)
    return found[0] if found else None


def around(path: Path, record: Record, unstored: Sequence[Record] = ()) -> list[Record]:
    """Return the records of its watcher around *record*. LedgerError."""
    after = max(0, (record.id or 0) - BEFORE)
    return search(path, watcher=record.watcher, after=after, limit=AROUND, earliest=True, unstored=unstored)


def slots_of(path: Path, watchers: Collection[str], *, limit: int) -> list[tuple[int, int]]:
    """Return pid and slot of the last workers of *watchers* that came up or ended, oldest first; LedgerError."""
    found = search(path, kind=DEATHS | {"ready"}, limit=limit, is_brief=True)
    slots = [(each.pid, each.data.get("slot")) for each in found if each.watcher in watchers]
    return [(pid, slot) for pid, slot in slots if pid and isinstance(slot, int)]


def last_trouble(path: Path, watchers: Collection[str]) -> float | None:
    """Return when the last trouble of *watchers* was, or ended; not the end of a worker by an order. LedgerError."""
    found = search(path, kind=OF_INCIDENTS, limit=LAST, is_brief=True)
    ends = [each.until or each.last.time for each in fold((each for each in found if each.watcher in watchers), ())]
    if ends:
        return max(ends)
    found = search(path, kind=TROUBLE, limit=LAST, is_brief=True)  # many workers came up since
    return max((each.time for each in found if each.cause != "commanded" and each.watcher in watchers), default=None)


def month_of(path: Path, *, now: float, unstored: Sequence[Record] = ()) -> tuple[list[Record], float]:
    """Return the events of a month that incidents are folded from, and since when all are known. LedgerError."""
    since, kinds = now - max(SHARES), OF_INCIDENTS
    found = search(path, since=since, kind=kinds, limit=MOST_FOLDED, is_brief=True, unstored=unstored)
    if len(found) == MOST_FOLDED:
        return found, found[0].time
    first = search(path, limit=1, earliest=True, is_brief=True)
    return found, first[0].time if first else now
