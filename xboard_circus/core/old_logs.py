"""Select rotated log files that are old enough to delete. Names are matched whole."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

DAY = 86_400.0


@dataclass(frozen=True)
class LogFolderEntry:
    """A file in the folder of a log; *written* is its modification time, *is_plain* is False for links and folders."""

    name: str
    written: float
    is_plain: bool = True


def number_of(name: str, base: str, highest: int) -> int | None:
    """Return the N of ``BASE.N``, as the writer of *base* numbers its rotated files; None for any other file.

    >>> [number_of(name, "web.log", 5) for name in ("web.log.2", "web.log.02", "web.log.9")]
    [2, None, None]
    """
    match = re.fullmatch(re.escape(base) + r"\.([1-9][0-9]{0,4})", name)
    return int(match[1]) if match and int(match[1]) <= highest else None


def expired(base: str, found: Iterable[LogFolderEntry], *, highest: int, keep_days: float, now: float) -> list[str]:
    """Return the names of the files rotated from *base* and not written to for *keep_days*, by wall clock.

    >>> there = [LogFolderEntry(name, 0) for name in ("web.log", "web.log.1", "web.log.1.gz")]
    >>> expired("web.log", there, highest=5, keep_days=7, now=8 * DAY)
    ['web.log.1']
    """
    return [
        each.name
        for each in found
        if each.is_plain and number_of(each.name, base, highest) and now - each.written > keep_days * DAY
    ]
