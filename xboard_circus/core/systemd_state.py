"""Derive systemd notifications (READY, STATUS, WATCHDOG, STOPPING) from the state of circusd.

Nothing here queries circusd or notifies systemd. Times are seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from xboard_circus.core.state_schema import State
from xboard_circus.core.verdict import has_come_up, headline, running_reload, runs_plainly

LONGEST_STATUS = 400


class SystemdNotice(NamedTuple):
    """Notifications for systemd.

    Attributes:
        ready: Every configured worker has come up.
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
    """Derive notices from one state of circusd after the other.

    A proof is good for one notice only: a prober that stands still shows the same round again, which proves nothing.

    Attributes:
        expected: The backends that a start has to bring up; the page and watchers without our hook do not count.
    """

    expected: Collection[str]
    _proven_at: float = field(default=float("-inf"))

    def judge(self, state: State, *, queried_at: float) -> SystemdNotice:
        """Judge the service by *state*, queried at *queried_at*."""
        watchers = {watcher["name"]: watcher for watcher in state["watchers"]}
        known = {name: headline(watcher["verdict"]) for name, watcher in watchers.items()}
        lines = [f"{name}: {known.get(name, 'circusd runs without it')}" for name in self.expected]
        up = {name for name, each in watchers.items() if (each["armed"] or runs_plainly(each)) and has_come_up(each)}
        return SystemdNotice(
            ready=bool(lines) and up.issuperset(self.expected),
            proven=self._prove(state, queried_at),
            stopping=state["circusd"]["stopping"],
            reloading=any(map(running_reload, state["watchers"])),
            status="; ".join(lines)[:LONGEST_STATUS] or "no watcher of the ini file is armed",
        )

    def _prove(self, state: State, queried_at: float) -> bool:
        # The age counts from circusd's answer, so the round ended at this moment or later, never before.
        ended_at = max((queried_at - prober["round_age"] for prober in state["probers"]), default=float("-inf"))
        is_new = ended_at > self._proven_at
        self._proven_at = queried_at if is_new else self._proven_at
        return is_new
