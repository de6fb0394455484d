"""The stream that stands before Circus's own: whole lines, the last words, and no harm from a disk that fails."""

import logging
from pathlib import Path
from typing import Any

import pytest
from circus.stream import FileStream

from xboard_circus.supervisor.life import output
from xboard_circus.supervisor.life.output import LONGEST_LINE, TRY_AGAIN_AFTER, LastWords, Tail


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Inner:
    """A stream that keeps what it is given, and fails when it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bytes]] = []
        self.fails = False

    def __call__(self, piece: dict[str, Any]) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.got.append((piece["pid"], piece["data"]))


def write(tail: Tail, data: bytes, pid: int = 7, name: str = "stdout") -> None:
    tail({"pid": pid, "name": name, "data": data})


def test_lines_come_whole_whoever_writes_between() -> None:
    inner, tails = Inner(), dict[int, LastWords]()
    tail = Tail(inner, tails)
    for pid, data in ((7, b"one\ntw"), (8, b"other\n"), (7, b"o\nthr"), (8, b"last words")):
        write(tail, data, pid)
    tail.forget(8)

    assert inner.got == [(7, b"one\n"), (8, b"other\n"), (7, b"two\n"), (8, b"last words")]
    assert tails[7].tail == "one\ntwo\nthr"


def test_the_two_streams_of_a_process_are_kept_apart() -> None:
    inner = Inner()
    tail = Tail(inner, {})
    write(tail, b"out", name="stdout")
    write(tail, b"err\n", name="stderr")
    write(tail, b"\n", name="stdout")

    assert inner.got == [(7, b"err\n"), (7, b"out\n")]


def test_a_file_that_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "web.log"
    tails = [Tail(FileStream(filename=str(file)), {}) for _ in range(2)]  # stdout and stderr may share a file
    for tail in tails:
        write(tail, b"before\n")
    file.unlink()
    for tail in tails:
        write(tail, b"after\n")
        tail.close()

    assert file.read_text() == "after\nafter\n"


def test_an_endless_line_is_passed_on_between_characters() -> None:
    inner = Inner()
    tail = Tail(inner, {})
    text = ("日" * LONGEST_LINE).encode()
    for start in range(0, len(text), 1024):
        write(tail, text[start : start + 1024])
    tail.forget(7)

    assert len(inner.got) > 2
    assert "".join(data.decode() for _, data in inner.got) == text.decode()


def test_a_stream_that_fails_is_left_alone_for_a_while_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    inner, clock, tails = Inner(), Clock(), dict[int, LastWords]()
    reported: list[str] = []
    tail = Tail(inner, tails, clock=clock, report=lambda event, *, reason: reported.append(f"{event}: {reason}"))
    inner.fails = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += TRY_AGAIN_AFTER
            write(tail, b"lost\n")
        inner.fails = False
        write(tail, b"too soon\n")
        assert (tail.loss is not None, tail.lost) == (True, 24)
        clock.now += TRY_AGAIN_AFTER
        write(tail, b"kept\n")

    assert inner.got == [(7, b"kept\n")]
    lost = "output is lost: Inner cannot be written: No space left on device"
    back = "Inner is written again; 24 bytes were lost in 3 s"
    assert [record.message for record in caplog.records] == [f"xboard: {lost}", f"xboard: {back}"]
    assert reported == [f"output_lost: {lost}", f"output_back: {back}"]
    assert (tail.loss, tail.lost) == (None, 24)
    assert tails[7].tail.startswith("lost\n")


def test_a_loss_ends_though_nobody_writes_and_the_log_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a quiet app, when its log's disk has room again, then "0 B free" is not shown until it writes."""
    inner, clock = Inner(), Clock()
    tail = Tail(inner, {}, clock=clock)
    inner.fails = True
    write(tail, b"lost\n")
    clock.now += TRY_AGAIN_AFTER
    tail.try_again()
    lost = tail.lost
    inner.fails = False
    tail.try_again()
    too_soon = tail.loss
    with monkeypatch.context() as patch:
        patch.setattr(output, "has_room", lambda file, least: False)
        clock.now += TRY_AGAIN_AFTER
        tail.try_again()
        without_room = tail.loss
    clock.now += TRY_AGAIN_AFTER
    tail.try_again()
    tail.try_again()

    assert (lost, too_soon is not None, without_room is not None, tail.loss, tail.lost) == (5, True, True, None, 5)
    assert [data for _, data in inner.got] == [b"xboard: 5 bytes of output were lost here\n"]


def test_a_file_whose_rotation_failed_is_opened_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "logs" / "web.log", Clock()
    path.parent.mkdir()
    stream = FileStream(filename=str(path), max_bytes=20, backup_count=1)
    tail = Tail(stream, {}, clock=clock)
    write(tail, b"0123456789\n")
    path.unlink()
    path.parent.rmdir()  # what is there to be renamed?

    write(tail, b"0123456789\n")
    path.parent.mkdir()
    clock.now += TRY_AGAIN_AFTER
    write(tail, b"kept\n")

    stream.close()
    assert path.read_text() == "kept\n"


def test_a_file_that_was_closed_by_a_failed_flush_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    stream = FileStream(filename=str(path), max_bytes=0)
    tail = Tail(stream, {})
    stream._file.close()

    write(tail, b"kept\n")

    stream.close()
    assert path.read_text() == "kept\n"


def test_what_cannot_be_written_at_the_end_does_not_keep_a_watcher_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(Inner):
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    tail = Tail(Full(), {})

    with caplog.at_level(logging.ERROR, logger="circus"):
        tail.close()

    assert ["close: [Errno 28] No space left" in line for line in caplog.messages] == [True]
    assert not hasattr(tail, "open")
