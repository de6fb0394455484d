"""Limit the log lines that clients cause, and what stands in them.

uvicorn logs a line for each invalid request, and a client's address as X-Forwarded-For has it.
"""

import logging
import time
from collections import Counter

from xboard_circus.masking import printable

REPORTED_EVERY = 10.0
_OF_REQUESTS = ("uvicorn/protocols/", "worker/header_limit.py")


class QuietLog(logging.Filter):
    """Log a warning about a client's request once in `REPORTED_EVERY` seconds, with the number since the last.

    What a line quotes is shown without what is not seen, or moves the cursor of who reads it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_at: dict[str, float] = {}
        self._dropped: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(printable(each) if isinstance(each, str) else each for each in record.args)
        text, now = str(record.msg), time.monotonic()
        if record.levelno != logging.WARNING or not any(part in record.pathname for part in _OF_REQUESTS):
            return True
        if now < self._next_at.get(text, 0.0):
            self._dropped[text] += 1
            return False
        self._next_at[text] = now + REPORTED_EVERY
        if dropped := self._dropped.pop(text, 0):
            record.msg = f"{text} {dropped} more since the last such line"
        return True


QUIET_LOG = QuietLog()
