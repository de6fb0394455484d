"""Say since when something is so, in the local time of whoever reads it."""

from collections.abc import Callable
from datetime import datetime

from xboard_circus.core.durations import span
from xboard_circus.core.reason import Template
from xboard_circus.core.sentences import Say


def since(now: float) -> Callable[..., str]:
    """Return what says of an age at *now* how long it is and when it began: as a moment to the page, as text to others.

    >>> since(1_000_000.0)(90.0).partition(" ")[0], since(1_000_000.0)(90.0).fields["at"]
    ('1', 999910)
    """

    def aged(age: float, say: Template = Say.HEAD_SINCE) -> str:
        at = round(now - age)
        return say(age=span(age), at=at).with_text(say(age=span(age), at=local_time(at, now)))

    return aged


def local_time(at: float, now: float) -> str:
    """Format a moment as the time of day, with the date where that is not the one of *now*."""
    moment = datetime.fromtimestamp(at)
    date = "" if moment.date() == datetime.fromtimestamp(now).date() else f"{moment:%b} {moment.day} "
    return f"{date}{moment:%H:%M:%S}"
