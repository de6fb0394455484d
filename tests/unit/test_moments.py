from datetime import datetime

import click
import pytest

from xboard_circus.cli.moments import moment, read_moment

NOW = datetime(2026, 3, 4, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - 90),
        ("10m", NOW - 600),
        ("10 min", NOW - 600),
        ("1.5h", NOW - 5400),
        ("2d", NOW - 172_800),
        ("1w", NOW - 604_800),
        ("1h 30m", NOW - 5400),
        ("1d12h", NOW - 129_600),
        ("today", datetime(2026, 3, 4).timestamp()),
        ("Yesterday", datetime(2026, 3, 3).timestamp()),
        ("12:00", NOW),
        ("14:30", datetime(2026, 3, 3, 14, 30).timestamp()),
        ("11:30", datetime(2026, 3, 4, 11, 30).timestamp()),
        ("2026-03-01", datetime(2026, 3, 1).timestamp()),
        ("2026-03-01T10:00:01", datetime(2026, 3, 1, 10, 0, 1).timestamp()),
        ("2026-03-01T10:00:00Z", datetime.fromisoformat("2026-03-01T10:00:00+00:00").timestamp()),
    ],
)
def test_moments(text: str, expected: float) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["tomorrow", "10", "25:99", "-5m", "5m-", "1x2h", ""])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    option = click.Option(["--since"])

    with pytest.raises(click.BadParameter, match="write 90s, 10m"):
        read_moment(click.Context(click.Command("events")), option, text)
