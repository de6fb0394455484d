"""circusd's log file, which Circus opens for somebody else to rotate."""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler

from circus.util import LOG_FMT

from xboard_circus.rotating_log import CIRCUSD_OLD_FILES, RotatingLog
from xboard_circus.supervisor.patches.patch import Patch

LOG_BYTES = 10 << 20


class RotateLog(Patch):
    """Let circusd rotate its log file. A logger that was set up by `loggerconfig` is left as it is."""

    of = "logging.Logger"
    name = "handlers"
    without = "circusd's log grows without bound."
    fact = "Circus writes to it with a WatchedFileHandler, which only follows what others rotate."

    def __init__(self, root: logging.Logger | None = None) -> None:
        super().__init__(root or logging.getLogger())
        self._replaced: list[tuple[logging.Handler, logging.Handler]] = []

    def install(self) -> None:
        handlers = self._target.handlers
        for place, handler in enumerate(handlers):
            if type(handler) is WatchedFileHandler and getattr(handler.formatter, "_fmt", None) == LOG_FMT:
                ours = RotatingLog(handler.baseFilename, max_bytes=LOG_BYTES, old_files=CIRCUSD_OLD_FILES)
                ours.setFormatter(handler.formatter)
                ours.setLevel(handler.level)
                handlers[place] = ours
                handler.close()
                self._replaced.append((handler, ours))

    def undo(self) -> None:
        for handler, ours in self._replaced:
            handlers = self._target.handlers
            if ours in handlers:
                handlers[handlers.index(ours)] = handler  # a closed WatchedFileHandler opens its file again
                ours.close()
        self._replaced.clear()
