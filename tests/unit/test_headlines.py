"""The first line of each face: what is wrong, since when, why, what comes next, what to do."""

from datetime import datetime
from functools import partial
from typing import Any, cast

import pytest

from xboard_circus.core.durations import span
from xboard_circus.core.headlines import Answering, Recent, gone, is_troubled
from xboard_circus.core.headlines import headlines as headlines_with
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry, watcher_entry, worker_entry
from xboard_circus.core.unarmed import uncreated_watcher
from xboard_circus.core.verdict import Word, judge, verdict_entry
from xboard_circus.local_time import local_time, since

headlines = partial(headlines_with, aged=lambda age, say=None: span(age))
UP: dict[str, Any] = {"phase": "up", "health": "ok"}
HELD: dict[str, Any] = {"phase": "held", "held_by": "cooldown", "next_try": 108.0}
NOW = 1_000_000.0
CAUSE = Say.NONE_UP_SAYING(total=2, why=Say.EXITED_SAYING(code=1, line="KeyError: 'DATABASE_URL'"))
LOOPING = verdict_entry(
    Word.LOOPING, CAUSE, next=Say.NEXT_TRY(slot=1), next_in=110.0, cure=Say.CURE_LOGS(watcher="web")
)


def watcher(verdict: Any, *workers: dict[str, Any], age: float | None = None, **changes: Any) -> WatcherEntry:
    incident = None if age is None else {"age": age, "worst": verdict["word"]}
    entries = [worker_entry(pid=7 + slot, slot=slot, **each) for slot, each in enumerate(workers, 1)]
    known = {"name": "web", "status": "active", "armed": True, "numprocesses": len(workers), **changes}
    since_when = {"since": verdict["since"] or age or 0.0}
    found: Any = {**watcher_entry(**known, workers=entries), "verdict": verdict | since_when, "incident": incident}
    return cast(WatcherEntry, found)


def test_what_is_due_within_a_second_is_next_at_once() -> None:
    (line,) = headlines([watcher(LOOPING, HELD, age=190.0)], elapsed=109.2)

    assert "Next: #1 is started again at once. Cure" in texts([line])[0]


def texts(lines: Any) -> list[str]:
    return [". ".join(each["reason"] for each in line["lines"]) for line in lines]


def test_a_line_has_what_since_when_why_what_is_next_and_what_to_do() -> None:
    (line,) = headlines([watcher(LOOPING, HELD, HELD, age=190.0)], elapsed=2.0)

    assert texts([line]) == [
        (
            "DOWN for 3 min 12 s: web, 0 of 2 up. Every start fails: exited with code 1: \"KeyError: 'DATABASE_URL'\". "
            "Next: #1 is started again in 1 min 48 s. Cure: `xboard-circus why web` "
            "shows the last death with its stacks, `xboard-circus logs web` what its workers wrote"
        )
    ]
    assert (line["word"], line["watcher"], line["slot"]) == ("looping", "web", 1)


@pytest.mark.parametrize(
    "why",
    [
        Say.KILLED(),
        Say.DIED(signal="SIGSEGV"),
        Say.EXITED(code=3),
        Say.POISON(request="GET /", n=3, held="1 s", id="a"),
    ],
)
def test_of_workers_that_were_up_no_start_has_failed(why: str) -> None:
    verdict = verdict_entry(Word.LOOPING, Say.NONE_UP_SAYING(total=1, why=why))

    assert f"web, 0 of 1 up. Why: {why}" in texts(headlines([watcher(verdict, HELD, age=9.0)]))[0]


def test_an_outage_is_as_old_as_the_time_without_a_worker() -> None:
    """Given trouble for ten minutes, of which nothing served for 20 s, then it is down for 20 s."""
    (line,) = headlines([watcher({**LOOPING, "since": 20.0}, HELD, age=600.0)])

    assert texts([line])[0].startswith("DOWN for 20 s: web")


def test_an_outage_has_since_when_in_local_time_with_the_date_where_that_is_not_today() -> None:
    now = datetime(2026, 1, 31, 0, 2, 0).timestamp()
    incidents = [watcher(LOOPING, HELD, age=age, name=name) for age, name in ((3720.0, "web"), (60.0, "api"))]

    dead = gone(age=60.0, why="", is_dead=True, serving_on=[], aged=since(now))
    lines = texts([*headlines(incidents, elapsed=10.0, aged=since(now)), dead])

    assert [text.partition(". ")[0] for text in lines] == [
        "DOWN for 1 h 2 min, since Jan 30 22:59:50: web, 0 of 1 up",
        "DOWN for 1 min 10 s, since 00:00:50: api, 0 of 1 up",
        "circusd is down for 1 min, since 00:01:00: nothing replaces a worker that ends",
    ]


def test_the_page_gets_the_moment_itself_for_its_reader_may_live_elsewhere() -> None:
    (line,) = headlines([watcher(LOOPING, HELD, age=60.0)], aged=since(1000.0))

    assert line["lines"][0]["say"]["fields"]["age"]["fields"]["at"] == 940


@pytest.mark.parametrize(
    ("cure", "command"),
    [
        (Say.CURE_PORT_HELD(command="kill 812", port=8000), "kill 812"),
        (Say.CURE_BEFORE(watcher="web"), ""),
    ],
)
def test_a_taken_port_has_the_command_that_frees_it_and_nothing_to_try(cure: str, command: str) -> None:
    blocked = verdict_entry(Word.BLOCKED, Say.PORT_OF_IT(port=8000, why="held by pid 812"), cure=cure)

    (line,) = headlines([watcher(blocked, {**HELD, "held_by": "port"}, age=1.0)])

    assert (line["command"], line["slot"]) == (command, None)


def test_a_line_has_that_workers_of_an_earlier_circusd_serve() -> None:
    verdict = verdict_entry(Word.DEGRADED, Say.PREDECESSORS_SERVE(n=2, why=CAUSE))

    (text,) = texts(headlines([watcher(verdict, HELD, HELD, age=1.0)]))

    assert "Why: 2 of the workers of an earlier circusd serve on: none of 2 workers is up" in text


def test_the_worst_comes_first_and_what_is_well_is_left_out() -> None:
    fine = watcher(verdict_entry(Word.OK, Say.SO_MANY_UP(n=1, total=1)), UP)
    worse = watcher(LOOPING, HELD, age=1.0, name="worse")
    bad = watcher(verdict_entry(Word.DEGRADED, Say.NO_WORKER()), UP, HELD, age=9.0, name="bad")

    assert [line["watcher"] for line in headlines([fine, bad, worse])] == ["worse", "bad"]


def test_a_page_that_starts_is_no_news_beside_a_backend_that_serves() -> None:
    deploying = verdict_entry(Word.DEPLOYING, Say.STARTING(n=0, total=1))
    page = watcher(deploying, {"phase": "starting"}, name="dashboard", is_page=True)

    (line,) = headlines([watcher(verdict_entry(Word.OK, Say.SO_MANY_UP(n=1, total=1)), UP), page])

    assert line["word"] == "ok"


@pytest.mark.parametrize(
    ("traffic", "facts"),
    [
        (None, "1 backend, 2 workers"),
        (
            Recent(watchers={"web": (41.3, 0.0123), "gone": (1.2, None)}, trouble_age=None),
            "{}, 41 requests/s, p95 12 ms, no trouble on record",
        ),
        (Recent(watchers={}, trouble_age=3 * 86400.0), "{}, last trouble 3 d ago"),
    ],
)
def test_all_fine_counts_the_backends_and_not_the_page_nor_the_plugins(traffic: Recent | None, facts: str) -> None:
    well = verdict_entry(Word.OK, Say.SO_MANY_UP(n=2, total=2))
    page, plugin = watcher(well, UP, name="dashboard", is_page=True), watcher(well, UP, name="plugin:xboard")

    found = texts(headlines([watcher(well, UP, UP), page, plugin], traffic=traffic))

    assert found == ["All fine: " + facts.format("1 backend, 2 workers")]


@pytest.mark.parametrize(
    ("age", "old", "lines"),
    [
        (120.0, 2, ["reload failed, begun 2 min ago, at {}: web, 0 replaced, the old code serves on"]),
        (
            120.0,
            1,
            ["reload failed, begun 2 min ago, at {}: web, 0 replaced, the old code serves on in 1 of 2 workers"],
        ),
        (120.0, 0, []),
        (4000.0, 1, []),
    ],
)
def test_a_failed_reload_is_news_for_an_hour_while_the_old_code_serves(age: float, old: int, lines: list[str]) -> None:
    reload = {"state": "failed", "age": age, "replaced": [], "old": old, "reason": "it dies", "log": ""}
    failed = watcher(verdict_entry(Word.OK, Say.SO_MANY_UP(n=2, total=2)), UP, UP, reload=reload)

    (line,) = headlines([failed], aged=since(NOW))

    began = local_time(NOW - age, NOW)
    assert ([line["lines"][0]["reason"]] if lines else []) == [each.format(began) for each in lines]
    assert line["word"] == ("reload_failed" if lines else "ok")


def test_of_a_circusd_that_was_killed_the_line_says_what_still_answers() -> None:
    found = gone(age=75.0, why="silent", is_dead=True, serving_on=[Answering(8000, 2)])

    assert texts([found]) == [
        (
            "circusd is down for 1 min 15 s: nothing replaces a worker that ends. "
            "Its workers still answer on :8000 (2 alive). Cure: run `xboard-circus start`"
        )
    ]
    frozen = texts([gone(age=75.0, why="silent", is_dead=False, serving_on=[Answering(8000, 2)])])
    assert frozen == [
        (
            "circusd has not answered for 1 min 15 s: silent. Its workers still answer on :8000 (2 alive). "
            "Cure: run `xboard-circus restart`"
        )
    ]
    one_of_two = [Answering(8000, 2, 503), Answering(8001, 0)]
    (line,) = texts([gone(age=75.0, why="", is_dead=True, serving_on=one_of_two)])
    assert "Nothing answers on :8001. Its workers still answer on :8000 (2 alive), the live path with 503." in line
    assert "run `xboard-circus doctor`" in texts([gone(age=9.0, why="", is_dead=None, serving_on=[])])[0]
    assert "None of its ports answers" in texts([gone(age=1.0, why="", is_dead=True, serving_on=[])])[0]
    assert texts([gone(age=None, why="silent", is_dead=False, serving_on=[])])[0].startswith("circusd does not answer")


def test_a_watcher_that_is_set_to_no_workers_has_its_cure() -> None:
    cause = Say.NOBODY_WANTED(why=Say.SET_TO_NONE(), cure=Say.START_ONE(watcher="web"))
    text = texts(headlines([watcher(verdict_entry(Word.STOPPED, cause))]))[-1]

    assert text.startswith("Nothing serves: web is stopped, for 0 s. Why: set to 0 workers, so nothing answers. Cure: ")


def test_a_stop_of_the_only_backend_is_not_fine() -> None:
    well = verdict_entry(Word.OK, Say.SO_MANY_UP(n=1, total=1))
    by = "xboard-circus stop, user root"
    facts = watcher(well, status="stopped", numprocesses=1)
    stopped = {**facts, "verdict": {**judge(facts, stopped_by=by), "since": 10.0}}
    page, plugin = watcher(well, UP, name="dashboard", is_page=True), watcher(well, UP, name="plugin:xboard")

    (line,) = headlines([stopped, page, plugin], elapsed=2.0, aged=since(NOW))  # type: ignore[list-item]
    beside = headlines([stopped, watcher(well, UP, name="api")])  # type: ignore[list-item]

    assert texts([line]) == [
        (
            f"Nothing serves: web was stopped 12 s ago, at {local_time(NOW - 12, NOW)}, by {by}. "
            "Next: nothing by itself. Cure: `xboard-circus start web` starts it"
        )
    ]
    assert (line["word"], line["watcher"]) == ("nothing_serves", "web")
    assert [each["word"] for each in beside] == ["ok", "stopped"]
    assert "web is stopped, for 0 s" in texts(headlines([watcher(judge(facts), status="stopped")]))[0]


@pytest.mark.parametrize("predecessors", [0, 2])
def test_a_watcher_that_could_not_be_created_has_an_incident(predecessors: int) -> None:
    """Circus has no object for it, and so no keeper of its incident; by that the page decides what is in trouble."""
    found = uncreated_watcher(name="web", numprocesses=2, why="no such user", predecessors=predecessors, since=60.0)

    assert found["incident"] == {"age": 60.0, "worst": found["verdict"]["word"]}
    assert is_troubled(found)
