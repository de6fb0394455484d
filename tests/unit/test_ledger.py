import json
import math
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say
from xboard_circus.ledger import MIB, LedgerError, LedgerStore, LedgerTrouble, Record
from xboard_circus.ledger.database import LONGEST_TEXT, PAGE, open_to_read
from xboard_circus.ledger.query import last_trouble, search

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[..., LedgerStore]]:
    stores = []

    def open_one(**options: float) -> LedgerStore:
        stores.append(LedgerStore(path, clock=lambda: NOW, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., LedgerStore]) -> LedgerStore:
    return open_store()


def record(number: int = 0, **more: object) -> Record:
    fields: dict[str, object] = {"time": NOW + number, "watcher": "web", "kind": "restart", "reason": f"r{number}"}
    return Record(**(fields | more))  # type: ignore[arg-type]


def flood(store: LedgerStore) -> None:
    for _ in range(100):
        store.append([record(1, time=time.time(), reason="x" * 1000)] * 50)


def size_of(store: LedgerStore) -> int:
    """Return the bytes that the ledger takes on the disk, its write-ahead log included."""
    files = [store.path, store.path.with_name(f"{store.path.name}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def reasons(records: list[Record]) -> list[str]:
    return [found.reason for found in records]


# What goes in comes out


def test_a_record_comes_back_whole(store: LedgerStore) -> None:
    stored = Record(NOW, "web", "restart", 71, 2, "crash", "died by SIGSEGV", {"wait": 1.0})

    store.append([stored])

    assert search(store.path) == [Record(NOW, "web", "restart", 71, 2, "crash", "died by SIGSEGV", {"wait": 1.0}, id=1)]


def test_a_reason_keeps_its_data_and_one_with_broken_data_its_text(path: Path, store: LedgerStore) -> None:
    said = Say.COUNTED(why=Say.DIED(signal="SIGSEGV"), then=Say.THEN_COOL_AGAIN(wait="9 s"))
    store.append([record(0, reason=said), record(1, reason=said), record(2, reason="a log line")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute('UPDATE events SET say = \'{"key": "OF_A_LATER_VERSION"}\' WHERE id = 2')

    found = search(store.path)

    assert [data_of(each.reason) for each in found] == [said.as_data(), None, None]
    assert reasons(found) == [said, said, "a log line"]


def test_an_event_is_stored_once_whoever_records_it(path: Path, open_store: Callable[..., LedgerStore]) -> None:
    """Given circusd killed while its plugin starts, when two recorders run, then each event is there once."""
    one, other = open_store(), open_store()
    numbered = [record(n, seq=f"18c-{n}") for n in range(3)]

    one.append(numbered[:2])
    other.append(numbered)
    other.append([record(9, seq="18d-1"), record(10), record(10)])

    assert [each.seq for each in search(one.path)] == ["18c-0", "18c-1", "18c-2", "18d-1", None, None]


def test_an_event_that_is_stored_between_two_looks_is_found_once(store: LedgerStore) -> None:
    """Given events that were not stored as circusd was asked, when one is by now, then a search has each of them once.

    `why` said "in flight in 2 of the last 2 deaths" of the first one.
    """
    store.append([record(0, seq="18c-0"), record(1, seq="18c-1")])
    waiting = [record(n, seq=f"18c-{n}", id=n + 1, stored=False) for n in (1, 2)]

    assert [each.seq for each in search(store.path, unstored=waiting)] == ["18c-0", "18c-1", "18c-2"]


VERSION_1 = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, watcher TEXT NOT NULL, kind TEXT NOT NULL,
    pid INTEGER, wid INTEGER, cause TEXT, reason TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_watcher ON events (watcher, kind, time);
INSERT INTO events VALUES (1, 1800000000.0, 'web', 'restart', 71, 1, 'crash', 'wedged: no answer', '{"seq": "18c-1"}');
PRAGMA application_id = 0x78624C47;
PRAGMA user_version = 1;
"""


def test_a_ledger_of_an_earlier_version_is_read_and_then_written(path: Path, store: LedgerStore) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    old = record(0, pid=71, wid=1, cause="crash", reason="wedged: no answer", data={"seq": "18c-1"}, id=1)
    assert search(store.path) == [old]

    store.append([record(1, reason=Say.WELL_AGAIN(), seq="18c-2")])

    found = search(store.path)
    assert (found[0], data_of(found[1].reason)) == (old, Say.WELL_AGAIN().as_data())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, ["r0", "r1", "r2", "r3"], id="all, oldest first"),
        pytest.param({"limit": 2}, ["r2", "r3"], id="the newest"),
        pytest.param({"limit": 0}, [], id="none"),
        pytest.param({"since": NOW + 2}, ["r2", "r3"], id="since a time, that time included"),
        pytest.param({"watcher": "api"}, ["r1"], id="of one watcher"),
        pytest.param({"kind": {"reap"}}, ["r2"], id="of one kind"),
        pytest.param({"after": 3}, ["r3"], id="what has come since the last look"),
        pytest.param({"watcher": "web' OR 1 --"}, [], id="a name that is SQL"),
    ],
)
def test_query(store: LedgerStore, wanted: dict[str, Any], expected: list[str]) -> None:
    store.append([record(0), record(1, watcher="api"), record(2, kind="reap"), record(3)])

    assert reasons(search(store.path, **wanted)) == expected


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        pytest.param({"reason": "half a \ud800 pair"}, {"reason": "half a ? pair"}, id="no UTF-8"),
        pytest.param({"reason": "x" * 5000}, {"reason": "x" * 2000}, id="a long reason"),
        pytest.param({"pid": 1 << 70}, {"pid": None}, id="a pid that no pid can be"),
        pytest.param({"time": math.nan}, {"time": NOW}, id="no time"),
        pytest.param({"data": {"log": "y" * 200_000}}, {"data": {"cut": '{"log": "' + "y" * 49_991}}, id="much data"),
        pytest.param({"data": {"path": Path("/x")}}, {"data": {"path": "/x"}}, id="data that is not JSON"),
    ],
)
def test_what_sqlite_cannot_take_is_made_to_fit(
    store: LedgerStore, odd: dict[str, object], expected: dict[str, object]
) -> None:
    store.append([record(0, **odd)])

    [found] = search(store.path)
    assert {name: getattr(found, name) for name in expected} == expected


def test_there_is_nothing_to_read_where_there_is_no_file(store: LedgerStore, path: Path) -> None:
    assert search(store.path) == []
    assert not path.exists()


def test_a_reader_sees_what_a_writer_has_open(store: LedgerStore, open_store: Callable[..., LedgerStore]) -> None:
    store.append([record()])

    assert reasons(search(open_store().path)) == ["r0"]


def test_a_reader_sees_what_a_writer_left_behind(store: LedgerStore, open_store: Callable[..., LedgerStore]) -> None:
    store.append([record()])
    store.close()

    assert reasons(search(open_store().path)) == ["r0"]


def test_a_reader_bears_that_a_writer_opens_and_closes_it(path: Path) -> None:
    """SQLite makes and removes two files beside it each time; one look in a thousand fell in between."""
    done = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS other (number)")
            connection.execute("INSERT INTO other VALUES (1)")

    def write_on() -> None:
        while not done.is_set():
            write()

    write()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        try:
            for _ in range(3000):
                open_to_read(path).close()
        finally:
            done.set()
    writing.result()


def test_only_its_user_may_read_it(store: LedgerStore, path: Path) -> None:
    before = os.umask(0)
    try:
        store.append([record()])
    finally:
        os.umask(before)

    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    with closing(LedgerStore(tmp_path / "a" / "b" / "ledger.db")) as store:
        store.append([record(time=time.time())])

    assert (tmp_path / "a" / "b" / "ledger.db").exists()


# The bounds


def test_what_is_too_old_is_deleted(open_store: Callable[..., LedgerStore]) -> None:
    store = open_store(keep_days=2)
    store.append([record(-3 * 86_400), record(-86_400), record(0)])

    assert store.prune() is False
    assert reasons(search(store.path)) == ["r-86400", "r0"]


def test_a_flood_never_takes_more_than_its_room(open_store: Callable[..., LedgerStore]) -> None:
    store = open_store(max_mb=1)
    largest = 0

    for batch in range(60):
        store.append([record(batch * 100 + number, reason="x" * 500) for number in range(100)])
        largest = max(largest, size_of(store))

    newest = search(store.path, limit=1)[0]
    assert largest <= MIB
    assert newest.time == NOW + 5999
    assert len(search(store.path, limit=10_000)) > 500


@pytest.mark.parametrize("size", [4, 50, 400, 900])
def test_the_bound_makes_room_and_is_never_a_full_disk(open_store: Callable[..., LedgerStore], size: int) -> None:
    """Given a ledger just below its bound, when more comes at once than is left, then the oldest makes room for it."""
    store = open_store(max_mb=1)

    for batch in range(60):
        store.append([record(batch, reason=f"r{batch}", data={"log": "x" * 90_000}) for _ in range(batch % 4)])
        store.append([record(batch, reason=f"r{batch}", data={"log": "y" * size}) for _ in range(100)])

    assert search(store.path, limit=1)[0].reason == "r59"
    assert size_of(store) <= MIB


@pytest.mark.parametrize("vacuum", ["FULL", "INCREMENTAL"])
def test_a_file_that_is_larger_than_a_new_bound_shrinks_to_it(
    open_store: Callable[..., LedgerStore], path: Path, vacuum: str
) -> None:
    large = open_store(max_mb=8)
    for batch in range(20):
        large.append([record(batch * 200 + number, reason="x" * 1000) for number in range(200)])
    large.close()
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute(f"PRAGMA auto_vacuum = {vacuum}")
    assert path.stat().st_size > 2 * MIB
    store = open_store(max_mb=1)

    store.append([record(10_000)])
    while store.prune():
        pass

    store.close()
    kept = search(store.path, limit=100_000)
    assert size_of(store) <= MIB
    assert kept[-1].reason == "r10000"
    assert len(kept) > 200


def test_a_reader_that_never_ends_cannot_make_it_grow(open_store: Callable[..., LedgerStore], path: Path) -> None:
    store = open_store(max_mb=1)
    store.append([record()])
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchall()

        with pytest.raises(LedgerError, match="holds a transaction open") as caught:
            flood(store)

        assert caught.value.trouble is LedgerTrouble.LOCKED
        assert size_of(store) <= MIB
    store.append([record(1)])


# What goes wrong


def test_a_locked_file_refuses_at_once_and_takes_it_later(store: LedgerStore, path: Path) -> None:
    store.append([record(0)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began_at = time.monotonic()

        with pytest.raises(LedgerError) as caught:
            store.append([record(1)])

        assert caught.value.trouble is LedgerTrouble.LOCKED
        assert time.monotonic() - began_at < 4.5  # SQLite itself would wait for 5 s
        other.execute("ROLLBACK")
    store.append([record(1)])
    assert reasons(search(store.path)) == ["r0", "r1"]


def damage_header(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2 * 4096)


@pytest.mark.parametrize("damage", [damage_header, damage_pages, cut_short])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    store: LedgerStore, path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store.append([record(number) for number in range(500)])
    store.close()
    damage(path)
    damaged = path.read_bytes()

    store.append([record(501)])

    [aside] = [found for found in path.parent.glob("ledger.db.damaged-*") if not found.name.endswith(("-wal", "-shm"))]
    assert reasons(search(store.path)) == ["r501"]
    assert aside.read_bytes() == damaged
    assert f"set aside as {aside.name}" in caplog.text


def overwrite(path: Path, share: float) -> None:
    """Write 8 KiB of garbage over *path*, beginning at this share of it."""
    with path.open("r+b") as file:
        file.seek(int(share * (path.stat().st_size - 8192)))
        file.write(random.Random(share).randbytes(8192))


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_garbage_anywhere_in_the_file_is_found_by_the_next_prune(
    store: LedgerStore, path: Path, share: float, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Given 8 KiB of garbage, whether or not the next record touches it, then the ledger is sound again and told of."""
    for batch in range(60):
        store.append([record(batch, reason=f"{n} " + "x" * 500) for n in range(100)])
    if not is_open:
        store.close()
    assert path.stat().st_size > 2 * MIB
    overwrite(path, share)

    store.append([record(6000)])
    store.prune()
    store.append([record(6001)])

    assert "r6001" in reasons(search(store.path, limit=10_000))
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # A page that the write-ahead log of an open file holds is mended in passing.
    set_aside = len(list(path.parent.glob("ledger.db.damaged-*[0-9]")))
    assert set_aside == caplog.text.count("is damaged") == (0 if (is_open, share) == (True, 0) else 1)


@pytest.mark.parametrize("suffixes", [["-wal"], ["", "-wal"]], ids=["log", "both"])
def test_a_log_that_is_overwritten_while_it_is_open_costs_nothing_that_comes_later(
    store: LedgerStore, path: Path, suffixes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store.append([record(number) for number in range(500)])
    for suffix in suffixes:
        Path(f"{path}{suffix}").write_bytes(b"no database " * 2000)

    store.append([record(501)])

    assert reasons(search(path)) == ["r501"]
    assert caplog.text.count("is damaged") == 1


def test_a_text_that_is_no_utf_8_spoils_no_other_record(store: LedgerStore, path: Path) -> None:
    store.append([record(0), record(1)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET reason = CAST(x'72ff' AS TEXT) WHERE id = 1")

    assert reasons(search(store.path)) == ["r\ufffd", "r1"]


def test_a_disk_that_damages_all_it_gets_does_not_fill_up_with_damaged_files(store: LedgerStore, path: Path) -> None:
    store.append([record()])
    store.close()
    damage_header(path)
    store.append([record()])
    store.close()
    damage_header(path)

    with pytest.raises(LedgerError) as caught:
        store.append([record()])

    assert caught.value.trouble is LedgerTrouble.DAMAGED
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_only_the_newest_damaged_files_are_kept(store: LedgerStore, path: Path) -> None:
    for number in range(5):
        (path.parent / f"ledger.db.damaged-2020010{number}T000000").touch()
    damage_header(path)

    store.append([record()])

    kept = sorted(found.name for found in path.parent.glob("*.damaged-*"))
    assert len(kept) == 3
    assert kept[:2] == ["ledger.db.damaged-20200103T000000", "ledger.db.damaged-20200104T000000"]


def test_another_programs_database_is_left_alone(store: LedgerStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE boards (id INTEGER)")
        other.commit()
    before = path.read_bytes()

    with pytest.raises(LedgerError, match="another program's database") as caught:
        store.append([record()])

    assert caught.value.trouble is LedgerTrouble.UNUSABLE
    assert path.read_bytes() == before


def test_a_newer_versions_ledger_is_left_alone(store: LedgerStore, path: Path) -> None:
    store.append([record()])
    store.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")

    with pytest.raises(LedgerError, match="newer version"):
        store.append([record()])


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        LedgerStore(tmp_path).append([record()])

    assert caught.value.trouble is LedgerTrouble.UNUSABLE


def test_a_file_that_was_deleted_is_begun_anew(store: LedgerStore, path: Path) -> None:
    store.append([record(0)])
    path.unlink()

    store.append([record(1)])

    assert reasons(search(store.path)) == ["r1"]


FULL = """
import json, resource, sys
from pathlib import Path
from typing import Any
from xboard_circus.ledger import LedgerStore, LedgerError, Record
from xboard_circus.ledger.database import LONGEST_TEXT
from xboard_circus.ledger.query import search

path = Path(sys.argv[1])
store = LedgerStore(path)
batch = [Record(1.8e9, "web", "restart", reason="x" * 500)] * 100
store.append(batch)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, hard))
try:
    for _ in range(1000):
        store.append(batch)
    trouble = "none"
except LedgerError as error:
    trouble = error.trouble.name
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
store.append(batch)
print(json.dumps([trouble, len(search(store.path, limit=10**6)) % 100]))
"""


def test_a_file_that_may_not_grow_is_a_full_disk_and_loses_nothing_that_is_stored(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == ["FULL", 0]


def test_a_full_disk_keeps_what_is_stored_and_takes_more_once_there_is_room(
    small_disk: Callable[[str, str], Path],
) -> None:
    disk = small_disk("disk", "1m")
    with closing(LedgerStore(disk / "ledger.db")) as store:
        store.append([record(0, time=time.time())])
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"x" * MIB)

        with pytest.raises(LedgerError) as caught:
            flood(store)
        stored = len(search(store.path, limit=100_000))
        filler.unlink()
        store.append([record(2, time=time.time())])

        assert caught.value.trouble is LedgerTrouble.FULL
        # Which disk, and how full: circusd's folder and its logs may lie on others.
        said = rf"ledger {disk}/ledger.db: No space left on device: [\d.]+ \w+ of [\d.]+ \w+ used on {disk}, 0 B free"
        assert re.fullmatch(said, str(caught.value))
        assert len(search(store.path, limit=100_000)) == stored + 1
        assert reasons(search(store.path, limit=1)) == ["r2"]


def test_a_copy_can_be_read_by_somebody_who_may_not_write_there(store: LedgerStore, path: Path, tmp_path: Path) -> None:
    store.append([record()])
    store.close()
    folder = tmp_path / "backup"
    folder.mkdir()
    shutil.copy(path, folder)

    assert reasons(search(folder / path.name)) == ["r0"]


ENDLESS = """
CREATE VIEW events AS WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more)
SELECT n AS id, 1.0 AS time, 'web' AS watcher, 'x' AS kind, 0 AS pid, 0 AS wid, '' AS cause, '' AS reason, '' AS data,
hex(zeroblob(1000000)) AS say, '' AS seq FROM more
"""
GENERATED = """
CREATE TABLE events (id INTEGER PRIMARY KEY, time, watcher, kind, pid, wid, cause, data, say, seq,
reason AS (hex(zeroblob(1000000))))
"""


@pytest.mark.parametrize(
    "statement",
    [
        ENDLESS,
        "CREATE VIRTUAL TABLE events USING rtree(id, time, watcher)",
        GENERATED,
        "CREATE TABLE others (id)",
    ],
    ids=["a view", "a virtual table", "a generated column", "none"],
)
def test_a_ledger_whose_events_are_no_plain_table_is_not_read(statement: str, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.execute("PRAGMA user_version = 2")

    with pytest.raises(LedgerError, match="its events are no table of ours"):
        search(path, limit=3)


def test_a_ledger_that_takes_too_long_to_read_is_reported(
    store: LedgerStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([record(number) for number in range(5000)])
    monkeypatch.setattr("xboard_circus.ledger.query.READS_WITHIN", 0.0)

    with pytest.raises(LedgerError, match=f"{path}: reading it takes longer than 0 s"):
        search(path, pid=7)


def test_a_text_that_no_ledger_of_ours_has_is_cut(store: LedgerStore, path: Path) -> None:
    store.append([record(1), record(2)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET reason = ?, cause = ? WHERE id = 1", ("x" * 10**7, bytes(10**7)))

    first, second = search(path)

    assert (set(first.reason), first.cause, second.reason) == ({"x"}, None, "r2")
    assert len(first.reason) == LONGEST_TEXT


@pytest.mark.parametrize("most", [None, 0], ids=["one text", "all texts"])
def test_of_texts_that_a_ledger_only_claims_to_have_none_is_read(
    store: LedgerStore, path: Path, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a page that leads to itself, and so a text far longer than the file, then it is refused unread."""
    size = 64 * MIB if most is None else MIB
    store.append([record(1), record(2)])
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET data = CAST(zeroblob(?) AS TEXT) WHERE id = 1", [size])
    file = bytearray(path.read_bytes())
    page = 3 + [*file[PAGE : 2 * PAGE : 5]].index(3)  # the first of a text, by SQLite's list of pages
    first = (page - 1) * PAGE
    file[first : first + 4] = file[28:32] = page.to_bytes(4, "big")
    path.write_bytes(file[: page * PAGE])
    if most is not None:
        monkeypatch.setattr("xboard_circus.ledger.database.MOST_TEXT", most, raising=False)

    with pytest.raises(LedgerError, match=f"{path}: claims more text than a ledger of ours has; move the file away"):
        search(path)

    assert path.stat().st_size < MIB
    assert reasons(search(path, after=1)) == ["r2"]


def test_trouble_of_slots_and_of_a_port_is_as_old_as_its_end_too(path: Path, store: LedgerStore) -> None:
    """Given workers that cooled down, or waited for a port, for half a minute, then that was until they were up."""
    slots: list[dict[str, Any]] = [{"slot": slot} for slot in (1, 2)]
    store.append([record(at, pid=70 + at, cause="crash", data=data) for at, data in enumerate(slots)])
    store.append([record(30 + at, kind="ready", pid=80 + at, data=data) for at, data in enumerate(slots)])
    assert last_trouble(path, ["web"]) == NOW + 31

    store.append([record(200, kind="port_refused"), record(230, kind="ready", pid=90, data=slots[0])])
    store.append([record(400, kind="ready", pid=91, data=slots[0])] * 200)
    assert last_trouble(path, ["web"]) == NOW + 200  # it is so long ago that its end does not matter


def test_the_last_trouble_is_as_old_as_its_end(path: Path, store: LedgerStore) -> None:
    """Given a dependency that was down for three hours until a moment ago, then that was a moment ago."""
    assert last_trouble(path, ["web"]) is None

    store.append([record(0, kind="unhealthy"), record(10_800, kind="recovered"), record(10_900, watcher="dashboard")])
    lost = [
        record(at, watcher="circusd", kind=kind) for at, kind in ((10_990, "circusd_lost"), (11_000, "circusd_back"))
    ]
    store.append([record(10_950, cause="commanded"), *lost])

    assert last_trouble(path, ["web"]) == NOW + 10_800
    assert last_trouble(path, ["web", "circusd"]) == NOW + 11_000
