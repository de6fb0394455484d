"""How a run of `run.before` is judged, when it is tried again, and what the verdict on its watcher is meanwhile."""

import pytest

from xboard_circus.core.durations import backoff
from xboard_circus.core.one_shot import RunEnd, failure_of
from xboard_circus.core.state_schema import watcher_entry
from xboard_circus.core.verdict import Preparation, judge
from xboard_circus.options.reading import parse_watcher


@pytest.mark.parametrize(
    ("end", "failure"),
    [
        pytest.param(RunEnd(code=0, output="done"), None, id="good"),
        pytest.param(RunEnd(code=3), "run.before exited with code 3", id="without a word"),
        pytest.param(RunEnd(code=1, output="a\nno such table \n\n"), "run.before exited with code 1: no such table"),
        pytest.param(RunEnd(code=137, output="Killed"), "run.before was killed by SIGKILL", id="a signal"),
        pytest.param(RunEnd(code=255), "run.before exited with code 255", id="no signal"),
        pytest.param(RunEnd(output="half"), "run.before was killed", id="its shell too"),
        pytest.param(
            RunEnd(output="xboard-circus launcher: no working directory /x"),
            "run.before cannot be run: no working directory /x",
            id="the launcher",
        ),
        pytest.param(RunEnd(not_run="too many open files"), "run.before cannot be run: too many open files"),
        pytest.param(
            RunEnd(timeout=300.0, output="half"),
            "run.before did not end within run.before_timeout = 300 s, and was killed",
        ),
        pytest.param(
            RunEnd(stopped=True, not_run="x"), "the watcher was stopped while run.before ran, which was ended"
        ),
    ],
)
def test_how_a_run_ended(end: RunEnd, failure: str | None) -> None:
    assert failure_of(end) == failure


def test_it_is_tried_again_by_the_rhythm_of_workers_while_none_is_up() -> None:
    assert [backoff(each, first=2, longest=10) for each in (1, 2, 3, 4, 9999)] == [2, 4, 8, 10, 10]


def judged(before: Preparation | None, predecessors: int = 0) -> tuple[object, ...]:
    """Return the verdict on a watcher whose workers wait for what is to be done before the start."""
    entry = {"slot": 1, "phase": "held", "health": "unknown", "held_by": "before"}
    watcher = {"name": "web", "status": "active", "armed": True, "numprocesses": 1, "workers": [{"pid": 7, **entry}]}
    found = judge(watcher_entry(**watcher), before, predecessors=predecessors)
    return found["word"], found["cause"], found["next"], found["next_in"], found["cure"]


def test_a_start_is_deploying_while_it_runs_and_blocked_when_it_failed() -> None:
    running = Preparation(reason="run.before is running: x", runs=True)
    failed = Preparation(reason="no worker is started: y", cure="z", retry_in=4.0)

    assert judged(running) == ("deploying", "starting, 0 of 1 workers up: run.before is running: x", "", None, "")
    assert judged(failed) == ("blocked", "no worker is started: y", "the start is tried again", 4.0, "z")


def test_no_outage_is_told_while_workers_of_an_earlier_circusd_serve() -> None:
    running = Preparation(reason="run.before is running: x", runs=True)
    failed = Preparation(reason="no worker is started: y", cure="z", retry_in=4.0)
    cause = "2 of the workers of an earlier circusd serve on: no worker is started: y"

    assert judged(failed, 2) == ("degraded", cause, "the start is tried again", 4.0, "z")
    assert judged(running, 2) == judged(running)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        pytest.param("alembic -x 'a b' upgrade head", None, id="sound"),
        pytest.param("alembic 'upgrade", "a quote is not closed", id="a quote"),
        pytest.param("''", None, id="an empty word is one"),
        pytest.param("", "no value", id="nothing"),
    ],
)
def test_what_may_stand_as_the_command(command: str, problem: str | None) -> None:
    problems = parse_watcher({"run.before": command})[1]

    assert [each.what for each in problems] == ([problem] if problem else [])
