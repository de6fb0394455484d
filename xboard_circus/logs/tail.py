"""Read the last lines of a log and its rotated files, from their ends."""

import contextlib
import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace

from xboard_circus.logs.files import LogFile
from xboard_circus.logs.lines import LONGEST, Line, Place, decoded, open_log, time_of

BLOCK = 64 * 1024
# Lines further back than requested are read, to find the time of the first one, but not for ever.
LOOK_BACK = 200
MOST_BYTES = 64 << 20
"""Of all files of a log: lines further back are not shown. Its writer can make it 8 TB, and sparse."""


def tail(log_file: LogFile, lines: int, since: float | None = None, *, before: Place | None = None) -> list[Line]:
    """Return the last *lines* lines, *before* a place and none of them older than *since*, oldest first.

    *since* is in wall-clock seconds. Lines without a time belong to the timed one above them. Without any time in the
    lines, *since* cannot be applied: all are returned, with None for their time, unless the file was last written
    before it.

    Raises:
        OSError: The file is there and can't be read.
    """
    with contextlib.ExitStack() as opened:
        files = opened_files(log_file, opened)
        if since is not None:
            files = [file for file in files if os.fstat(file.fileno()).st_mtime >= since]
        return _last(_lines_of(files, before), lines, since)


def _last(backwards: Iterator[Line], lines: int, since: float | None) -> list[Line]:
    """Return the end of the lines in *backwards*; a few more are read, for the time of the first."""
    found: list[Line] = []  # newest first
    for line in itertools.islice(backwards, lines + LOOK_BACK):
        found.append(line)
        if line.time is not None and (len(found) >= lines or (since is not None and line.time < since)):
            break
    kept: list[Line] = []
    last = None
    for line in reversed(found):
        last = last if line.time is None else line.time
        kept.append(replace(line, time=last))
    kept = kept[max(0, len(kept) - lines) :]
    if since is None or last is None:
        return kept
    return [line for line in kept if line.time is not None and line.time >= since]


def opened_files(log_file: LogFile, opened: contextlib.ExitStack) -> list[io.FileIO]:
    """Open the log and its rotated files, newest first. All before any is read, and each once, because it may rotate
    now."""
    files: dict[tuple[int, int], io.FileIO] = {}
    for path in (log_file.path, *log_file.old()):
        with contextlib.suppress(FileNotFoundError):
            file = opened.enter_context(open_log(path))
            found = os.fstat(file.fileno())
            files.setdefault((found.st_dev, found.st_ino), file)
    return list(files.values())


def _lines_of(files: list[io.FileIO], before: Place | None) -> Iterator[Line]:
    left, is_found = MOST_BYTES, before is None
    for file in files:
        inode, end = os.fstat(file.fileno()).st_ino, file.seek(0, os.SEEK_END)
        if before is not None and inode == before.inode:
            is_found, end = True, min(end, before.offset)
        if not is_found:
            continue
        for offset, text in _lines_backwards(file, left, end):
            yield Line(time_of(text), text, Place(inode, offset))
        left -= end
        if left <= 0:
            return


def _lines_backwards(file: io.FileIO, most: int, end: int) -> Iterator[tuple[int, str]]:
    position = end
    begin = max(0, position - most)
    rest = b""
    is_last = True  # behind the last line end there is a line only if something stands there
    while position > begin:
        size = min(BLOCK, position - begin)
        position -= size
        file.seek(position)
        first, *others = (file.read(size) + rest).split(b"\n")
        offsets = [*itertools.accumulate((len(line) + 1 for line in (first, *others)), initial=position)]
        for offset, line in zip(offsets[-2:0:-1], reversed(others), strict=True):
            if line or not is_last:
                yield offset, decoded(line)
            is_last = False
        # Only the beginning of an endless line is kept.
        rest = first if len(first) <= 2 * LONGEST else first[:LONGEST]
    if begin == 0 and (rest or not is_last):
        yield 0, decoded(rest)
