"""When a failed worker is tried again: the schedule, the cooldown, and who is spared."""

import math
import pickle
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.poison import Poisons
from xboard_circus.core.restart_limits import (
    OF_WORKER,
    SERVED,
    RestartBudget,
    RestartDecision,
    RestartLimits,
    has_served,
)

LIMITS = RestartLimits(burst=4, window=100, delay=1, delay_max=3, cooldown=50, reset_after=30)
AGAIN = "failed again: cooling down, next try in 50 s"


def go(failures: int, wait: float, told: str) -> RestartDecision:
    return RestartDecision(wait, False, failures, f"restart budget: {failures} of 4 used in 100 s, next try {told}")


def cool(failures: int, why: str) -> RestartDecision:
    return RestartDecision(50, True, failures, why)


AT_ONCE = go(1, 0.0, "at once")
SECOND = go(2, 1.0, "in 1 s")
THIRD = go(3, 2.0, "in 2 s")
FOURTH = cool(4, "restart budget used up (4 failures in 100 s): cooling down, next try in 50 s")
HOPPING = cool(2, "restart budget of all workers used up (4 failures in 100 s): cooling down, next try in 50 s")


def budget(limits: RestartLimits = LIMITS, *, slots: int = 2) -> RestartBudget:
    return RestartBudget(limits, slots=slots)


def cooled(*slots: int, now: float = 0, of: int = 2) -> RestartBudget:
    """Return a budget in which *slots* have used up their burst at *now*."""
    made = budget(slots=of)
    for slot in slots:
        for _ in range(LIMITS.burst):
            made.failed(slot, now)
    return made


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(1, 0, AT_ONCE), (1, 1, SECOND), (1, 3, THIRD), (1, 6, FOURTH)], id="at once, doubling, cooling"),
        pytest.param([(1, 0, AT_ONCE), (1, 99.9, SECOND)], id="in the window still"),
        pytest.param([(1, 0, AT_ONCE), (1, 100, AT_ONCE)], id="the window's end is outside"),
        pytest.param([(1, day * 86_400, AT_ONCE) for day in range(4)], id="once a day, for ever"),
        pytest.param([(1, 50, AT_ONCE), (1, 0, SECOND), (1, 149, THIRD)], id="the clock stepped back"),
        pytest.param([(1, 0, AT_ONCE), (2, 0, AT_ONCE), (1, 0, SECOND), (2, 0, SECOND)], id="each slot for itself"),
        pytest.param(
            [(1, 0, AT_ONCE), (1, 0, SECOND), (1, 0, THIRD), (1, 0, FOURTH), (1, 50, cool(4, AGAIN))],
            id="a failed half-open try",
        ),
        pytest.param(
            [(1, 0, AT_ONCE), (1, 0, SECOND), (1, 0, THIRD), (1, 0, FOURTH), (1, 999, cool(1, AGAIN))],
            id="still half-open when the window is empty",
        ),
    ],
)
def test_a_slot_fails(steps: list[tuple[int, float, RestartDecision]]) -> None:
    tested = budget(slots=4)

    assert [tested.failed(slot, now) for slot, now, _ in steps] == [verdict for _, _, verdict in steps]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [(1, 0, AT_ONCE), (2, 0, AT_ONCE), (1, 0, SECOND), (2, 0, HOPPING)],
            id="failures that hop between slots are held up",
        ),
        pytest.param(
            [(1, 0, AT_ONCE), (2, 0, AT_ONCE), (1, 0, SECOND), (2, 0, HOPPING), (1, 0, THIRD)],
            id="those of a cooling slot count no more",
        ),
        pytest.param(
            [(1, 0, AT_ONCE), (2, 0, AT_ONCE), (1, 0, SECOND), (2, 100, AT_ONCE)],
            id="nor do those that are out of the window",
        ),
        pytest.param(
            [(1, 0, AT_ONCE), (1, 0, SECOND), (1, 0, THIRD), (2, 0, AT_ONCE), (1, 0, FOURTH), (2, 0, SECOND)],
            id="a sibling's first stumble is free, though the limit is reached",
        ),
    ],
)
def test_a_watcher_of_two_reaches_its_limit_of_four(steps: list[tuple[int, float, RestartDecision]]) -> None:
    tested = budget(slots=2)

    assert [tested.failed(slot, now) for slot, now, _ in steps] == [verdict for _, _, verdict in steps]


def test_a_cooldown_longer_than_the_window_buys_no_new_burst() -> None:
    limits = RestartLimits(burst=3, window=10, cooldown=60, reset_after=300)
    tested = budget(limits)
    for _ in range(3):
        tested.failed(1, 0)

    waits = [tested.failed(1, 60.0 * tries).wait for tries in range(1, 6)]

    assert waits == [60] * 5


@pytest.mark.parametrize(
    ("jitter", "waits"),
    [
        pytest.param(-1, [0, 0.8, 1.6, 2.4], id="sooner"),
        pytest.param(0, [0, 1, 2, 3], id="none"),
        pytest.param(1, [0, 1.2, 2.4, 3.6], id="later, also beyond delay_max"),
    ],
)
def test_jitter_moves_delays(jitter: float, waits: list[float]) -> None:
    tested = budget(RestartLimits(burst=5, window=100, delay=1, delay_max=3))

    assert [tested.failed(1, 0, jitter=jitter).wait for _ in waits] == pytest.approx(waits)


def test_of_a_worker_that_was_replaced_before_its_end_no_next_try_is_promised() -> None:
    budget = RestartBudget(RestartLimits(burst=3), slots=1)
    budget.failed(1, 0)
    second, third = (budget.failed(1, now, replaced=True) for now in (1, 2))

    assert (second.wait, third.wait, third.cooling) == (0, 0, True)
    assert second.reason == "restart budget of this worker: 2 of 3 used in 600 s; its successor runs already"
    assert third.reason == "restart budget used up; its successor runs already"


def test_jitter_does_not_move_a_cooldown() -> None:
    assert cooled(1).failed(1, 0, jitter=1).wait == 50


@pytest.mark.parametrize("jitter", [-1.1, 1.1, math.nan])
def test_jitter_out_of_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter must be from -1 to 1"):
        budget().failed(1, 0, jitter=jitter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"burst": 0}, "burst must be more than 0, not 0", id="burst"),
        pytest.param({"window": 0}, "window must be more than 0, not 0", id="window"),
        pytest.param({"delay": -1}, "delay must be more than 0, not -1", id="delay"),
        pytest.param({"cooldown": math.inf}, "cooldown must be more than 0, not inf", id="not finite"),
        pytest.param({"reset_after": math.nan}, "reset_after must be more than 0, not nan", id="no number"),
        pytest.param({"delay_max": 0.5}, "delay_max must be at least delay (1), not 0.5", id="delay_max < delay"),
        pytest.param(
            {"delay": 20, "cooldown": 10}, "cooldown must be at least delay (20), not 10", id="cooldown < delay"
        ),
        pytest.param(
            {"burst": 20},
            "window must be more than 939.6, not 600: "
            "the delays before failure 20 last so long, so burst could never be reached",
            id="a burst that could never be reached",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RestartLimits(**options)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_design() -> None:
    assert RestartLimits() == RestartLimits(burst=5, window=600, delay=1, delay_max=60, cooldown=300, reset_after=300)


def test_limits_at_their_bounds_are_fine() -> None:
    RestartLimits(burst=2, window=0.1, delay=5, delay_max=5, cooldown=5)


def test_a_window_as_long_as_the_delays_is_too_short() -> None:
    with pytest.raises(ValueError, match="window must be more than 6, not 6"):
        RestartLimits(burst=3, window=6, delay=5)


@given(st.integers(2, 60), st.floats(0.01, 10), st.floats(1, 100))
def test_a_window_longer_than_the_delays_lets_every_burst_be_reached(burst: int, delay: float, factor: float) -> None:
    ample = RestartLimits(burst=burst, window=1e12, delay=delay, delay_max=delay * factor, cooldown=1e9)
    spread = sum(ample.delay_after(failures, jitter=1) for failures in range(2, burst))
    limits = RestartLimits(burst=burst, window=spread + 1, delay=delay, delay_max=delay * factor, cooldown=1e9)
    tested, now = budget(limits), 0.0

    for _ in range(burst - 1):
        now += tested.failed(1, now, jitter=1).wait

    assert tested.failed(1, now).cooling


def test_a_thousand_failures_without_a_cooldown_overflow_nothing() -> None:
    assert RestartLimits().delay_after(5000) == 60


def test_a_slot_that_never_failed_may_start() -> None:
    tested = budget()

    assert (tested.wait(1, 0), tested.may_start(1, 0), tested.is_cooling(1, 0), tested.failures(1, 0)) == (
        0.0,
        True,
        False,
        0,
    )


@pytest.mark.parametrize(
    ("now", "wait", "may_start"),
    [
        pytest.param(10, 1, False, id="at once after the failure"),
        pytest.param(10.5, 0.5, False, id="half-way"),
        pytest.param(11, 0, True, id="when the wait is over"),
        pytest.param(3600, 0, True, id="long after"),
        pytest.param(5, 1, False, id="the clock stepped back"),
    ],
)
def test_wait(now: float, wait: float, may_start: bool) -> None:
    tested = budget()
    tested.failed(1, 10)
    tested.failed(1, 10)

    assert (tested.wait(1, now), tested.may_start(1, now)) == (wait, may_start)


@pytest.mark.parametrize(
    "ask",
    [
        RestartBudget.wait,
        RestartBudget.may_start,
        RestartBudget.started,
        RestartBudget.ready,
        lambda tested, slot, now: tested.stays_up(slot, 1, now),
        RestartBudget.is_cooling,
        RestartBudget.failures,
        lambda tested, _, now: tested.spent(now),
        lambda tested, _, now: tested.next_try(now),
    ],
)
def test_every_question_moves_the_clock_on_and_none_moves_it_back(
    ask: Callable[[RestartBudget, int, float], object],
) -> None:
    tested = budget()
    tested.failed(1, 0)

    ask(tested, 1, 100)

    assert tested.failed(1, 0) == AT_ONCE


def test_a_try_that_starts_while_the_clock_is_back_starts_at_the_last_time_known() -> None:
    tested = cooled(1, 2)
    tested.wait(1, 60)
    tested.started(1, 10)

    assert [tested.may_start(2, now) for now in (109, 110)] == [False, True]


def test_a_try_that_is_given_up_holds_up_no_other_slot() -> None:
    """A failed reload in a slot that is cooling down costs nothing, and is no try either."""
    spent = cooled(1, 2)
    spent.started(1, 50)
    assert not spent.may_start(2, 50)

    spent.try_over(1)
    spent.try_over(3)

    assert spent.may_start(2, 50)


def test_cooling_slots_are_tried_one_at_a_time() -> None:
    tested = cooled(1, 2)
    tested.started(1, 50)

    assert (tested.may_start(1, 50), tested.may_start(2, 50)) == (True, False)


def test_a_slot_that_is_not_cooling_needs_no_turn() -> None:
    tested = cooled(1)
    tested.started(1, 50)
    tested.failed(2, 50)

    assert tested.may_start(2, 50)


@pytest.mark.parametrize("end", ["failed", "ready", "forget", "clear", "nothing for a whole cooldown"])
def test_the_turn_passes_on_when_the_try_is_over(end: str) -> None:
    tested = cooled(1, 2)
    tested.started(1, 50)

    match end:
        case "failed":
            tested.failed(1, 60)
        case "ready":
            tested.ready(1, 60)
        case "forget":
            tested.forget(1)
        case "clear":
            tested.clear()

    assert tested.may_start(2, 100 if end.startswith("nothing") else 60)


def test_ready_lets_the_other_cooling_slots_go() -> None:
    tested = cooled(1, 2, 3, of=4)

    assert (tested.ready(3, 20), tested.wait(1, 20), tested.wait(2, 20)) == ((1, 2), 0.0, 0.0)


def test_ready_lets_go_those_that_wait_for_their_turn_too() -> None:
    tested = cooled(1, 2)
    tested.started(1, 50)

    assert tested.ready(1, 55) == (2,)


def test_ready_of_a_slot_that_never_cooled_tells_nothing_about_the_others() -> None:
    tested = cooled(1, of=4)
    tested.failed(3, 10)
    before = tested.wait(1, 20)

    assert (tested.ready(3, 20), tested.ready(7, 20), tested.wait(1, 20)) == ((), (), before)


def looped_together() -> RestartBudget:
    """Return a budget in which 1 cools, at 0, for what it spent together with 2, which does not cool."""
    tested = budget()
    for slot in (2, 2, 1, 1):
        tested.failed(slot, 0)
    assert (tested.is_cooling(1, 0), tested.is_cooling(2, 0)) == (True, False)
    return tested


def test_one_of_the_same_loop_that_holds_lets_go_who_cools_for_what_both_spent() -> None:
    tested = looped_together()

    # The wait after a second failure is 1 s.
    assert [(tested.stays_up(2, up_for, 20), tested.wait(1, 20)) for up_for in (0.9, 1)] == [((), 30), ((1,), 0)]


def test_one_of_the_same_loop_that_holds_lets_go_once_in_a_cooldown() -> None:
    tested = looped_together()
    tested.stays_up(2, 1, 10)
    tested.failed(1, 20)

    assert [(tested.stays_up(2, now, now), tested.wait(1, now)) for now in (30, 59, 60)] == [
        ((), 40),
        ((), 11),
        ((1,), 0),
    ]


def test_one_of_a_loop_that_holds_tells_nothing_of_who_cools_for_a_burst_of_its_own() -> None:
    tested = cooled(1)
    tested.failed(2, 0)
    tested.failed(2, 0)

    assert (tested.stays_up(2, 10, 20), tested.wait(1, 20)) == ((), 30)


@pytest.mark.parametrize("slot", [pytest.param(2, id="stumbled once"), pytest.param(3, id="never failed")])
def test_who_was_in_no_loop_tells_nothing_of_who_cools_for_what_all_spent(slot: int) -> None:
    tested = budget()
    for failed in (2, 1, 1, 1):
        tested.failed(failed, 0)

    assert (tested.is_cooling(1, 0), tested.stays_up(slot, 10, 20), tested.wait(1, 20)) == (True, (), 30)


def test_who_was_let_go_and_has_not_had_its_turn_is_told_again() -> None:
    tested = cooled(1, 2, 3)

    assert [tested.ready(3, now) for now in (10, 20)] == [(1, 2), (1, 2)]


def test_who_got_ready_unannounced_does_not_wait_either() -> None:
    tested = cooled(1)
    tested.ready(1, 10)

    assert (tested.ready(2, 20), tested.next_try(20)) == ((), None)


def test_ready_leaves_alone_what_runs() -> None:
    tested = cooled(1, 2)
    tested.started(1, 50)

    assert tested.ready(2, 55) == ()


def test_ready_leaves_the_short_delays_alone() -> None:
    tested = budget()
    tested.failed(1, 0)
    tested.failed(1, 0)

    assert (tested.ready(2, 0), tested.wait(1, 0)) == ((), 1.0)


def test_a_slot_is_let_go_once_in_a_cooldown() -> None:
    tested = cooled(1, 2)
    tested.ready(2, 10)
    tested.failed(1, 20)

    assert [(tested.ready(2, now), tested.wait(1, now)) for now in (30, 59, 60)] == [((), 40), ((), 11), ((1,), 0)]


@pytest.mark.parametrize(
    ("failures", "up_for", "forgotten"),
    [
        pytest.param(1, 29.9, False, id="not for long enough"),
        pytest.param(1, 30, True, id="for long enough"),
        pytest.param(4, 30, True, id="was cooling"),
        pytest.param(0, 30, False, id="nothing to forget"),
    ],
)
def test_reset_if_held(failures: int, up_for: float, forgotten: bool) -> None:
    tested = budget()
    for _ in range(failures):
        tested.failed(1, 0)

    assert tested.reset_if_stable(1, up_for) is forgotten


@pytest.mark.parametrize(
    ("failed_at", "expected"),
    [
        pytest.param([0], False, id="too old to count"),
        pytest.param([0] * 4, True, id="too old to count, but it was cooling"),
    ],
)
def test_reset_of_failures_that_are_out_of_the_window(failed_at: list[float], expected: bool) -> None:
    tested = budget()
    for now in failed_at:
        tested.failed(1, now)
    tested.wait(1, 200)

    assert tested.reset_if_stable(1, up_for=150) is expected


def test_a_slot_that_held_starts_with_a_clean_count() -> None:
    tested = cooled(1)
    tested.started(1, 50)
    tested.ready(1, 55)
    tested.reset_if_stable(1, up_for=30)

    assert tested.failed(1, 90) == AT_ONCE


def test_a_slot_that_did_not_hold_goes_on_cooling() -> None:
    tested = cooled(1)
    tested.started(1, 50)
    tested.ready(1, 55)
    tested.reset_if_stable(1, up_for=29)

    again = tested.failed(1, 84)

    # 34 s of the wait have passed since its start.
    assert (tested.is_cooling(1, 84), again.cooling, again.wait) == (True, True, 16)


@pytest.mark.parametrize("how", ["forget", "clear"])
def test_an_operators_restart_clears_the_wait(how: str) -> None:
    tested = cooled(1)

    tested.forget(1) if how == "forget" else tested.clear()

    assert (tested.may_start(1, 0), tested.next_try(0), tested.failed(1, 0)) == (True, None, AT_ONCE)


def test_forgetting_a_slot_that_never_failed_is_fine() -> None:
    budget().forget(9)


@pytest.mark.parametrize(
    ("slots", "limit"), [pytest.param(0, 4, id="burst at least"), pytest.param(8, 16, id="twice the slots")]
)
def test_limit(slots: int, limit: int) -> None:
    assert budget(slots=slots).limit == limit


def test_what_is_spent_slides_out_of_the_window_and_leaves_out_the_cooling() -> None:
    tested = cooled(1, now=0, of=4)
    tested.failed(2, 0)
    tested.failed(3, 40)

    assert [(tested.spent(now), tested.failures(2, now), tested.failures(1, now)) for now in (40, 100, 140)] == [
        (2, 1, 4),
        (1, 0, 0),
        (0, 0, 0),
    ]


def test_next_try_is_that_of_the_first_cooling_slot() -> None:
    tested = cooled(1, of=4)
    tested.failed(3, 10)
    for _ in range(4):
        tested.failed(2, 10)

    assert [tested.next_try(now) for now in (10, 50, 70)] == [40, 0.0, 0.0]


def test_a_try_that_runs_is_no_next_try() -> None:
    tested = cooled(1)
    tested.started(1, 50)

    assert tested.next_try(50) is None


def test_limits_may_change_while_it_runs() -> None:
    tested = budget()
    for _ in range(3):
        tested.failed(1, 0)

    tested.limits = RestartLimits(burst=2, window=100, cooldown=70)

    assert tested.failed(1, 0) == RestartDecision(
        70, True, 2, "restart budget used up (2 failures in 100 s): cooling down, next try in 70 s"
    )


def test_a_reason_says_whose_failures_it_counts() -> None:
    limits = RestartLimits(burst=2, window=100, cooldown=50)
    tested = RestartBudget(limits, slots=1, words=OF_WORKER)

    assert [tested.failed(1, now).reason for now in (0, 1)] == [
        "restart budget of this worker: 1 of 2 used in 100 s, next try at once",
        "restart budget of this worker used up (2 failures in 100 s): cooling down, next try in 50 s",
    ]


def test_failures_do_not_pile_up() -> None:
    tested = budget(slots=4)
    sizes = []
    for times in (1000, 20_000):
        for number in range(times):
            tested.failed(number % 8, now=0)
        sizes.append(len(pickle.dumps(tested)))

    assert sizes[0] == sizes[1]


def test_slots_that_failed_long_ago_are_dropped() -> None:
    tested = budget()
    sizes = []
    for times in (1000, 2000):
        for slot in range(times):
            tested.failed(slot, now=200.0 * (times + slot))
        sizes.append(len(pickle.dumps(tested)))

    assert abs(sizes[0] - sizes[1]) < 10


SLOTS = 3
STEPS = st.lists(
    st.tuples(st.integers(1, SLOTS), st.floats(0, 40), st.sampled_from(["crash", "serve", "nothing"])), max_size=60
)


class Fleet:
    """A guard in small: it asks before each start, and each try crashes, serves a little and crashes, or is lost."""

    def __init__(self) -> None:
        self.budget = budget(slots=SLOTS)
        self.now = 0.0
        self.tried: set[int] = set()
        self.starts: dict[int, list[float]] = {slot: [] for slot in range(1, SLOTS + 1)}

    def step(self, slot: int, elapsed: float, fate: str) -> None:
        self.now += elapsed
        if not self.budget.may_start(slot, self.now):
            return
        self.budget.started(slot, self.now)
        self.starts[slot].append(self.now)
        if fate == "nothing":
            return
        if fate == "serve":
            self.budget.ready(slot, self.now)
            self.budget.stays_up(slot, LIMITS.delay_max, self.now)
        self.budget.failed(slot, self.now)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_slot_is_started_more_often_than_the_schedule_allows(steps: list[tuple[int, float, str]]) -> None:
    fleet = Fleet()
    for slot, elapsed, fate in steps:
        fleet.step(slot, elapsed, "serve" if fate == "nothing" else fate)

    # A burst, and then two tries in a cooldown: one by the clock, one because a sibling got ready.
    allowed = LIMITS.burst + 2 * (fleet.now / LIMITS.cooldown + 1) + fleet.now / LIMITS.window * LIMITS.burst
    assert all(len(starts) <= allowed for starts in fleet.starts.values())


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happened_somebody_is_tried_within_a_cooldown(steps: list[tuple[int, float, str]]) -> None:
    fleet = Fleet()
    for slot, elapsed, fate in steps:
        fleet.step(slot, elapsed, fate)

    assert any(fleet.budget.may_start(slot, fleet.now + LIMITS.cooldown) for slot in fleet.starts)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_never_are_two_cooling_slots_tried_at_once(steps: list[tuple[int, float, str]]) -> None:
    tested, now, running = budget(slots=SLOTS), 0.0, dict[int, float]()
    for slot, elapsed, fate in steps:
        now += elapsed
        if slot in running:
            tested.failed(slot, now) if fate == "crash" else tested.ready(slot, now)
            del running[slot]
        elif tested.may_start(slot, now) and tested.is_cooling(slot, now):
            tested.started(slot, now)
            running[slot] = now
        else:
            tested.failed(slot, now)
        assert sum(now - since < LIMITS.cooldown for since in running.values()) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 100))
def test_one_slot_in_a_crash_loop_costs_its_siblings_nothing(gaps: list[float], when: float) -> None:
    tested, now = budget(), 0.0
    for gap in gaps:
        now += gap
        tested.failed(1, now)

    assert tested.failed(2, now + when) == AT_ONCE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 200), st.floats(-1, 1)), max_size=40))
def test_every_wait_is_bounded_and_never_in_the_past(failures: list[tuple[int, float, float]]) -> None:
    tested = budget()

    for slot, now, jitter in failures:
        verdict = tested.failed(slot, now, jitter=jitter)
        assert tested.wait(slot, now) == pytest.approx(verdict.wait)
        assert 0 <= verdict.wait <= max(1.2 * LIMITS.delay_max, LIMITS.cooldown)


@pytest.mark.parametrize(
    ("failures", "lived", "wait"),
    [
        pytest.param(1, 0.2, 0.0, id="its first failure costs no wait"),
        pytest.param(2, 0.25, 0.75, id="what dies at once waits for the rest of its delay"),
        pytest.param(2, 1.0, 0.0, id="what lived for as long as its delay starts again at once"),
        pytest.param(3, 0.5, 1.5, id="the second delay is twice the first"),
        pytest.param(4, 20.0, 30.0, id="a cooldown counts from the last start too"),
        pytest.param(4, 60.0, 0.0, id="what lived for longer than a cooldown is tried again at once"),
    ],
)
def test_a_wait_counts_from_the_slots_last_start(failures: int, lived: float, wait: float) -> None:
    tested = budget()
    for _ in range(failures - 1):
        tested.failed(1, 0)
    tested.started(1, 0)

    verdict = tested.failed(1, lived)

    assert verdict.wait == wait
    assert not (wait and tested.may_start(1, lived + wait - 0.01))
    assert tested.may_start(1, lived + wait)


@pytest.mark.parametrize(
    ("failures", "up", "wait"),
    [
        pytest.param(3, 1, 2, id="a delay below delay_max, while a sibling is up"),
        pytest.param(3, 0, 2, id="is the same while none is up"),
        pytest.param(4, 1, 50, id="a cooldown is whole while a sibling is up"),
        pytest.param(4, 0, 3, id="and is cut to delay_max while none is up"),
        pytest.param(9, 0, 3, id="so is each further one, for as long as the outage lasts"),
    ],
)
def test_while_no_worker_is_up_no_wait_is_longer_than_delay_max(failures: int, up: int, wait: float) -> None:
    tested = budget()
    tested.up = up

    waits = [tested.failed(1, 0).wait for _ in range(failures)]

    assert (waits[-1], tested.wait(1, 0), tested.may_start(1, wait)) == (wait, wait, True)


def test_the_wait_of_a_cooling_slot_shrinks_when_the_last_worker_goes_and_grows_when_one_comes_up() -> None:
    tested = cooled(1)
    waits = []
    for up in (1, 0, 1):
        tested.up = up
        waits.append((tested.wait(1, 10), tested.next_try(10)))

    assert waits == [(40, 40), (0, 0), (40, 40)]


@pytest.mark.parametrize(
    ("up_for", "killed", "alone", "served"),
    [
        pytest.param(SERVED, True, False, True, id="killed from outside, while a sibling is up"),
        pytest.param(SERVED, False, True, True, id="whatever ended it, while none is up"),
        pytest.param(SERVED, True, True, True, id="both"),
        pytest.param(SERVED, False, False, False, id="its own crash, while a sibling is up"),
        pytest.param(SERVED - 0.1, True, True, False, id="both, and it died young"),
        pytest.param(0.0, True, True, False, id="it was never up"),
    ],
)
def test_who_has_served_for_long_enough(up_for: float, killed: bool, alone: bool, served: bool) -> None:
    assert has_served(up_for, killed=killed, alone=alone) is served


USED_UP = "restart budget used up, but it ran for long enough: next try at once"


@pytest.mark.parametrize(
    ("up", "lives", "waits"),
    [
        pytest.param(0, [(9.9, True)] * 6, [0] * 6, id="the only one, killed ten seconds apart"),
        pytest.param(1, [(9.9, True)] * 6, [0] * 6, id="one of two, killed ten seconds apart"),
        pytest.param(0, [(9.9, False)] * 6, [0] * 6, id="the only one, which crashes"),
        pytest.param(1, [(9.9, False)] * 6, [0, 0, 0, 40, 40, 40], id="one of two that crashes cools down"),
        pytest.param(0, [(0.3, True)] * 6, [0, 0.6, 1.6, 2.6, 2.6, 2.6], id="the only one, killed young, is paced"),
        pytest.param(0, [(0.3, False)] * 6, [0, 0.6, 1.6, 2.6, 2.6, 2.6], id="so is one that crashes young"),
        pytest.param(
            1, [(9.9, True)] * 4 + [(0.3, True), (9.9, True)], [0, 0, 0, 0, 49.6, 0], id="only one died young"
        ),
    ],
)
def test_a_worker_that_has_served_waits_for_no_budget(
    up: int, lives: list[tuple[float, bool]], waits: list[float]
) -> None:
    """Each life: for how long it was up, after a start of 0.1 s, and whether it was killed from outside."""
    tested, now, told = budget(), 0.0, []
    tested.up = up
    for up_for, killed in lives:
        tested.started(1, now)
        now += 0.1 + up_for
        told.append(tested.failed(1, now, up_for=up_for, killed=killed))
        assert tested.wait(1, now) == told[-1].wait
        now += told[-1].wait
        assert tested.may_start(1, now + 1e-9)

    assert [decision.wait for decision in told] == pytest.approx(waits)
    assert [decision.cooling for decision in told] == [False] * 3 + [True] * 3
    assert all((decision.reason == USED_UP) == (not decision.wait) for decision in told[3:])


def test_the_pace_of_restart_delay_holds_for_a_worker_that_has_served_too() -> None:
    tested = budget(RestartLimits(burst=2, window=600, delay=20, delay_max=60, cooldown=300))
    for _ in range(4):
        tested.failed(1, 0, up_for=9, killed=True)
    tested.started(1, 0)

    assert tested.failed(1, 10, up_for=9, killed=True).wait == 10


def test_a_slot_that_waits_after_its_own_crash_is_tried_when_the_last_worker_goes() -> None:
    tested = cooled(1)
    tested.started(1, 50)
    tested.failed(1, 60, up_for=9)
    waits = []
    for tested.up in (1, 0):
        waits.append(tested.wait(1, 60))

    assert waits == [40, 0]


def test_a_worker_that_has_served_waits_for_no_other_slots_try() -> None:
    tested = cooled(1, 2)
    tested.started(2, 40)
    tested.started(1, 50)

    tested.failed(2, 51, up_for=9, killed=True)

    assert (tested.is_cooling(2, 51), tested.may_start(2, 51)) == (True, True)


def excuse(tested: RestartBudget, slot: int, now: float, started: float) -> RestartDecision:
    return tested.excuse(slot, now, started=started, why="poison")


def test_a_failure_that_is_excused_costs_nothing_but_a_wait() -> None:
    tested = budget()

    assert [excuse(tested, 1, now, now - 0.25) for now in range(40)] == [
        RestartDecision(0.75, False, 0, "poison; not counted against the restart budget")
    ] * 40
    assert (tested.may_start(1, 39.7), tested.may_start(1, 39.8)) == (False, True)
    assert (tested.used(40), tested.failures(1, 40), tested.next_try(40)) == (0, 0, None)


def test_what_lived_for_longer_than_the_delay_starts_again_at_once_after_an_excuse() -> None:
    assert excuse(budget(), 1, 10, 8).wait == 0


def test_a_failure_that_is_given_back_is_none() -> None:
    """Given a slot that cools because of its failures, when one of them was not its own, then it cools no more."""
    tested = cooled(1)
    assert tested.used(3) == LIMITS.burst

    tested.give_back(1, 2.5)  # no such failure
    assert tested.is_cooling(1, 3)
    tested.give_back(1, 0)
    assert not tested.is_cooling(1, 3)
    assert (tested.failures(1, 3), tested.used(3)) == (LIMITS.burst - 1, LIMITS.burst - 1)
    tested.give_back(7, 0)  # no such slot


def test_after_an_excuse_no_start_is_free_for_a_window() -> None:
    tested = budget()
    tested.failed(1, 0)
    tested.give_back(1, 0)

    tested.started(1, 10)
    assert tested.failed(1, 10).wait == LIMITS.delay
    tested = budget()
    excuse(tested, 1, 0, 0)
    tested.started(1, LIMITS.window + 1)
    assert tested.failed(1, LIMITS.window + 1).wait == 0


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["", "a", "b", "c"]), st.floats(0, 1.5)), min_size=20, max_size=120
    )
)
def test_whatever_workers_claim_of_their_requests_restarts_keep_a_pace(steps: list[tuple[int, str, float]]) -> None:
    """Given workers that die as soon as they may, each by the request that it claims, then in a window at most one
    start of a slot comes sooner than `restart.delay` after the last one."""
    tested, poisons, now = budget(slots=3), Poisons(), 0.0
    started: dict[int, list[float]] = {slot: [0.0] for slot in (1, 2, 3)}
    for slot, claim, lived in steps:
        now = max(now, started[slot][-1] + lived)
        earlier = poisons.died(claim, "x", slot=slot, now=now) if claim else None
        for other, failed_at in earlier or ():
            tested.give_back(other, failed_at)
        wait = tested.failed(slot, now).wait if earlier is None else excuse(tested, slot, now, started[slot][-1]).wait
        while not tested.may_start(slot, now):
            now += max(0.05, tested.wait(slot, now) if wait else 0.05)
        tested.started(slot, now)
        started[slot].append(now)

    for at in started.values():
        soon = [later for sooner, later in pairwise(at) if later - sooner < LIMITS.delay - 1e-6]
        assert all(later - sooner > LIMITS.window for sooner, later in pairwise(soon))
