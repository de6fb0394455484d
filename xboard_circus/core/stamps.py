"""Parse the time of a log line."""

from __future__ import annotations

import re
from dataclasses import dataclass

# "2026-11-24 20:47:29,123 INFO ..." of the plugins, "2026-11-24 20:47:29 circus[7] ..." of circusd,
# "2026-11-24 20:47:29 [71] | ..." of Circus's streams; many apps write one of the three, or it with a T and a zone.
_STAMP = re.compile(
    r"\[?(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?(?![\d])"
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A date and time as a line begins with it.

    Attributes:
        fields: Year, month, day, hour, minute, second.
        fraction: Of a second.
        offset: Seconds east of UTC; None for this host's own time.
    """

    fields: tuple[int, int, int, int, int, int]
    fraction: float = 0.0
    offset: int | None = None


def stamp_of(line: str) -> Stamp | None:
    """Return the stamp that *line* begins with, or None.

    >>> stamp_of("2026-11-24 20:47:29,500 INFO ready").fraction
    0.5
    >>> stamp_of("2026-11-24T20:47:29+08:00 x").offset, stamp_of("INFO:     Started server process [71]")
    (28800, None)
    """
    match = _STAMP.match(line)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[number]) for number in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 62):
        return None
    offset = None
    if match[8]:
        offset = (int(match[9]) * 3600 + int(match[10]) * 60) * (-1 if match[8] == "-" else 1)
    elif "Z" in match[0]:
        offset = 0
    return Stamp((year, month, day, hour, minute, second), float(f"0.{match[7] or 0}"), offset)
