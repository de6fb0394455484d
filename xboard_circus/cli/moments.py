"""Moments as people write them: how long ago, a day, a date, or a time of the day."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)"
_AGO = re.compile(rf"(?:{_PART}\s*)+")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DAYS = {"today": 0, "yesterday": 1}


def moment(text: str, now: float) -> float:
    """Parse *text* as a wall-clock time, in seconds since 1970; ValueError where it is none.

    A time of the day is the last that there was: 23:50 means yesterday's when it is 0:10.

    >>> moment("10m", 1000.0), moment("1m30s", 1000.0)
    (400.0, 910.0)
    >>> moment("1970-01-01T00:01:00+00:00", 1000.0)
    60.0
    """
    text = text.strip().lower()
    if _AGO.fullmatch(text):
        return now - sum(float(number) * UNITS[unit] for number, unit in re.findall(_PART, text))
    if text in _DAYS:
        return _midnight(now, days_ago=_DAYS[text]).timestamp()
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        found = _midnight(now).replace(hour=hour, minute=minute, second=second)
        return (found if found.timestamp() <= now else found - timedelta(days=1)).timestamp()
    # Python 3.10 does not know the Z.
    return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).timestamp()


def _midnight(now: float, *, days_ago: int = 0) -> datetime:
    today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days_ago)


def written(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Validate an option's *value* as a time; it stays text until the command reads the clock."""
    try:
        if value is not None:
            moment(value, 1e9)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time; write 90s, 10m, 2h, 3d, 14:30, yesterday or 2026-01-31T14:30", context, parameter
        ) from None
    return value
