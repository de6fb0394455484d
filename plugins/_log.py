"""The log file of a plugin: Circus throws a plugin's output away, and a full disk must not end its work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from xboard_circus.rotating_log import PLUGIN_OLD_FILES, RotatingLog

FILE_BYTES = 1 << 20
REPEAT_AFTER = 300.0
REMEMBERED = 200


class PluginLogHandler(RotatingLog):
    """Writes to *path*, at most four files of 1 MiB."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, max_bytes=FILE_BYTES, old_files=PLUGIN_OLD_FILES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))


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
