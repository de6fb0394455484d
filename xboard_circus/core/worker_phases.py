"""Define the life of one worker as a state machine: one table of (phase, event) -> phase, effects.

Nothing in this module reads a clock, signals a process or talks to Circus. An event goes in, the next `Life` and the
effects to carry out come out. No flag beside the phase decides anything: an order to leave, with its sender and its
deadline, is data of the phase *leaving*.

>>> life = Life(phase=Starting(since=4.0))
>>> life, effects = step(life, CameUp(at=5.0))
>>> life.phase, effects
(Up(since=5.0), (<Effect.COUNT_UP: 'count the worker as up'>, <Effect.REPORT_UP: 'report that it is up'>))
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from signal import Signals
from typing import Any, NamedTuple

from xboard_circus.core.causes import Cause, Death, cause_of
from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Health, Role

ORDERS = frozenset({Signals.SIGTERM, Signals.SIGINT, Signals.SIGKILL})
"""Signals that order a worker to leave, beside the watcher's own stop signal.

Not SIGQUIT and SIGABRT, because apps handle them to print stacks, and serve on.
"""


class Effect(Enum):
    """Effects of a transition, which circusd carries out."""

    COUNT_UP = "count the worker as up"
    REPORT_UP = "report that it is up"
    WAKE = "wake it if it is halted"
    TERMINATE = "terminate it"
    REPORT_EXPIRED = "report that it did not leave"


class Order(NamedTuple):
    """An order to leave.

    Attributes:
        by: The sender, as text.
        why: The reason, or "".
        cause: How the end counts; None where it was requested and costs nothing.
        by_operator: A person, or a command of a person: forgives the slot's earlier failures.
    """

    by: str
    why: str = ""
    cause: Cause | None = None
    by_operator: bool = False


# Phases


@dataclass(frozen=True)
class _Standing:
    """A phase of a worker that was not ordered to leave.

    No NamedTuple: a starting worker would equal one that is up.
    """

    since: float


class Starting(_Standing):
    """The worker imports the app or runs its lifespan."""


class Up(_Standing):
    """The worker serves."""


class Leaving(NamedTuple):
    """The worker was ordered to leave. An order without an end by *until* expires, and the former phase returns."""

    order: Order
    since: float
    until: float
    before: Starting | Up


class Gone(NamedTuple):
    """The worker has ended. *cut* requests were cut off at its drain limit; *log* are its last lines."""

    cause: Cause
    reason: str
    at: float
    cut: int = 0
    log: str = ""


LifePhase = Starting | Up | Leaving | Gone
Standing = Starting | Up


class Life(NamedTuple):
    """Everything that decides about a worker. Times are seconds of the monotonic clock.

    Attributes:
        health: Result of the probes of a worker that is up; unknown otherwise.
        reason: Why its health is that.
        ready: Last result of its ready path; None where none was requested.
        was_ready: Its ready path, if it has one, has succeeded at least once.
        signals: Signals that Circus sent it, in order.
    """

    phase: LifePhase
    role: Role = Role.SERVING
    health: Health = Health.UNKNOWN
    reason: str = ""
    ready: bool | None = None
    was_ready: bool = False
    signals: tuple[int, ...] = ()

    @property
    def standing(self) -> Standing | None:
        """Return its phase, or the one before it was ordered to leave; None once it is gone."""
        phase = self.phase.before if isinstance(self.phase, Leaving) else self.phase
        return None if isinstance(phase, Gone) else phase

    @property
    def up_since(self) -> float | None:
        """Seconds of the clock since which it is up, or was when it was ordered to leave; None if it is not."""
        return self.standing.since if isinstance(self.standing, Up) else None

    @property
    def order(self) -> Order | None:
        """Return the order under which it leaves."""
        return self.phase.order if isinstance(self.phase, Leaving) else None

    @property
    def counts(self) -> bool:
        """Return whether it is one of the watcher's `numprocesses`."""
        return self.role in (Role.SERVING, Role.SUCCESSOR)


# Events


class CameUp(NamedTuple):
    """A worker reports that its start is complete."""

    at: float


class BecameReady:
    """A worker reports that its ready path has succeeded."""


class Judged(NamedTuple):
    """A round of probes judged a worker; *at* is when it was probed."""

    at: float
    health: Health
    reason: str = ""
    ready: bool | None = None


class Lost(NamedTuple):
    """A worker cannot be probed any more."""

    reason: str


class Ordered(NamedTuple):
    """A worker was ordered to leave within this many seconds."""

    at: float
    order: Order
    within: float


class Signalled(NamedTuple):
    """Circus sent a worker a signal."""

    signum: int


class Retired:
    """A successor is being made; the worker serves on, but no longer counts for `numprocesses`."""


class Kept:
    """The successor failed: the worker keeps its place."""


class Proven:
    """A successor has taken over."""


class Ticked(NamedTuple):
    """Time has passed. *startup_timeout* and *grace* are seconds."""

    at: float
    startup_timeout: float
    grace: float
    why_late: str = ""


class Paused(NamedTuple):
    """The whole machine, or circusd, stood still for this many seconds; they count for no limit."""

    seconds: float


class Ended(NamedTuple):
    """The process has ended.

    Attributes:
        exit_code: Negative: by that signal; None if unknown.
        oom: See `causes.Death`.
        recycled: It exited as a worker that reached its recycling limit; believed of one that was up.
        cut: How many requests it cut off at its drain limit.
        drain_limit: That limit in seconds.
        graceful_timeout: Seconds after which Circus kills a worker that did not end on the stop signal.
    """

    at: float
    exit_code: int | None
    oom: str | None = None
    log_tail: str = ""
    command: str = ""
    recycled: bool = False
    cut: int = 0
    drain_limit: float = 0.0
    graceful_timeout: float = 0.0


LifeEvent = (
    CameUp | BecameReady | Judged | Lost | Ordered | Signalled | Retired | Kept | Proven | Ticked | Paused | Ended
)
"""What happens to a worker. *at* is its time, in seconds of the monotonic clock."""


Outcome = tuple[Life, tuple[Effect, ...]]

LATE_START_GRACE = 5.0
"""Seconds that a late starter gets to leave: it serves no request, so more would only delay its successor."""


def step(life: Life, event: LifeEvent) -> Outcome:
    """Return the life after *event*, and the effects to carry out. An event without a transition changes nothing."""
    row = TABLE.get((type(life.phase), type(event)))
    return (life, ()) if row is None else row.rule(life, life.phase, event)


# Rules: each gets the life, its phase and the event


def _come_up(life: Life, phase: Starting, event: CameUp) -> Outcome:
    up = life._replace(phase=Up(event.at), health=Health.UNKNOWN, reason="", ready=None)
    return up, (Effect.COUNT_UP, Effect.REPORT_UP)


def _become_ready(life: Life, phase: Up, event: BecameReady) -> Outcome:
    return life._replace(was_ready=True, ready=True if life.ready is None else life.ready), ()


def _judge_starting(life: Life, phase: Starting, event: Judged) -> Outcome:
    # Only why its start takes so long; a worker has no health before it is up.
    return life._replace(reason=event.reason), ()


def _judge(life: Life, phase: Up, event: Judged) -> Outcome:
    if event.at < phase.since:
        return life, ()  # requested while it still started
    ready = life.ready if event.ready is None else event.ready
    was_ready = life.was_ready or event.ready is True
    return life._replace(health=event.health, reason=event.reason, ready=ready, was_ready=was_ready), ()


def _lose(life: Life, phase: Up, event: Lost) -> Outcome:
    return life._replace(health=Health.UNKNOWN, reason=event.reason, ready=None), ()


def _order(life: Life, phase: Standing, event: Ordered) -> Outcome:
    return life._replace(phase=Leaving(event.order, event.at, event.at + event.within, before=phase)), (Effect.WAKE,)


def _order_again(life: Life, phase: Leaving, event: Ordered) -> Outcome:
    # The end is attributed to the first order; a later one only gives it more time.
    return life._replace(phase=phase._replace(until=max(phase.until, event.at + event.within))), (Effect.WAKE,)


def _note_signal(life: Life, phase: LifePhase, event: Signalled) -> Outcome:
    return life._replace(signals=(*life.signals, event.signum)), ()


def _change_role(life: Life, phase: LifePhase, event: Retired | Kept | Proven) -> Outcome:
    before, after = ROLES[type(event)]
    return (life._replace(role=after), ()) if life.role is before else (life, ())


def is_late(life: Life, at: float, startup_timeout: float) -> bool:
    """Return whether a start takes too long; a successor is judged by the swap that made it."""
    phase = life.phase
    return isinstance(phase, Starting) and life.role is not Role.SUCCESSOR and at - phase.since > startup_timeout


def _tick_starting(life: Life, phase: Starting, event: Ticked) -> Outcome:
    if not is_late(life, event.at, event.startup_timeout):
        return life, ()
    why = Say.FOUND(found=event.why_late, why=life.reason) if life.reason else event.why_late
    order = Order(by="health.startup_timeout", why=why, cause=Cause.FAILED_START)
    return life._replace(phase=Leaving(order, event.at, event.at + event.grace, before=phase)), (Effect.TERMINATE,)


def _tick_leaving(life: Life, phase: Leaving, event: Ticked) -> Outcome:
    if event.at < phase.until:
        return life, ()
    # The signals of the order expire with it: a crash a week later was not commanded.
    role = Role.SERVING if life.role is Role.RETIRING else life.role
    return life._replace(phase=phase.before, role=role, signals=()), (Effect.REPORT_EXPIRED,)


def _pause_starting(life: Life, phase: Starting, event: Paused) -> Outcome:
    return life._replace(phase=Starting(phase.since + event.seconds)), ()


def _pause_leaving(life: Life, phase: Leaving, event: Paused) -> Outcome:
    return life._replace(phase=phase._replace(until=phase.until + event.seconds)), ()


def _end(life: Life, phase: LifePhase, event: Ended) -> Outcome:
    order = Order(by="recycle") if event.recycled and isinstance(phase, Up) else life.order or Order(by="")
    death = Death(
        exit_code=event.exit_code,
        was_up=isinstance(life.standing, Up),
        commanded_by=order.by if order.cause is None else None,
        signals=life.signals,
        oom=event.oom,
        our_kill=order.cause,
        our_reason=order.why,
        log_tail=event.log_tail,
        command=event.command,
    )
    cause, reason = cause_of(death)
    if cause is Cause.COMMANDED and event.exit_code == -Signals.SIGKILL and set(life.signals) - {Signals.SIGKILL}:
        reason = Say.KILLED_AT_TIMEOUT(why=reason, timeout=exactly(event.graceful_timeout))
    elif event.cut:
        reason = Say.CUT_AT_DRAIN_LIMIT(why=reason, n=event.cut, timeout=exactly(event.drain_limit))
    return life._replace(phase=Gone(cause, reason, event.at, event.cut, event.log_tail)), ()


ROLES: dict[type[LifeEvent], tuple[Role, Role]] = {
    Retired: (Role.SERVING, Role.RETIRING),
    Kept: (Role.RETIRING, Role.SERVING),
    Proven: (Role.SUCCESSOR, Role.SERVING),
}
"""Which role each of these events changes, and into which."""


class TableRow(NamedTuple):
    """One row of the table: the rule, and the phases that it may lead to."""

    rule: Callable[[Life, Any, Any], Outcome]
    to: tuple[type[LifePhase], ...]


def _rows() -> Iterator[tuple[type[LifePhase], type[LifeEvent], Callable[[Life, Any, Any], Outcome], tuple[Any, ...]]]:
    """Yield phase, event, rule, and the phases that it leads to; none if the phase stays."""
    for phase in (Starting, Up, Leaving):
        yield phase, Signalled, _note_signal, ()
        yield phase, Ended, _end, (Gone,)
        for event in ROLES:
            yield phase, event, _change_role, ()
    for phase in (Starting, Up):
        yield phase, Ordered, _order, (Leaving,)
    yield Starting, CameUp, _come_up, (Up,)
    yield Starting, Judged, _judge_starting, ()
    yield Starting, Ticked, _tick_starting, (Starting, Leaving)
    yield Starting, Paused, _pause_starting, ()
    yield Up, BecameReady, _become_ready, ()
    yield Up, Judged, _judge, ()
    yield Up, Lost, _lose, ()
    yield Leaving, Ordered, _order_again, ()
    yield Leaving, Ticked, _tick_leaving, (Leaving, Starting, Up)
    yield Leaving, Paused, _pause_leaving, ()


TABLE = {(phase, event): TableRow(rule, to or (phase,)) for phase, event, rule, to in _rows()}


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> Starting: spawned"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (phase, event), row in TABLE.items():
        for target in row.to:
            if target is not phase:
                arrows.setdefault((phase.__name__, target.__name__), []).append(event.__name__)
    lines += [f"    {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    return "\n".join([*lines, "    Gone --> [*]"])
