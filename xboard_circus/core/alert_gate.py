"""Decide which alerts a sink gets, and when: at the begin, as reminders, and at the end of an incident. No effects.

The gate remembers what it told. It looks at the incidents as they are, so that a sink that is added late, or that
missed a turn, comes to the same end as the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from xboard_circus.core.alerting import Incident, Severity, Trouble
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


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one sink.

    Attributes:
        since: When it began, in seconds of the clock of *at*.
        reason: Why, or where it is over how it stands now.
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
        """True where it is over, well again or not."""
        return self.about in (About.RECOVERED, About.STOPPED)

    @property
    def fold(self) -> str:
        """What a later notice of the same name makes needless while it still waits; "" where none does."""
        if self.about is not About.REMINDER or self.trouble is None:
            return ""
        return f"{self.watcher}/{self.trouble.value}/{self.since:.3f}"


@dataclass(frozen=True, slots=True)
class GateRules:
    """Limits and filters of one sink.

    Attributes:
        on: The troubles; empty for all.
        remind_every: Seconds between two reminders; 0 for none.
        max_per_hour: Beyond it all is held back but what is critical; that something is over does not count.
    """

    on: frozenset[Trouble] = frozenset()
    min_severity: Severity = Severity.WARNING
    remind_every: float = HOUR
    max_per_hour: int = 20


@dataclass(slots=True)
class _Told:
    opened_at: float
    at: float


@dataclass(slots=True)
class GateMemory:
    """Memory of the alerts that a gate has sent; times are seconds of the clock that `Gate.review` is given."""

    told: dict[tuple[str, Trouble], _Told] = field(default_factory=dict)
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
        told = self.memory.told
        wanted: list[Notice] = []
        for incident in over:
            was_told = told.pop(incident.key, None) is not None
            # Of a circusd that was lost with all who could have told, its end is the first that is heard.
            if was_told or (incident.trouble is Trouble.LOST and self._wants(incident)):
                about = About.RECOVERED if incident.is_well else About.STOPPED
                wanted.append(_notice(about, incident, now, incident.ending))
        for incident in open_now:
            if not self._wants(incident):
                continue
            before = told.get(incident.key)
            if before is None or before.opened_at != incident.opened_at:
                told[incident.key] = _Told(incident.opened_at, now)
                wanted.append(_notice(About.PROBLEM, incident, now))
            elif self.rules.remind_every and now - before.at >= self.rules.remind_every:
                before.at = now
                wanted.append(_notice(About.REMINDER, incident, now))
        return self._limited(wanted, now)

    def _wants(self, incident: Incident) -> bool:
        rules = self.rules
        if rules.on:
            # Who names a trouble wants to hear of it, however small.
            return incident.trouble in rules.on
        return incident.trouble.severity.rank >= rules.min_severity.rank

    def _limited(self, wanted: Iterable[Notice], now: float) -> list[Notice]:
        memory, most = self.memory, self.rules.max_per_hour
        sent = memory.sent_at
        while sent and now - sent[0] >= HOUR:
            sent.popleft()
        admitted = []
        for notice in wanted:
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
        trouble = notice.trouble.value if notice.trouble else ""
        memory.held.append(f"{notice.watcher} {trouble} ({notice.about.value})")

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
    return Notice(
        about,
        incident.watcher,
        incident.trouble,
        incident.trouble.severity,
        reason or incident.reason,
        incident.opened_at,
        now,
        incident.count,
    )


def backoff(failures: int, *, first: float = 1.0, longest: float = 60.0) -> float:
    """Return the seconds before the next try after so many failures in a row.

    >>> [backoff(failures) for failures in (1, 2, 3, 30)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return min(first * 2.0 ** (min(failures, 40) - 1), longest)


def saved(memory: GateMemory, *, shift: float) -> dict[str, Any]:
    """Return *memory* as JSON, its times moved by *shift* to another clock."""
    return {
        "told": [
            [watcher, trouble.value, each.opened_at + shift, each.at + shift]
            for (watcher, trouble), each in memory.told.items()
        ],
        "sent_at": [at + shift for at in memory.sent_at],
        "held": list(memory.held),
        "held_count": memory.held_count,
        "held_since": memory.held_since + shift,
    }


def restored(data: Mapping[str, Any], *, shift: float) -> GateMemory:
    """Return what `saved` made *data* of; ValueError, KeyError or TypeError where it is none."""
    memory = GateMemory(held_count=int(data["held_count"]), held_since=float(data["held_since"]) + shift)
    for watcher, trouble, opened_at, at in data["told"]:
        memory.told[str(watcher), Trouble(trouble)] = _Told(float(opened_at) + shift, float(at) + shift)
    memory.sent_at.extend(float(at) + shift for at in data["sent_at"])
    memory.held.extend(str(each) for each in data["held"])
    return memory
