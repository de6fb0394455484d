"""Decide in the first process of a container whether circusd has to be killed."""

import time
from collections.abc import Callable
from pathlib import Path

from xboard_circus.core.sentences import Say
from xboard_circus.host import circusd_record, last_words, runtime

PATIENCE = 20.0
QUESTIONS = 3
QUIT_WITHIN = 10.0


class CircusdWatch:
    """Watch the circusd of *ini* that runs as *pid*: it hangs, or had to quit long ago and is still there.

    circusd renews the time of its record every 5 s, so watching it costs nothing. One that has not for *patience*
    seconds is queried, three times, because a disk that cannot be written is no reason to kill it.
    """

    def __init__(
        self, ini: Path, pid: int, *, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ini, self._pid, self._patience, self._clock = ini, pid, patience, clock
        self._instance = runtime.instance_id(ini)
        self._quits_since: float | None = None
        self._seen: float | None = None
        self._seen_at = clock()
        self._unanswered = 0

    def is_overdue(self) -> bool:
        """Return whether circusd has to be killed now; record the reason if it hangs."""
        now = self._clock()
        if last_words.read(self._instance) is not None:
            self._quits_since = self._quits_since or now
            return now > self._quits_since + QUIT_WITHIN
        life = circusd_record.read(self._instance)
        seen = life.seen if life is not None and life.pid == self._pid else None  # None: it has no record yet
        if seen is None or seen != self._seen:
            self._seen, self._seen_at, self._unanswered = seen, now, 0
        elif now > self._seen_at + self._patience and self._unanswered < QUESTIONS:
            # Here and not above: zmq takes 3 MiB, which almost no container ever needs in this process.
            from xboard_circus.container.health_check import circusd_answers

            self._unanswered = 0 if circusd_answers(self._ini) else self._unanswered + 1
            if self._unanswered == QUESTIONS:
                circusd_record.amend(self._instance, why=Say.FIRST_PROCESS_ENDED_IT())
        return self._unanswered == QUESTIONS
