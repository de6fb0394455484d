"""Open the log file of a plugin: Circus discards a plugin's output, and a full disk must not end its work."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xboard_circus.rotating_log import PLUGIN_OLD_FILES, RotatingLog

FILE_BYTES = 1 << 20
REPEAT_AFTER = 300.0
REMEMBERED = 200


class PluginLogHandler(RotatingLog):
    """Write to *path*, at most four files of 1 MiB."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, max_bytes=FILE_BYTES, old_files=PLUGIN_OLD_FILES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))


class ParentOutputHandler(logging.Handler):
    """Write to the standard output of the process *parent*, which discards ours.

    For containers, where all logs are one stream. It needs Linux's /proc; a failed write loses the line, and nothing
    else.
    """

    def __init__(self, parent: int) -> None:
        super().__init__()
        self.path = f"/proc/{parent}/fd/1"
        self.setFormatter(logging.Formatter("%(asctime)s plugin %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # Opened for every line: there are few, and an open pipe of the parent would keep its reader waiting when all
        # others have ended. One write, so that lines of several processes do not mix.
        with suppress(OSError):
            number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
            try:
                os.write(number, f"{self.format(record)}\n".encode(errors="replace"))
            finally:
                os.close(number)


def open_log(path: Path, *, parent: int | None = None) -> logging.Handler:
    """Send all log lines of this package and of asyncio to *path*, or to the output of *parent*, and nowhere else."""
    handler = PluginLogHandler(path) if parent is None else ParentOutputHandler(parent)
    for name, level in (("xboard_circus", logging.INFO), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    return handler


class Sparingly:
    """Limit repeated log lines: the same one again only after five minutes.

    >>> said = Sparingly(clock=iter([0.0, 1.0, 400.0]).__next__)
    >>> [said.may_say("circusd is busy") for _ in range(3)]
    [True, False, True]
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[object, float] = {}

    def may_say(self, what: object) -> bool:
        """Return whether *what* was not logged lately; it counts as logged now."""
        now = self._clock()
        if now - self._logged_at.get(what, float("-inf")) < REPEAT_AFTER:
            return False
        if len(self._logged_at) >= REMEMBERED:
            self._logged_at.clear()
        self._logged_at[what] = now
        return True

    def forget(self, what: object) -> bool:
        """Let *what* be logged again at once, because it is over; return whether it was logged."""
        return self._logged_at.pop(what, None) is not None
