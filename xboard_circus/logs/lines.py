"""A line of a log, and when it was written."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from xboard_circus.core.stamps import stamp_of

# A line that never ends must not fill our memory, nor a terminal.
LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end; *time* is wall-clock seconds, of the line above where it has none of its own."""

    time: float | None
    text: str


def time_of(text: str) -> float | None:
    """Return the wall-clock seconds that *text* begins with, or None; a time without a zone is this host's."""
    stamp = stamp_of(text)
    if stamp is None:
        return None
    year, month, day, hour, minute, second = stamp.fields
    zone = None if stamp.offset is None else datetime.timezone(datetime.timedelta(seconds=stamp.offset))
    try:
        moment = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone)
        return moment.timestamp() + stamp.fraction
    except (ValueError, OverflowError, OSError):
        return None


def decoded(raw: bytes) -> str:
    """Return a line as text, cut where it is endless."""
    return raw[:LONGEST].decode("utf-8", errors="replace").rstrip("\r\n")
