"""Limit the log lines that clients cause: uvicorn logs a line for each invalid request."""

import logging
import os
import time
from collections import Counter

REPORTED_EVERY = 10.0
_OF_REQUESTS = (os.path.join("uvicorn", "protocols", ""), os.path.join("worker", "header_limit.py"))


class QuietLog(logging.Filter):
    """Log a warning about a client's request once in `REPORTED_EVERY` seconds, with the number since the last."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at: dict[str, float] = {}
        self._dropped: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
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
