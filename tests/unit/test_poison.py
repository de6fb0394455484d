"""A request that ends worker after worker is poison; a busy route beside deaths of another cause is not."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xboard_circus.core.causes import Cause
from xboard_circus.core.poison import DEATHS, MOST_ROUTES, WINDOW, Poisons, suspect
from xboard_circus.core.sentences import Say

GOOD = ("GET /fast",) * 20
DIE = "GET /die/{id}"


def told(*requests: tuple[str, str], others: int = 0, age: float = 0.1) -> dict[str, Any]:
    """The requests in flight, each with its route and state."""
    shown = []
    for name, state in requests:
        method, _, route = name.partition(" ")
        shown.append({"method": method, "route": route, "state": state, "age": age, "id": "a-1"})
    return {"requests": shown, "requests_others": others}


ALONE = told((DIE, "last"))
BESIDE = told((DIE, "last"), ("GET /fast", "in flight"))
RAN = told((DIE, "running"), ("GET /fast", "in flight"))
UNSURE = told((DIE, "in flight"), ("GET /fast", "in flight"))
HUNG = Say.HUNG(why="no answer")


def blamed(seen: dict[str, Any], cause: Cause = Cause.CRASH, code: int | None = 7, **more: Any) -> str:
    reason = more.pop("reason", "it ended")
    return suspect(seen, cause, reason, code, **{"up_for": 60.0, "answered": GOOD, **more})


@pytest.mark.parametrize(
    ("seen", "cause", "code", "reason"),
    [
        pytest.param(ALONE, Cause.CRASH, 7, "", id="an exit, alone in flight"),
        pytest.param(BESIDE, Cause.CRASH, -11, "", id="SIGSEGV, began last"),
        pytest.param(BESIDE, Cause.CRASH, -6, "", id="an abort"),
        pytest.param(BESIDE, Cause.EXITED, 0, "", id="exit code 0 unasked"),
        pytest.param(RAN, Cause.UNHEALTHY, -6, HUNG, id="a hang, in its task"),
        pytest.param(BESIDE, Cause.UNHEALTHY, -6, HUNG, id="a hang with the GIL held"),
        pytest.param(told((DIE, "in flight")), Cause.OUT_OF_MEMORY, -9, "", id="out of memory, alone in flight"),
    ],
)
def test_what_the_app_did_in_a_request_speaks_against_its_route(
    seen: dict[str, Any], cause: Cause, code: int, reason: str
) -> None:
    assert blamed(seen, cause, code, reason=reason) == DIE


@pytest.mark.parametrize(
    ("cause", "code", "reason"),
    [
        pytest.param(Cause.KILLED, -9, "", id="SIGKILL by nobody knows whom"),
        pytest.param(Cause.COMMANDED, -9, "", id="an operator, a reload, recycling"),
        pytest.param(Cause.UNHEALTHY, -15, Say.SICK(why="500"), id="sick: its live path failed"),
        pytest.param(Cause.CRASH, -1, "", id="SIGHUP of another"),
        pytest.param(Cause.CRASH, -40, "", id="a signal without a name"),
        pytest.param(Cause.FAILED_START, 1, "", id="it was not up yet"),
        pytest.param(Cause.UNKNOWN, None, "", id="nobody saw the end"),
    ],
)
def test_what_others_did_speaks_against_none(cause: Cause, code: int | None, reason: str) -> None:
    assert blamed(ALONE, cause, code, reason=reason) == ""


@pytest.mark.parametrize(
    ("seen", "more"),
    [
        pytest.param(BESIDE, {"answered": (*GOOD, DIE)}, id="the worker answered others of that route"),
        pytest.param(told((DIE, "last"), others=1), {}, id="too many in flight"),
        pytest.param(told((DIE, "last"), age=31.0), {}, id="it lasts long, so it is always in flight"),
        pytest.param(told(("WEBSOCKET /ws", "last")), {}, id="a WebSocket"),
        pytest.param(ALONE, {"up_for": 0.2, "answered": GOOD[:2]}, id="it had just come up: perhaps its start"),
        pytest.param(told(), {}, id="none in flight"),
        pytest.param(UNSURE, {"cause": Cause.OUT_OF_MEMORY, "code": -9}, id="out of memory, one of two"),
    ],
)
def test_a_guess_is_not_believed_of(seen: dict[str, Any], more: dict[str, Any]) -> None:
    assert blamed(seen, **more) == ""


def test_a_young_workers_death_speaks_against_a_route_that_others_spoke_against() -> None:
    poisons = Poisons()
    young: dict[str, Any] = {"up_for": 0.2, "answered": GOOD[:2]}
    assert blamed(ALONE, **young, suspected=poisons.suspected(0)) == ""
    died(poisons, DIE, 0)
    assert blamed(ALONE, **young, suspected=poisons.suspected(1)) == DIE
    assert blamed(ALONE, Cause.FAILED_START, **young, suspected=poisons.suspected(1)) == DIE
    assert blamed(told(("GET /other", "last")), **young, suspected=poisons.suspected(1)) == ""
    assert blamed(ALONE, **young, suspected=poisons.suspected(WINDOW)) == ""


def test_what_ran_in_a_hung_loop_is_known_whatever_else_is_true() -> None:
    answered = (DIE,) * 30
    assert blamed(told((DIE, "running"), others=9, age=99.0), Cause.UNHEALTHY, reason=HUNG, answered=answered) == DIE


def died(poisons: Poisons, route: str, *times: float, slot: int = 1) -> list[Any]:
    return [poisons.died(route, f"id-{now:g}", slot=slot, now=now) for now in times]


@pytest.mark.parametrize(
    ("times", "news"),
    [
        ([0, 1, 2], [None, None, ((1, 0), (1, 1))]),
        ([0, 300, 599], [None, None, ((1, 0), (1, 300))]),
        ([0, 300, 600], [None, None, None]),
        ([0, 300, 600, 899], [None, None, None, ((1, 300), (1, 600))]),
        ([0, 1, 2, 3, 601, 1200], [None, None, ((1, 0), (1, 1)), (), (), ()]),
        ([0, 1, 2, 602], [None, None, ((1, 0), (1, 1)), None]),
    ],
)
def test_three_deaths_within_ten_minutes_are_poison(times: list[float], news: list[Any]) -> None:
    assert died(Poisons(), DIE, *times) == news


def test_each_route_is_counted_alone_and_the_last_one_is_told_of() -> None:
    poisons = Poisons()
    assert died(poisons, "GET /a", 0, 1) == [None, None]
    assert died(poisons, "GET /b", 2, 3, 4)[-1] == ((1, 2), (1, 3))
    assert list(poisons.routes(5)) == ["GET /b"]
    assert died(poisons, "GET /a", 41) == [((1, 0), (1, 1))]

    assert poisons.routes(50) == {"GET /b": 604, "GET /a": 641}
    assert poisons.reason(50) == "poison: GET /a ended 3 workers within 41 s; last request id-41"
    poisons.clear()
    assert poisons.reason(50) == ""


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 400)), max_size=400))
def test_what_is_kept_is_bounded_and_poison_never_without_three_deaths_in_the_window(
    history: list[tuple[int, float]],
) -> None:
    poisons, now, by_route = Poisons(), 0.0, dict[str, list[float]]()
    for number, gap in history:
        now += gap
        route = f"GET /{number}"
        by_route.setdefault(route, []).append(now)
        news = poisons.died(route, "x", slot=number, now=now)
        recent = [at for at in by_route[route] if at > now - WINDOW]
        if news:
            assert len(recent) >= DEATHS
            assert [at for _, at in news] == recent[-DEATHS:-1]
        assert len(poisons._routes) <= MOST_ROUTES


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 1 / 48, 1 / 25, 0.002])
def test_a_busy_route_is_not_blamed_for_deaths_of_another_cause(share: float) -> None:
    """Given workers that crash in a thread of theirs while they answer, ten times in ten minutes, a hundred times over,
    then next to no route of any share of the traffic is called poison, though one began last each time."""
    dice, found = random.Random(11), 0
    for _ in range(100):
        poisons = Poisons()
        for number in range(10):
            routes = ["GET /a" if dice.random() < share else f"GET /{dice.random()}" for _ in range(40)]
            *answered, last = routes
            if last == "GET /a" and (route := blamed(told((last, "last")), answered=answered)):
                found += bool(poisons.died(route, "x", slot=1, now=number * 50.0))
    assert found == 0
