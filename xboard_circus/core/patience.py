"""Decide when a backend that does not serve is given up, so that whoever runs the container sees it.

Nothing in this module asks the system or looks at a clock: the caller brings what it saw, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.reasons import one_line, seconds
from xboard_circus.core.sentences import Say

# A worker whose live path fails still serves, and where all of them fail at once a dependency is down: a new container
# would meet the same. What else a worker can be is no service.
SERVING = frozenset({"ready", "busy", "sick"})
LONGEST_STEP = 5.0


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that does not serve at the moment: a watcher, or circusd; and why, as far as anybody knows."""

    name: str
    reason: str


@dataclass(slots=True)
class Patience:
    """Adds up the time in which there was no service; time with service takes it off again.

    So a backend that comes up for a moment between two crashes is given up as well, only later, and one that stumbles
    once a day never is. *limit* is in seconds; 0 is for ever. A look counts for `LONGEST_STEP` seconds at most: after
    a pause of our own (SIGSTOP, a machine asleep) nobody knows what was in between.

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
        """Take note of what is down at *now*; return why the backend is to be given up, or None."""
        step = 0.0 if self._looked_at is None else min(max(0.0, now - self._looked_at), LONGEST_STEP)
        self._looked_at = now
        down = {outage.name: outage for outage in outages}
        self._owed = {name: owed - step for name, owed in self._owed.items() if name in down or owed > step}
        for name in down:
            # What was down at the last look as well has been down in between; a new outage begins now.
            self._owed[name] = self._owed[name] + 2 * step if name in self._owed else 0.0
        if not self.limit:
            return None
        worst = max(down.values(), key=lambda outage: self._owed[outage.name], default=None)
        if worst is None or self._owed[worst.name] < self.limit:
            return None
        say = Say.NOT_KEPT_UP_SAYING if worst.reason else Say.NOT_KEPT_UP
        return say(watcher=worst.name, held=seconds(self.limit), why=one_line(worst.reason))


def outages_of(watchers: Iterable[Mapping[str, Any]]) -> list[Outage]:
    """Return the armed *watchers* of circusd's state that are to serve and do not.

    One that an operator has stopped, or set to no workers, is left out: it is meant to be down.
    """
    return [
        Outage(str(watcher["name"]), _reason(watcher))
        for watcher in watchers
        if watcher["armed"] and _is_wanted(watcher) and not _serves(watcher)
    ]


def _is_wanted(watcher: Mapping[str, Any]) -> bool:
    return watcher["status"] in ("active", "starting") and watcher["numprocesses"] > 0


def _serves(watcher: Mapping[str, Any]) -> bool:
    return any(worker["state"] in SERVING for worker in watcher["workers"])


def _reason(watcher: Mapping[str, Any]) -> str:
    port = watcher.get("port") or {}
    if port.get("state") == "refused":
        return Say.PORT_OF_IT(port=port["port"], why=port["reason"])
    if watcher["last_reason"]:
        return str(watcher["last_reason"])
    doing = dict.fromkeys(
        f"{worker['state']} ({worker['reason']})" if worker["reason"] else str(worker["state"])
        for worker in watcher["workers"]
    )
    return Say.WORKERS_ARE(states=", ".join(doing)) if doing else Say.NO_WORKER()
