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

    worded = worded_since(now)

    def aged(age: float, say: Template = Say.HEAD_SINCE) -> str:
        return say(age=span(age), at=round(now - age)).with_text(worded(age, say))

    return aged


def worded_since(now: float) -> Callable[..., str]:
    """Return what says the same with the moment as a text, which a translation keeps."""

    def aged(age: float, say: Template = Say.HEAD_SINCE) -> str:
        return say(age=span(age), at=local_time(round(now - age), now))

    return aged


def local_time(at: float, now: float) -> str:
    """Format a moment as the time of day, with the date where that is not the one of *now*."""
    moment = datetime.fromtimestamp(at)
    date = "" if moment.date() == datetime.fromtimestamp(now).date() else f"{moment:%b} {moment.day} "
    return f"{date}{moment:%H:%M:%S}"
