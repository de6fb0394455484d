"""Parse a line of a log, and its time."""

import io
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from xboard_circus.host.written_files import opener

# A line without an end must not fill our memory, nor a terminal.
LONGEST = 64 * 1024

# "2026-11-24 20:47:29,123 INFO ..." of the plugins, "2026-11-24 20:47:29 circus[7] ..." of circusd,
# "2026-11-24 20:47:29 [71] | ..." of Circus's streams; many apps write one of the three, or it with a T and a zone.
_STAMP = re.compile(
    r"\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(?:(Z)|([+-]\d\d):?(\d\d))?(?![\d])", re.ASCII
)


@dataclass(frozen=True)
class Line:
    """One line without its end; *time* is wall-clock seconds, or those of the line above if it has none of its own."""

    time: float | None
    text: str


def time_of(text: str) -> float | None:
    """Parse the time at the start of *text* as wall-clock seconds, or None; without a zone it is this host's."""
    match = _STAMP.match(text)
    if match is None:
        return None
    date, clock, fraction, is_utc, hours, minutes = match.groups()
    zone = "+00:00" if is_utc else f"{hours}:{minutes}" if hours else ""
    try:
        return datetime.fromisoformat(f"{date}T{clock}{zone}").timestamp() + float(f"0.{fraction or 0}")
    except (ValueError, OverflowError, OSError):
        return None


def open_log(path: Path) -> io.FileIO:
    """Open a log; a named pipe in its place would block an open() that waits for its writer."""
    return open(path, "rb", buffering=0, opener=lambda name, flags: opener(name, flags | os.O_NONBLOCK))


def decoded(raw: bytes) -> str:
    """Return a line as text, cut to `LONGEST`."""
    return raw[:LONGEST].decode("utf-8", errors="replace").rstrip("\r\n")
