"""Parse moments as people write them: how long ago, a day, a date, or a time of the day."""

import re
import time
from datetime import datetime, timedelta

import click

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)"
_AGO = re.compile(rf"(?:{_PART}\s*)+")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DAYS = {"today": 0, "yesterday": 1}


def moment(text: str, now: float) -> float:
    """Parse *text* as a wall-clock time, in seconds since 1970; ValueError for anything else.

    A time of the day is the latest one in the past: at 0:10, 23:50 means yesterday's.

    >>> moment("10m", 1000.0), moment("1m30s", 1000.0)
    (400.0, 910.0)
    >>> moment("1970-01-01T00:01:00+00:00", 1000.0)
    60.0
    """
    text = text.strip().lower()
    midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    if _AGO.fullmatch(text):
        return now - sum(float(number) * UNITS[unit] for number, unit in re.findall(_PART, text))
    if text in _DAYS:
        return (midnight - timedelta(days=_DAYS[text])).timestamp()
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        found = midnight.replace(hour=hour, minute=minute, second=second)
        return (found if found.timestamp() <= now else found - timedelta(days=1)).timestamp()
    # Python 3.10 does not know the Z.
    return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).timestamp()


def read_moment(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Parse an option's *text* as a time before now."""
    try:
        return None if text is None else moment(text, time.time())
    except (ValueError, OverflowError, OSError):
        what = f"{text!r} is no time; write 90s, 10m, 2h, 3d, 14:30, yesterday or 2026-01-31T14:30"
        raise click.BadParameter(what, context, parameter) from None


_SINCE = "Only what was written since then: 90s, 10m, 2h, 3d, 14:30, yesterday or a date."
since_option = click.option("--since", metavar="10m|DATE", callback=read_moment, help=_SINCE)
