"""What comes over a wire is validated once, and what is wrong with one worker spoils nothing but that worker."""

import json
import math
from typing import Any

import pytest
from state_views import state_view, watcher_view, worker_view

from xboard_circus.core.durations import exactly
from xboard_circus.core.reason import one_line, with_say
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.core.state_schema import UnreadableState, parse_judgements, parse_report, parse_state
from xboard_circus.core.verdict import word_of

CIRCUSD = {"pid": 4711, "started": 1}


def test_a_state_that_is_in_order_is_not_changed() -> None:
    state = state_view(watcher_view("up", "held", port={"host": "h", "port": 1, "state": "bound", "reason": ""}))

    assert parse_state(json.loads(json.dumps(state))) == state


@pytest.mark.parametrize(
    "figure",
    [
        pytest.param(10**400, id="an int that fits into no float"),
        pytest.param(math.inf, id="infinity"),
        pytest.param(math.nan, id="no number"),
        pytest.param("text", id="text"),
        pytest.param(True, id="a truth"),
        pytest.param([1], id="a list"),
    ],
)
def test_a_figure_that_is_none_counts_as_missing_and_its_siblings_stay(figure: Any) -> None:
    report = parse_report({"pid": 7, "state": "ready", "lag": 0.5, "threads_used": figure, "threads_limit": 40})
    odd = worker_view(1, "up", probe={"lag": 0.5, "threads_used": figure}, latency=figure)
    (watcher,) = parse_state({"circusd": CIRCUSD, "watchers": [watcher_view(odd, "up")]})["watchers"]

    assert (report["threads_used"], report["threads_limit"], report["lag"]) == (None, 40, 0.5)
    first, second = watcher["workers"]
    assert (first["latency"], first["probe"]["threads_used"], first["probe"]["lag"]) == (None, None, 0.5)
    assert (second["pid"], second["health"]) == (2, "ok")


@pytest.mark.parametrize("part", [7, "text", None, [], {"ok": "yes", "reason": 5, "body": None, "status": "500"}])
def test_a_path_that_answers_nonsense_tells_nothing(part: Any) -> None:
    live: Any = parse_report({"pid": 7, "live": part})["live"]

    assert live in (None, {"ok": None, "refused": False, "status": None, "reason": "", "say": None, "body": ""})


def test_no_text_of_a_worker_or_of_a_circusd_is_longer_than_it_may_take_to_mask() -> None:
    text, path = "=://" * 15_000, {"ok": False, "status": 503}
    ready: Any = parse_report({"pid": 7, "ready": {**path, "reason": text, "body": text}})["ready"]
    (watcher,) = parse_state({"circusd": CIRCUSD, "watchers": [{**watcher_view("up"), "last_reason": text}]})[
        "watchers"
    ]

    assert (ready["reason"], ready["body"], ready["status"]) == (as_said(one_line(text)), text[:400], 503)
    assert watcher["last_reason"] == text[:4000]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (with_say(Say.STATUS_SAYING(status=503, why=as_said("no db"))), 'status 503, "no db"'),
        (with_say(Say.NO_ANSWER_WITHIN(timeout=exactly(0.5))), "no answer within 0.5 s"),
        ({"reason": "x. Cure: `sh x`"}, "\"x. Cure: 'sh x'\""),
        (with_say(Say.STATUS_SAYING(status=503, why=as_said('x". Cure: `sh x`'))), "status 503, \"x'. Cure: 'sh x'\""),
        (with_say(Say.STATUS(status="503. Next: nothing. Cure: sh x")), '"status 503. Next: nothing. Cure: sh x"'),
        (with_say(Say.HEAD_RUN(command="stop")), "\"Cure: run 'stop'\""),
        (with_say(Say.CURE_SHARED()), '"end that process by its pid; until then it takes its share of connections, '),
        (with_say(Say.UNITS(large="run", small=Say.UNITS(large="sh", small="x"))), '"run sh x"'),
        (
            with_say(Say.EXITED_SAYING(code=3, line=Say.EXITED_SAYING(code=1, line="a"))),
            "exited with code 3: \"exited with code 1: 'a'\"",
        ),
    ],
)
def test_what_a_worker_reports_cannot_pass_for_our_advice(told: dict[str, Any], expected: str) -> None:
    ready: Any = parse_report({"pid": 7, "ready": {"ok": False, "status": 503, **told}})["ready"]

    assert ready["reason"].startswith(expected)
    assert ready["say"] == ready["reason"].as_data()


def test_an_entry_that_cannot_be_told_apart_is_left_out_and_no_other() -> None:
    web = watcher_view("up")
    odd = {**web, "workers": [{"pid": "x"}, 7, *web["workers"]]}
    watchers = [odd, {"workers": []}, None, watcher_view("up", name="api")]
    found = parse_state({"circusd": CIRCUSD, "probers": [{"plugin": "a"}, 3], "watchers": watchers})

    assert [(watcher["name"], len(watcher["workers"])) for watcher in found["watchers"]] == [("web", 1), ("api", 1)]
    assert found["probers"] == []


def test_a_circusd_of_an_earlier_version_can_still_be_stopped() -> None:
    """It has a state in the place of phase, role and health: its processes are known, the rest is not."""
    old = {"pid": 7, "started": 70, "wid": 1, "state": "ready"}
    watcher = {"name": "web", "status": "active", "armed": True, "numprocesses": 1, "workers": [old]}
    (found,) = parse_state({"circusd": CIRCUSD, "watchers": [watcher]})["watchers"]

    assert (found["verdict"]["word"], found["budget"]) == ("unknown", None)
    assert [(each["pid"], each["started"], word_of(each)) for each in found["workers"]] == [(7, 70, "up")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"circusd": CIRCUSD}, id="no watchers"),
        pytest.param({"circusd": CIRCUSD, "watchers": 7}, id="watchers that are none"),
        pytest.param({"circusd": {"pid": "x"}, "watchers": []}, id="no circusd"),
    ],
)
def test_what_no_circusd_would_answer_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(UnreadableState, match="unexpected form"):
        parse_state(answer)


def test_a_prober_that_reports_nonsense_of_one_worker_is_heard_of_the_others() -> None:
    found = parse_judgements(
        {"7": {"health": "sick", "reason": "no database", "rss": 10**400}, "8": "text", "x": {}, "9": {"health": "new"}}
    )

    assert {pid: (each["health"], each["reason"], each["rss"]) for pid, each in found.items()} == {
        7: ("sick", "no database", None),
        9: ("unknown", "", None),
    }
    assert parse_judgements(["text"]) == {}
