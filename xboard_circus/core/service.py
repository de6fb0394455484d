"""What the service manager of the host is to be told of a state that circusd has shown.

Nothing here asks circusd or talks to systemd. Times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

View = Mapping[str, Any]

# A worker in one of these states serves, or did until a moment ago: its start is over.
SERVING = frozenset({"ready", "busy", "sick", "wedged"})
LONGEST_STATUS = 400


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told.

    Attributes:
        ready: Every worker that has to be there is ready.
        proven: circusd has answered, and a prober has ended a round since the last proof.
        stopping: circusd is on its way out, with all that it runs.
        reloading: A rolling reload is at work on a watcher.
        status: One line for a person.
    """

    ready: bool
    proven: bool
    stopping: bool
    reloading: bool
    status: str


@dataclass(slots=True)
class ServiceState:
    """Turns one answer of circusd after the other into notices.

    A proof is good for one notice only: a prober that stands still shows the same round again, and that proves nothing.

    Attributes:
        expected: The armed watchers that a start has to bring up; the others matter to no one here.
    """

    expected: Collection[str]
    _proven_at: float = field(default=float("-inf"))

    def judge(self, state: View, *, asked_at: float) -> Notice:
        """Return what *state*, asked for at *asked_at*, comes to."""
        watchers = {str(view["name"]): view for view in state["watchers"]}
        wanted = [watchers.get(name) for name in self.expected]
        lines = [
            f"{name}: {_told(watchers[name]) if name in watchers else 'circusd runs without it'}"
            for name in self.expected
        ]
        return Notice(
            ready=bool(wanted) and all(view is not None and is_up(view) for view in wanted),
            proven=self._prove(state, asked_at),
            stopping=bool(state["circusd"].get("stopping")),
            reloading=any((view.get("reload") or {}).get("state") == "running" for view in watchers.values()),
            status="; ".join(lines)[:LONGEST_STATUS] or "no watcher of the ini file is armed",
        )

    def _prove(self, state: View, asked_at: float) -> bool:
        # The age counts from circusd's answer, so that the round ended at this moment or later, never before.
        ended_at = max((asked_at - prober["round_age"] for prober in state["probers"]), default=float("-inf"))
        is_new = ended_at > self._proven_at
        if is_new:
            self._proven_at = asked_at
        return is_new


def is_up(view: View) -> bool:
    """Return whether an armed watcher runs with as many ready workers as it has to have."""
    serving = sum(worker["state"] in SERVING for worker in view["workers"])
    return bool(view["armed"]) and view["status"] == "active" and serving >= view["numprocesses"]


def _told(view: View) -> str:
    """Return how a watcher is.

    >>> _told({"status": "active", "numprocesses": 2, "workers": [{"state": "ready"}, {"state": "starting"}]})
    '1 of 2 ready, 1 starting'
    """
    serving = Counter(str(worker["state"]) for worker in view["workers"])
    others = [f"{count} {state}" for state, count in serving.items() if state != "ready"]
    status = "" if view["status"] == "active" else f" ({view['status']})"
    told = ", ".join([f"{serving['ready']} of {view['numprocesses']} ready{status}", *others])
    reason = next((worker.get("reason") for worker in view["workers"] if worker.get("reason")), "")
    # The seconds to the next try would make a new status of every look.
    return " ".join(f"{told}{': ' if reason else ''}{str(reason or '').partition(', next try in')[0]}".split())
