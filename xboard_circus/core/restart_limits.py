"""Decide when a worker that failed may be tried again.

Nothing here reads a clock, draws a random number or starts anything: the caller brings the time and the jitter, and
does what is decided. So a week of crashes is a ten-line test.
"""

import math
from collections import deque
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from xboard_circus.core.durations import seconds
from xboard_circus.core.sentences import Say

JITTER = 0.2
SERVED = 5.0
"""A worker that was up for this many seconds is no failed try."""


class Words(NamedTuple):
    """Sentences on when a slot is tried again."""

    at_once: Say
    wait: Say
    cool_down: Say


PLAIN = Words(Say.THEN_AT_ONCE, Say.THEN_WAIT, Say.THEN_COOL_DOWN)
OF_WORKER = Words(Say.THEN_AT_ONCE_OF_WORKER, Say.THEN_WAIT_OF_WORKER, Say.THEN_COOL_DOWN_OF_WORKER)


@dataclass(frozen=True, kw_only=True)
class RestartLimits:
    """Limits of restarts of a worker: the ``restart.*`` options. Durations are seconds.

    Attributes:
        burst: This many failures of one slot inside *window* start a cooldown.
        window: How long a failure counts.
        delay: The wait after the second failure in a row; it doubles with each further one. The first costs none.
        delay_max: The wait stops growing here; jitter comes on top.
        cooldown: The wait between two tries of a slot that cools down; see `longest_wait` for its limits.
        reset_after: A worker that has been ready for this long has a clean count.
    """

    burst: int = 5
    window: float = 600
    delay: float = 1
    delay_max: float = 60
    cooldown: float = 300
    reset_after: float = 300

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{limit.name} must be more than 0, not {value:g}")
        if self.delay_max < self.delay:
            raise ValueError(f"delay_max must be at least delay ({self.delay:g}), not {self.delay_max:g}")
        if self.cooldown < self.delay:
            raise ValueError(f"cooldown must be at least delay ({self.delay:g}), not {self.cooldown:g}")
        # As in systemd: with a delay of more than window / burst the limit is silently never reached.
        if self.window <= (spread := self._spread()):
            raise ValueError(
                f"window must be more than {spread:g}, not {self.window:g}: "
                f"the delays before failure {self.burst} last so long, so burst could never be reached"
            )

    def delay_after(self, failures: int, *, jitter: float = 0.0) -> float:
        """Return the wait after this many *failures* in the window, while the slot is not cooling down."""
        if failures < 2:
            return 0.0
        # Beyond 2**62 no float of seconds means anything, and 2**1100 doesn't fit into one.
        return min(self.delay * 2.0 ** min(failures - 2, 62), self.delay_max) * (1 + JITTER * jitter)

    def longest_wait(self, *, served: bool, alone: bool) -> float:
        """Return the longest wait of a slot, from its last start; see `has_served`. *alone*: no worker is up."""
        return self.delay if served else self.delay_max if alone else math.inf

    def _spread(self) -> float:
        """Return the longest time that the delays can put between the first failure and failure number *burst*."""
        delays = max(self.burst - 2, 0)
        growing = min(delays, math.ceil(math.log2(self.delay_max) - math.log2(self.delay)), 62)
        return (self.delay * (2.0**growing - 1) + (delays - growing) * self.delay_max) * (1 + JITTER)


def has_served(up_for: float, *, killed: bool, alone: bool) -> bool:
    """Return whether a worker was up for long enough to be started again whatever its budget.

    That is `SERVED` seconds, for one that was *killed* from outside, or while *alone*: no other worker is up.

    >>> has_served(10, killed=True, alone=False), has_served(10, killed=False, alone=True)
    (True, True)
    >>> has_served(10, killed=False, alone=False), has_served(1, killed=True, alone=True)
    (False, False)
    """
    return up_for >= SERVED and (killed or alone)


class RestartDecision(NamedTuple):
    """The decision on one failure.

    Attributes:
        wait: Seconds until the next try; 0.0 for at once.
        cooling: The slot cools down: tried once in a cooldown, for ever, until it has held.
        failures: How many failures of the slot count, with this one; never more than *burst*.
    """

    wait: float
    cooling: bool
    failures: int
    reason: str


@dataclass(slots=True)
class _Slot:
    failed_at: deque[float] = field(default_factory=deque)
    waits_from: float = -math.inf
    delay: float = 0.0
    last_start: float | None = None
    up_for: float = 0.0
    killed: bool = False
    cooling: bool = False
    by_all: bool = False  # cools down for the budget of all slots, not for a burst of its own
    waiting: bool = False
    tried_at: float | None = None
    released_at: float = -math.inf
    excused_at: float = -math.inf


class RestartBudget:
    """Decide the restarts of failing slots: at once, then after ever longer waits, then once in a cooldown, for ever.

    A slot is a worker and all its successors. Each has its own count, so a slot in a crash loop never costs its
    siblings anything. The watcher has a count too, of the slots that are not cooling down, so that failures that hop
    from slot to slot are limited as well. A slot's first failure in the window is always free.

    A slot cools down until it has been ready for *reset_after*, however old its failures are: a cooldown longer than
    the window would otherwise buy a new burst each time. Of these slots one at a time is tried (half open). Giving up
    for good would be simpler, and would need a person at night.

    A wait counts from the slot's last start, not from its end: a worker that served for longer than its wait restarts
    at once, and one that dies at once is spaced all the same. While no worker of the watcher is up, no wait is longer
    than *delay_max*, because an outage is worse than a start in vain. The slot of a worker that
    has served (see `has_served`) counts and cools down as any other, and waits no longer than *delay*.

    Every method takes *now* in seconds from one clock, ``time.monotonic()`` in production. A *now* earlier than the
    last one is read as the last one. *limits*, *slots* (how many workers are configured) and *up* (how many are up) may
    change at any time. *words* name the slot in a reason that also shows the budget of the watcher.

    >>> budget = RestartBudget(RestartLimits(burst=4), slots=1)
    >>> [budget.failed(1, now).wait for now in (0, 1, 2, 4)]
    [0.0, 1.0, 2.0, 300]
    >>> budget.failed(1, 304).reason
    'failed again: cooling down, next try in 300 s'
    >>> budget.reset_if_stable(1, up_for=300)
    True
    >>> budget.failed(1, 10_000).reason
    'restart budget: 1 of 4 used in 600 s, next try at once'
    """

    def __init__(self, limits: RestartLimits, *, slots: int, words: Words = PLAIN) -> None:
        self.limits = limits
        self._words = words
        self.slots = slots
        self.up = 1
        self._slots: dict[int, _Slot] = {}
        self._now = -math.inf

    @property
    def limit(self) -> int:
        """Return how many failures the watcher may have in the window, without those of slots that cool down."""
        return max(self.limits.burst, 2 * self.slots)

    def failed(
        self,
        slot: int,
        now: float,
        *,
        jitter: float = 0.0,
        up_for: float = 0.0,
        killed: bool = False,
        replaced: bool = False,
    ) -> RestartDecision:
        """Count one failure of *slot*, whose worker was up for *up_for* seconds and perhaps *killed* from outside.

        *jitter*, from -1 to 1, moves a delay by up to 20 %, a cooldown not at all. If it is *replaced* already, its
        successor is the next try: call *started* then.
        """
        if not -1 <= jitter <= 1:
            raise ValueError(f"jitter must be from -1 to 1, not {jitter:g}")
        now = self._advance(now)
        self._drop_idle()
        record = self._slots.setdefault(slot, _Slot())
        record.up_for, record.killed = up_for, killed
        record.failed_at.append(now)
        while len(record.failed_at) > self.limits.burst:
            record.failed_at.popleft()
        decision = self._decide(record, jitter, replaced=replaced)
        if decision.cooling and not record.cooling:
            record.by_all = decision.failures < self.limits.burst
        record.cooling = decision.cooling
        record.waiting = True
        record.tried_at = None
        return decision

    def excuse(self, slot: int, now: float, *, started: float, why: str) -> RestartDecision:
        """Note a failure that *why* attributes to something else: try the slot *delay* after its last start, *started*.

        The failure is not counted. But for one window this slot is never started at once, because the attribution may
        be wrong, and restarts that are not counted still need spacing.
        """
        now = self._advance(now)
        record = self._slots.setdefault(slot, _Slot())
        record.waits_from, record.delay, record.excused_at = started, self.limits.delay, now
        record.waiting, record.tried_at = True, None
        return RestartDecision(self._left(record), record.cooling, 0, Say.THEN_POISON(poison=why))

    def give_back(self, slot: int, failed_at: float) -> None:
        """Take back a failure that turns out not to have been the slot's own; see `excuse`."""
        if (record := self._slots.get(slot)) is None or failed_at not in record.failed_at:
            return
        record.failed_at.remove(failed_at)
        record.excused_at = self._now
        if record.cooling and self._count(record) == self.limits.burst - 1:
            record.cooling, record.delay = False, max(self.limits.delay, self.limits.delay_after(self._count(record)))

    def wait(self, slot: int, now: float) -> float:
        """Return the seconds until the next try of *slot*; 0.0 if they have passed, even if it is not its turn."""
        now = self._advance(now)
        record = self._slots.get(slot)
        return self._left(record) if record else 0.0

    def may_start(self, slot: int, now: float) -> bool:
        """Return whether *slot* may be tried now. Call *started* before asking for another slot."""
        if self.wait(slot, now) > 0:
            return False
        if (record := self._slots.get(slot)) is None or not record.cooling or self._has_served(record):
            return True
        tried = (each.tried_at for other, each in self._slots.items() if other != slot and each.cooling)
        # A try without an end must not block the others for ever; a command may have removed its worker.
        return not any(at is not None and self._now - at < self.limits.cooldown for at in tried)

    def started(self, slot: int, now: float) -> None:
        """Note that a try of *slot* runs; it is over with *ready*, *failed* or *forget*."""
        now = self._advance(now)
        if record := self._slots.get(slot):
            record.waiting = False
            record.tried_at = record.last_start = now

    def ready(self, slot: int, now: float) -> tuple[int, ...]:
        """Note that *slot* became ready; return the cooling slots that need not wait any longer.

        When a cooling slot gets ready the app evidently works again, so the others are released, but each only once in
        a cooldown: two slots that get ready and then crash would otherwise release each other without end. A slot that
        never cooled down proves nothing about the others, such as a healthy sibling at its own start; see `stays_up`.
        """
        now = self._advance(now)
        if (record := self._slots.get(slot)) is None:
            return ()
        record.waiting = False
        record.tried_at = None
        if not record.cooling:
            return ()
        return tuple(other for other, record in self._slots.items() if other != slot and self._released(record))

    def stays_up(self, slot: int, up_for: float, now: float) -> tuple[int, ...]:
        """Note that *slot* is still up; return the cooling slots that need not wait any longer.

        A slot may have been in a crash loop with another one, which cools down for the budget of both. It then proves
        as much about that one as a cooling slot would. But it has to have been up for its last wait, because an app
        that dies right after its start would otherwise buy a try each time.
        """
        self._advance(now)
        record = self._slots.get(slot)
        failures = 0 if record is None or record.cooling else self._count(record)
        if failures < 2 or up_for < self.limits.delay_after(failures):
            return ()
        return tuple(other for other, each in self._slots.items() if each.by_all and self._released(each))

    def reset_if_stable(self, slot: int, up_for: float) -> bool:
        """Forget the failures of *slot* if it has been up for long enough; return whether there were any."""
        if up_for < self.limits.reset_after or slot not in self._slots:
            return False
        record = self._slots.pop(slot)
        return record.cooling or self._count(record) > 0

    def try_over(self, slot: int) -> None:
        """Note that the try of *slot* ended without a failure, such as a reload's: others may be tried."""
        if record := self._slots.get(slot):
            record.tried_at = None

    def clear(self) -> None:
        """Forget everything, because an operator has started the watcher again."""
        self._slots.clear()

    def forget(self, slot: int) -> None:
        """Forget *slot*, because an operator has restarted or removed it."""
        self._slots.pop(slot, None)

    def is_cooling(self, slot: int, now: float) -> bool:
        """Return whether *slot* is cooling down: waiting, being tried, or ready but not yet for long."""
        self._advance(now)
        return slot in self._slots and self._slots[slot].cooling

    def failures(self, slot: int, now: float) -> int:
        """Return how many failures of *slot* count."""
        self._advance(now)
        return self._count(self._slots[slot]) if slot in self._slots else 0

    def used(self, now: float) -> int:
        """Return how much of *limit* is shown as used: a slot that cools down has used all that one slot may.

        >>> budget = RestartBudget(RestartLimits(burst=2), slots=1)
        >>> [(budget.failed(1, now).cooling, budget.used(now), budget.spent(now)) for now in (0, 1)]
        [(False, 1, 1), (True, 2, 0)]
        """
        cooling = sum(record.cooling for record in self._slots.values())
        return min(self.limit, self.spent(now) + cooling * self.limits.burst)

    def spent(self, now: float) -> int:
        """Return how many failures count for the limit of the watcher, without those of slots that cool down."""
        self._advance(now)
        return sum(self._count(record) for record in self._slots.values() if not record.cooling)

    def next_try(self, now: float) -> float | None:
        """Return the seconds until the next try of a cooling slot; None if none waits."""
        self._advance(now)
        waiting = (slot for slot, record in self._slots.items() if record.cooling and record.waiting)
        return min((self.wait(slot, now) for slot in waiting), default=None)

    def _decide(self, record: _Slot, jitter: float, *, replaced: bool) -> RestartDecision:
        failures, limits = self._count(record), self.limits
        all_failures = self.spent(self._now)
        record.waits_from = self._now if record.last_start is None else record.last_start
        # Not on its first failure: a healthy worker that fails once beside a crash loop is no loop.
        of_all = failures > 1 and all_failures >= self.limit
        cooling = record.cooling or failures >= limits.burst or of_all
        record.delay = limits.cooldown if cooling else limits.delay_after(failures, jitter=jitter)
        if self._is_paced(record):
            record.delay = max(record.delay, limits.delay)
        left = 0.0 if replaced else self._left(record)
        window, wait = seconds(limits.window), seconds(left)
        if cooling and not left:
            reason = (Say.THEN_USED_UP_REPLACED if replaced else Say.THEN_USED_UP_AT_ONCE)()
        elif record.cooling:
            reason = Say.THEN_COOL_AGAIN(wait=wait)
        elif failures >= limits.burst:
            reason = self._words.cool_down(failures=failures, window=window, wait=wait)
        elif of_all:
            reason = Say.THEN_ALL_COOL_DOWN(failures=all_failures, window=window, wait=wait)
        else:
            say = Say.THEN_REPLACED if replaced else self._words.wait if left else self._words.at_once
            reason = say(failures=failures, burst=limits.burst, window=window, wait=wait)
        return RestartDecision(left, cooling=cooling, failures=failures, reason=reason)

    def _left(self, record: _Slot) -> float:
        longest = self.limits.longest_wait(served=self._has_served(record), alone=not self.up)
        return max(min(record.delay, longest) - (self._now - record.waits_from), 0.0)

    def _has_served(self, record: _Slot) -> bool:
        return has_served(record.up_for, killed=record.killed, alone=not self.up)

    def _released(self, record: _Slot) -> bool:
        if not (record.cooling and record.waiting):
            return False
        if self._left(record) > 0:
            if self._now - record.released_at < self.limits.cooldown:
                return False
            record.waits_from = record.released_at = self._now
            record.delay = 0.0
        return True

    def _count(self, record: _Slot) -> int:
        while record.failed_at and record.failed_at[0] + self.limits.window <= self._now:
            record.failed_at.popleft()
        return len(record.failed_at)

    def _drop_idle(self) -> None:
        self._slots = {
            slot: record
            for slot, record in self._slots.items()
            if record.cooling or self._left(record) > 0 or self._count(record) or self._is_paced(record)
        }

    def _is_paced(self, record: _Slot) -> bool:
        return record.excused_at + self.limits.window > self._now

    def _advance(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now
