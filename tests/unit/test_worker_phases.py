"""The life of a worker as histories: events go in; after each, the phase and the effects come out."""

from signal import SIGABRT, SIGKILL, SIGQUIT, SIGTERM
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xboard_circus.core.causes import Cause
from xboard_circus.core.state_names import Health, Role
from xboard_circus.core.worker_phases import (
    TABLE,
    BecameReady,
    CameUp,
    Effect,
    Ended,
    Gone,
    Judged,
    Kept,
    Leaving,
    Life,
    LifeEvent,
    Lost,
    Order,
    Ordered,
    Paused,
    Proven,
    Retired,
    Signalled,
    Starting,
    Ticked,
    Up,
    diagram,
    step,
)

OPERATOR = Order(by="operator", by_operator=True)
RELOAD = Order(by="reload", why="rolling reload")
SICK = Order(by="probe", why="sick: status 503", cause=Cause.UNHEALTHY)
AHEAD = Order(by="probe", why="event loop blocked for 2 s")
HUNG = Order(by="probe", why="hung: no answer", cause=Cause.UNHEALTHY)
LATE = "not ready within health.startup_timeout = 60 s"

STARTING, UP = Life(phase=Starting(0.0)), Life(phase=Up(0.0))
CAME_UP = [Effect.COUNT_UP, Effect.REPORT_UP]


def of(role: Role, life: Life) -> Life:
    return life._replace(role=role)


def tick(at: float) -> Ticked:
    return Ticked(at, startup_timeout=60.0, grace=5.0, why_late=LATE)


def ended(at: float, code: int | None, **more: Any) -> Ended:
    return Ended(at, code, graceful_timeout=30.0, **more)


def played(life: Life, *events: LifeEvent) -> Life:
    for event in events:
        life, _ = step(life, event)
    return life


def gone(cause: Cause, reason: str, at: float, cut: int = 0, log: str = "") -> Gone:
    return Gone(cause, reason, at, cut, log)


Row = tuple[LifeEvent, object, list[Effect]]

HISTORIES: dict[str, tuple[Life, list[Row]]] = {
    "started, then up": (STARTING, [(CameUp(2.0), Up(2.0), CAME_UP)]),
    "one that starts where there are to be fewer leaves at once, and its end costs nothing": (
        STARTING,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Starting(0.0)), [Effect.WAKE]),
            (ended(1.5, -15), gone(Cause.COMMANDED, "commanded: operator", 1.5), []),
        ],
    ),
    "a mark of readiness from before it is up, such as one of the dead, ends no start (K1)": (
        STARTING,
        [
            (BecameReady(), Starting(0.0), []),
            (
                tick(60.5),
                Leaving(
                    Order(by="health.startup_timeout", why=LATE, cause=Cause.FAILED_START), 60.5, 65.5, Starting(0.0)
                ),
                [Effect.TERMINATE],
            ),
        ],
    ),
    "nor that of the successor in a reload, whose code cannot be imported: its start has failed (K1)": (
        of(Role.SUCCESSOR, STARTING),
        [
            (BecameReady(), Starting(0.0), []),
            (ended(1.0, 1), gone(Cause.FAILED_START, "exited with code 1 before it was up", 1.0), []),
        ],
    ),
    "a late start is terminated and counts as failed, whatever its exit code": (
        STARTING,
        [
            (tick(60.0), Starting(0.0), []),
            (
                tick(60.5),
                Leaving(
                    Order(by="health.startup_timeout", why=LATE, cause=Cause.FAILED_START), 60.5, 65.5, Starting(0.0)
                ),
                [Effect.TERMINATE],
            ),
            (ended(61.0, 0), gone(Cause.FAILED_START, LATE, 61.0), []),
        ],
    ),
    "a late start has what its live path answered": (
        STARTING._replace(reason="status 503"),
        [
            (
                tick(60.5),
                Leaving(
                    Order(by="health.startup_timeout", why=f"{LATE}: status 503", cause=Cause.FAILED_START),
                    *(60.5, 65.5, Starting(0.0)),
                ),
                [Effect.TERMINATE],
            ),
        ],
    ),
    "a successor that is late is left to the replacement that made it": (
        of(Role.SUCCESSOR, STARTING),
        [(tick(9999.0), Starting(0.0), [])],
    ),
    "a pause of the machine counts for no startup timeout": (
        STARTING,
        [(Paused(100.0), Starting(100.0), []), (tick(150.0), Starting(100.0), [])],
    ),
    "a pause of the machine lets an order hold for as much longer": (
        UP,
        [
            (Ordered(1.0, SICK, within=35.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Paused(100.0), Leaving(SICK, 1.0, 136.0, Up(0.0)), []),
            (tick(135.0), Leaving(SICK, 1.0, 136.0, Up(0.0)), []),
            (tick(136.0), Up(0.0), [Effect.REPORT_EXPIRED]),
        ],
    ),
    "a pause means nothing to one that is up": (UP, [(Paused(100.0), Up(0.0), [])]),
    "ordered, then ended: commanded, it costs nothing": (
        UP,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Signalled(SIGTERM), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (ended(3.0, 0), gone(Cause.COMMANDED, "commanded: operator", 3.0), []),
        ],
    ),
    "a crash while it leaves by an order is still what was asked for": (
        UP,
        [
            (Ordered(1.0, RELOAD, within=35.0), Leaving(RELOAD, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (ended(2.0, -11), gone(Cause.COMMANDED, "rolling reload", 2.0), []),
        ],
    ),
    "a crash while it leaves for being sick counts as unhealthy, with what the probes found": (
        UP,
        [
            (Ordered(1.0, SICK, within=35.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (ended(2.0, -6), gone(Cause.UNHEALTHY, "sick: status 503", 2.0), []),
        ],
    ),
    "an order that brought no end expires; a crash later is a crash, its signals are forgotten": (
        UP,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Signalled(SIGTERM), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (tick(36.0), Up(0.0), [Effect.REPORT_EXPIRED]),
            (Judged(50.0, Health.SICK, "status 503"), Up(0.0), []),
            (ended(600.0, -11), gone(Cause.CRASH, "died by SIGSEGV", 600.0), []),
        ],
    ),
    "an order to one that starts expires, and it starts as before": (
        STARTING,
        [
            (Ordered(1.0, SICK, within=10.0), Leaving(SICK, 1.0, 11.0, Starting(0.0)), [Effect.WAKE]),
            (tick(11.0), Starting(0.0), [Effect.REPORT_EXPIRED]),
        ],
    ),
    "a second order only gives more time: the first one accounts for the end": (
        UP,
        [
            (Ordered(1.0, SICK, within=35.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Ordered(10.0, OPERATOR, within=35.0), Leaving(SICK, 1.0, 45.0, Up(0.0)), [Effect.WAKE]),
            (ended(11.0, 0), gone(Cause.UNHEALTHY, "sick: status 503", 11.0), []),
        ],
    ),
    "a second order never shortens the time of the first": (
        UP,
        [
            (Ordered(1.0, SICK, within=35.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Ordered(2.0, OPERATOR, within=5.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
        ],
    ),
    "SIGQUIT that Circus sent is no order: one that survives it serves on, and a crash later is a crash": (
        UP,
        [
            (Signalled(SIGQUIT), Up(0.0), []),
            (Judged(5.0, Health.OK), Up(0.0), []),
            (ended(600.0, -11), gone(Cause.CRASH, "died by SIGSEGV", 600.0), []),
        ],
    ),
    "the end by a signal that Circus sent was commanded, without any order": (
        UP,
        [
            (Signalled(SIGABRT), Up(0.0), []),
            (ended(1.0, -SIGABRT), gone(Cause.COMMANDED, "commanded: SIGABRT sent by Circus", 1.0), []),
        ],
    ),
    "retired, and kept again when its successor failed": (
        UP,
        [(Retired(), Up(0.0), []), (Kept(), Up(0.0), [])],
    ),
    "a crash of one that retires counts: nobody has told it to go yet": (
        UP,
        [(Retired(), Up(0.0), []), (ended(2.0, -11), gone(Cause.CRASH, "died by SIGSEGV", 2.0), [])],
    ),
    "retired because it was blocked, then hung: it counts as hung, though its successor serves": (
        UP,
        [
            (Retired(), Up(0.0), []),
            (Judged(3.0, Health.HUNG, "no answer"), Up(0.0), []),
            (Ordered(6.0, HUNG, within=65.0), Leaving(HUNG, 6.0, 71.0, Up(0.0)), [Effect.WAKE]),
            (ended(6.1, -SIGABRT), gone(Cause.UNHEALTHY, "hung: no answer", 6.1), []),
        ],
    ),
    "retired because it was blocked, and back: it drains, which costs nothing": (
        UP,
        [
            (Retired(), Up(0.0), []),
            (Judged(3.0, Health.FAILING, "no answer"), Up(0.0), []),
            (Judged(5.0, Health.OK), Up(0.0), []),
            (Ordered(7.0, AHEAD, within=35.0), Leaving(AHEAD, 7.0, 42.0, Up(0.0)), [Effect.WAKE]),
            (ended(8.0, 0), gone(Cause.COMMANDED, "event loop blocked for 2 s", 8.0), []),
        ],
    ),
    "killed at graceful_timeout, it says so": (
        UP,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Signalled(SIGTERM), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (Signalled(SIGKILL), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (
                ended(31.0, -SIGKILL),
                gone(
                    Cause.COMMANDED,
                    "commanded: operator; killed in the middle of its shutdown at graceful_timeout = 30 s",
                    31.0,
                ),
                [],
            ),
        ],
    ),
    "killed at once by who asked for it, it says nothing of a timeout": (
        UP,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Signalled(SIGKILL), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (ended(1.1, -SIGKILL), gone(Cause.COMMANDED, "commanded: operator", 1.1), []),
        ],
    ),
    "requests that were cut off at the drain limit are counted and told": (
        UP,
        [
            (Ordered(1.0, RELOAD, within=35.0), Leaving(RELOAD, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (
                ended(21.0, 0, cut=3, drain_limit=20.0, log_tail="Cut 9 request(s) at the drain limit of 9 s\n"),
                gone(
                    Cause.COMMANDED,
                    "rolling reload; 3 requests cut off at the drain limit of 20 s (--timeout-graceful-shutdown)",
                    21.0,
                    cut=3,
                    log="Cut 9 request(s) at the drain limit of 9 s\n",
                ),
                [],
            ),
        ],
    ),
    "recycled by itself, it costs nothing": (
        UP,
        [(ended(900.0, 99, recycled=True), gone(Cause.COMMANDED, "commanded: recycle", 900.0), [])],
    ),
    "whatever ends before it was up was not recycled: it is a failed start, named with its exit code": (
        STARTING,
        [
            (
                ended(1.0, 75, recycled=True),
                gone(Cause.FAILED_START, "exited with code 75 before it was up", 1.0),
                [],
            )
        ],
    ),
    "recycled while it leaves for being sick, it is what the order says": (
        UP,
        [
            (Ordered(1.0, SICK, within=35.0), Leaving(SICK, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (ended(2.0, 99, recycled=True), gone(Cause.UNHEALTHY, "sick: status 503", 2.0), []),
        ],
    ),
    "killed for want of memory": (
        UP,
        [
            (
                ended(5.0, -SIGKILL, oom="the kernel's OOM killer"),
                gone(Cause.OUT_OF_MEMORY, "out of memory, killed by SIGKILL: the kernel's OOM killer", 5.0),
                [],
            )
        ],
    ),
    "killed from outside": (
        UP,
        [(ended(5.0, -SIGKILL, oom=""), gone(Cause.KILLED, "killed from outside by SIGKILL", 5.0), [])],
    ),
    "an end that nobody saw": (UP, [(ended(5.0, None), gone(Cause.UNKNOWN, "ended, exit status unknown", 5.0), [])]),
    "an exit before it was up is a failed start, after that a crash": (
        STARTING,
        [(ended(1.0, 1), gone(Cause.FAILED_START, "exited with code 1 before it was up", 1.0), [])],
    ),
    "one that leaves is not judged, nor is it up a second time": (
        UP,
        [
            (Ordered(1.0, OPERATOR, within=35.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), [Effect.WAKE]),
            (Judged(2.0, Health.HUNG, "no answer"), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
            (CameUp(3.0), Leaving(OPERATOR, 1.0, 36.0, Up(0.0)), []),
        ],
    ),
    "one that is up is not late": (UP, [(tick(9999.0), Up(0.0), [])]),
}


@pytest.mark.parametrize(("life", "rows"), [*HISTORIES.values()], ids=[*HISTORIES])
def test_a_history(life: Life, rows: list[Row]) -> None:
    seen = []
    for event, _, _ in rows:
        life, effects = step(life, event)
        seen.append((event, life.phase, list(effects)))

    assert seen == rows


def test_each_row_of_the_table_is_in_a_history() -> None:
    """Those that only change a role, a health or a signal in some phase are proven below."""
    played_rows = set()
    for life, rows in HISTORIES.values():
        for event, _, _ in rows:
            played_rows.add((type(life.phase), type(event)))
            life, _ = step(life, event)
    small = {Signalled, Retired, Kept, Proven, Judged, BecameReady, Lost}

    assert [(phase, event) for phase, event in TABLE if event not in small and (phase, event) not in played_rows] == []


# What is known of one that serves


def health(life: Life) -> tuple[Health, str, bool | None, bool]:
    return life.health, life.reason, life.ready, life.was_ready


def test_what_the_prober_finds_while_it_starts_is_a_reason_and_no_health() -> None:
    life = played(STARTING, Judged(1.0, Health.HUNG, "no answer within 2 s", ready=False))

    assert health(life) == (Health.UNKNOWN, "no answer within 2 s", None, False)


def test_what_was_found_of_its_start_is_over_when_it_is_up() -> None:
    life = played(STARTING, Judged(1.0, Health.UNKNOWN, "no answer within 2 s"), CameUp(2.0))

    assert health(life) == (Health.UNKNOWN, "", None, False)


def test_an_answer_to_a_question_from_before_it_was_up_comes_too_late() -> None:
    life = played(STARTING, CameUp(2.0), Judged(1.9, Health.HUNG, "no answer within 2 s"))

    assert health(life) == (Health.UNKNOWN, "", None, False)


def test_a_later_question_counts() -> None:
    life = played(STARTING, CameUp(2.0), Judged(2.5, Health.FAILING, "status 307", ready=False))

    assert health(life) == (Health.FAILING, "status 307", False, False)


def test_once_ready_it_has_been_ready_for_ever_and_silence_changes_nothing() -> None:
    life = played(UP, Judged(1.0, Health.OK, ready=True), Judged(2.0, Health.OK, ready=False), Judged(3.0, Health.OK))

    assert health(life) == (Health.OK, "", False, True)


@pytest.mark.parametrize(("said", "ready"), [(None, True), (False, False)])
def test_its_own_report_that_it_was_ready_does_not_overrule_a_probe(said: bool | None, ready: bool) -> None:
    life = played(UP, *([] if said is None else [Judged(1.0, Health.OK, ready=said)]), BecameReady())

    assert (life.ready, life.was_ready) == (ready, True)


def test_a_mark_of_readiness_from_before_it_is_up_does_not_outlast_its_start() -> None:
    life = played(STARTING, BecameReady(), CameUp(2.0))

    assert health(life) == (Health.UNKNOWN, "", None, False)


def test_of_one_that_nobody_can_probe_nothing_is_known_any_more() -> None:
    life = played(UP, Judged(1.0, Health.SICK, "status 503", ready=True), Lost("its private socket is gone"))

    assert health(life) == (Health.UNKNOWN, "its private socket is gone", None, True)


def test_one_whose_order_expired_is_judged_again() -> None:
    life = played(UP, Ordered(1.0, OPERATOR, within=5.0), tick(6.0), Judged(7.0, Health.HUNG, "no answer"))

    assert (life.health, life.order, life.standing) == (Health.HUNG, None, Up(0.0))


# Roles


@pytest.mark.parametrize("life", [STARTING, UP, played(UP, Ordered(1.0, RELOAD, within=5.0))])
@pytest.mark.parametrize(
    ("role", "event", "then"),
    [
        pytest.param(Role.SERVING, Retired(), Role.RETIRING, id="a worker retires"),
        pytest.param(Role.RETIRING, Kept(), Role.SERVING, id="and is kept"),
        pytest.param(Role.SUCCESSOR, Proven(), Role.SERVING, id="a successor has taken over"),
        pytest.param(Role.SERVING, Kept(), Role.SERVING, id="keeping one that never retired changes nothing"),
        pytest.param(Role.SUCCESSOR, Kept(), Role.SUCCESSOR, id="nor does keeping a successor"),
    ],
)
def test_a_role_changes_in_any_phase_and_the_phase_does_not(
    life: Life, role: Role, event: LifeEvent, then: Role
) -> None:
    before = of(role, life)

    after, effects = step(before, event)

    assert (after, effects) == (of(then, before), ())


@pytest.mark.parametrize(("role", "counts"), [*zip(Role, [True, True, False], strict=True)])
def test_retiring_ones_are_none_of_numprocesses(role: Role, counts: bool) -> None:
    assert of(role, UP).counts is counts


def test_every_arrow_of_the_table_is_in_the_diagram() -> None:
    drawn = diagram()
    arrows = {(phase.__name__, to.__name__) for (phase, _), row in TABLE.items() for to in row.to if to is not phase}

    assert [each for each in arrows if f"    {each[0]} --> {each[1]}: " not in drawn] == []


# Any life at all

TIMES = st.floats(0, 1000, allow_nan=False)
ORDERS = st.sampled_from([OPERATOR, RELOAD, SICK])
EVENTS = st.one_of(
    st.builds(CameUp, TIMES),
    st.builds(BecameReady),
    st.builds(Judged, TIMES, st.sampled_from(Health), st.just("why"), st.sampled_from([True, False, None])),
    st.builds(Lost, st.just("lost")),
    st.builds(Ordered, TIMES, ORDERS, st.floats(0, 100)),
    st.builds(Signalled, st.sampled_from([SIGTERM, SIGKILL, SIGQUIT, SIGABRT])),
    st.builds(Retired),
    st.builds(Kept),
    st.builds(Proven),
    st.builds(tick, TIMES),
    st.builds(Paused, st.floats(0, 1000)),
)
ENDS = st.builds(
    ended,
    TIMES,
    st.sampled_from([0, 1, 120, -6, -9, -11, -15, None]),
    recycled=st.booleans(),
    oom=st.sampled_from([None, "", "oom"]),
    cut=st.sampled_from([0, 2]),
    drain_limit=st.just(5.0),
    log_tail=st.sampled_from(["", "ValueError: x\n"]),
)
LONG_AFTER = 1e9


class AnyLife(RuleBasedStateMachine):
    """One worker to which anything happens, in any order and at any time."""

    life: Life

    @initialize(role=st.sampled_from([*Role][:2]))
    def begin(self, role: Role) -> None:
        self.life = Life(phase=Starting(0.0), role=role)

    @rule(event=EVENTS)
    def something_happens(self, event: LifeEvent) -> None:
        self.take(event)

    @rule(event=ENDS)
    def it_ends(self, event: LifeEvent) -> None:
        self.take(event)

    def take(self, event: LifeEvent) -> None:
        before = self.life
        self.life, effects = step(before, event)
        row = TABLE.get((type(before.phase), type(event)))
        if row is None:
            assert (self.life, effects) == (before, ())
        else:
            assert type(self.life.phase) in row.to
        if isinstance(before.phase, Gone):
            assert self.life == before
        has_ended = isinstance(event, Ended) and not isinstance(before.phase, Gone)
        assert (isinstance(self.life.phase, Gone) and not isinstance(before.phase, Gone)) is has_ended
        assert not (has_ended and effects)

    @invariant()
    def one_that_is_not_gone_can_always_end(self) -> None:
        if not isinstance(self.life.phase, Gone):
            after, effects = step(self.life, ended(LONG_AFTER, -11))
            assert isinstance(after.phase, Gone)
            assert after.phase.reason
            assert effects == ()

    @invariant()
    def one_that_is_not_gone_can_always_be_ordered_to_leave(self) -> None:
        if not isinstance(self.life.phase, Gone):
            after, effects = step(self.life, Ordered(LONG_AFTER, OPERATOR, within=5.0))
            assert isinstance(after.phase, Leaving)
            assert after.phase.until >= LONG_AFTER + 5.0
            assert effects == (Effect.WAKE,)

    @invariant()
    def one_that_is_not_gone_can_always_be_replaced(self) -> None:
        if isinstance(self.life.phase, Gone):
            return
        # What it is the new one or the old one of is over at some time: by that, or because its order expires.
        serving, _ = step(self.life, Proven() if self.life.role is Role.SUCCESSOR else Kept())
        assert (serving.role, serving.phase, serving.counts) == (Role.SERVING, self.life.phase, True)
        if isinstance(self.life.phase, Leaving):
            assert step(self.life, tick(LONG_AFTER))[0].counts
        old, effects = step(serving, Retired())
        assert (old.counts, old.phase, effects) == (False, self.life.phase, ())
        assert step(old, Kept()) == (serving, ())
        new = played(Life(Starting(LONG_AFTER), Role.SUCCESSOR), CameUp(LONG_AFTER), Proven())
        assert (new.role, new.counts, new.phase) == (Role.SERVING, True, Up(LONG_AFTER))
        left = played(old, Ordered(LONG_AFTER, RELOAD, within=5.0), ended(LONG_AFTER, 0))
        assert isinstance(left.phase, Gone)

    @invariant()
    def an_order_always_expires_and_what_was_up_is_judged_again(self) -> None:
        if not isinstance(self.life.phase, Leaving):
            return
        after, effects = step(self.life, tick(LONG_AFTER))
        assert (after.phase, after.signals, effects) == (self.life.phase.before, (), (Effect.REPORT_EXPIRED,))
        if isinstance(after.phase, Up):
            judged, _ = step(after, Judged(LONG_AFTER, Health.HUNG, "no answer"))
            assert judged.health is Health.HUNG

    @invariant()
    def one_that_is_up_can_always_be_judged(self) -> None:
        if isinstance(self.life.phase, Up):
            assert step(self.life, Judged(LONG_AFTER, Health.SICK, "status 503"))[0].health is Health.SICK


AnyLife.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestAnyLife = AnyLife.TestCase
