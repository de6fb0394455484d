"""Durations as a person writes them."""

import pytest

from xboard_circus.core.durations import seconds, span


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0 s"), (0.05, "0.05 s"), (1, "1 s"), (2.34, "2.3 s"), (300, "300 s"), (1e6, "1000000 s")],
)
def test_seconds(value: float, expected: str) -> None:
    assert seconds(value) == expected


def test_a_span_has_two_units() -> None:
    assert [span(each) for each in (-1, 0.4, 3600, 90_000)] == ["0 s", "0 s", "1 h", "1 d 1 h"]
