"""The heartbeat of a backend as characters, at each width of a terminal and in each encoding."""

import pytest

from xboard_circus.cli.strips import strip
from xboard_circus.cli.summary import folded
from xboard_circus.core.incidents import DAY, Beat, Heartbeat, Share

WORDS = ("none", "ok", "ok", "degraded", "down", "stopped")


SHARES = [Share(0.99999, DAY), Share(1.0, 7 * DAY), Share(0.5, 30 * DAY)]


def beat(count: int, *shares: Share) -> Heartbeat:
    cells = [Beat(WORDS[at % len(WORDS)], 0.0, 0.0, None) for at in range(count)]
    return Heartbeat(cells, [*shares] or SHARES)


@pytest.mark.parametrize(
    ("encoding", "marks"),
    [("utf-8", "·▁▁▄█─"), ("ascii", ".__+#-"), ("latin-1", ".__+#-"), ("no such", ".__+#-")],
)
def test_a_heartbeat_is_ascii_where_the_encoding_has_no_more(encoding: str, marks: str) -> None:
    """Given an encoding, then trouble sticks out in it, and what was nearly all of the time is not 100 %."""
    assert strip(beat(6), 25, encoding).plain == f"{marks} up 99.99 % of 24 h"


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (100, " up 99.99 % of 24 h, 100 % of 7 d, 50 % of 30 d"),
        (70, " up 99.99 % of 24 h"),
        (83, " up 99.99 % of 24 h, 100 % of 7 d"),
        (60, ""),
    ],
)
def test_a_share_that_has_no_room_is_left_out_whole(room: int, shown: str) -> None:
    line = strip(beat(50), room, "utf-8")

    assert line.plain[50:] == shown
    assert [each.plain for each in folded(line, room)] == [line.plain]


def test_a_share_of_less_than_a_day_says_of_which_time_it_is() -> None:
    assert strip(beat(6, Share(0.96, 58.0, False)), 80, "utf-8").plain[6:] == " up 96 % of 58 s known"


def test_a_time_that_was_stopped_throughout_has_no_share() -> None:
    assert strip(beat(6, Share(None, DAY)), 80, "utf-8").plain[6:] == " up - of 24 h"
