"""The one word for a watcher, and for a worker: each row says a situation, then what is made of it."""

import re
from typing import Any, get_args

import pytest

from xboard_circus.core.reason import Reason, data_of, reason_in
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Health, Role
from xboard_circus.core.state_schema import (
    HeldByWord,
    PhaseWord,
    PortEntry,
    ReloadEntry,
    WatcherFacts,
    WorkerEntry,
    watcher_entry,
)
from xboard_circus.core.unarmed import unarmed_worker
from xboard_circus.core.verdict import (
    PROBED_WITHIN,
    IncidentKeeper,
    Word,
    availability,
    is_up,
    judge,
    serves,
    word_of,
    worker_words,
)
from xboard_circus.translations import translated


def worker(slot: int = 1, **more: Any) -> WorkerEntry:
    """Return a worker that is up, well and ready, and has been for long; or what *more* makes of it."""
    entry: dict[str, Any] = {**unarmed_worker(pid=100 + slot, started=5, wid=slot, leaves=False, age=100.0)}
    found: WorkerEntry = {**entry, "health": "ok", "ready": True, "ready_for": 90.0, **more}  # type: ignore[typeddict-item]
    return found


def up(slot: int = 1, health: str = "ok", **more: Any) -> WorkerEntry:
    return worker(slot, health=health, **more)


def held(slot: int = 1, by: HeldByWord = "cooldown", next_try: float | None = 42.0) -> WorkerEntry:
    reason = {"port": "waiting for the port: nginx has it", "delay": "waiting before the next try"}
    more = {"held_by": by, "next_try": next_try, "reason": reason.get(by, "cooling down")}
    return worker(slot, phase="held", health="unknown", ready=None, ready_for=None, **more)


def starting(slot: int = 1, age: float = 4.0) -> WorkerEntry:
    return worker(slot, phase="starting", health="unknown", ready=None, ready_for=None, age=age)


def leaving(slot: int = 1, **more: Any) -> WorkerEntry:
    return worker(slot, phase="leaving", health="unknown", **more)


SHARED = PortEntry(host="0.0.0.0", port=8000, state="bound", reason="pid 812, nc, shares the listener", say=None)
BOUND = PortEntry(host="0.0.0.0", port=8000, state="bound", reason="", say=None)
CLEANING = PortEntry(host="0.0.0.0", port=8000, state="cleaning", reason="the port is being looked at", say=None)
TAKEN = PortEntry(
    host="0.0.0.0", port=8000, state="refused", reason="the port is held by pid 812, nginx: a stranger", say=None
)
SICK = {"health": "sick", "reason": "sick: live path failed 3 times in a row: status 500"}
OVERLOADED: dict[str, Any] = {"health": "busy", "ready": False, "reason": "overloaded"}
HUNG = {"health": "hung", "reason": "hung: no answer 3 times in a row"}
RELOAD = ReloadEntry(
    state="running",
    step="workers",
    slot=2,
    done=1,
    total=2,
    age=3.0,
    replaced=[[1, 2]],
    cut=0,
    old=2,
    reason="",
    say=None,
    log="",
)


UNWRITTEN: dict[str, Any] = {
    "output": {"lost": 10, "file": "web.log", "reason": "output is lost: web.log cannot be written: full", "say": None}
}


def full(say: Say, **fields: object) -> dict[str, Any]:
    """The facts of a log on a full disk."""
    error = say(error="No space left on device", mount="/srv/my app", **fields)
    lost = Say.OUTPUT_LOST(file="/srv/my app/web.log", error=error)
    return {"output": {"lost": 9, "file": "/srv/my app/web.log", "reason": lost, "say": data_of(lost)}}


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        (UNWRITTEN, "make room for web.log, or let circusd's user write it"),
        (
            full(Say.DISK_FULL, used="20 GiB", size="20 GiB", free="0 B"),
            "`du -xah '/srv/my app' | sort -h | tail` shows what fills it",
        ),
        (
            full(Say.NO_INODES, n=9),
            "`du -x --inodes '/srv/my app' | sort -n | tail` shows what fills it",
        ),
    ],
    ids=["another error", "no room", "no inodes"],
)
def test_of_a_full_disk_the_cure_is_the_command_that_shows_what_fills_it(output: dict[str, Any], cure: str) -> None:
    assert judge(facts(up(1), **output))["cure"] == cure


TOGETHER = (
    "workers hang together, so a dependency may not answer that they wait for in their event loops: "
    "one at a time is replaced"
)
POISON: dict[str, Any] = {"poison": {"routes": ["GET /die"], "reason": "poison: GET /die", "say": None}}


def facts(*workers: WorkerEntry, wanted: int | None = None, failures: int = 0, **more: Any) -> WatcherFacts:
    given = {"name": "web", "status": "active", "armed": True, "probe": "private", "port": BOUND, **more}
    budget, options = {"used": failures, "limit": 5}, {"health.startup_timeout": 60.0}
    count = len(workers) if wanted is None else wanted
    return watcher_entry(numprocesses=count, workers=workers, budget=budget, options=options, **given)


@pytest.mark.parametrize(
    ("found", "word", "cause"),
    [
        pytest.param(facts(up(1), up(2)), "ok", "2 of 2 workers up", id="all are up and well"),
        pytest.param(
            facts(up(1), up(2), **UNWRITTEN),
            "degraded",
            "2 of 2 workers up: output is lost: web.log cannot be written: full",
            id="a log cannot be written",
        ),
        pytest.param(
            facts(up(1), up(2, **HUNG), **UNWRITTEN),
            "degraded",
            "1 of 2 workers up: #2: hung: no answer 3 times in a row",
            id="a log cannot be written, and a worker hangs",
        ),
        pytest.param(
            facts(up(1), output={"lost": 10, "file": None, "reason": "", "say": None}),
            "ok",
            "1 of 1 workers up",
            id="output was lost, and is written again",
        ),
        pytest.param(facts(up(1), up(2, "busy")), "ok", "2 of 2 workers up", id="a busy worker is well"),
        pytest.param(
            facts(up(1), up(2, **OVERLOADED)),
            "degraded",
            "2 of 2 workers up: #2: overloaded",
            id="an overloaded one is up, and not well",
        ),
        pytest.param(
            facts(up(1, **OVERLOADED), up(2, **OVERLOADED)),
            "degraded",
            "2 of 2 workers up: #1: overloaded",
            id="all are overloaded",
        ),
        pytest.param(
            facts(up(1), leaving(1, role="retiring", drains=True), wanted=1),
            "ok",
            "1 of 1 workers up",
            id="one that drains",
        ),
        pytest.param(
            facts(up(1, role="retiring"), {**starting(1), "role": "successor"}, wanted=1),
            "ok",
            "1 of 1 workers up",
            id="one that is being replaced serves on, and its successor is not missing",
        ),
        pytest.param(
            facts(up(1, "failing", role="retiring", reason="no answer once"), up(1), wanted=1),
            "degraded",
            "1 of 1 workers up: #1: no answer once",
            id="one that is blocked, beside its successor",
        ),
        pytest.param(
            facts(up(1, "hung"), up(2, "hung"), up(3), wanted=3),
            "degraded",
            f"1 of 3 workers up: 2 of 3 {TOGETHER}",
            id="half of them hang: perhaps by a dependency",
        ),
        pytest.param(
            facts(up(1, "unknown", ready_for=2.0)), "ok", "1 of 1 workers up", id="just up and not probed yet"
        ),
        pytest.param(
            facts(up(1, "unknown", ready_for=PROBED_WITHIN)),
            "unknown",
            "no plugin probes the workers",
            id="up for long and never probed",
        ),
        pytest.param(facts(up(1, "unknown"), probe="none"), "ok", "1 of 1 workers up", id="up, and not to be probed"),
        pytest.param(
            facts(up(1, "unknown", reason="its private socket cannot be reached: gone"), up(2, "unknown")),
            "unknown",
            "its private socket cannot be reached: gone",
            id="no socket can be reached",
        ),
        pytest.param(
            facts(up(1), up(2, "unknown", reason="its private socket cannot be reached: gone")),
            "degraded",
            "2 of 2 workers up: #2: its private socket cannot be reached: gone",
            id="one socket cannot be reached",
        ),
        pytest.param(
            facts(up(1), up(2, **HUNG)),
            "degraded",
            "1 of 2 workers up: #2: hung: no answer 3 times in a row",
            id="one of two is hung",
        ),
        pytest.param(
            facts(up(1, **HUNG), up(2, **HUNG)),
            "down",
            f"none of 2 workers is up: 2 of 2 {TOGETHER}",
            id="all are hung: perhaps by a dependency",
        ),
        pytest.param(
            facts(up(1, **HUNG), up(2, **HUNG), starting(3), failures=2, last_failure="hung"),
            "down",
            f"none of 3 workers is up: 2 of 2 {TOGETHER}",
            id="all are hung, and two were replaced in vain: no crash loop",
        ),
        pytest.param(
            facts(up(1), up(2), up(3, **SICK)),
            "degraded",
            "3 of 3 workers up: #3: sick: live path failed 3 times in a row: status 500",
            id="one of three is sick",
        ),
        pytest.param(
            facts(up(1, **SICK)),
            "degraded",
            "1 of 1 workers up: #1: sick: live path failed 3 times in a row: status 500",
            id="the only one is sick, and answers",
        ),
        pytest.param(
            facts(up(1), up(2, "failing")), "degraded", "2 of 2 workers up: #2 is failing", id="one begins to fail"
        ),
        pytest.param(
            facts(up(1), up(2, ready=False)), "degraded", "2 of 2 workers up: #2 is not ready", id="one is not ready"
        ),
        pytest.param(
            facts(up(1), starting(2), failures=1),
            "degraded",
            "1 of 2 workers up: #2 is starting",
            id="one died and is being started",
        ),
        pytest.param(
            facts(up(1), {**starting(2), "reason": "status 503", "say": data_of(Say.STATUS(status=503))}),
            "deploying",
            "starting, 1 of 2 workers up: status 503",
            id="the live path of one that starts fails",
        ),
        pytest.param(
            facts(
                {**starting(), "reason": "no answer within 2 s", "say": data_of(Say.NO_ANSWER_WITHIN(timeout="2 s"))}
            ),
            "deploying",
            "starting, 0 of 1 workers up",
            id="one that imports for long",
        ),
        pytest.param(
            facts(up(1), starting(2)), "deploying", "starting, 1 of 2 workers up", id="the second of a first start"
        ),
        pytest.param(
            facts(up(1, **SICK), starting(2)),
            "degraded",
            "1 of 2 workers up: #1: sick: live path failed 3 times in a row: status 500",
            id="one is being started, and the other is sick",
        ),
        pytest.param(facts(up(1), wanted=2), "degraded", "1 of 2 workers up: a worker is missing", id="one is missing"),
        pytest.param(
            facts(up(1), held(2)),
            "degraded",
            "1 of 2 workers up: #2: cooling down",
            id="one cools down while another serves",
        ),
        pytest.param(
            facts(up(1, **SICK), up(2, "failing")),
            "dependency",
            "a dependency is down, so no worker is replaced: 2 of 2 workers fail: "
            "sick: live path failed 3 times in a row: status 500",
            id="both fail their live path together",
        ),
        pytest.param(
            facts(up(1, **SICK), up(2, **SICK), up(3), up(4), up(5)),
            "degraded",
            "5 of 5 workers up: #1: sick: live path failed 3 times in a row: status 500",
            id="two of five sick are fewer than half",
        ),
        pytest.param(
            facts(held(1), held(2, next_try=10.0), last_failure="exited with code 3"),
            "looping",
            "none of 2 workers is up: exited with code 3",
            id="all cool down",
        ),
        pytest.param(
            facts(held(1, by="delay"), last_failure="exited with code 3"),
            "looping",
            "none of 1 workers is up: exited with code 3",
            id="the only one waits for its restart",
        ),
        pytest.param(
            facts(starting(1), failures=4, last_failure="exited with code 3"),
            "looping",
            "none of 1 workers is up: exited with code 3",
            id="one more try of a crash loop runs",
        ),
        pytest.param(facts(starting(1), starting(2)), "deploying", "starting, 0 of 2 workers up", id="the first start"),
        pytest.param(
            facts(wanted=2, status="starting"),
            "deploying",
            "starting, 0 of 2 workers up",
            id="the first start, before its first worker",
        ),
        pytest.param(
            facts(starting(1), starting(2, age=61.0)),
            "down",
            "none of 2 workers is up: 2 starting",
            id="a start that takes longer than its timeout",
        ),
        pytest.param(
            facts(starting(1), up(2, **HUNG)),
            "down",
            "none of 2 workers is up: 1 starting, 1 hung (hung: no answer 3 times in a row)",
            id="one starts while the other is hung",
        ),
        pytest.param(
            facts(starting(1), failures=1), "down", "none of 1 workers is up: 1 starting", id="it died once, and starts"
        ),
        pytest.param(
            facts(held(1, by="port"), port=TAKEN),
            "blocked",
            "port 8000: the port is held by pid 812, nginx: a stranger",
            id="the port is taken",
        ),
        pytest.param(
            facts(up(1), port=SHARED),
            "degraded",
            "1 of 1 workers up: pid 812, nc, shares the listener",
            id="another process takes connections",
        ),
        pytest.param(
            facts(held(1, by="port"), port=CLEANING),
            "deploying",
            "starting, 0 of 1 workers up: the port is being looked at",
            id="the port is looked at, or taken over from workers that still serve",
        ),
        pytest.param(
            facts(up(1), held(2, by="port"), port=TAKEN),
            "degraded",
            "1 of 2 workers up: port 8000: the port is held by pid 812, nginx: a stranger",
            id="the port is taken while one serves",
        ),
        pytest.param(facts(up(1), up(2), reload=RELOAD), "deploying", "reload: 1 of 2 workers replaced", id="a reload"),
        pytest.param(
            facts(up(1), starting(2), reload=RELOAD),
            "degraded",
            "1 of 2 workers up: #2 is starting",
            id="a reload, and fewer serve than wanted",
        ),
        pytest.param(
            facts(up(1), reload={**RELOAD, "state": "failed"}),
            "ok",
            "1 of 1 workers up",
            id="a reload that failed",
        ),
        pytest.param(
            facts(wanted=2, status="stopped"), "stopped", "the watcher is stopped", id="an operator stopped it"
        ),
        pytest.param(
            facts(leaving(1), status="stopping"), "stopped", "the watcher is stopped", id="it is being stopped"
        ),
        pytest.param(
            facts(),
            "stopped",
            "set to 0 workers, so nothing answers: `xboard-circus scale web 1` starts one, "
            "`xboard-circus stop web` closes its port",
            id="no worker is wanted",
        ),
        pytest.param(
            facts(wanted=2, status="stopped", start_retry_in=3.0, last_failure="cannot be run: no fork"),
            "looping",
            "cannot be run: no fork",
            id="circusd could not start any, and nobody stopped it",
        ),
        pytest.param(
            facts(up(1), starting(2), **POISON), "degraded", "1 of 2 workers up: poison: GET /die", id="poison"
        ),
        pytest.param(facts(up(1), up(2), **POISON), "ok", "2 of 2 workers up", id="poison that has killed nobody now"),
        pytest.param(
            facts(starting(1), last_failure="poison: GET /die", **POISON),
            "looping",
            "none of 1 workers is up: poison: GET /die",
            id="poison, and none is up",
        ),
        pytest.param(
            facts(wanted=2), "down", "none of 2 workers is up: it has no worker", id="there is no worker at all"
        ),
    ],
)
def test_the_verdict(found: WatcherFacts, word: str, cause: str) -> None:
    verdict = judge(found)

    assert (verdict["word"], verdict["cause"]) == (word, cause)


@pytest.mark.parametrize(
    ("found", "next_", "next_in"),
    [
        pytest.param(facts(up(1)), "", None, id="nothing while all is well"),
        pytest.param(
            facts(held(1), held(2, next_try=10.0)), "#2 is started again", 10.0, id="the first of the cooling"
        ),
        pytest.param(facts(up(1), held(2)), "#2 is started again", 42.0, id="the cooling one beside one that serves"),
        pytest.param(
            facts(held(1, by="port"), port=TAKEN, port_retry_in=7.0), "the port is tried again", 7.0, id="the port"
        ),
        pytest.param(facts(starting(1)), "#1 is terminated unless it is up", 56.0, id="the end of a start"),
        pytest.param(facts(up(1), up(2, **HUNG)), "#2 is replaced", None, id="a hung one is replaced"),
        pytest.param(facts(wanted=1, start_retry_in=3.0), "the start is tried again", 3.0, id="a start that failed"),
        pytest.param(
            facts(starting(1), failures=2),
            "#1 is starting, and is tried again if that fails too",
            None,
            id="a start of a crash loop",
        ),
        pytest.param(facts(wanted=1, failures=2), "the missing workers are started", None, id="between two of them"),
        pytest.param(
            facts(held(1), starting(2), failures=5),
            "#2 is starting, and is tried again if that fails too",
            None,
            id="a start of a crash loop beside one that cools down",
        ),
        pytest.param(
            facts(up(1), starting(2), failures=1),
            "#2 is starting, and is tried again if that fails too",
            None,
            id="a start after a crash beside one that serves",
        ),
        pytest.param(
            facts(up(1), held(2), held(3, by="delay", next_try=2.0)),
            "#3 is started again",
            2.0,
            id="the first of two that are held beside one that serves",
        ),
        pytest.param(
            facts(held(1), up(2, **SICK, next_try=42.0)),
            "#2 is replaced",
            42.0,
            id="a sick one whose replacement waits for the restart budget",
        ),
        pytest.param(facts(up(1), **UNWRITTEN), "the file is opened again each second", None, id="no disk"),
        pytest.param(facts(up(1), port=SHARED), "nothing by itself", None, id="another process takes connections"),
        pytest.param(facts(wanted=1, status="stopped"), "nothing by itself", None, id="stopped"),
        pytest.param(
            facts(up(1, **OVERLOADED)), "#1 is not replaced, and recovers once the cause is gone", None, id="overloaded"
        ),
        pytest.param(facts(up(1, "failing")), "#1 is replaced if it fails on", None, id="failing"),
        pytest.param(facts(up(1, "unknown")), "nothing by itself", None, id="not probed"),
    ],
)
def test_what_happens_next(found: WatcherFacts, next_: str, next_in: float | None) -> None:
    verdict = judge(found)

    assert (verdict["next"], verdict["next_in"]) == (next_, next_in)


def test_workers_of_an_earlier_circusd_that_serve_are_in_the_verdict_on_a_start() -> None:
    """Given a start that takes a listener over, then "0 of 2 workers up" is not all that is said."""
    verdict = judge(facts(starting(1), starting(2)), predecessors=2)

    assert (verdict["word"], verdict["cause"]) == (
        "deploying",
        "2 of the workers of an earlier circusd serve on: starting, 0 of 2 workers up",
    )


def test_a_missing_worker_is_named_with_why_the_last_one_ended() -> None:
    found = judge(facts(up(1), wanted=2, failures=2, last_failure="exited with code 3"))

    assert found["cause"] == "1 of 2 workers up: a worker is missing, after: exited with code 3"


def test_the_cure_of_an_overload_is_not_in_its_logs() -> None:
    assert "add workers" in judge(facts(up(1), up(2, **OVERLOADED)))["cure"]


@pytest.mark.parametrize(
    "found",
    [
        facts(held(1)),
        facts(up(1), held(2)),
        facts(held(1, by="port"), port=TAKEN),
        facts(up(1, **SICK), up(2, **SICK)),
        facts(up(1, "unknown")),
        facts(wanted=1, status="stopped"),
        facts(starting(1), failures=1),
        facts(up(1), starting(2), **POISON),
    ],
)
def test_each_trouble_has_a_cure_and_says_what_is_next(found: WatcherFacts) -> None:
    assert judge(found)["cure"]
    assert judge(found)["next"]


HELD_BY_NGINX = Say.PORT_HELD(
    holders=[Say.HOLDER(facts=[Say.FACT_COMMAND(pid=812, command="nginx")], whose=Say.WHOSE_STRANGER())]
)
NO_SUCH_PATH = Say.FOUND(found=Say.FOUND_NOT_READY(), why=Say.PROBE_REFUSED_PATH(status=404))
LIVE_ONCE = Say.FOUND(found=Say.FOUND_LIVE_FAILED(times=Say.TIMES_ONCE()), why=Say.STATUS(status=503))
OF_A_LIVE_CIRCUSD = Say.PORT_HELD(holders=[Say.HOLDER(facts=["pid 9"], whose=Say.WHOSE_INSTANCE(circusd="circusd 8"))])


@pytest.mark.parametrize(
    ("found", "cure"),
    [
        (facts(held(1)), "correct what `xboard-circus why web` shows, then `xboard-circus retry web`"),
        (facts(starting(1), failures=2), "correct what `xboard-circus why web` shows; the next start has it"),
        (
            facts(held(1, by="port"), port={**TAKEN, "reason": HELD_BY_NGINX, "say": data_of(HELD_BY_NGINX)}),
            "`kill 812`, or set another port than 8000 in the ini file",
        ),
        (
            facts(held(1, by="port"), port={**TAKEN, "reason": OF_A_LIVE_CIRCUSD, "say": data_of(OF_A_LIVE_CIRCUSD)}),
            (
                "stop what holds port 8000, which `xboard-circus check` names (as root also another user's), "
                "or set another port in the ini file"
            ),
        ),
        (facts(up(1, **SICK)), "restore what the live path depends on, such as a database"),
        (
            facts(up(1), up(2, "failing", reason=LIVE_ONCE, say=data_of(LIVE_ONCE))),
            "restore what the live path depends on, such as a database",
        ),
        (
            facts(up(1), up(2, ready=False, reason=NO_SUCH_PATH, say=data_of(NO_SUCH_PATH))),
            "correct that option in the ini file: the app answers, and nothing of it has failed",
        ),
    ],
    ids=[
        *("a crash loop", "a start of it", "the port", "a worker of another circusd, which would replace it"),
        *("the only one is sick, and has not ended", "the live path of one failed once"),
        "the app has no such path",
    ],
)
def test_the_cure_is_the_shortest_command_that_helps(found: WatcherFacts, cure: str) -> None:
    assert judge(found)["cure"] == cure


@pytest.mark.parametrize(
    ("status", "wanted", "running", "word"),
    [
        pytest.param("active", 1, 1, "ok", id="it runs"),
        pytest.param("active", 2, 0, "unknown", id="it is active, and nothing runs: it may be started on demand"),
        pytest.param("active", 0, 0, "stopped", id="no process is wanted"),
        pytest.param("starting", 1, 0, "deploying", id="it starts"),
        pytest.param("stopped", 1, 0, "stopped", id="it is stopped"),
    ],
)
def test_a_watcher_without_a_guard_is_judged_by_what_circus_says(
    status: str, wanted: int, running: int, word: str
) -> None:
    found = facts(*[worker()] * running, wanted=wanted, status=status, armed=False)

    assert judge(found)["word"] == word


@pytest.mark.parametrize(
    ("entry", "word", "is_up_", "does_serve"),
    [
        pytest.param(up(), "up", True, True, id="one that is well"),
        pytest.param(up(ready=False), "not ready", True, True, id="one whose ready path fails"),
        pytest.param(up(health="unknown"), "up", True, True, id="one that nobody has probed"),
        pytest.param(up(health="busy", ready=False), "busy", True, True, id="one that is busy"),
        pytest.param(up(health="failing"), "failing", True, True, id="one that begins to fail"),
        pytest.param(up(health="sick"), "sick", True, True, id="a sick one still answers"),
        pytest.param(up(health="hung"), "hung", True, False, id="a hung one does not"),
        pytest.param(held(), "held", False, False, id="one that is held"),
        pytest.param(starting(), "starting", False, False, id="one that starts"),
        pytest.param(leaving(), "leaving", False, False, id="one that leaves"),
    ],
)
def test_a_worker_has_one_word(entry: WorkerEntry, word: str, is_up_: bool, does_serve: bool) -> None:
    assert (word_of(entry), is_up(entry), serves(entry)) == (word, is_up_, does_serve)


def test_every_worker_has_a_word_of_the_list() -> None:
    every = [
        worker(phase=phase, role=role.value, health=health.value, ready=ready, held_by="delay")
        for phase in get_args(PhaseWord)
        for role in Role
        for health in Health
        for ready in (True, False, None)
    ]

    assert {word_of(each) for each in every} == set(worker_words())


def test_every_set_of_two_workers_has_a_verdict() -> None:
    kinds = [
        up(),
        up(ready=False),
        *[up(health=health.value) for health in Health],
        held(),
        starting(),
        leaving(),
    ]

    for first in kinds:
        for second in kinds:
            for port in (BOUND, TAKEN, None):
                word = Word(judge(facts(first, second, port=port))["word"])
                served = serves(first) or serves(second)
                assert word not in ((Word.DOWN, Word.LOOPING, Word.BLOCKED) if served else (Word.OK,))


def test_an_incident_lasts_from_the_first_sign_to_the_end_and_keeps_its_worst() -> None:
    keeper = IncidentKeeper()
    seen = []
    for now, word in [(0, Word.OK), (10, Word.DEGRADED), (12, Word.DOWN), (15, Word.DEGRADED), (20, Word.OK)]:
        keeper.take(word, now=now)
        seen.append((keeper.since(now + 1), keeper.view(now + 1)))

    assert seen == [
        (1, None),
        (1, {"age": 1, "worst": "degraded"}),
        (1, {"age": 3, "worst": "down"}),
        (1, {"age": 6, "worst": "down"}),
        (1, None),
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(facts(up(1), up(2)), "up", id="all are well"),
        pytest.param(facts(up(1), held(2)), "up", id="one of two serves"),
        pytest.param(facts(held(1), held(2)), "down", id="none serves"),
        pytest.param(facts(up(1, **SICK), up(2, **SICK)), "down", id="all fail their live path"),
        pytest.param(facts(up(1, **SICK), up(2, **SICK), up(3)), "", id="most fail it: the event of its begin decides"),
        pytest.param(facts(wanted=2, status="stopped"), "stopped", id="an operator has stopped it"),
    ],
)
def test_availability(found: WatcherFacts, expected: str) -> None:
    assert availability({**found, "verdict": judge(found)}) == expected  # type: ignore[typeddict-item]


@pytest.mark.parametrize("word", [Word.OK, Word.DEPLOYING, Word.STOPPED])
def test_what_an_operator_wanted_is_no_incident(word: Word) -> None:
    keeper = IncidentKeeper()
    keeper.take(Word.DEGRADED, now=1)
    keeper.take(word, now=2)

    assert keeper.view(3) is None


def test_an_outage_lasts_since_nothing_serves() -> None:
    """Given trouble that becomes an outage, when only its word changes, then its age is that of the outage."""
    keeper = IncidentKeeper()
    for now, word in [(10, Word.DEGRADED), (60, Word.DOWN), (70, Word.LOOPING), (80, Word.DOWN)]:
        keeper.take(word, now=now)

    assert (keeper.since(90), keeper.view(90)) == (30, {"age": 80, "worst": "down"})


def test_a_word_that_stays_keeps_its_time() -> None:
    keeper = IncidentKeeper()
    keeper.take(Word.LOOPING, now=10)
    keeper.take(Word.LOOPING, now=70)

    assert keeper.since(now=75) == 65


def saying(entry: WorkerEntry, reason: Reason) -> WorkerEntry:
    """The worker as the state has it: its reason as text, and the data of it."""
    return {**entry, "reason": str.__str__(reason), "say": data_of(reason)}


FAILED = Say.SICK(why=Say.FOUND(found=Say.FOUND_LIVE_FAILED(times=Say.TIMES_MANY(n=3)), why=Say.STATUS(status=503)))
SILENT = Say.HUNG(why=Say.FOUND_SILENCE(times=Say.TIMES_MANY(n=3)))
COOLS = saying(held(), Say.WAITING_COOLING())


def test_workers_that_a_signal_has_stopped_hang_by_no_dependency() -> None:
    stopped = [saying(up(slot, "hung"), Say.HUNG(why=Say.STOPPED_BY_SIGNAL())) for slot in (1, 2)]

    found = judge(facts(*stopped))

    assert (found["word"], found["cause"]) == (
        "down",
        "none of 2 workers is up: 2 hung (hung: a signal such as SIGSTOP has stopped its process)",
    )


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(facts(*[saying(up(slot, "sick"), FAILED) for slot in (1, 2)]), id="a dependency is down"),
        pytest.param(facts(COOLS, up(2)), id="one cools down"),
        pytest.param(facts(COOLS), id="all cool down"),
        pytest.param(facts(starting(1), saying(up(2, "hung"), SILENT), failures=1), id="none serves"),
    ],
)
def test_a_cause_keeps_the_data_of_what_workers_say(found: WatcherFacts) -> None:
    chinese = translated(reason_in(judge(found), "cause"), "zh")

    assert re.findall(r"[A-Za-z]{2,}", chinese) == [], chinese
