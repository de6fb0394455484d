"""Read a log page by page: before or after a place in it, or around a time, over all its rotated files."""

import contextlib
import io
import os
from collections.abc import Iterator

from xboard_circus.logs.files import LogFile
from xboard_circus.logs.lines import LONGEST, Line, Place, decoded, time_of
from xboard_circus.logs.tail import BLOCK, opened_files

NOWHERE = Place(0, 0)
MOST_BYTES = 8 << 20  # of one page


def end_of(log: LogFile) -> Place:
    """Return the place behind the last line of a log; OSError where it cannot be read."""
    with contextlib.ExitStack() as opened:
        for file in opened_files(log, opened)[:1]:
            return Place(os.fstat(file.fileno()).st_ino, file.seek(0, os.SEEK_END))
    return NOWHERE


def place_at(log: LogFile, time: float) -> Place:
    """Return the place of the first line of *time* or later, by bisection; OSError where it cannot be read."""
    with contextlib.ExitStack() as opened:
        for file in reversed(opened_files(log, opened)):
            found = os.fstat(file.fileno())
            if found.st_mtime >= time and (offset := _offset_at(file, time)) < found.st_size:
                return Place(found.st_ino, offset)
    return end_of(log)


def lines_from(log: LogFile, lines: int, place: Place) -> tuple[list[Line], Place]:
    """Return the next *lines* lines from a place on, and the place behind them; OSError where it cannot be read.

    From a place whose file is gone, as `NOWHERE`, on the oldest that is left comes next.
    """
    found: list[Line] = []
    left, last, end = MOST_BYTES, None, place
    with contextlib.ExitStack() as opened:
        files = [(os.fstat(file.fileno()).st_ino, file) for file in reversed(opened_files(log, opened))]
        inodes = [inode for inode, _ in files]
        for inode, file in files[inodes.index(place.inode) if place.inode in inodes else 0 :]:
            for offset, raw in _forwards(file, place.offset if inode == place.inode else 0):
                if len(found) == lines or left <= 0:
                    return found, end
                text = decoded(raw)
                last = time_of(text) or last
                found.append(Line(last, text, Place(inode, offset)))
                left -= len(raw)
                end = Place(inode, offset + len(raw))
    return found, end


def _forwards(file: io.FileIO, offset: int) -> Iterator[tuple[int, bytes]]:
    with open(os.dup(file.fileno()), "rb") as reader:
        reader.seek(offset)
        while line := reader.readline(LONGEST):
            yield offset, line
            offset += len(line)


def _offset_at(file: io.FileIO, time: float) -> int:
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > BLOCK:
        middle = (low + high) // 2
        first = None
        for offset, raw in _forwards(file, middle):
            if (first := time_of(decoded(raw))) is not None or offset > middle + BLOCK:
                break
        low, high = (middle, high) if first is not None and first < time else (low, middle)
    for offset, raw in _forwards(file, low):
        at = time_of(decoded(raw))
        if offset > high + BLOCK or (at is not None and at >= time):
            return offset
    return file.seek(0, os.SEEK_END)
