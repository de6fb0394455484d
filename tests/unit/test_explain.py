from typing import Any

import pytest

from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say
from xboard_circus.ledger import Record
from xboard_circus.ledger.explain import story_of, text_of, when
from xboard_circus.ledger.story import subject

NOW = 1_800_000_000.0
STACK = 'Fatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File "app.py", line 7 in forever\n'


def record(number: int, kind: str, **more: Any) -> Record:
    fields: dict[str, Any] = {"pid": 71, "wid": 1, **more}
    return Record(NOW + number, "web", kind, id=number, **fields)


def death(number: int, cause: str = "crash", reason: str = "died by SIGSEGV", **data: Any) -> Record:
    who = {name: data.pop(name) for name in ("pid", "wid") if name in data}
    return record(number, "restart", cause=cause, reason=reason, data=data, **who)


def lines(*records: Record, of: int = 0) -> list[str]:
    return text_of(story_of(records[of], records, now=NOW + 100)).splitlines()


def test_an_end_by_a_signal_that_circus_sent_was_not_by_itself() -> None:
    sent = death(1, "commanded", "commanded: SIGHUP sent by Circus", signal="SIGHUP")

    assert not [line for line in lines(sent) if "asked by" in line]
    assert [line for line in lines(death(1)) if "asked by" in line] == ["  asked by: none: it ended by itself"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(death(1), "Worker 1 of web (pid 71) crashed: died by SIGSEGV", id="a crash"),
        pytest.param(
            death(1, "out of memory", "out of memory, killed by SIGKILL: the kernel's OOM killer"),
            "Worker 1 of web (pid 71) was killed by the kernel, out of memory: "
            "out of memory, killed by SIGKILL: the kernel's OOM killer",
            id="out of memory",
        ),
        pytest.param(death(1, wid=None), "A process of web (pid 71) crashed: died by SIGSEGV", id="without a wid"),
        pytest.param(death(1, slot=4), "Worker 4 of web (pid 71) crashed: died by SIGSEGV", id="by its slot"),
        pytest.param(death(1, "novel", ""), "Worker 1 of web (pid 71) ended: novel", id="a cause of a later version"),
        pytest.param(
            record(1, "port_refused", reason="held by 4711 (nginx)"),
            "The port of web is taken: held by 4711 (nginx)",
            id="a decision",
        ),
        pytest.param(
            record(1, "circusd_lost", reason="circusd (pid 71) was killed"),
            "web was lost: circusd (pid 71) was killed",
            id="circusd itself",
        ),
        pytest.param(record(1, "new_kind"), "web: new kind: no reason recorded", id="a kind of a later version"),
        pytest.param(
            record(1, "reap", data={"exit_code": 3}),
            "A process of web ended: no reason recorded (exit code 3)",
            id="a watcher that is not armed",
        ),
        pytest.param(
            death(1, reason="\x1b[2Jevil\nline"), "Worker 1 of web (pid 71) crashed: evil line", id="a hostile reason"
        ),
    ],
)
def test_the_first_line_says_what_happened_and_why(told: Record, expected: str) -> None:
    assert lines(told)[0] == expected


def test_deaths_for_want_of_memory_have_a_route_in_common() -> None:
    """Given such deaths in the ledger, then those up to the one that is explained are compared, and no others."""

    def killed(number: int, *routes: str) -> Record:
        requests = [{"method": "GET", "route": each, "age": 1.0, "id": "a", "state": "in flight"} for each in routes]
        return death(number, "out of memory", "out of memory", requests=requests)

    history = killed(1, "/a", "/report"), killed(2, "/report"), death(3), killed(4, "/report", "/b"), killed(5, "/b")
    common = [[line for line in lines(*history, of=of) if "of the last" in line] for of in range(5)]

    assert common == [
        [],
        ["  requests: in flight in 2 of the last 2 out-of-memory deaths: GET /report"],
        [],
        ["  requests: in flight in 3 of the last 3 out-of-memory deaths: GET /report"],
        ["  requests: in flight in 3 of the last 4 out-of-memory deaths: GET /report"],
    ]


def test_evidence_is_told_line_by_line() -> None:
    told = death(
        1,
        "unhealthy",
        "hung: no answer 2 times in a row",
        exit_code=-6,
        signal="SIGABRT",
        by="probe",
        lived=75.0,
        ready_for=74.0,
        rss=52 << 20,
        budget={"before": 0, "after": 1, "limit": 5},
        next="restart budget of this worker: 1 of 5 used in 600 s, next try at once",
        probes=[
            {"age": 2.0, "ok": True, "latency": 0.0011},
            {"age": 0.01, "ok": False, "reason": "status 500", "body": "no\x1bdatabase"},
            {"age": 0.01, "ok": None},
        ],
        log=f"starting\n\tserving\x1b[31m\n{STACK}",
        stack=STACK,
    )

    assert lines(told)[2:] == [
        "  cause:    unhealthy (signal SIGABRT)",
        "  asked by: circusd, because of failed probes",
        "  lived:    1 min 15 s, up for 1 min 14 s",
        "  memory:   52 MiB when last seen",
        "  budget:   0 of 5 used before, 1 after",
        "  next:     restart budget of this worker: 1 of 5 used in 600 s, next try at once",
        "  next:     no successor yet",
        "  last probes:",
        "    2 s before: ok, 1.1 ms",
        "    0.01 s before: failed, status 500, the answer began 'no database'",
        "    0.01 s before: not judged",
        "  last lines of its log:",
        "    starting",
        "        serving [31m",
        "  its stacks when it was ended:",
        "    Fatal Python error: Aborted",
        "    Thread 0x1 (most recent call first):",
        '      File "app.py", line 7 in forever',
    ]


NEXT = {
    "ready since": (
        [record(3, "ready", pid=72, data={"follows": 71})],
        ["successor pid 72 was up 2 s later"],
    ),
    "ready before, as in a reload": (
        [record(0, "ready", pid=72, data={"follows": 71})],
        ["successor pid 72 was up 1 s before"],
    ),
    "ready, and dead again": (
        [record(3, "ready", pid=72, data={"follows": 71}), death(9, reason="exited with code 3", pid=72)],
        ["successor pid 72 was up 2 s later", "pid 72 ended 8 s later: exited with code 3"],
    ),
    "never ready": (
        [record(2, "spawn", pid=72), death(3, reason="it died", pid=72, follows=71)],
        ["successor pid 72", "pid 72 ended 2 s later: it died"],
    ),
    "only spawned": ([record(2, "spawn", pid=72)], ["successor pid 72 was started"]),
    "cooling down": (
        [record(2, "cooldown", reason="5 failures")],
        ["1 s later: cooldown: 5 failures", "no successor yet"],
    ),
    "a spawn for another slot, and a dependency that is back": (
        [
            record(2, "spawn", pid=99),
            death(3, pid=99, follows=50),
            record(4, "recovered", reason="every worker is well", pid=None, wid=None),
        ],
        ["no successor yet"],
    ),
    "its slot was scaled away": ([], ["no successor wanted"]),
    "in the ledger of an earlier version": (
        [record(90, "ready", pid=99, seq="7-1"), record(91, "kept", seq="7-2")],
        [],
    ),
}


def test_a_successor_that_is_not_up_yet_is_not_missing() -> None:
    runs = Say.THEN_REPLACED(failures=1, burst=5, window="600 s")

    told = lines(death(1, next=runs, next_say=data_of(runs)))

    assert [line for line in told if line.startswith("  next:")] == [f"  next:     {runs}"]


@pytest.mark.parametrize(("after", "expected"), NEXT.values(), ids=NEXT)
def test_it_is_told_what_came_next(after: list[Record], expected: list[str]) -> None:
    told = death(1, surplus=expected == ["no successor wanted"])
    history = sorted([told, *after], key=lambda each: each.time)

    found = text_of(story_of(told, history, now=NOW)).splitlines()

    assert [line.removeprefix("  next:     ") for line in found if line.startswith("  next:")] == expected


@pytest.mark.parametrize(("ready_at", "is_told"), [(0, False), (3, True)])
def test_no_try_is_told_of_a_slot_that_has_its_successor(ready_at: int, is_told: bool) -> None:
    told, ready = death(1, next="next try in 0.5 s"), record(ready_at, "ready", pid=72, data={"follows": 71})

    found = text_of(story_of(told, sorted([told, ready], key=lambda each: each.time), now=NOW))

    assert ("next try in 0.5 s" in found) is is_told
    assert "successor pid 72 was up" in found


def test_a_next_try_has_its_moment_and_is_told_once() -> None:
    """Given a death that is followed by a cooldown, then no "next try in 59.8 s" is read a minute later without it."""
    told = death(1, next="cooling down, next try in 59.8 s", wait=59.8)
    cooldown = record(1, "cooldown", reason="it died; cooling down, next try in 59.8 s")

    found = text_of(story_of(told, [told, cooldown], now=NOW)).splitlines()

    moment = when(told.time + 59.8).split()[1]
    assert [line for line in found if "next:" in line] == [
        f"  next:     cooling down, next try in 59.8 s, at {moment}",
        "  next:     no successor yet",
    ]


SUBJECTS = {
    "the last death": ([death(1), death(2, pid=72)], None, 2),
    "what is no reason is left out": ([death(1), record(2, "spawn"), record(3, "command")], None, 1),
    "a cooldown, with its death": ([death(1), record(2, "cooldown")], None, 1),
    "what the prober found, with its death": ([death(1), record(2, "unhealthy")], None, 1),
    "a dependency that is down": ([death(1), record(2, "unhealthy", pid=None)], None, 2),
    "its recovery, with what was wrong": (
        [death(1), record(2, "unhealthy", pid=None), record(3, "recovered", pid=None)],
        None,
        2,
    ),
    "a recovery of its own": ([record(3, "recovered")], None, 3),
    "a port freed of what a lost circusd left": (
        [death(1), record(2, "circusd_lost", pid=7), record(3, "circusd_back", pid=7), record(4, "port_freed")],
        None,
        2,
    ),
    "a port freed after a death that came since": (
        [record(1, "circusd_lost", pid=7), death(2), record(3, "port_freed")],
        None,
        3,
    ),
    "of a pid": ([death(1), death(2, pid=72)], 71, 1),
    "of a pid, its death before all": ([death(1), record(2, "recovered")], 71, 1),
    "of a pid that nobody knows": ([death(1)], 99, None),
    "nothing": ([], None, None),
}


@pytest.mark.parametrize(("records", "pid", "expected"), SUBJECTS.values(), ids=SUBJECTS)
def test_who_asks_why_means_the_last_that_needs_a_reason(
    records: list[Record], pid: int | None, expected: int | None
) -> None:
    found = subject(records, pid=pid)

    assert (found and found.id) == expected


def test_a_lost_circusd_is_told_with_the_next_one_and_not_with_what_that_lost() -> None:
    lost = record(1, "circusd_lost", wid=None, reason="circusd (pid 71) was killed")
    back = record(3, "circusd_back", wid=None, reason="circusd runs again, as pid 90")
    again = record(5, "circusd_lost", pid=90, wid=None, reason="circusd (pid 90) was killed")
    later = record(6, "circusd_back", pid=90, wid=None, reason="circusd runs again, as pid 91")

    assert subject([lost, back]) == lost
    assert subject([again, later]) == again
    assert subject([back]) == back
    assert [line.strip() for line in lines(lost, back, again, later)[2:]] == [
        "next:     2 s later: circusd back: circusd runs again, as pid 90"
    ]


def test_while_there_is_no_other_circusd_the_cure_is_told() -> None:
    lost = record(1, "circusd_lost", wid=None, reason="killed")
    found_later = record(1, "circusd_lost", wid=None, reason="killed", data={"successor": 9, "gap": 5.0})

    assert "`xboard-circus start`" in lines(lost)[-1]
    assert "`xboard-circus start`" not in "".join(lines(found_later))
