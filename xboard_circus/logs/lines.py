"""Parse a line of a log, and its time."""

import errno
import io
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from xboard_circus.host.written_files import opener
from xboard_circus.logs.files import LogFile

# A line without an end must not fill our memory, nor a terminal.
LONGEST = 64 * 1024

# "2026-11-24 20:47:29,123 INFO ..." of the plugins, "2026-11-24 20:47:29 circus[7] ..." of circusd,
# "2026-11-24 20:47:29 [71] | ..." of Circus's streams; many apps write one of the three, or it with a T and a zone.
_STAMP = re.compile(
    r"\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(?:(Z)|([+-]\d\d):?(\d\d))?(?![\d])", re.ASCII
)


# The pid is Circus's: "2026-11-24 20:47:29 [71] | ...".
_PID = re.compile(r"[^|]{0,40}\[(\d{1,10})\] \| ")
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
_NAMES = "|".join(LEVELS)
_LEVEL = re.compile(
    rf'(?<![A-Za-z])(?:({_NAMES})(?![A-Za-z])|(?i:level"?[=:]\s?"?({_NAMES}))\b|Traceback \(most recent call last\))'
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MOST_PIDS = 1000
"""Pids whose last level is known: an app may print any number of others in front of its lines."""
_LEVEL_WITHIN = 120  # characters: behind them is what the app says, not how it says it


class Place(NamedTuple):
    """A byte of a log, in whichever of its files has that inode by now."""

    inode: int
    offset: int


@dataclass(frozen=True)
class Line:
    """One line without its end; *time* is wall-clock seconds, or those of the line above if it has none of its own."""

    time: float | None
    text: str
    place: Place | None = field(default=None, compare=False)


class LinesAbove:
    """Find the pid and the level of each line; one without, as of a traceback, has those of the line above it."""

    def __init__(self) -> None:
        self._pids: dict[str, int | None] = {}
        self._levels: dict[tuple[str, int | None], int] = {}

    def labels(self, log: LogFile, text: str) -> tuple[int | None, int]:
        """Return the pid, if there is one, and the level of the next line of a log."""
        pid = self._pids[log.id] = pid_of(text) or self._pids.get(log.id)
        level = level_of(text) or self._levels.get((log.id, pid), LEVELS["INFO"])
        self._levels.pop((log.id, pid), None)
        self._levels[log.id, pid] = level  # the last one now
        if len(self._levels) > MOST_PIDS:
            del self._levels[next(iter(self._levels))]
        return pid, level


def time_of(text: str) -> float | None:
    """Parse the time at the start of *text* as wall-clock seconds, or None; without a zone it is this host's."""
    if (match := _STAMP.match(text)) is not None:
        date, clock, fraction, is_utc, hours, minutes = match.groups()
        zone = "+00:00" if is_utc else f"{hours}:{minutes}" if hours else ""
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromisoformat(f"{date}T{clock}{zone}").timestamp() + float(f"0.{fraction or 0}")
    return None


def pid_of(text: str) -> int | None:
    """Return the pid that Circus put in front of a line; None without one.

    >>> pid_of("2026-11-24 20:47:29 [71] | INFO: [8] | up"), pid_of("INFO: up")
    (71, None)
    """
    match = _PID.match(text)
    return None if match is None else int(match[1])


def level_of(text: str) -> int | None:
    """Return the level of a line as a number of `logging`; None where it has none, as the rest of a traceback.

    >>> level_of("2026-11-24 20:47:29 [71] | WARNING:  slow"), level_of('{"level": "error"}'), level_of("  File x.py")
    (30, 40, None)
    """
    match = _LEVEL.search(without_colours(text), 0, _LEVEL_WITHIN)
    return None if match is None else LEVELS.get((match[1] or match[2] or "").upper(), LEVELS["ERROR"])


def without_colours(text: str) -> str:
    """Return a line without the codes of colours."""
    return _COLOURS.sub("", text)


def merged(ends: Mapping[LogFile, list[Line]]) -> list[tuple[LogFile, Line]]:
    """Return the lines of all logs in the order of their times; those of one log keep their order."""
    order: list[tuple[float, LogFile, Line]] = []
    for log, lines in ends.items():
        # A clock that was set back, or two writers of one log, must not tear its lines apart.
        times = accumulate((line.time or 0.0 for line in lines), max)
        order += [(at, log, line) for at, line in zip(times, lines, strict=True)]
    return [(log, line) for _, log, line in sorted(order, key=itemgetter(0))]


def open_log(path: Path) -> io.FileIO:
    """Open a log. A device has none to be read, and may act when it is opened: see `written_files.plain_opener`."""
    if stat.S_ISCHR(mode := path.stat().st_mode) or stat.S_ISBLK(mode):
        raise FileNotFoundError(errno.ENOENT, "it is a device", os.fspath(path))
    return open(path, "rb", buffering=0, opener=opener)


def decoded(raw: bytes) -> str:
    """Return a line as text, cut to `LONGEST`."""
    return raw[:LONGEST].decode("utf-8", errors="replace").rstrip("\r\n")
