"""Reasons quote strangers; what comes out is one printable line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.reasons import LONGEST, one_line, seconds, span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="plain text stays"),
        pytest.param(" a\tb\r\nc ", "a b c", id="blanks and line ends become one blank"),
        pytest.param("\x1b[1;31mred\x1b[0m", "red", id="colours go"),
        pytest.param("a\x1b]0;title\x07b", "a ]0;title b", id="a terminal's title can't be set"),
        pytest.param("\udcff!", "!", id="bytes that are no text go"),
        pytest.param("x" * 301, "x" * 297 + "...", id="too long is cut"),
        pytest.param("x" * 300, "x" * 300, id="just long enough isn't"),
        pytest.param("", "", id="nothing stays nothing"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_one_line_is_one_printable_line_and_stays_as_it_is(raw: bytes) -> None:
    line = one_line(raw.decode("utf-8", "surrogateescape"))

    assert (line.isprintable(), len(line) <= LONGEST, one_line(line)) == (True, True, line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0 s"), (0.05, "0.05 s"), (1, "1 s"), (2.34, "2.3 s"), (300, "300 s"), (1e6, "1000000 s")],
)
def test_seconds(value: float, expected: str) -> None:
    assert seconds(value) == expected


def test_a_span_has_two_units() -> None:
    assert [span(each) for each in (-1, 0.4, 3600, 90_000)] == ["0 s", "0 s", "1 h", "1 d 1 h"]
