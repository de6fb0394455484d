"""How a worker shows that its late event loop works, or since when it does not, and what is read of that."""

import asyncio
import builtins
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.host.worker_files import BEAT, LoopBeat, beat_of
from xboard_circus.worker.gauges import LoopLag
from xboard_circus.worker.progress import LATE, PERIOD, show_progress
from xboard_circus.worker.task_stack import calls

ENOUGH = 30.0


def beat(path: Path) -> LoopBeat:
    found = beat_of(str(path.with_suffix(".sock")))
    assert found is not None
    return found


def count(path: Path) -> int:
    return beat(path).steps


class Fails:
    def show_running(self, loop: object, frame: object) -> int:
        raise AttributeError("'dict' object has no attribute 'f_back'")


@pytest.mark.parametrize("record", [None, Fails()])
def test_callbacks_one_after_the_other_are_progress(
    tmp_path: Path, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a turn of the loop that does not end, when it runs one callback after the other, then the number grows.

    So also if it cannot be said which request runs: without progress the worker would be taken for hung.
    """
    path = tmp_path / "w.beat"

    async def main() -> None:
        gauge, loop = LoopLag(period=0.1), asyncio.get_running_loop()
        gauge.tick()
        loop.call_soon(show_progress, path, gauge, record)
        await asyncio.sleep(0.01)
        deadline = time.monotonic() + ENOUGH

        def work() -> None:
            time.sleep(0.02)
            if count(path) < 3 and time.monotonic() < deadline:
                loop.call_soon(work)
            else:
                done.set_result(None)

        done = loop.create_future()
        loop.call_soon(work)
        await done

    asyncio.run(main())

    assert count(path) >= 3
    assert [each.exc_info is not None for each in caplog.records] == [True] * (record is not None)


def test_a_frame_that_python_has_freed_ends_the_stack() -> None:
    """Of frames of another thread Python 3.11 was seen to give a dictionary as f_back, once in millions of looks."""
    freed: Any = vars(builtins)

    assert list(calls(freed)) == []


def test_a_callback_that_does_not_end_is_none(tmp_path: Path) -> None:
    """Given a callback that lasts, then the number stays, and the file says since when, until the loop turns."""
    path = tmp_path / "w.beat"
    began, seen = [], []

    def work() -> None:
        began.append(time.monotonic())
        time.sleep(6 * PERIOD)
        seen.append(beat(path))  # here: the end of the loop takes turns too, and on a crowded machine long ones

    async def main() -> None:
        gauge, loop = LoopLag(period=0.1), asyncio.get_running_loop()
        gauge.tick()
        for each in (partial(show_progress, path, gauge), work):  # in one turn: any wait might be long
            loop.call_soon(each)
        await asyncio.sleep(0)
        deadline = time.monotonic() + ENOUGH
        while beat(path).stands_since and time.monotonic() < deadline:
            gauge.tick()
            await asyncio.sleep(0.01)

    asyncio.run(main())

    assert seen[0].steps == 0
    assert began[0] <= seen[0].stands_since <= began[0] + 6 * PERIOD
    assert beat(path).stands_since == 0


@pytest.mark.parametrize("lag", [0.0, 2 * LATE])
def test_the_turns_of_a_loop_count_where_it_is_late(tmp_path: Path, lag: float) -> None:
    """Given a loop that turns, then its file is written only if it is late: an idle worker writes nothing."""
    path = tmp_path / "w.beat"

    async def main() -> None:
        gauge = LoopLag(period=1e9, kept=10**6)  # never late by itself
        gauge.tick()
        gauge._lags.append(lag)
        asyncio.get_running_loop().call_soon(show_progress, path, gauge)
        await asyncio.sleep(0)  # then it is shown
        deadline = time.monotonic() + (ENOUGH if lag else 4 * PERIOD)
        while time.monotonic() < deadline and not (lag and count(path)):
            gauge.tick()
            await asyncio.sleep(0.01)

    asyncio.run(main())

    assert bool(count(path)) == bool(lag)


def test_a_file_that_cannot_be_made_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "w.beat"
    path.symlink_to(tmp_path / "elsewhere")

    show_progress(path, LoopLag(period=0.1))

    assert "will be taken for hung" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


def a_number(path: Path) -> None:
    path.write_bytes(BEAT.pack(7, 2.5))


def a_link(path: Path) -> None:
    a_number(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize(
    ("make", "read"),
    [
        pytest.param(a_number, (7, 2.5), id="a number"),
        pytest.param(lambda path: path.write_bytes(BEAT.pack(2**64 - 1, 0)), (2**64 - 1, 0), id="the largest"),
        pytest.param(lambda path: None, None, id="nothing"),
        pytest.param(lambda path: path.write_bytes(b""), None, id="an empty file: the disk was full"),
        pytest.param(lambda path: path.write_bytes(bytes(BEAT.size + 1)), None, id="too long a file"),
        pytest.param(a_link, None, id="a link"),
        pytest.param(os.mkfifo, None, id="a pipe that nobody writes into"),
        pytest.param(Path.mkdir, None, id="a folder"),
    ],
)
def test_what_is_read(tmp_path: Path, make: Callable[[Path], None], read: tuple[int, float] | None) -> None:
    make(tmp_path / "w.beat")

    assert beat_of(str(tmp_path / "w.sock")) == read
