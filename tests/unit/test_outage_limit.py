from typing import Any

import pytest
from state_views import watcher_view

from xboard_circus.core.outage_limit import LONGEST_STEP, Outage, Patience, outages_of

DOWN = [Outage("xboard", "exited with code 3")]
UP: list[Outage] = []
VERDICT = "xboard could not be kept up for 10 s: exited with code 3"


def looks(patience: Patience, *seen: tuple[float, list[Outage]]) -> list[str | None]:
    return [patience.look(now, outages) for now, outages in seen]


def test_what_is_down_all_along_is_given_up_at_the_limit() -> None:
    assert looks(Patience(10.0), *((float(now), DOWN) for now in range(12)))[9:11] == [None, VERDICT]


def test_a_limit_of_zero_is_for_ever() -> None:
    assert set(looks(Patience(0.0), *((float(now), DOWN) for now in range(0, 10_000, 5)))) == {None}


def test_as_much_time_up_as_down_is_forgiven() -> None:
    seen = [(float(now), DOWN if now % 8 < 4 else UP) for now in range(1000)]

    assert set(looks(Patience(10.0), *seen)) == {None}


def test_a_backend_that_is_up_for_a_moment_only_is_given_up_later() -> None:
    seen = [(float(now), UP if now % 5 == 4 else DOWN) for now in range(60)]
    verdicts = looks(Patience(10.0), *seen)

    given_up_at = next(now for now, verdict in enumerate(verdicts) if verdict)
    assert 10 < given_up_at < 40


def test_a_long_time_up_is_no_credit() -> None:
    patience = Patience(10.0)
    looks(patience, *((float(now), UP) for now in range(100)))

    assert looks(patience, *((100.0 + now, DOWN) for now in range(11)))[-1] == VERDICT


def test_a_pause_of_our_own_counts_for_little() -> None:
    assert looks(Patience(10.0), (0.0, DOWN), (3600.0, DOWN)) == [None, None]
    assert LONGEST_STEP < 10


def test_a_clock_that_stands_still_adds_nothing() -> None:
    assert set(looks(Patience(10.0), *((5.0, DOWN) for _ in range(100)))) == {None}


def test_each_watcher_has_an_account_of_its_own() -> None:
    """Two watchers that are down in turns are not one that is down for long; the worst is named."""
    patience = Patience(10.0)
    reports = Outage("reports", "no such table")
    for now in range(6):
        patience.look(float(now), DOWN)
    verdicts = [patience.look(float(now), [*DOWN, reports]) for now in range(6, 11)]

    assert verdicts == [None, None, None, None, VERDICT]


def test_without_a_reason_there_is_none() -> None:
    assert looks(Patience(1.0), (0.0, [Outage("web", "")]), (1.0, [Outage("web", "")]))[-1] == (
        "web could not be kept up for 1 s"
    )


# -- what counts as down --


def watcher(*words: str, **other: Any) -> Any:
    return watcher_view(*words, **{"name": "xboard", "numprocesses": 2, **other})


@pytest.mark.parametrize("word", ["up", "busy", "failing", "sick", "not ready"])
def test_one_worker_that_serves_is_service(word: str) -> None:
    assert outages_of([watcher("held", word)]) == []


@pytest.mark.parametrize("word", ["held", "hung", "leaving"])
def test_what_does_not_serve_is_none(word: str) -> None:
    assert [outage.name for outage in outages_of([watcher(word, word)])] == ["xboard"]


def test_a_first_start_is_no_outage() -> None:
    assert outages_of([watcher("starting", "starting")]) == []


@pytest.mark.parametrize(
    "meant", [{"status": "stopped"}, {"status": "stopping"}, {"numprocesses": 0}, {"armed": False}]
)
def test_what_is_meant_to_be_down_does_not_count(meant: dict[str, Any]) -> None:
    assert outages_of([watcher(**meant)]) == []


def test_a_dependency_that_is_down_is_no_outage_of_the_container() -> None:
    """A new container would meet the same."""
    assert outages_of([watcher("sick", "sick")]) == []


def test_a_page_that_is_down_is_no_outage() -> None:
    assert [each.name for each in outages_of([watcher("held"), watcher("held", name="page", is_page=True)])] == [
        "xboard"
    ]


@pytest.mark.parametrize(
    ("words", "other", "reason"),
    [
        (["held"], {"last_reason": "exited with code 3"}, "none of 2 workers is up: exited with code 3"),
        (
            ["held"],
            {"port": {"host": "h", "state": "refused", "port": 80, "reason": "by 7"}},
            "port 80: by 7",
        ),
        ([], {}, "none of 2 workers is up: it has no worker"),
    ],
)
def test_the_reason_is_the_cause_of_the_verdict(words: list[str], other: dict[str, Any], reason: str) -> None:
    assert outages_of([watcher(*words, **other)]) == [Outage("xboard", reason)]
