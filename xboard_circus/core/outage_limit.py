"""Decide when to give up a backend that is down, so that the container's engine replaces the container.

Nothing in this module asks the system or reads a clock: the caller brings its observations and the time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from xboard_circus.core.durations import seconds
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.verdict import Word

LONGEST_STEP = 5.0


class Outage(NamedTuple):
    """A watcher or circusd that does not serve at the moment, with the reason if known."""

    name: str
    reason: str


@dataclass(slots=True)
class Patience:
    """Add up the time without service, and subtract the time with service.

    So a backend that comes up for a moment between two crashes is given up as well, only later; one that fails once a
    day never is. *limit* is in seconds; 0 is for ever. The time between two looks counts for `LONGEST_STEP` seconds at
    most, because after a pause of our own (SIGSTOP, a machine asleep) what was in between is unknown.

    >>> patience = Patience(10.0)
    >>> [patience.look(now, [Outage("xboard", "exit code 3")]) for now in (0.0, 5.0)]
    [None, None]
    >>> patience.look(10.0, [Outage("xboard", "exit code 3")])
    'xboard could not be kept up for 10 s: exit code 3'
    """

    limit: float
    _owed: dict[str, float] = field(default_factory=dict)
    _looked_at: float | None = None

    def look(self, now: float, outages: Iterable[Outage]) -> str | None:
        """Note what is down at *now*; return the reason to give the backend up, or None."""
        step = 0.0 if self._looked_at is None else min(max(0.0, now - self._looked_at), LONGEST_STEP)
        self._looked_at = now
        down = {outage.name: outage for outage in outages}
        self._owed = {name: owed - step for name, owed in self._owed.items() if name in down or owed > step}
        for name in down:
            # A backend that was down at the last look too was down in between; a new outage begins now.
            self._owed[name] = self._owed[name] + 2 * step if name in self._owed else 0.0
        if not self.limit:
            return None
        worst = max(down.values(), key=lambda outage: self._owed[outage.name], default=None)
        if worst is None or self._owed[worst.name] < self.limit:
            return None
        say = Say.NOT_KEPT_UP_SAYING if worst.reason else Say.NOT_KEPT_UP
        return say(watcher=worst.name, held=seconds(self.limit), why=worst.reason)


def outages_of(watchers: Iterable[WatcherEntry]) -> list[Outage]:
    """Return the armed *watchers* of circusd's state that should serve and do not.

    A page that is down is no reason to end a backend that serves. A dependency that is down is none either, because a
    new container would meet the same.
    """
    return [
        Outage(watcher["name"], watcher["verdict"]["cause"])
        for watcher in watchers
        if watcher["armed"] and not watcher["is_page"] and Word(watcher["verdict"]["word"]).is_outage
    ]
