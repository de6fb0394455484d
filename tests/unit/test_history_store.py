"""The file of the history: small whatever the clock does, and of harm to nobody where it is damaged."""

import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from xboard_circus.config import load
from xboard_circus.core.history import FIGURES, STEPS, Figures, Point, kept_points
from xboard_circus.core.incidents import Present
from xboard_circus.core.route_counts import STRIDE
from xboard_circus.core.state_schema import parse_traffic
from xboard_circus.dashboard.death_view import FEW, Evidence
from xboard_circus.dashboard.settings import Settings
from xboard_circus.ledger import LedgerError, LedgerStore
from xboard_circus.ledger.history_store import (
    PRUNE_EVERY,
    HistoryStore,
    Totals,
    last_figures,
    read_points,
    read_totals,
)
from xboard_circus.ledger.location import history_in, ledger_of

NOW = 1_800_000_000
MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[HistoryStore]:
    with closing(HistoryStore(tmp_path / "history.db", clock=clock)) as store:
        yield store


def figures(value: float = 1.0) -> Figures:
    return (value,) * len(FIGURES)


def points(step: int, *, until: float, count: int, slots: int = 1) -> list[tuple[str, Point]]:
    last = int(until // step)
    each = {slot: figures() for slot in range(slots + 1)}
    return [("web", Point(step, at * step, each)) for at in range(last - count + 1, last + 1)]


def totals(**routes: int) -> Totals:
    counts = [count for count in routes.values() for _ in range(STRIDE)]
    found = parse_traffic({"active": 0, "routes": [f"GET /{name}" for name in routes], "counts": counts})
    assert found is not None
    return Totals(5.0, found)


def read(store: HistoryStore, step: int = 60, slot: int = 0, watcher: str = "web") -> list[tuple[int, Figures]]:
    return read_points(store.path, watcher, slot=slot, step=step, since=0, until=2 * NOW)


def prune(store: HistoryStore, *written: tuple[str, Point]) -> None:
    store._prune_at = 0.0
    store.write(written, {})


def size(store: HistoryStore) -> int:
    """Return the bytes of the file when what was deleted is given back."""
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store.path.stat().st_size


def test_points_are_read_as_they_were_written(store: HistoryStore) -> None:
    first = (12.5, 0.0, 0.0, 0.5, 0.0035, None, 30.0, 3, 0.012, 2.0**28, 1.75, 3.5e11)
    store.write([("web", Point(2, NOW, {0: first, 3: figures(4.0)})), ("api", Point(2, NOW, {0: figures()}))], {})

    (_, of_all), (_, of_slot) = read(store, 2)[0], read(store, 2, slot=3)[0]

    assert [each is None for each in of_all] == [each is None for each in first]
    assert [each or 0 for each in of_all] == pytest.approx([each or 0 for each in first], rel=1e-3)
    assert of_slot[:9] == pytest.approx(figures(4.0)[:9], rel=1e-3)
    assert read(store, 2, slot=1) == read(store, 10) == read(store, 2, watcher="other") == []


def test_points_of_a_version_that_knew_of_no_disk_are_read_beside_new_ones(store: HistoryStore) -> None:
    store.write(points(2, until=NOW, count=2), {})
    with closing(sqlite3.connect(store.path)) as connection, connection:
        first = connection.execute("SELECT min(id) FROM watcher_2").fetchone()
        connection.execute("UPDATE watcher_2 SET figures = substr(figures, 1, 22) WHERE id = ?", first)

    old, new = (found for _, found in read(store, 2))
    now = last_figures(store.path, now=NOW)["web"]

    assert (old[:9], old[-1], new[-1] is None) == (new[:9], None, False)
    assert now[0] == new
    assert (now[1][:9], now[1][-1]) == (new[:9], None)


def test_figures_beyond_all_measure_are_cut(store: HistoryStore) -> None:
    store.write([("web", Point(2, NOW, {0: figures(1e30)}))], {})

    assert all(each is not None and each > 0 for each in read(store, 2)[0][1])


def test_a_point_that_is_written_again_replaces_the_first(store: HistoryStore) -> None:
    for value in (1.0, 2.0):
        store.write([("web", Point(60, NOW, {0: figures(value)}))], {})

    assert [each[6] for _, each in read(store)] == [2.0]


def test_totals_outlive_the_process(store: HistoryStore) -> None:
    assert read_totals(store.path) == {}
    store.write(points(2, until=NOW, count=1), {"web": totals(items=7)})
    store.write([("api", Point(2, NOW, {0: figures()}))], {"api": totals(x=1), "web": totals(items=9)})
    store.close()

    assert read_totals(store.path) == {"web": totals(items=9), "api": totals(x=1)}


@pytest.mark.parametrize("slots", [1, 4, 8, 32])
def test_seven_days_of_a_watcher_take_less_than_two_megabytes(store: HistoryStore, clock: Clock, slots: int) -> None:
    counted = totals(**{f"r{n}": 10**9 for n in range(99)})
    for step, count in STEPS.items():
        late = int(PRUNE_EVERY) // step  # they go at the next prune
        store.write(points(step, until=NOW, count=count + late, slots=0), {})
        store.write(points(step, until=NOW, count=kept_points(step, slots) + late, slots=slots), {"web": counted})

    assert size(store) < 2 * MB
    prune(store, *points(60, until=NOW, count=1, slots=slots))
    assert len(read(store)) == STEPS[60]
    assert len(read(store, slot=1)) == kept_points(60, slots)


def test_a_year_with_a_clock_that_is_set_stays_small_and_continuous(store: HistoryStore, clock: Clock) -> None:
    jumps = {4: 3600.0, 8: -200 * 86_400.0, 12: 365 * 86_400.0}
    for month in range(14):
        clock.now += 28 * 86_400.0 + jumps.get(month, 0.0)
        for step, count in STEPS.items():
            store.write(points(step, until=clock.now, count=count), {})
        prune(store, *points(60, until=clock.now, count=1))

    for step in (10, 60):
        times = [time for time, _ in read(store, step) if time <= clock.now]
        assert {after - before for before, after in pairwise(times)} == {step}
        assert len(times) == STEPS[step]
    assert size(store) < 2 * MB


def test_what_is_of_a_time_to_come_goes_when_the_clock_is_right_again(store: HistoryStore, clock: Clock) -> None:
    store.write(points(60, until=NOW + 10**8, count=5), {})
    store.write(points(60, until=NOW, count=5), {})

    prune(store)

    assert [time for time, _ in read(store)] == [NOW - 60 * n for n in range(4, -1, -1)]


def test_a_damaged_file_is_set_aside_and_another_program_s_is_left_alone(store: HistoryStore) -> None:
    store.path.write_bytes(b"no database at all, but of some length" * 100)
    store.write(points(60, until=NOW, count=1), {})
    assert len(read(store)) == 1
    assert len([*store.path.parent.glob("*.damaged-*")]) == 1

    other = HistoryStore(store.path.with_name("other.db"))
    with closing(sqlite3.connect(other.path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
    with pytest.raises(LedgerError, match="another program's"):
        other.write(points(60, until=NOW, count=1), {})


def test_a_file_that_was_deleted_is_begun_anew(store: HistoryStore) -> None:
    store.write(points(60, until=NOW, count=3), {})
    store.path.unlink()

    store.write(points(60, until=NOW, count=1), {"web": totals(items=1)})

    assert (len(read(store)), [*read_totals(store.path)]) == (1, ["web"])


@pytest.mark.parametrize("blob", [b"", b"short", "text", 7, b"\xff" * 22, b"\xff" * 23])
def test_figures_that_anybody_wrote_show_nothing_or_numbers(store: HistoryStore, blob: object) -> None:
    store.write(points(60, until=NOW, count=1), {"web": totals(items=1)})
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        for table in ("watcher_60", "slots_60"):
            connection.execute(f"UPDATE {table} SET figures = ?", (blob,))
        connection.execute("UPDATE watchers SET totals = ?", (blob,))
        connection.commit()

    for slot in (0, 1):
        assert {each for _, found in read(store, slot=slot) for each in found} <= {None}
    assert read_totals(store.path) == {}


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS id, {} FROM n"


def test_a_history_that_is_a_view_without_end_is_not_read(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xboard_circus.ledger.history_store.READS_WITHIN", 0.2)
    store.write(points(60, until=NOW, count=1), {})
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.executescript(
            f"ALTER TABLE watcher_60 RENAME TO a; CREATE VIEW watcher_60 AS {ENDLESS.format('x AS figures')}"
        )
    with pytest.raises(LedgerError, match="interrupted"):
        read(store)

    with closing(sqlite3.connect(store.path)) as connection:
        endless = ENDLESS.format("x AS name, x AS totals, x AS until")
        connection.executescript(f"ALTER TABLE watchers RENAME TO b; CREATE VIEW watchers AS {endless} WHERE x < 0")
    with pytest.raises(LedgerError, match="interrupted"):
        read_totals(store.path)


def test_of_figures_without_measure_the_first_are_read(store: HistoryStore) -> None:
    store.write(points(60, until=NOW, count=1), {})
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE slots_60 SET figures = zeroblob(10000000)")
        connection.commit()
    tracemalloc.start()

    read(store, slot=1)

    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000


def test_the_page_gets_small_curves_of_the_chosen_range_where_there_are_few_watchers(tmp_path: Path) -> None:
    ini = tmp_path / "circus.ini"
    ini.write_text("[watcher:web]\ncmd = sleep 9\n[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n")
    config = load(ini)
    history = history_in(config)
    assert history is not None
    with closing(LedgerStore(ledger_of(config))) as ledger, closing(HistoryStore(history)) as store:
        ledger.append([])
        for step in (10, 60):
            store.write(points(step, until=time.time(), count=kept_points(step)), {})
    page = Evidence(Settings(folder=tmp_path, endpoint="tcp://127.0.0.1:1", label="here", config=config))

    few = page.beats({"web": Present(), "other": Present()}, span=3600)
    week = page.beats({"web": Present()}, span=7 * 86_400)["web"]["pulse"]["t"]
    many = page.beats({f"web{number}": Present() for number in range(FEW + 1)}, span=86_400)

    pulse = few["web"]["pulse"]
    assert 350 < len(pulse["t"]) < 370
    assert {len(pulse[name]) for name in ("requests", "errors", "p95")} == {len(pulse["t"])}
    assert few["other"]["pulse"]["t"] == []
    assert week[-1] - week[0] > 6.9 * 86_400
    assert len(week) < 500
    assert not any("pulse" in each for each in many.values())
