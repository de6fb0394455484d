"""Rotate circusd's log file, which Circus itself does not."""

import logging
from logging.handlers import WatchedFileHandler

from circus.util import LOG_FMT

from xboard_circus.rotating_log import CIRCUSD_OLD_FILES, RotatingLog
from xboard_circus.supervisor.patches.patch import replaces

LOG_BYTES = 10 << 20


@replaces("logging.Logger.handlers")
def rotate_log(handlers: list[logging.Handler], _: object) -> list[logging.Handler]:
    """Let circusd rotate its log file. A logger that was set up by `loggerconfig` is left as it is.

    Without it: circusd's log grows without bound.
    Fact: Circus writes to it with a WatchedFileHandler, which only follows what others rotate.
    """
    return [_rotating(each) for each in handlers]


def _rotating(handler: logging.Handler) -> logging.Handler:
    """Return a rotating handler in place of Circus's; any other is returned as it is."""
    if type(handler) is not WatchedFileHandler or getattr(handler.formatter, "_fmt", None) != LOG_FMT:
        return handler
    ours = RotatingLog(handler.baseFilename, max_bytes=LOG_BYTES, old_files=CIRCUSD_OLD_FILES)
    ours.setFormatter(handler.formatter)
    ours.setLevel(handler.level)
    handler.close()  # a removed handler that is installed again opens its file again
    return ours
