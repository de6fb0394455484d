import asyncio
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock
from state_views import watcher_view, worker_view

from xboard_circus.core.health import Observation, Round
from xboard_circus.core.history import Point
from xboard_circus.core.route_counts import STRIDE
from xboard_circus.core.state_names import Health
from xboard_circus.core.state_schema import parse_report
from xboard_circus.ledger import LedgerError, LedgerTrouble
from xboard_circus.ledger.history_store import HistoryStore, Totals, read_points, read_totals
from xboard_circus.plugins import traffic_recorder
from xboard_circus.plugins._sightings import ProbeRound, Sighting
from xboard_circus.plugins.traffic_recorder import LONGEST_RETRY, MOST_POINTS, TrafficRecorder

AT = 1_800_000_000.0


class FullStore(HistoryStore):
    """A store on a disk that is full as long as *is_full*."""

    is_full = True

    def write(self, points: Sequence[tuple[str, Point]], totals: Mapping[str, Totals]) -> None:
        if self.is_full:
            raise LedgerError(self.path, LedgerTrouble.FULL, "database or disk is full")
        super().write(points, totals)


class Rounds:
    """A recorder, and rounds of one worker that answers a request each 2 s."""

    def __init__(self, store: HistoryStore, *, begins_at: int = 0) -> None:
        self.clock, self.at, self.served = FakeClock(1000.0 + 2 * begins_at), AT + 2 * begins_at, begins_at
        self.recorder = TrafficRecorder(FakeCircusd(), store, clock=self.clock, wall_clock=lambda: self.at)

    def take(self, rounds: int, *, log: str | None = None, **report: Any) -> None:
        for _ in range(rounds):
            self.clock.sleep(2)
            self.at += 2
            self.served += 1
            traffic = {"active": 0, "routes": ["GET /"], "counts": [self.served] * STRIDE}
            told = {"pid": 1, "uptime": 1e6 + self.served, "traffic": traffic, **report}
            output = {"lost": 0, "file": log, "reason": "", "say": None}
            view = watcher_view(worker_view(1, "up", slot=1), output=output)
            seen = Sighting(Observation(answered=True), 1.0, report=parse_report(told))
            self.recorder.take(ProbeRound(view, {(1, 10): seen}, Round({(1, 10): Health.OK}, {}, frozenset(), (), ())))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger-history.db"


def rates(path: Path, step: int = 2, slot: int = 0) -> list[float | None]:
    found = read_points(path, "web", slot=slot, step=step, since=AT - 1000, until=AT + 10_000)
    return [figures[0] for _, figures in found]


def test_a_restart_of_the_plugin_leaves_no_gap_and_no_rate_below_0(path: Path) -> None:
    async def history() -> None:
        for begins_at in (0, 30):
            one = Rounds(HistoryStore(path, clock=lambda: AT + 200), begins_at=begins_at)
            await one.recorder.tick()
            one.take(30)
            await one.recorder.close()

    asyncio.run(history())

    assert len(rates(path)) == 60
    assert {rate for rate in rates(path) if rate is not None} == {0.5}
    assert {rate for rate in rates(path, slot=1) if rate is not None} == {0.5}
    assert read_totals(path)["web"].traffic["counts"][0] == 59  # the second process knows no number before its first


def test_a_full_disk_is_said_once_and_what_waited_is_stored_when_there_is_room(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def history() -> list[float]:
        store = FullStore(path, clock=lambda: AT + 200)
        one = Rounds(store)
        await one.recorder.tick()
        pauses = []
        for _ in range(6):
            one.take(5)
            pauses.append(await one.recorder.tick())
        store.is_full = False
        pauses.append(await one.recorder.tick())
        await one.recorder.in_thread(store.close)
        return pauses

    with caplog.at_level(logging.WARNING):
        pauses = asyncio.run(history())

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "disk is full" in caplog.records[0].getMessage()
    assert pauses == [4.0, 8.0, 16.0, 30.0, LONGEST_RETRY, LONGEST_RETRY, 4.0]
    assert len(rates(path)) == 29  # the thirtieth is not complete


@pytest.mark.parametrize(
    ("log", "folder"),
    [("{}/logs/web.log", "logs"), ("StdoutStream", "."), (None, "."), ("{}/gone/web.log", "")],
    ids=["a file", "no file", "nothing", "a folder that is gone"],
)
def test_the_free_space_of_the_disk_of_the_log_is_kept_also_of_the_time_in_which_nothing_could_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, log: str | None, folder: str
) -> None:
    free = {str(path.parent / folder): 5 * 2**20} if folder else {}

    def statvfs(place: str) -> Any:
        if place not in free:
            raise FileNotFoundError(place)
        return SimpleNamespace(f_bavail=free[place] // 4096, f_frsize=4096)

    async def history() -> None:
        store = FullStore(path, clock=lambda: AT + 200)
        one = Rounds(store)
        await one.recorder.tick()
        for _ in range(6):
            one.take(2, log=log and log.format(path.parent))
            await one.recorder.tick()
            free.update({place: max(0, each - 2**20) for place, each in free.items()})
        store.is_full = False
        await one.recorder.close()

    monkeypatch.setattr(os, "statvfs", statvfs)
    asyncio.run(history())

    found = [figures[-1] for _, figures in read_points(path, "web", slot=0, step=2, since=AT, until=AT + 100)]
    mib = [None if each is None else each / 2**20 for each in found]
    assert mib == [None, None, *[each for free in (5, 4, 3, 2, 1) for each in [free] * 2]] if folder else [None] * 12
    of_slot = read_points(path, "web", slot=1, step=2, since=AT, until=AT + 100)
    assert {figures[-1] for _, figures in of_slot} == {None}


def test_a_disk_that_does_not_answer_holds_up_no_history(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a log on a disk of a network that hangs, then points are stored all the same."""
    answers = threading.Event()

    def statvfs(_: str) -> Any:
        answers.wait(60)
        raise OSError

    async def history() -> None:
        one = Rounds(HistoryStore(path, clock=lambda: AT + 200))
        for _ in range(3):
            one.take(2)
            await asyncio.wait_for(one.recorder.tick(), 30)
        assert rates(path)[1:]
        answers.set()
        await one.recorder.close()

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(traffic_recorder, "LOOK_SECONDS", 0.05)
    try:
        asyncio.run(history())
    finally:
        answers.set()


def test_what_waits_is_bounded(path: Path) -> None:
    async def history() -> int:
        one = Rounds(FullStore(path, clock=lambda: AT + 200))
        await one.recorder.tick()
        one.take(MOST_POINTS)
        await one.recorder.tick()
        return len(one.recorder._points)

    assert asyncio.run(history()) == MOST_POINTS


def test_a_worker_that_reports_no_traffic_has_gauges_all_the_same(path: Path) -> None:
    async def history() -> None:
        one = Rounds(HistoryStore(path, clock=lambda: AT + 200))
        await one.recorder.tick()
        one.take(3, traffic=None, rss=2**30)
        await one.recorder.close()

    asyncio.run(history())

    found = read_points(path, "web", slot=1, step=2, since=AT, until=AT + 100)
    assert [figures[9] for _, figures in found] == [2**30] * 3
