"""What a circusd writes down of itself, and who may add to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xboard_circus.core.lost import CircusdLife
from xboard_circus.host import circusd_record, procs, runtime

INSTANCE = "abc"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    return tmp_path / "r" / INSTANCE


@pytest.fixture
def circusd() -> Iterator[procs.Identity]:
    """A process that stands in for it."""
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = procs.Identity.of(running.pid)
        assert found is not None
        yield found
    finally:
        running.kill()
        running.communicate()


def of(circusd: procs.Identity, **more: object) -> CircusdLife:
    return CircusdLife(pid=circusd.pid, started=circusd.started, boot=circusd_record.boot(), **more)  # type: ignore[arg-type]


def test_what_is_written_is_read_and_the_files_time_is_when_it_was_seen(folder: Path) -> None:
    written = CircusdLife(
        pid=7,
        started=70,
        boot="b",
        kills={"/x": 1, "/proc/vmstat": 2},
        why="it hung",
        next_ended=7,
        gone_at=3.5,
        workers={"web": {"a1": "9:1"}},
    )
    circusd_record.write(INSTANCE, written)
    os.utime(folder / "life.json", (50, 50))

    found = circusd_record.read(INSTANCE)

    assert found is not None
    assert (found.seen, found.kills, found.why, found.gone_at) == (50, written.kills, "it hung", 3.5)
    assert found.next_ended == 7
    assert (folder / "life.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"pid": null, "started": 1}', '{"pid": 1, "started": 1, "kills": 3}']
)
def test_a_damaged_file_tells_nothing(folder: Path, text: str) -> None:
    runtime.instance_dir(INSTANCE)
    (folder / "life.json").write_text(text)

    assert circusd_record.read(INSTANCE) is None


def test_what_is_added_does_not_look_as_if_it_lived_on(folder: Path) -> None:
    circusd_record.write(INSTANCE, CircusdLife(pid=7, started=70))
    os.utime(folder / "life.json", (50, 50))

    circusd_record.amend(INSTANCE, procs.Identity(7, 70), gone_at=60.0)
    circusd_record.amend(INSTANCE, procs.Identity(8, 70), gone_at=99.0)

    found = circusd_record.read(INSTANCE)
    assert found is not None
    assert (found.seen, found.gone_at) == (50, 60.0)


def test_one_that_runs_is_told_to_end_and_one_that_is_gone_was_not(circusd: procs.Identity) -> None:
    circusd_record.write(INSTANCE, of(circusd))
    circusd_record.order_end(INSTANCE)
    running = circusd_record.read(INSTANCE)
    circusd_record.write(
        INSTANCE, CircusdLife(pid=circusd.pid, started=circusd.started + 1, boot=circusd_record.boot())
    )
    circusd_record.order_end(INSTANCE)
    gone = circusd_record.read(INSTANCE)

    assert running is not None
    assert gone is not None
    assert (running.is_ordered, gone.is_ordered) == (True, False)


def test_in_another_start_of_the_host_the_pid_is_anothers(circusd: procs.Identity) -> None:
    lives = of(circusd)

    assert not circusd_record.is_over(lives, boot=circusd_record.boot())
    assert circusd_record.is_over(lives, boot="another")
    assert circusd_record.is_over(CircusdLife(pid=circusd.pid, started=circusd.started + 1), boot=circusd_record.boot())


def test_without_a_folder_nothing_is_read_and_nothing_is_made(tmp_path: Path) -> None:
    assert circusd_record.read(INSTANCE) is None
    circusd_record.amend(INSTANCE, is_ordered=True)

    assert list(tmp_path.iterdir()) == []


def test_who_was_lost_is_told_until_the_next_one_writes_of_itself(circusd: procs.Identity) -> None:
    gone = CircusdLife(pid=circusd.pid, started=circusd.started + 1, boot=circusd_record.boot())
    lost = []
    for each in (gone, gone._replace(is_ordered=True), of(circusd)):
        circusd_record.write(INSTANCE, each)
        lost.append(circusd_record.lost(INSTANCE) is not None)

    assert lost == [True, False, False]
