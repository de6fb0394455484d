"""What one sink is told: once, again as a reminder, at the end; and never more than its limit."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xboard_circus.core.alert_gate import HOUR, About, Gate, GateRules, Notice, restored, saved
from xboard_circus.core.alerting import Incident, Severity, Trouble

DOWN = Incident("web", Trouble.DOWN, opened_at=0, reason="no worker ready")
LOOP = Incident("web", Trouble.CRASH_LOOP, opened_at=0, reason="5 failures")
DEATH = Incident("web", Trouble.RESTART, opened_at=0, reason="died by SIGSEGV")


def abouts(notices: list[Notice]) -> list[str]:
    return [notice.about.value for notice in notices]


def test_it_is_told_once_and_at_the_end() -> None:
    gate = Gate(GateRules(remind_every=0))

    assert abouts(gate.review([DOWN], [], 1)) == ["problem"]
    assert gate.review([DOWN], [], 10_000) == []
    (end,) = gate.review([], [DOWN], 20_000)
    assert (end.about, end.since, end.at) == (About.RECOVERED, 0, 20_000)
    assert gate.review([], [], 30_000) == []


@pytest.mark.parametrize(
    ("rules", "heard"),
    [(GateRules(), ["recovered"]), (GateRules(on=frozenset({Trouble.DOWN})), [])],
    ids=["wanted", "not wanted"],
)
def test_only_of_a_lost_circusd_the_end_is_told_to_who_never_heard_of_it(rules: GateRules, heard: list[str]) -> None:
    lost = Incident("circusd", Trouble.LOST, opened_at=0, reason="killed", ending="killed")

    assert abouts(Gate(rules).review([], [lost, DOWN], 1)) == heard


def test_reminders_come_as_often_as_asked_and_fold() -> None:
    gate = Gate(GateRules(remind_every=60))
    first = gate.review([DOWN], [], 0)
    reminders = [notice for now in range(1, 200) for notice in gate.review([DOWN], [], now)]

    assert [notice.at for notice in reminders] == [60, 120, 180]
    assert len({notice.fold for notice in reminders}) == 1
    assert first[0].fold == ""


def test_the_same_trouble_of_another_time_is_told_anew() -> None:
    gate = Gate(GateRules())
    gate.review([DOWN], [], 0)
    later = Incident("web", Trouble.DOWN, opened_at=50, reason="again")

    assert abouts(gate.review([later], [DOWN], 50)) == ["recovered", "problem"]


@pytest.mark.parametrize(
    ("rules", "heard"),
    [
        (GateRules(), {Trouble.DOWN, Trouble.CRASH_LOOP}),
        (GateRules(min_severity=Severity.INFO), {Trouble.DOWN, Trouble.CRASH_LOOP, Trouble.RESTART}),
        (GateRules(min_severity=Severity.CRITICAL), {Trouble.DOWN}),
        (GateRules(on=frozenset({Trouble.RESTART}), min_severity=Severity.CRITICAL), {Trouble.RESTART}),
    ],
)
def test_a_sink_hears_what_it_wants(rules: GateRules, heard: set[Trouble]) -> None:
    gate = Gate(rules)

    assert {notice.trouble for notice in gate.review([DOWN, LOOP, DEATH], [], 0)} == heard
    assert {notice.trouble for notice in gate.review([], [DOWN, LOOP, DEATH], 0)} == heard


def test_what_was_never_told_has_no_end_to_tell() -> None:
    assert Gate(GateRules()).review([], [DOWN], 5) == []


def incident(number: int) -> Incident:
    return Incident(f"w{number}", Trouble.CRASH_LOOP, opened_at=number, reason="5 failures")


def test_past_the_limit_alerts_are_held_back_and_told_in_one() -> None:
    gate = Gate(GateRules(max_per_hour=3, remind_every=0))
    admitted = [notice for number in range(8) for notice in gate.review([incident(number)], [], number)]

    assert abouts(admitted) == ["problem"] * 3
    assert [notice.note for notice in admitted] == [
        "",
        "",
        "max_per_hour = 3 is reached: further alerts that are not critical are held back for 60 min",
    ]
    assert gate.review([], [], HOUR - 1) == []
    (summary,) = gate.review([], [], HOUR)
    assert (summary.about, summary.count, summary.since) == (About.HELD_BACK, 5, 3)
    assert summary.reason.startswith("5 alerts were held back by max_per_hour: w3 crash loop (problem), w4 crash loop")
    assert gate.review([], [], HOUR + 1) == []


def test_what_is_critical_is_never_held_back_and_an_end_never_counts() -> None:
    gate = Gate(GateRules(max_per_hour=2, remind_every=0))
    told = []
    for number in range(3):
        told += abouts(gate.review([incident(number)], [], number))
        told += abouts(gate.review([], [incident(number)], number))
    assert told == ["problem", "recovered", "problem", "recovered"]

    assert abouts(gate.review([DOWN], [], 10)) == ["problem"]
    assert abouts(gate.review([], [DOWN], 20)) == ["recovered"]
    assert gate.memory.held_count == 2


def test_what_was_stopped_has_not_recovered() -> None:
    gate = Gate(GateRules())
    gate.review([DOWN], [], 0)

    assert abouts(gate.review([], [replace(DOWN, is_well=False, ending="the watcher was stopped")], 5)) == ["stopped"]


def test_a_summary_of_many_names_the_last() -> None:
    gate = Gate(GateRules(max_per_hour=1, remind_every=0))
    for number in range(100):
        gate.review([incident(number)], [], 1)
    (summary,) = gate.review([], [], HOUR + 1)

    assert summary.count == 99
    assert "89 earlier ones, w90 crash loop (problem)" in summary.reason


@given(st.lists(st.tuples(st.integers(0, 900), st.booleans()), max_size=60), st.integers(1, 5))
def test_no_hour_has_more_than_the_limit_and_nothing_is_lost(steps: list[tuple[int, bool]], limit: int) -> None:
    gate = Gate(GateRules(max_per_hour=limit, remind_every=0))
    now, told, wanted = 0, list[Notice](), 0
    for pause, is_new in steps:
        now += pause
        wanted += is_new
        told += gate.review([incident(wanted)] if is_new else [], [], now)
    told += gate.review([], [], now + HOUR)

    for notice in told:
        assert sum(1 for other in told if notice.at <= other.at < notice.at + HOUR) <= limit
    assert sum(notice.count if notice.about is About.HELD_BACK else 1 for notice in told) == wanted


def test_a_gate_goes_on_after_a_restart_where_it_left_off() -> None:
    gate = Gate(GateRules(max_per_hour=2, remind_every=60))
    gate.review([incident(1), incident(2), incident(3)], [], 10)

    data = json.loads(json.dumps(saved(gate.memory, shift=1000)))
    again = Gate(gate.rules, restored(data, shift=-1000))

    assert again.memory == gate.memory
    assert Counter(abouts(again.review([incident(1)], [incident(2)], 40))) == Counter()
    assert again.memory.held_count == 2


def test_a_clock_that_was_set_back_meanwhile_holds_no_alert_back_for_as_long() -> None:
    """Given alerts that were sent in what is the future now, when an hour is over, then reminders and others come."""
    gate = Gate(GateRules(max_per_hour=1, remind_every=60))
    gate.review([incident(1)], [], 6 * HOUR)

    again = Gate(gate.rules, restored(saved(gate.memory, shift=0), shift=0, now=10))

    assert abouts(again.review([incident(1)], [], 10 + HOUR)) == ["reminder"]


@pytest.mark.parametrize("data", [{}, {"told": [[1]]}, {"told": [["w", "x", 1, 1]], "held_count": 1, "held_since": 1}])
def test_a_strange_memory_is_refused(data: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        restored(data, shift=0)
