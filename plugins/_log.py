"""The log file of a plugin: Circus throws a plugin's output away, and a full disk must not end its work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES, OLD_FILES = 1 << 20, 3
REPEAT_AFTER = 300.0
REMEMBERED = 200


class PluginLogHandler(RotatingFileHandler):
    """Writes to *path*, at most four files of 1 MiB; a line that cannot be written is lost, and nothing else.

    The file is opened at the first line, and again after every failure, so that a folder may be made or a disk cleared
    at any time.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is None:
            with suppress(OSError):
                Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        # A rotation that failed half way leaves a closed file behind, into which nothing could ever be written again.
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()


def open_log(path: Path) -> logging.Handler:
    """Let everything that this package and asyncio log go to *path*, and nowhere else."""
    handler = PluginLogHandler(path)
    for name, level in (("xboard_circus", logging.INFO), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    return handler


class Sparingly:
    """Lets the same thing be said once, and again only after five minutes.

    >>> said = Sparingly(clock=iter([0.0, 1.0, 400.0]).__next__)
    >>> [said.may_say("circusd is busy") for _ in range(3)]
    [True, False, True]
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, repeat_after: float = REPEAT_AFTER) -> None:
        self._clock = clock
        self._repeat_after = repeat_after
        self._said_at: dict[object, float] = {}

    def may_say(self, what: object) -> bool:
        """Return whether *what* was not said lately; it counts as said now."""
        now = self._clock()
        if now - self._said_at.get(what, float("-inf")) < self._repeat_after:
            return False
        if len(self._said_at) >= REMEMBERED:
            self._said_at.clear()
        self._said_at[what] = now
        return True

    def forget(self, what: object) -> bool:
        """Let *what* be said again at once, because it is over; return whether it was said."""
        return self._said_at.pop(what, None) is not None
