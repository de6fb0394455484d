"""Decide which alerts a sink gets, and when: at the start, as reminders, and at the end of an incident. No effects.

The gate remembers the alerts that it sent. It compares them with the incidents as they are, so that a sink that is
added late, or that missed a turn, comes to the same end as the others.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from xboard_circus.core.alert_sentences import AlertSay
from xboard_circus.core.alerting import Incident, Key, Severity, Trouble
from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.core.sentences import Say

HOUR = 3600.0
LISTED = 10


class About(Enum):
    """Kinds of notices."""

    PROBLEM = "problem"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    STOPPED = "stopped"
    HELD_BACK = "held_back"
    TEST = "test"


@dataclass(frozen=True)
class Notice:
    """One message to one sink.

    Attributes:
        since: When it began, in seconds of the clock of *at*.
        reason: Why; at the end of an incident, how it ended.
        note: A remark on the alerts themselves.
    """

    about: About
    watcher: str
    trouble: Trouble | None
    severity: Severity
    reason: str
    since: float
    at: float
    count: int = 1
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Return whether the incident is over, for whatever reason."""
        return self.about in (About.RECOVERED, About.STOPPED)

    @property
    def is_open(self) -> bool:
        """Return whether the incident lasts."""
        return self.about in (About.PROBLEM, About.REMINDER)

    @property
    def fold(self) -> str:
        """Return the key by which a later notice replaces this one while it waits; "" for none."""
        if self.about is not About.REMINDER or self.trouble is None:
            return ""
        return f"{self.watcher}/{self.trouble.value}/{self.since:.3f}"


class GateRules(NamedTuple):
    """Limits and filters of one sink.

    Attributes:
        on: The troubles; empty for all.
        remind_every: Seconds between two reminders; 0 for none.
        max_per_hour: Alerts beyond it are merged into one summary; critical ones and recoveries are always sent.
    """

    on: frozenset[Trouble] = frozenset()
    min_severity: Severity = Severity.WARNING
    remind_every: float = HOUR
    max_per_hour: int = 20


@dataclass(slots=True)
class GateMemory:
    """Memory of the alerts that a gate has sent; times are seconds of the clock that `Gate.review` is given.

    Attributes:
        alerted: When each incident was opened, and when the last alert on it was sent.
    """

    alerted: dict[Key, tuple[float, float]] = field(default_factory=dict)
    sent_at: deque[float] = field(default_factory=deque)
    held: deque[str] = field(default_factory=lambda: deque(maxlen=LISTED))
    held_count: int = 0
    held_since: float = 0.0


class Gate:
    """Filter the alerts of one sink.

    >>> incident = Incident("web", Trouble.DOWN, opened_at=0, reason="no worker ready")
    >>> gate = Gate(GateRules(remind_every=60))
    >>> [[notice.about.value for notice in gate.review([incident], [], now=now)] for now in (0, 30, 60)]
    [['problem'], [], ['reminder']]
    >>> [notice.about.value for notice in gate.review([], [incident], now=90)]
    ['recovered']
    """

    def __init__(self, rules: GateRules, memory: GateMemory | None = None) -> None:
        self.rules = rules
        self.memory = memory or GateMemory()

    def review(self, open_now: Iterable[Incident], over: Iterable[Incident], now: float) -> list[Notice]:
        """Return the notices to send now, where *over* are the incidents that ended since the last review."""
        alerted = self.memory.alerted
        notices: list[Notice] = []
        for incident in over:
            was_sent = alerted.pop(incident.key, None) is not None
            # The next circusd reports the loss of one that was lost together with its plugins.
            if was_sent or (incident.trouble is Trouble.LOST and self._is_selected(incident)):
                about = About.RECOVERED if incident.is_well else About.STOPPED
                notices.append(_notice(about, incident, now, incident.ending))
        for incident in open_now:
            if not self._is_selected(incident):
                continue
            opened_at, at = alerted.get(incident.key, (None, now))
            is_new = opened_at != incident.opened_at
            if is_new or 0 < self.rules.remind_every <= now - at:
                alerted[incident.key] = incident.opened_at, now
                notices.append(_notice(About.PROBLEM if is_new else About.REMINDER, incident, now))
        return self._limited(notices, now)

    def _is_selected(self, incident: Incident) -> bool:
        rules = self.rules
        # The severity does not matter for a trouble that *on* names.
        return incident.trouble in rules.on if rules.on else incident.severity.rank >= rules.min_severity.rank

    def _limited(self, notices: Iterable[Notice], now: float) -> list[Notice]:
        memory, most = self.memory, self.rules.max_per_hour
        sent = memory.sent_at
        while sent and now - sent[0] >= HOUR:
            sent.popleft()
        admitted = []
        for notice in notices:
            is_urgent = notice.severity is Severity.CRITICAL and notice.about is not About.REMINDER
            if not is_urgent and (memory.held_count or (len(sent) >= most and not notice.is_over)):
                self._hold(notice, now)
                continue
            if not notice.is_over:
                sent.append(now)
                if len(sent) == most:
                    wait = max(1, round((HOUR - (now - sent[0])) / 60))
                    notice = replace(notice, note=Say.LIMIT_REACHED(most=most, wait=Say.UNIT_MIN(n=wait)))
            admitted.append(notice)
        if memory.held_count and len(sent) < most:
            sent.append(now)
            admitted.append(self._summary(now))
        return admitted

    def _hold(self, notice: Notice, now: float) -> None:
        memory = self.memory
        if not memory.held_count:
            memory.held_since = now
        memory.held_count += 1
        trouble = AlertSay[f"TROUBLE_{notice.trouble.name}"]() if notice.trouble else ""
        about = AlertSay[f"HELD_{notice.about.name}"]()
        memory.held.append(AlertSay.HELD(watcher=notice.watcher, trouble=trouble, about=about))

    def _summary(self, now: float) -> Notice:
        memory = self.memory
        earlier = memory.held_count - len(memory.held)
        listed = [*([Say.EARLIER(n=earlier)] if earlier else []), *memory.held]
        count = memory.held_count
        reason = (Say.HELD_BACK if count > 1 else Say.HELD_BACK_ONE)(n=count, names=listed)
        notice = Notice(About.HELD_BACK, "", None, Severity.INFO, reason, memory.held_since, now, count)
        memory.held.clear()
        memory.held_count = 0
        return notice


def _notice(about: About, incident: Incident, now: float, reason: str = "") -> Notice:
    why, since = reason or incident.reason, incident.opened_at
    return Notice(about, incident.watcher, incident.trouble, incident.severity, why, since, now, incident.count)


def saved(memory: GateMemory, *, shift: float) -> dict[str, Any]:
    """Return *memory* as JSON, its times moved by *shift* to another clock."""
    return {
        "told": [[name, kind.value, *(at + shift for at in times)] for (name, kind), times in memory.alerted.items()],
        "sent_at": [at + shift for at in memory.sent_at],
        "held": [with_say(each) for each in memory.held],
        "held_count": memory.held_count,
        "held_since": memory.held_since + shift,
    }


def restored(data: Mapping[str, Any], *, shift: float, now: float = math.inf) -> GateMemory:
    """Return the memory that `saved` made *data* of; raise ValueError, KeyError or TypeError for other data.

    What was sent after *now*, because the other clock was set back since, was sent now.
    """
    return GateMemory(
        alerted={
            (str(name), Trouble(kind)): (opened + shift, min(at + shift, now))
            for name, kind, opened, at in data["told"]
        },
        sent_at=deque(min(at + shift, now) for at in data["sent_at"]),
        held=deque((reason_in(each) for each in data["held"]), maxlen=LISTED),
        held_count=int(data["held_count"]),
        held_since=data["held_since"] + shift,
    )
