"""Show logs: pages of their lines, merged by time, and new lines. It reads from a disk, so in a thread."""

import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from xboard_circus.dashboard.answers import Answer
from xboard_circus.errors import XboardError
from xboard_circus.logs import Line, LogFile, LogFollower, tail
from xboard_circus.logs.lines import LinesAbove, Place, merged, time_of
from xboard_circus.logs.pages import NOWHERE, end_of, lines_from, place_at
from xboard_circus.masking import printable, safe_text

MOST_LINES, MOST_AT_ONCE, LONGEST_LINE = 2000, 2000, 4000
MOST_CHARACTERS = 1 << 20  # of an answer, which stays in memory while its client does not read it
MOST_READS = 16  # MiB of a log for each call
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_PLACE = re.compile(r"(\d{1,20})\.(\d{1,18})", re.ASCII)

Row = tuple[float | None, int, int | None, str]
"""Time, level, pid and text of a line, as the page gets it."""
Places = Mapping[LogFile, Place]
Found = TypeVar("Found")


def places_in(cursor: str, logs: Iterable[LogFile]) -> dict[LogFile, Place]:
    """Return a place in each of *logs*, `NOWHERE` where the *cursor* that a page sends has none."""
    found = [_PLACE.fullmatch(each) for each in cursor.split(",")]
    places = [NOWHERE if each is None else Place(int(each[1]), int(each[2])) for each in found]
    return {log: places[at] if at < len(places) else NOWHERE for at, log in enumerate(logs)}


def cursor_of(places: Iterable[Place]) -> str:
    """Return the text of a place in each log."""
    return ",".join(f"{inode}.{offset}" for inode, offset in places)


def last_page(logs: Sequence[LogFile], lines: int) -> dict[str, Any]:
    """Return the last lines; XboardError if a log cannot be read."""
    return page_before(_read(logs, end_of), lines)


def page_before(places: Places, lines: int) -> dict[str, Any]:
    """Return the last lines before a place in each log; XboardError if one cannot be read."""
    lines = max(1, min(lines, MOST_LINES))
    found = merged(_read(places, lambda log: tail(log, lines, before=places[log])))
    kept = found[-_fitting(found[: -lines - 1 : -1]) :]
    return _page(kept, begins={**places, **_firsts(kept)}, ends=places)


def page_after(places: Places, lines: int) -> dict[str, Any]:
    """Return the first lines from a place in each log on; XboardError if one cannot be read."""
    lines = max(1, min(lines, MOST_LINES))
    read = _read(places, lambda log: lines_from(log, lines, places[log]))
    found, ends = merged({log: each[0] for log, each in read.items()}), {log: each[1] for log, each in read.items()}
    fitting = _fitting(found[:lines])
    return _page(found[:fitting], begins=places, ends={**ends, **_firsts(found[fitting:])})


def page_at(logs: Sequence[LogFile], lines: int, time: float) -> dict[str, Any]:
    """Return the lines around a *time*, and how many of them are older; XboardError if a log cannot be read."""
    places = _read(logs, lambda log: place_at(log, time))
    older, newer = page_before(places, lines // 2), page_after(places, lines // 2)
    shown = [*older["lines"], *newer["lines"]]
    return {"lines": shown, "older": len(older["lines"]), "begin": older["begin"], "end": newer["end"]}


class FollowedLogs:
    """Follow several logs, each from a place or its end on. It reads in the threads of a pool.

    A stream that ends gives up its thread, which a hung disk may hold. So the files are closed by the thread that
    reads them, or by whoever closes this while none does: never under a thread that reads, whose number of a file may
    be a connection's by then.
    """

    def __init__(self, logs: Mapping[LogFile, Place | None]) -> None:
        self._logs, self._above = logs, LinesAbove()
        self._followers: list[LogFollower] = []
        self._reading, self._is_closed = threading.Lock(), False

    @property
    def cursor(self) -> str:
        """Return the text of where the next call begins."""
        return cursor_of(each.place for each in self._followers)

    def begin(self) -> None:
        """Open the logs; OSError if one cannot be read."""
        self._read(lambda: self._followers.extend(LogFollower(log, place) for log, place in self._logs.items()))

    def new_lines(self) -> tuple[int, list[Row]]:
        """Return the lines since the last call, and how many of a flood were left out before them."""
        return self._read(self._new_lines)

    def close(self) -> None:
        """Close the files, now or when the thread that reads them is done; never waits."""
        self._is_closed = True
        if self._reading.acquire(blocking=False):
            for each in self._followers:
                each.close()
            self._reading.release()

    def _read(self, read: Callable[[], Found]) -> Found:
        try:
            with self._reading:
                return read()
        finally:
            if self._is_closed:
                self.close()

    def _new_lines(self) -> tuple[int, list[Row]]:
        newest, count = deque[tuple[LogFile, str]](maxlen=MOST_AT_ONCE), 0
        for each in self._followers:
            for _ in range(MOST_READS):
                if not (lines := each.poll()):
                    break
                count += len(lines)
                newest.extend((each.log_file, text) for text in lines[-MOST_AT_ONCE:])
        found = [(log, Line(time_of(text), text)) for log, text in newest]
        shown = found[-_fitting(found[::-1]) :]
        return count - len(shown), _rows(shown, self._above)


def shown_line(line: str) -> str:
    """Return a line of a log for the page: no secrets, nothing invisible but its colours, no endless line.

    A secret may stand in several colours. So one in which something is masked has none any more.
    """
    line = line[:LONGEST_LINE]
    plain = _ESCAPE.sub("", line)
    safe = safe_text(plain)
    if safe != plain or "\x1b" not in line:
        return printable(safe)
    parts = _COLOUR.split(line)
    return "".join(part if at % 2 else printable(_ESCAPE.sub("", part)) for at, part in enumerate(parts))


def _page(lines: list[tuple[LogFile, Line]], *, begins: Places, ends: Places) -> dict[str, Any]:
    return {"lines": _rows(lines, LinesAbove()), "begin": cursor_of(begins.values()), "end": cursor_of(ends.values())}


def _fitting(lines: Iterable[tuple[LogFile, Line]]) -> int:
    """Return how many of *lines*, from the first on, an answer has room for; the first always."""
    lengths = itertools.accumulate(min(len(line.text), LONGEST_LINE) for _, line in lines)
    return max(1, sum(length <= MOST_CHARACTERS for length in lengths))


def _firsts(lines: list[tuple[LogFile, Line]]) -> dict[LogFile, Place]:
    """Return where the first line of each log begins."""
    return {log: line.place for log, line in reversed(lines) if line.place is not None}


def _rows(lines: Iterable[tuple[LogFile, Line]], above: LinesAbove) -> list[Row]:
    rows = []
    for log, line in lines:
        pid, level = above.labels(log, line.text)
        rows.append((line.time, level, pid, shown_line(line.text)))
    return rows


def _read(logs: Iterable[LogFile], read: Callable[[LogFile], Found]) -> dict[LogFile, Found]:
    """Return what *read* finds in each log; XboardError if one cannot be read."""
    found = {}
    for log in logs:
        try:
            found[log] = read(log)
        except OSError as error:
            raise XboardError(Answer.NOT_READ(path=log.path, error=error.strerror)) from None
    return found
