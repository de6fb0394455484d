"""Moments as people write them: how long ago, or a date, or a time of today."""

from __future__ import annotations

import re
from datetime import datetime

import click

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def moment(text: str, now: float) -> float:
    """Return the wall-clock time that *text* means, in seconds since 1970; ValueError for what means none.

    >>> moment("10m", 1000.0)
    400.0
    >>> moment("1970-01-01T00:01:00+00:00", 1000.0)
    60.0
    """
    if ago := _AGO.fullmatch(text.strip()):
        return now - float(ago[1]) * UNITS[ago[2]]
    if clock := _CLOCK.fullmatch(text.strip()):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
        return today.timestamp()
    # Python 3.10 does not know the Z.
    return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()


def written(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an option's *value* that means no moment; it stays text until the command knows what time it is."""
    try:
        if value is not None:
            moment(value, 1e9)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time; write 90s, 10m, 2h, 3d, 14:30 or 2026-01-31T14:30", context, parameter
        ) from None
    return value
