from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.supervisor.life import evidence
from xboard_circus.supervisor.life.output import LONGEST_LINE, STACK, STACK_BYTES, TAIL_BYTES, LastWords, Tail


def said(*pieces: bytes) -> LastWords:
    words = LastWords()
    for piece in pieces:
        words.add(piece)
    return words


def test_the_last_bytes_are_kept() -> None:
    words = said(b"x" * 5000, b"last line\n")

    assert words.tail.endswith("xlast line\n")
    assert len(words.tail) == TAIL_BYTES
    assert words.stack == ""


@pytest.mark.parametrize("edge", range(0, len(STACK) + 1, 5))
def test_stacks_are_whole_where_they_are_longer_than_the_tail(edge: int) -> None:
    frames = b'  File "app.py", line 1 in f\n' * 1000
    text = b"INFO: serving\n" + STACK + b"Aborted\n" + frames
    cut = text.index(STACK) + edge

    words = said(text[:cut], *(text[at : at + 1024] for at in range(cut, len(text), 1024)))

    assert words.stack.encode() == text[text.index(STACK) :]


@pytest.mark.parametrize("pieces", [1, 7])
def test_stacks_leave_the_last_lines_of_the_log_whole(pieces: int) -> None:
    """Given 200 lines before stacks of any length, then the log is the last whole ones of these."""
    lines, stack = b"".join(b"INFO: request %d\n" % at for at in range(300)), STACK + b"Aborted\n" + b"  File\n" * 2000
    text = lines + stack
    size = -(-len(text) // pieces)

    log = said(*(text[at : at + size] for at in range(0, len(text), size))).log

    assert (log.endswith("INFO: request 299\n"), log.startswith("INFO: request ")) == (True, True)
    assert TAIL_BYTES - 20 < len(log) <= TAIL_BYTES
    assert said(b"only\n").log == "only\n"


def test_a_flood_of_stacks_has_a_bound() -> None:
    assert len(said(STACK, *[b"x" * 1024] * 200).stack) == STACK_BYTES


def test_the_stacks_of_the_last_failure_are_kept() -> None:
    """Those of a child, or a line with these words, came long before those of the process itself."""
    words = said(STACK + b"a child's\n", *[b"x" * 1024] * 100, STACK + b"mine\n")

    assert words.stack == (STACK + b"mine\n").decode()


def test_a_stream_remembers_each_process_by_itself() -> None:
    written: list[bytes] = []
    tails: dict[int, LastWords] = {}
    stream = Tail(lambda piece: written.append(piece["data"]), tails)
    half = "é".encode()

    stream({"pid": 1, "name": "stderr", "data": b"one" + half[:1]})
    stream({"pid": 2, "name": "stderr", "data": b"two"})
    stream({"pid": 1, "name": "stderr", "data": half[1:]})

    assert {pid: words.tail for pid, words in tails.items()} == {1: "oneé", 2: "two"}
    stream.forget(1)
    stream.forget(2)
    assert written == [b"one" + half, b"two"]  # whole lines, or what is left at the end


def masking(output: bytes) -> bytes:
    return output.replace(b"hunter2-value", b"***")


@pytest.mark.parametrize("after", range(TAIL_BYTES - 13, TAIL_BYTES, 3))
@pytest.mark.parametrize("line", [b"x", b"x" * 90 + b"\n"])
def test_no_rest_of_a_secret_is_at_the_edge_of_the_last_words(after: int, line: bytes) -> None:
    words = LastWords(masking)
    words.add((line * 9000)[:9000] + b"hunter2-value" + (line * 5000)[:after])

    assert "-value" not in words.tail


@pytest.mark.parametrize("edge", range(1, 13, 3))
def test_no_secret_is_written_in_two_parts_where_a_line_is_too_long(edge: int) -> None:
    written: list[bytes] = []
    stream = Tail(lambda piece: written.append(piece["data"]), {}, hide=masking)
    text = b"x" * (LONGEST_LINE + 1 - edge) + b"hunter2-value" + b"x" * 9000

    for piece in (text[: LONGEST_LINE + 1], text[LONGEST_LINE + 1 :]):
        stream({"pid": 1, "name": "stdout", "data": piece})
    stream.forget(1)

    assert b"".join(written) == masking(text)


def test_the_stacks_of_a_dead_worker_are_masked_once() -> None:
    masked: list[bytes] = []

    def count(output: bytes) -> bytes:
        masked.append(output)
        return output

    words = LastWords(count)
    words.add(STACK + b" Segmentation fault\n")
    life: Any = SimpleNamespace(order=None, up_since=None, signals=[])
    worker: Any = SimpleNamespace(follows=None, spawned_at=1.0, rss=None, probes=[], life=life, native=None)

    found = evidence.of_process(worker, life, -11, words, 2.0)

    assert found["stack"] == words.stack
    assert len([each for each in masked if each.startswith(STACK)]) == 2  # that of the line above is one of them
