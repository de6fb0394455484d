"""Number our events and keep them for a while, for a recorder that starts after circusd, or missed one on the bus."""

import json
import time
from collections import deque
from typing import Any

KEPT_CHARS = 1 << 20


class Journal:
    """The last events of one circusd, up to 1 MiB; *epoch* distinguishes its numbers from another's.

    >>> journal = Journal(epoch="e")
    >>> journal.note("web", "cooldown", {"reason": "five failures"})
    {'reason': 'five failures', 'seq': 'e-1'}
    >>> journal.after(0)
    {'epoch': 'e', 'last': 1, 'events': [['web', 'cooldown', {'reason': 'five failures', 'seq': 'e-1'}]]}
    """

    def __init__(self, *, epoch: str | None = None, longest: int = KEPT_CHARS) -> None:
        self.epoch = epoch or f"{time.time_ns():x}"
        self._longest = longest
        self._last = self._length = 0
        self._events: deque[tuple[int, str, str, str]] = deque()

    def note(self, watcher: str, kind: str, message: dict[str, Any]) -> dict[str, Any]:
        """Keep an event and return its message with its number."""
        self._last += 1
        numbered = {**message, "seq": f"{self.epoch}-{self._last}"}
        text = json.dumps(numbered)
        self._events.append((self._last, watcher, kind, text))
        self._length += len(text)
        while self._length > self._longest:
            self._length -= len(self._events.popleft()[3])
        return numbered

    def after(self, number: int) -> dict[str, Any]:
        """Return the events after that number, as far as they are kept."""
        events = [[watcher, kind, json.loads(text)] for at, watcher, kind, text in self._events if at > number]
        return {"epoch": self.epoch, "last": self._last, "events": events}
