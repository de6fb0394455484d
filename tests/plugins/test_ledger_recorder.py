import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock

from xboard_circus.ledger import LedgerError, LedgerStore, LedgerTrouble, Record
from xboard_circus.ledger.query import search
from xboard_circus.ledger.record import record_of
from xboard_circus.plugins._base import BusEvent
from xboard_circus.plugins.ledger import FLUSH_EVERY, PRUNE_EVERY, LedgerRecorder


class FakeStore:
    """Keeps records in a list, and fails as *failures* says: the next one first, None for success."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.failures: list[LedgerTrouble | None] = []
        self.on_append: Callable[[], object] = lambda: None
        self.pruned = 0
        self.prune_failures: list[LedgerTrouble] = []

    def append(self, records: Sequence[Record]) -> None:
        self.on_append()
        trouble = self.failures.pop(0) if self.failures else None
        if trouble is not None:
            raise LedgerError(Path("ledger.db"), trouble, trouble.value)
        self.stored += [record.reason for record in records]

    def prune(self) -> bool:
        self.pruned += 1
        if self.prune_failures:
            trouble = self.prune_failures.pop(0)
            raise LedgerError(Path("ledger.db"), trouble, trouble.value)
        return False

    def close(self) -> None:
        pass


def stock_circusd() -> FakeCircusd:
    """A circusd without an armed watcher, which has no events of ours."""
    circusd = FakeCircusd()
    circusd.refuses["xboard_events"] = "unknown command: 'xboard_events'"
    return circusd


def recorder_for(store: Any, **options: Any) -> LedgerRecorder:
    return LedgerRecorder(store, commands=stock_circusd(), clock=FakeClock(), wall_clock=lambda: 5.0, **options)


def say(recorder: LedgerRecorder, *reasons: str) -> None:
    for reason in reasons:
        recorder.handle_event(BusEvent("web", "restart", {"reason": reason}))


def test_what_happens_is_stored_in_order() -> None:
    store = FakeStore()
    recorder = recorder_for(store)
    say(recorder, *[f"r{number}" for number in range(500)])

    asyncio.run(recorder.tick())

    assert store.stored == [f"r{number}" for number in range(500)]
    assert len(recorder._waiting) == 0


@pytest.mark.parametrize("kind", ["hook_success", "hook_failure", "updated", "add", "stats"])
def test_events_that_nobody_looks_up_are_left_out(kind: str) -> None:
    recorder = recorder_for(FakeStore())

    recorder.handle_event(BusEvent("web", kind, {}))

    assert len(recorder._waiting) == 0


def test_what_could_not_be_stored_is_tried_again_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    store.failures = [LedgerTrouble.FULL] * 8
    recorder = recorder_for(store)
    say(recorder, "r0")

    pauses = [asyncio.run(recorder.tick()) for _ in range(9)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, PRUNE_EVERY]
    assert store.stored == ["r0"]
    assert [record.getMessage() for record in caplog.records] == [
        "ledger ledger.db: disk full; events wait in memory, the last 5000 of them",
        "ledger: written again after 8 failures, 0 events were lost",
    ]


def test_of_what_waits_the_oldest_is_lost_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    store.failures = [LedgerTrouble.LOCKED]
    recorder = recorder_for(store, queue=3)
    say(recorder, "r0", "r1", "r2", "r3", "r4")
    asyncio.run(recorder.tick())

    asyncio.run(recorder.tick())

    assert store.stored == ["r2", "r3", "r4"]
    assert "2 events were lost" in caplog.text


def test_what_comes_while_a_batch_is_written_is_neither_lost_nor_written_twice() -> None:
    store = FakeStore()
    recorder = recorder_for(store, queue=3)
    say(recorder, "r0", "r1", "r2")
    more = [["r3", "r4"], ["r5"], [], []]
    store.on_append = lambda: say(recorder, *more.pop(0))

    asyncio.run(recorder.tick())

    assert store.stored == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_it_is_pruned_at_first_and_then_now_and_again() -> None:
    store = FakeStore()
    clock = FakeClock()
    recorder = LedgerRecorder(store, commands=stock_circusd(), clock=clock)  # type: ignore[arg-type]

    for _ in range(5):
        asyncio.run(recorder.tick())
    clock.sleep(601)
    asyncio.run(recorder.tick())

    assert store.pruned == 2


def test_the_end_stores_what_is_queued() -> None:
    store = FakeStore()
    recorder = recorder_for(store)
    say(recorder, "r0")

    asyncio.run(recorder.close())

    assert store.stored == ["r0"]


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeStore, threading.Event]:
    """A store that takes nothing until the event, and that an end waits for for a moment only."""
    monkeypatch.setattr("xboard_circus.plugins.ledger.CLOSE_SECONDS", 0.1)
    store, released = FakeStore(), threading.Event()
    store.on_append = lambda: released.wait(60)
    return store, released


def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(stuck: tuple[FakeStore, threading.Event]) -> None:
    store, released = stuck
    recorder = recorder_for(store)
    say(recorder, "r0")

    async def end() -> float:
        began_at = time.monotonic()
        await recorder.close()
        took = time.monotonic() - began_at
        released.set()
        return took

    assert asyncio.run(end()) < 30


def test_the_end_of_circusd_is_given_more_time(stuck: tuple[FakeStore, threading.Event]) -> None:
    store, released = stuck
    recorder = recorder_for(store)
    recorder.handle_event(BusEvent("circusd", "circusd_lost", {"reason": "killed"}))

    async def end() -> bool:
        closing = asyncio.ensure_future(recorder.close())
        asyncio.get_running_loop().call_later(1.0, released.set)
        return await closing

    assert asyncio.run(end())
    assert store.stored == ["killed"]


def test_what_the_disk_does_not_take_is_not_called_stored() -> None:
    store = FakeStore()
    store.failures = [LedgerTrouble.FULL]
    recorder = recorder_for(store)
    say(recorder, "r0")

    assert not asyncio.run(recorder.close())


def test_what_waits_at_the_end_is_stored_by_the_next_one_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left, full = tmp_path / "left.json", FakeStore()
    full.failures = [LedgerTrouble.FULL]
    first = recorder_for(full, left=left)
    say(first, "r0", "r1")
    asyncio.run(first.close())
    store = FakeStore()
    store.failures = [LedgerTrouble.FULL]
    second = recorder_for(store, left=left)
    second.handle_event(BusEvent("web", "restart", {"reason": "r2", "time": 9.0}))

    asyncio.run(second.tick())
    assert left.stat().st_mode & 0o077 == 0
    asyncio.run(second.tick())

    assert store.stored == ["r0", "r1", "r2"]
    assert not left.exists()
    assert f"2 events wait in {left} for the next circusd" in caplog.text
    assert "are lost" not in caplog.text


@pytest.mark.parametrize("kept", [0, 1])
def test_what_cannot_be_saved_at_the_end_is_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    store = FakeStore()
    store.failures = [LedgerTrouble.FULL]
    monkeypatch.setattr("xboard_circus.ledger.left_records.MOST_CHARS", 100)
    recorder = recorder_for(store, left=tmp_path / ("left.json" if kept else "missing/left.json"))
    say(recorder, "r0", "r1")

    asyncio.run(recorder.close())

    assert f"ledger: {2 - kept} events are lost: " in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", "[1]", '[["x"]]', "[[null, 1, 2, 3, 4, 5, 6, 7, 8, 9]]", pytest.param("[" * 200_000, id="deep")],
)
def test_a_file_that_nobody_of_ours_wrote_is_no_record(tmp_path: Path, text: str) -> None:
    left = tmp_path / "left.json"
    left.write_text(text)
    left.chmod(0o600)
    store = FakeStore()

    asyncio.run(recorder_for(store, left=left).tick())

    assert store.stored == []
    assert not left.exists()


def test_a_folder_in_the_place_of_what_was_left_keeps_nothing_from_being_stored(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = recorder_for(store, left=tmp_path)
    say(recorder, "r0")

    asyncio.run(recorder.tick())

    assert store.stored == ["r0"]


# With a real file


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[LedgerRecorder, LedgerStore]]:
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        yield LedgerRecorder(store, commands=stock_circusd()), store


def test_a_locked_file_only_delays(real: tuple[LedgerRecorder, LedgerStore]) -> None:
    recorder, store = real
    say(recorder, "r0")
    asyncio.run(recorder.tick())
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        say(recorder, "r1")
        asyncio.run(recorder.tick())
        assert len(recorder._waiting) == 1
        other.execute("ROLLBACK")

    asyncio.run(recorder.tick())

    assert [record.reason for record in search(store.path)] == ["r0", "r1"]


def test_a_damaged_file_only_costs_what_was_in_it(real: tuple[LedgerRecorder, LedgerStore]) -> None:
    recorder, store = real
    store.path.write_bytes(b"no database" * 1000)
    say(recorder, "r0")

    asyncio.run(recorder.tick())

    assert [record.reason for record in search(store.path)] == ["r0"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param({}, Record(5.0, "web", "reap"), id="nothing"),
        pytest.param(
            {"time": 1.5, "process_pid": 71, "exit_code": -9},
            Record(1.5, "web", "reap", pid=71, data={"exit_code": -9}, seq="web reap 71 1.5"),
            id="of Circus's own",
        ),
        pytest.param(
            {"time": 1.5, "pid": 71, "wid": 2, "cause": "crash", "reason": "died by SIGSEGV", "wait": 1, "seq": "e-7"},
            Record(1.5, "web", "reap", 71, 2, "crash", "died by SIGSEGV", {"wait": 1}, seq="e-7"),
            id="of ours",
        ),
        pytest.param(
            {"time": "noon", "pid": "me", "wid": [], "cause": 7, "reason": None},
            Record(5.0, "web", "reap", cause="7"),
            id="of somebody's who reaches the bus",
        ),
        pytest.param({"time": 1e300}, Record(5.0, "web", "reap"), id="a time that is none"),
        pytest.param(
            {"log": "x" * 100_000}, Record(5.0, "web", "reap", data={"log": "x" * 22_497 + "..."}), id="much data"
        ),
    ],
)
def test_record_of(data: dict[str, Any], expected: Record) -> None:
    assert record_of("web", "reap", data, now=5.0) == expected


# A death is one record


def happen(recorder: LedgerRecorder, kind: str, **data: Any) -> None:
    recorder.handle_event(BusEvent("web", kind, data))


def test_a_death_of_which_circus_says_reap_and_we_say_all_is_one_record(
    real: tuple[LedgerRecorder, LedgerStore],
) -> None:
    recorder, store = real
    happen(recorder, "reap", process_pid=71, exit_code=-9)
    asyncio.run(recorder.tick())
    happen(recorder, "restart", pid=71, reason="killed")

    asyncio.run(recorder.tick())

    assert [(record.kind, record.pid) for record in search(store.path)] == [("restart", 71)]
    assert len(recorder._waiting) == 0  # and none that would come later


def test_what_circus_says_without_a_number_is_stored_once_by_two_recorders(tmp_path: Path) -> None:
    """Given circusd killed while its plugin starts, when two recorders hear the same spawn, then it is there once."""
    path = tmp_path / "ledger.db"
    clock = FakeClock()
    with closing(LedgerStore(path)) as one, closing(LedgerStore(path)) as other:
        at = time.time()
        for recorder in [LedgerRecorder(store, commands=stock_circusd(), clock=clock) for store in (one, other)]:
            happen(recorder, "spawn", process_pid=71, time=at)
            happen(recorder, "reap", process_pid=71, time=at + 1, exit_code=0)
            happen(recorder, "stop", time=at + 1)
            happen(recorder, "spawn", process_pid=71, time=at + 2)  # the pid comes again
            clock.sleep(2.5)
            asyncio.run(recorder.tick())

        found = [(each.kind, each.pid, each.time - at) for each in search(one.path)]

    assert sorted(found) == [("reap", 71, 1), ("spawn", 71, 0), ("spawn", 71, 2), ("stop", None, 1)]


def test_a_reap_of_which_nobody_tells_more_is_a_record_too() -> None:
    clock = FakeClock()
    store = FakeStore()
    recorder = LedgerRecorder(store, commands=stock_circusd(), clock=clock)  # type: ignore[arg-type]
    happen(recorder, "reap", process_pid=71, reason="r0")

    asyncio.run(recorder.tick())
    assert (store.stored, len(recorder._waiting)) == ([], 1)
    clock.sleep(2.5)
    asyncio.run(recorder.tick())

    assert store.stored == ["r0"]


def test_large_records_are_stored_a_few_at_a_time_and_cut_when_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    sizes: list[int] = []
    recorder = recorder_for(store)
    append = store.append

    def measured(records: Sequence[Record]) -> None:
        sizes.append(len(records))
        append(records)

    store.append = measured  # type: ignore[method-assign]
    for _ in range(250):
        happen(recorder, "restart", log="x" * 60_000, reason="r")

    asyncio.run(recorder.tick())

    assert max(sizes[:100]) == 1
    assert len(store.stored) == 250
    assert len(sizes) < 250, "what came when many waited was cut"


# What was told before we listened


class FakeJournal:
    """circusd's answer to xboard_events."""

    def __init__(self, *reasons: str) -> None:
        at = time.time()
        self.events = [
            ("web", "restart", {"seq": f"e-{n}", "reason": r, "time": at + n}) for n, r in enumerate(reasons, 1)
        ]
        self.asked: list[int] = []

    async def call(self, command: str, *, deadline: float = 2.0, **properties: Any) -> dict[str, Any]:
        assert command == "xboard_events"
        self.asked.append(properties["after"])
        return {"epoch": "e", "last": len(self.events), "events": self.events[properties["after"] :]}

    def publish(self, recorder: LedgerRecorder, number: int) -> None:
        recorder.handle_event(BusEvent(*self.events[number - 1]))


def test_what_circusd_told_before_is_asked_for_and_comes_first(tmp_path: Path) -> None:
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        journal = FakeJournal("r1", "r2", "r3")
        recorder = LedgerRecorder(store, commands=journal)
        journal.publish(recorder, 3)

        for _ in range(3):
            asyncio.run(recorder.tick())

        assert [record.reason for record in search(store.path)] == ["r1", "r2", "r3"]
        assert journal.asked == [0]


def test_a_recorder_that_takes_over_stores_nothing_twice(tmp_path: Path) -> None:
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        journal = FakeJournal("r1", "r2", "r3")
        first = LedgerRecorder(store, commands=FakeJournal("r1", "r2"))
        asyncio.run(first.tick())

        second = LedgerRecorder(store, commands=journal)
        asyncio.run(second.tick())

        assert [record.reason for record in search(store.path)] == ["r1", "r2", "r3"]


def test_what_the_bus_lost_is_asked_for(tmp_path: Path) -> None:
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        journal = FakeJournal()
        recorder = LedgerRecorder(store, commands=journal)
        asyncio.run(recorder.tick())
        journal.events = FakeJournal("r1", "r2", "r3").events
        journal.publish(recorder, 1)
        journal.publish(recorder, 3)

        asyncio.run(recorder.tick())

        assert [record.reason for record in search(store.path)] == ["r1", "r2", "r3"]
        assert journal.asked == [0, 1]


def test_a_last_event_that_the_bus_lost_is_asked_for(tmp_path: Path) -> None:
    """Given that it was published before the bus knew of our subscription, and none came after it."""
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        journal, clock = FakeJournal(), FakeClock()
        recorder = LedgerRecorder(store, commands=journal, clock=clock)
        again = asyncio.run(recorder.tick())
        journal.events = FakeJournal("r1").events

        clock.sleep(again)
        asyncio.run(recorder.tick())

        assert [record.reason for record in search(store.path)] == ["r1"]


def test_a_quiet_circusd_is_asked_less_and_less(tmp_path: Path) -> None:
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        journal, clock = FakeJournal(), FakeClock()
        recorder = LedgerRecorder(store, commands=journal, clock=clock)

        pauses = []
        for _ in range(9):
            pauses.append(asyncio.run(recorder.tick()))
            clock.sleep(pauses[-1])

        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_after_a_failed_prune_events_are_stored_at_once_again() -> None:
    store = FakeStore()
    store.prune_failures = [LedgerTrouble.LOCKED]
    recorder = recorder_for(store)
    asyncio.run(recorder.tick())
    asyncio.run(recorder.tick())

    assert recorder.handle_event(BusEvent("web", "restart", {"reason": "r"})) == FLUSH_EVERY
