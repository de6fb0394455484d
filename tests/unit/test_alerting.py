"""What is an incident, and when it is over: events and states in, incidents out."""

from typing import Any

import pytest
from state_views import watcher_view, worker_view

from xboard_circus.core.alerting import Alerting, AlertRules, Severity, Trouble
from xboard_circus.core.durations import seconds
from xboard_circus.core.names import CIRCUSD
from xboard_circus.core.reason import data_of, with_say
from xboard_circus.core.sentences import Say

GIVEN_UP = (
    "the watcher was stopped",
    "circusd has no watcher of that name any more",
    "set to 0 workers",
)
RULES = AlertRules(down_after=10, recover_after=5)
UNWRITTEN = {"lost": 9, "file": "web.log", "reason": "web.log: full", "say": None}


def view(*words: str, name: str = "web", ready_for: float | None = 1000.0, **more: Any) -> Any:
    workers = [worker_view(pid, word) for pid, word in enumerate(words, start=1)]
    workers = [each if each["ready_for"] is None else {**each, "ready_for": ready_for} for each in workers]
    return watcher_view(*workers, **{"name": name, "options": {"restart.reset_after": 300.0}, **more})


def port(state: str, reason: str) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": 80, "state": state, "reason": reason}


def seen(alerting: Alerting) -> dict[tuple[str, str], int]:
    return {(watcher, trouble.value): each.count for (watcher, trouble), each in alerting.open.items()}


def endings(alerting: Alerting, *views: Any, now: float) -> list[tuple[str, str]]:
    over = alerting.observe(views, now)
    assert all(each.is_well == (each.ending not in GIVEN_UP) for each in over)
    return [(each.trouble.value, each.ending) for each in over]


def test_an_overload_is_over_when_no_worker_is_overloaded_any_more() -> None:
    """Given an event of an overloaded worker, then its incident lasts as long as the state shows the overload."""
    alerting, reason = Alerting(RULES), Say.FOUND(found=Say.FOUND_OVERLOADED(), why="no answer")
    overloaded = watcher_view({**worker_view(1, "busy"), **with_say(reason)})
    alerting.observe([overloaded], 0)
    alerting.observe([overloaded], 60)
    assert seen(alerting) == {}  # not by the state alone

    alerting.event("web", "unhealthy", with_say(reason), now=61)

    assert endings(alerting, overloaded, now=62) == endings(alerting, overloaded, now=100) == []
    assert endings(alerting, view("up"), now=101) == []
    assert [trouble for trouble, _ in endings(alerting, view("up"), now=107)] == ["unhealthy"]


@pytest.mark.parametrize(
    ("event", "data", "trouble"),
    [
        ("restart", {"cause": "crash", "failures": 1}, Trouble.RESTART),
        ("restart", {"cause": "crash", "failures": 3}, Trouble.CRASH_LOOP),
        ("restart", {"cause": "killed from outside"}, Trouble.RESTART),
        ("restart", {"cause": "commanded"}, None),
        ("cooldown", {}, Trouble.CRASH_LOOP),
        ("unhealthy", {}, Trouble.UNHEALTHY),
        ("port_refused", {}, Trouble.PORT_REFUSED),
        ("port_shared", {}, Trouble.PORT_SHARED),
        ("output_lost", {}, Trouble.OUTPUT_LOST),
        ("poison", {}, Trouble.POISON),
        ("output_back", {}, None),
        ("port_freed", {}, None),
        ("recovered", {}, None),
    ],
)
def test_what_an_event_opens(event: str, data: dict[str, Any], trouble: Trouble | None) -> None:
    alerting = Alerting(RULES)

    alerting.event("web", event, {"reason": "why\nso", **data}, now=7)

    assert [(each.trouble, each.reason, each.opened_at) for each in alerting.open.values()] == (
        [(trouble, "why so", 7)] if trouble else []
    )


def test_an_outage_keeps_the_data_of_its_reason() -> None:
    """Without them the reason of an alert in Chinese is in English."""
    alerting, why = Alerting(RULES), Say.EXITED(code=3)
    down = view("starting", last_reason=str.__str__(why), last_reason_say=why.as_data())
    for now in (0, 11):
        alerting.observe([down], now)

    reason = alerting.open["web", Trouble.DOWN].reason

    assert data_of(reason) == Say.NONE_UP_FOR_SAYING(held=seconds(11), why=why).as_data()


def test_what_is_told_again_is_counted_in_the_same_incident() -> None:
    alerting = Alerting(RULES)
    for failures in range(1, 8):
        alerting.event("web", "restart", {"cause": "crash", "failures": failures, "reason": f"no. {failures}"}, now=1)
    alerting.event("web", "cooldown", {"reason": "cooling down"}, now=1)

    # Of what became a loop only the beginning is an incident of its own; the death behind the cooldown counts once.
    assert seen(alerting) == {("web", "restart"): 2, ("web", "crash_loop"): 5}
    assert alerting.open["web", Trouble.CRASH_LOOP].reason == "cooling down"


def test_a_single_death_in_a_known_loop_belongs_to_it() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "cooldown", {}, now=1)
    alerting.event("web", "restart", {"cause": "crash", "failures": 1}, now=2)
    alerting.event("other", "restart", {"cause": "crash", "failures": 1}, now=2)

    assert seen(alerting) == {("web", "crash_loop"): 2, ("other", "restart"): 1}


@pytest.mark.parametrize(
    ("shown", "trouble", "reason"),
    [
        (view("up", port=port("refused", "nginx has it")), "port_refused", "nginx has it"),
        (view("up", port=port("bound", "nc shares it")), "port_shared", "nc shares it"),
        ({**view("hung", "up")}, "unhealthy", "hung"),
        (view("up", output=UNWRITTEN), "output_lost", "web.log: full"),
        (view("up", cooldown_until=12.0, last_reason="5 failures"), "crash_loop", "5 failures"),
    ],
    ids=["port", "shared", "hung", "output", "cooldown"],
)
def test_what_no_event_told_is_seen_in_the_state_once(shown: Any, trouble: str, reason: str) -> None:
    alerting = Alerting(RULES)
    for now in (1, 2.9):
        alerting.observe([shown], now)
    assert seen(alerting) == {}
    for now in (3, 4):
        alerting.observe([shown], now)

    assert seen(alerting) == {("web", trouble): 1}
    assert next(iter(alerting.open.values())).reason == reason


def test_a_watcher_is_down_when_none_of_its_workers_was_ready_for_a_while() -> None:
    alerting = Alerting(RULES)
    alerting.observe([view("starting", "hung", last_reason="exited with code 1")], 100)
    alerting.observe([view("starting", "held")], 109.9)
    assert ("web", Trouble.DOWN) not in alerting.open
    alerting.observe([view("starting", "held", last_reason="exited with code 1")], 110)

    down = alerting.open["web", Trouble.DOWN]
    assert (down.reason, down.opened_at) == ("no worker up for 10 s: exited with code 1", 100)
    assert down.trouble.severity is Severity.CRITICAL


def test_one_ready_worker_begins_the_time_anew() -> None:
    alerting = Alerting(RULES)
    for now in (0, 9):
        alerting.observe([view("starting")], now)
    alerting.observe([view("up")], 9.5)
    alerting.observe([view("starting")], 10)
    alerting.observe([view("starting")], 19)

    assert seen(alerting) == {}


@pytest.mark.parametrize("status", ["stopped", "stopping"])
def test_a_watcher_that_is_not_to_run_is_not_down(status: str) -> None:
    alerting = Alerting(RULES)
    for now in (0, 100):
        alerting.observe([view("leaving", status=status), view(name="plugin:xboard", numprocesses=1)], now)

    assert seen(alerting) == {}


@pytest.mark.parametrize("state", ["leaving", "hung"])
def test_who_cannot_serve_keeps_nobody_up(state: str) -> None:
    alerting = Alerting(RULES)
    for now in (0, 10):
        alerting.observe([view(state)], now)

    assert ("web", Trouble.DOWN) in alerting.open


def test_a_watcher_without_a_guard_may_start_on_demand() -> None:
    alerting = Alerting(RULES)
    for now in (0, 10):
        alerting.observe([view(armed=False, numprocesses=1)], now)

    assert seen(alerting) == {}


def test_the_limiters_own_stop_is_no_end_of_a_loop_where_there_is_no_guard() -> None:
    alerting = Alerting(RULES)
    running: dict[str, Any] = {"armed": False, "numprocesses": 1, "options": {}}
    alerting.event("web", "cooldown", {}, now=0)
    assert endings(alerting, view(status="stopped", **running), now=1) == []
    assert endings(alerting, view("up", ready_for=None, **running), now=300) == []
    assert endings(alerting, view("up", ready_for=None, **running), now=305) == [("crash_loop", "1 of 1 workers up")]


@pytest.mark.parametrize(
    ("commands", "ending"),
    [
        ([("stop", "circusctl")], [("crash_loop", "the watcher was stopped")]),
        ([("stop", Say.BY_LIMITER())], []),
        ([("stop", "circusctl"), ("start", "circusctl"), ("stop", Say.BY_LIMITER())], []),
        ([("stop", Say.BY_LIMITER()), ("stop", "dashboard")], [("crash_loop", "the watcher was stopped")]),
    ],
    ids=["an operator", "the limiter", "an operator, who started it again", "an operator in the cooldown"],
)
def test_an_operators_stop_ends_a_loop_where_there_is_no_guard(
    commands: list[tuple[str, str]], ending: list[tuple[str, str]]
) -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "cooldown", {}, now=0)
    for command, by in commands:
        alerting.event("web", "command", {"command": command, **with_say(by, "by")}, now=1)
    stopped = view(status="stopped", armed=False, numprocesses=1, options={})

    assert endings(alerting, stopped, now=2) == ending


def test_a_refused_port_is_not_told_as_down_too() -> None:
    alerting = Alerting(RULES)
    refused = view("held", port=port("refused", "nginx"))
    for now in (0, 10, 20):
        alerting.observe([refused], now)
    assert seen(alerting) == {("web", "port_refused"): 1}

    # When it is free the workers get their time to start.
    for now in (21, 26, 27):
        alerting.observe([view("held")], now)
    assert seen(alerting) == {}


def test_it_is_over_when_it_has_been_well_for_a_while() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "unhealthy", {}, now=0)
    assert endings(alerting, view("hung", "up"), now=1) == []
    assert endings(alerting, view("up", "up"), now=2) == []
    assert endings(alerting, view("up", "up"), now=6.9) == []
    assert endings(alerting, view("up", "up"), now=7) == [("unhealthy", "2 of 2 workers up")]
    assert seen(alerting) == {}


def test_what_flickers_stays_one_incident() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "unhealthy", {}, now=0)
    for now in range(0, 60, 4):
        assert endings(alerting, view("up"), now=now) == []
        assert endings(alerting, view("sick"), now=now + 2) == []

    assert seen(alerting) == {("web", "unhealthy"): 16}


def test_a_loop_is_over_when_every_worker_was_ready_for_the_time_of_the_limiter() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "cooldown", {}, now=0)
    assert endings(alerting, view("up", ready_for=299), now=300) == []
    assert endings(alerting, view("up", "held"), now=310) == []
    assert endings(alerting, view("up", cooldown_until=3), now=320) == []
    assert endings(alerting, view("up", ready_for=330), now=330) == []
    assert endings(alerting, view("up", ready_for=335), now=335) == [("crash_loop", "1 of 1 workers up")]


def test_lost_output_lasts_until_it_is_written_again() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "output_lost", {"reason": "web.log: full"}, now=0)

    assert endings(alerting, view("up", output=UNWRITTEN), now=100) == []
    assert endings(alerting, view("up"), now=101) == []
    assert endings(alerting, view("up"), now=101 + RULES.recover_after) == [("output_lost", "1 of 1 workers up")]


def test_poison_lasts_until_the_state_shows_none() -> None:
    """Given deaths by poison, then they are one incident with the reason of it, and no crash loop."""
    alerting = Alerting(RULES)
    poison = {"routes": ["GET /die"], "reason": "poison: GET /die", "say": None}
    death = {"cause": "crash", "failures": 0, "reason": "died by SIGSEGV", "poison": "poison: GET /die"}
    alerting.event("web", "restart", death, now=0)
    alerting.event("web", "poison", {"reason": "poison: GET /die"}, now=0)
    for now in range(1, 9):
        alerting.event("web", "restart", death, now=now)

    assert seen(alerting) == {("web", "poison"): 9}
    assert alerting.open["web", Trouble.POISON].reason == "poison: GET /die"
    assert endings(alerting, view("up", poison=poison), now=600) == []
    assert endings(alerting, view("up"), now=601) == []
    assert endings(alerting, view("up"), now=601 + RULES.recover_after) == [("poison", "1 of 1 workers up")]
    for now in (700, 703):
        alerting.observe([view("up", poison=poison)], now)
    assert seen(alerting) == {("web", "poison"): 1}


def test_an_operators_stop_ends_it_at_once() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "port_refused", {}, now=0)
    assert endings(alerting, view(status="stopping"), now=1) == []
    assert endings(alerting, view(status="stopped"), now=2) == [("port_refused", "the watcher was stopped")]


def test_a_watcher_that_is_gone_has_no_trouble() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "unhealthy", {}, now=0)
    assert endings(alerting, view("up", name="other"), now=1) == [
        ("unhealthy", "circusd has no watcher of that name any more")
    ]


def test_a_circusd_that_does_not_answer_is_told_and_its_answer_ends_it() -> None:
    alerting = Alerting(RULES)
    alerting.unanswered("silent for 2 s", now=0)
    alerting.observe([], now=5)
    for now in (6, 15.9):
        alerting.unanswered("silent for 2 s", now=now)
    assert seen(alerting) == {}
    for now in (16, 17):
        alerting.unanswered("silent for 2 s", now=now)

    silent = alerting.open[CIRCUSD, Trouble.SILENT]
    assert (silent.reason, silent.opened_at) == ("circusd has not answered for 10 s: silent for 2 s", 6)
    assert endings(alerting, now=18) == [("silent", "circusd answers again")]


def test_a_lost_circusd_is_over_when_another_has_answered_for_a_while_and_one_lost_again_is_the_same() -> None:
    alerting = Alerting(RULES)
    alerting.lost("pid 7 was killed", now=0)
    assert endings(alerting, view("up"), now=10) == []
    alerting.lost("pid 8 was killed", now=12)
    alerting.lost_before("pid 8 was killed", now=13, at=12, was_reported=True)
    assert seen(alerting) == {("circusd", "lost"): 2}
    assert alerting.open[CIRCUSD, Trouble.LOST].trouble.severity is Severity.CRITICAL

    assert endings(alerting, view("up"), now=14) == []
    alerting.lost_before("pid 9 was killed", now=16, at=15, was_reported=False)
    assert seen(alerting) == {("circusd", "lost"): 3}
    assert endings(alerting, view("up"), now=17) == []
    assert endings(alerting, view("up"), now=22) == [("lost", "circusd answers again")]


def test_a_circusd_that_was_silent_and_is_gone_is_one_trouble() -> None:
    alerting = Alerting(RULES)
    for now in (0, 10):
        alerting.unanswered("silent for 2 s", now=now)
    alerting.lost("the monitor ended it", now=11)
    alerting.lost_before("the monitor ended it", now=12, at=11, was_reported=True)

    assert seen(alerting) == {("circusd", "silent"): 2}
    assert endings(alerting, view("up"), now=12) == [("silent", "circusd answers again")]


def test_a_circusd_that_is_gone_and_answers_no_more_is_one_trouble() -> None:
    """Given a silence that is not long enough yet when circusd is killed, then it is no second incident."""
    alerting = Alerting(RULES)
    alerting.unanswered("silent for 2 s", now=0)
    alerting.lost("the watchdog ended it", now=5)
    alerting.unanswered("it has ended", now=60)

    assert seen(alerting) == {("circusd", "lost"): 1}


@pytest.mark.parametrize("was_reported", [True, False])
def test_a_loss_that_nobody_has_in_mind_is_over_as_soon_as_it_is_known(was_reported: bool) -> None:
    alerting = Alerting(RULES)
    alerting.lost_before("pid 7 was killed", now=12, at=3, was_reported=was_reported)

    assert seen(alerting) == {}
    assert endings(alerting, view("up"), now=12) == [("lost", "pid 7 was killed")]
    assert endings(alerting, view("up"), now=13) == []


def test_who_is_set_to_no_workers_is_down_and_no_other_trouble_of_it_counts_as_cured() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "unhealthy", {}, now=0)
    alerting.event("web", "cooldown", {}, now=0)
    assert endings(alerting, view(), now=1) == [
        ("unhealthy", "set to 0 workers"),
        ("crash_loop", "set to 0 workers"),
    ]
    assert endings(alerting, view(), now=11) == []

    down = alerting.open["web", Trouble.DOWN]
    assert down.reason.startswith(
        "no worker up for 10 s: set to 0 workers, so nothing answers: `xboard-circus scale web 1`"
    )
    assert endings(alerting, view("up"), now=12) == []
    assert endings(alerting, view("up"), now=17) == [("down", "1 of 1 workers up")]


def test_a_first_start_is_no_trouble_and_a_start_after_an_outage_no_recovery() -> None:
    alerting = Alerting(RULES)
    for now in (0, 10):
        assert alerting.observe([view("starting")], now) == []
    for now in (11, 21):
        alerting.observe([view("held")], now)

    assert seen(alerting) == {("web", "down"): 1}
    for now in (22, 40):
        assert endings(alerting, view("starting"), now=now) == []


def test_an_unhealthy_worker_is_over_when_its_successor_is_up() -> None:
    alerting = Alerting(RULES)
    alerting.event("web", "unhealthy", {}, now=0)
    for now in (1, 11, 31):
        assert endings(alerting, view("up", "starting"), now=now) == []
    for now, over in ((32, []), (38, [("unhealthy", "2 of 2 workers up")])):
        assert endings(alerting, view("up", "up"), now=now) == over


def test_a_watcher_that_was_down_and_is_set_to_no_workers_has_not_recovered() -> None:
    alerting = Alerting(RULES)
    for now in (0, 10):
        alerting.observe([view("held")], now)
    for now in (11, 20):
        assert endings(alerting, view(), now=now) == []
    assert endings(alerting, view(status="stopped"), now=21) == [("down", "the watcher was stopped")]
