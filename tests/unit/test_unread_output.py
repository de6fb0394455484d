"""What a worker prints while nobody reads it: dropped after a moment, counted, and never waited for again."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from xboard_circus.worker.unread_output import UnreadOutput

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Make a pipe, and close what is left in the list: a number that a test has closed may be another thread's."""
    ends = [*os.pipe()]
    yield ends
    for end in ends:
        os.close(end)


def read_all(end: int) -> bytes:
    os.set_blocking(end, False)
    found = b""
    with suppress(BlockingIOError):
        while piece := os.read(end, 1 << 20):
            found += piece
    return found


def test_what_nobody_reads_is_dropped_and_counted_where_it_goes_on(pipe: list[int]) -> None:
    """Given a full pipe, when it is read again, then whole lines were kept, and the loss is told."""
    reading, writing = pipe
    output = UnreadOutput(writing, patience=0.05)

    for _ in range(1000):
        assert output.write(LINE) == len(LINE)
    kept = read_all(reading)
    output.write(LINE)

    whole = kept.count(LINE)
    assert kept == LINE * whole
    assert 0 < whole < 1000
    notice, after = read_all(reading).splitlines(keepends=True)
    assert notice.startswith(
        b"xboard-circus: %d bytes of output were dropped: nothing read them for " % ((1000 - whole) * len(LINE))
    )
    assert after == LINE


def test_a_line_that_was_cut_is_ended_before_the_notice(pipe: list[int]) -> None:
    reading, writing = pipe
    output = UnreadOutput(writing, patience=0.05)

    output.write(b"y" * (1 << 20))
    kept = read_all(reading)
    output.write(LINE)

    assert set(kept) == {ord("y")}
    rest, notice, after = read_all(reading).splitlines(keepends=True)
    assert rest == b"\n"
    assert b"%d bytes of output were dropped" % ((1 << 20) - len(kept)) in notice
    assert after == LINE


def test_a_slow_reader_loses_nothing(pipe: list[int]) -> None:
    """Given a reader that takes a little at a time, when four threads write, then all of it comes, in whole lines."""
    reading, writing = pipe
    output = UnreadOutput(writing, patience=30)
    found = bytearray()

    def read() -> None:
        while piece := os.read(reading, 1024):
            found.extend(piece)
            time.sleep(0.0005)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=lambda: [output.write(LINE) for _ in range(1000)]) for _ in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    os.close(pipe.pop())
    reader.join()

    assert found == LINE * 4000


def test_a_pipe_without_a_reader_is_an_error_as_ever(pipe: list[int]) -> None:
    _, writing = pipe
    os.close(pipe.pop(0))

    with pytest.raises(BrokenPipeError):
        UnreadOutput(writing).write(LINE)
