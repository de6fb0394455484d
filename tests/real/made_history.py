"""A week of history that nobody waited for."""

import contextlib
import math
from collections.abc import Callable

from xboard_circus.config import Config
from xboard_circus.core.history import FIGURES, WHOLE_WATCHER, Figures, Point, kept_points
from xboard_circus.ledger.history_store import HistoryStore
from xboard_circus.ledger.location import history_in

DAY = 86_400


def give_history(
    config: Config, now: float, *, disk: float | None = None, is_down: Callable[[float], bool] = lambda at: False
) -> None:
    """Write a week of requests of ``web`` into the history of *config*, busy by day.

    Args:
        disk: The bytes of its disk, which fills in the last hours.
        is_down: Says of a time whether nothing was answered then.
    """
    file = history_in(config)
    assert file is not None
    points = [
        ("web", Point(step, at * step, {WHOLE_WATCHER: figures(at * step, now, disk, is_down=is_down(at * step))}))
        for step in (10, 60)
        for at in range(int(now // step) - kept_points(step) + 2, int(now // step))
    ]
    with contextlib.closing(HistoryStore(file)) as history:
        history.write(points, {})


def figures(at: float, now: float, disk: float | None, *, is_down: bool) -> Figures:
    """Make up the figures of a moment: more requests by day, no two moments alike."""
    rate = 0.0 if is_down else 6 + 4 * math.sin(2 * math.pi * at / DAY) + math.sin(at / 97) + math.sin(at / 11)
    slow = 0.0008 + 0.0001 * rate
    made = {"2xx": rate, "3xx": 0.0, "4xx": 0.0, "5xx": 0.0, "p50": slow, "p95": 2 * slow, "p99": 3 * slow}
    made |= {"active": 1.0, "lag": 0.001, "rss": 9e7, "cpu": 0.01 * rate}
    free = disk and disk * (1 - 0.9 * 2 ** ((at - now) / 7200))
    return tuple({**made, "disk": free}[name] for name in FIGURES)
