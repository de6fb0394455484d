"""Incidents: events of the ledger, folded from the first sign of trouble to its end."""

import itertools
from typing import Any

import pytest

from xboard_circus.core.incidents import DAY, IncidentRecord, Present, fold, heartbeat, lapses, share, worst
from xboard_circus.core.sentences import Say
from xboard_circus.ledger import Record

numbers = itertools.count(1)
WHY = Say.EXITED_STARTING(code=3)


def event(time: float, kind: str, slot: int = 1, *, watcher: str = "web", pid: int = 7, **data: Any) -> Record:
    cause = data.pop("cause", "crash" if kind in ("restart", "cooldown") else None)
    seq, reason = data.pop("seq", None), data.pop("reason", WHY)
    return Record(time, watcher, kind, pid, slot, cause, reason, {"slot": slot, **data}, next(numbers), seq)


def lines(found: list[IncidentRecord]) -> list[str]:
    return [str(each.line()) for each in found]


def test_a_crash_loop_is_one_incident_until_its_slot_is_up() -> None:
    crashes = [event(at, kind) for at in (10.0, 12.0, 20.0, 37.0) for kind in ("spawn", "restart", "reap")]
    looping = [event(0.0, "ready"), *crashes, event(37.1, "cooldown", wait=300.0)]

    (open_one,) = fold(looping, ["web"])
    (over,) = fold([*looping, event(340.0, "ready"), event(350.0, "spawn")], [])

    assert lines([open_one]) == ["#1 ended 4 times in 27 s: exited with code 3 before it was up"]
    assert (open_one.first.time, open_one.until, open_one.next_try) == (10.0, None, 337.1)
    assert (over.until, over.last.kind) == (340.0, "ready")


@pytest.mark.parametrize(("pause", "count"), [(30.0, 1), (90.0, 2)])
def test_trouble_that_comes_back_soon_is_the_same_incident(pause: float, count: int) -> None:
    once = [event(0.0, "restart"), event(1.0, "ready")]

    assert len(fold([*once, event(1 + pause, "restart"), event(2 + pause, "ready")], [])) == count


def test_trouble_of_another_kind_is_another_incident_however_soon() -> None:
    """Given a crash, a hang, a full disk, a dependency and a taken port in a minute, then none hides the other."""
    hung: dict[str, Any] = {"cause": "unhealthy", "reason": "hung"}
    events = [
        *(event(0, "restart"), event(2, "ready"), event(2, "restart"), event(3, "ready")),
        *(event(5, "unhealthy", reason="hung"), event(6, "restart", **hung), event(7, "ready")),
        *(event(10, "output_lost", reason="no space"), event(20, "output_back")),
        *(event(25, "unhealthy", 0, pid=0, reason="a dependency"), event(30, "recovered", 0, pid=0)),
        *(event(40, "port_refused", reason="held"), event(50, "ready")),
    ]

    found = fold(events, [])

    ended = "#1 ended 2 times in 2 s: exited with code 3 before it was up"
    assert lines(found) == [ended, "#1 ended: hung", "no space", "a dependency", "held"]
    assert [each.until for each in found] == [3, 7, 20, 30, 50]


def test_a_hang_whose_successor_was_ahead_lasts_from_the_block_on() -> None:
    """Given a blocked worker that hangs, and one that comes back, then the first is an incident from its block on."""
    ahead = Say.SUCCESSOR_AHEAD(why=Say.LOOP_BLOCKED(age="2 s"))
    blocked = [event(0, "replace", reason=ahead), event(0.1, "ready", pid=8, follows=7)]
    hangs = [event(6, "restart", cause="unhealthy", reason="hung"), event(6.01, "unhealthy", reason="hung")]
    comes_back = [event(4, "restart", cause="commanded"), event(9, "restart", pid=9), event(10, "ready", pid=10)]

    (hung,), (other,) = fold([*blocked, *hangs], []), fold([*blocked, *comes_back], [])

    assert (hung.first.time, hung.until, hung.line()) == (0, 6.01, "#1 ended: hung")
    assert (other.first.time, other.until) == (9, 10)


def test_a_slot_that_was_scaled_away_leaves_no_incident_open() -> None:
    """Given a slot that cools down and is scaled away, when another one dies two hours later, then that is news."""
    gone = [event(0, "restart", 3), event(1, "cooldown", 3, wait=300.0)]

    found = fold([*gone, event(7200, "restart"), event(7201, "ready")], [])

    assert [each.until for each in found] == [1, 7201]


def test_ends_of_several_causes_are_not_said_to_be_one() -> None:
    """Given a hang and two failed starts, then the last reason is told as that of the last."""
    hung = event(0, "restart", cause="unhealthy", reason="hung")
    (found,) = fold([hung, event(1, "restart", pid=8), event(2, "restart", pid=9)], ["web"])

    assert lines([found]) == ["#1 ended 3 times in 2 s, last: exited with code 3 before it was up"]


def test_of_two_slots_that_cool_down_the_first_try_is_next() -> None:
    both = [event(0, "restart"), event(0, "cooldown", wait=50.0), event(1, "cooldown", 2, wait=59.0)]
    again = [event(50, "restart", wait=60.0)]

    assert [fold([*both, *more], ["web"])[0].next_try for more in ([], again)] == [50.0, 60.0]


def test_what_a_slot_waits_for_is_not_known_once_a_sibling_is_up() -> None:
    """A held slot waits longer then, and no event says so."""
    both = [event(0, "restart"), event(0, "cooldown", wait=60.0), event(1, "restart", 2)]

    assert [fold([*both, *more], ["web"])[0].next_try for more in ([], [event(5, "ready", 2)])] == [60.0, None]


def test_slots_and_watchers_are_told_apart() -> None:
    """Given two slots of one watcher and one of another, then the first two share an incident."""
    found = fold(
        [
            event(0, "restart"),
            event(1, "restart", 2),
            event(2, "ready"),
            event(3, "restart", watcher="b"),
            event(4, "ready", 2),
        ],
        ["b"],
    )

    assert lines(found) == [
        "#1, #2 ended 2 times in 1 s: exited with code 3 before it was up",
        "#1 ended: exited with code 3 before it was up",
    ]
    assert [each.until for each in found] == [4, None]


@pytest.mark.parametrize(
    ("events", "until"),
    [
        ([event(0, "restart", cause="commanded"), event(1, "ready")], []),
        ([event(0, "port_refused"), event(9, "port_freed")], [9]),
        ([event(0, "unhealthy", 0), event(9, "recovered", 0)], [9]),
        ([event(0, "restart"), event(9, "stop")], [9]),
        ([event(0, "reload_end", state="failed")], [0]),
        ([event(0, "reload_end", state="done")], []),
        ([event(5, "circusd_lost", gap=4.0)], [5]),
        ([event(0, "restart")], [0]),
    ],
    ids=["a reload", "the port", "a dependency", "stopped", "a failed reload", "a good one", "circusd", "long past"],
)
def test_an_incident_ends_with_what_ends_its_trouble(events: list[Record], until: list[float]) -> None:
    assert [each.until for each in fold(events, [])] == until


@pytest.mark.parametrize(
    "events",
    [
        [event(0, "unhealthy", pid=0), event(9, "recovered", pid=0)],
        [event(0, "unhealthy"), event(9, "recovered", pid=0)],
        [event(0, "unhealthy"), event(5, "restart"), event(9, "ready", pid=8)],
        [event(0, "unhealthy"), event(5, "ready", pid=8, follows=7), event(9, "restart")],
        [event(0, "ready", pid=8, follows=7), event(4, "unhealthy"), event(9, "restart", cause="unhealthy")],
        [event(0, "unhealthy"), event(9, "restart", cause="commanded")],
        [event(0, "restart"), event(0, "poison"), event(9, "ready", pid=8)],
        [event(0, "restart", cause="unhealthy"), event(1, "unhealthy"), event(9, "ready", pid=8)],
    ],
    ids=[
        "a dependency is back",
        "all are well",
        "replaced",
        "successor first",
        "successor ahead",
        "taken away",
        "poison",
        "told late",
    ],
)
def test_trouble_of_a_worker_ends_with_the_worker(events: list[Record]) -> None:
    """Given a sick worker that is replaced, when another one dies an hour later, then that is another incident."""
    found = fold([*events, event(3600, "restart", 2, pid=9), event(3601, "ready", 2, pid=10)], [])

    assert [each.until for each in found] == [9, 3601]


def test_a_reload_that_failed_is_no_crash_of_the_worker_that_it_kept() -> None:
    """Given a new worker that does not come up, half a minute after a crash and before another, then each is told."""
    crash = [event(-40, "ready", pid=6), event(-31, "restart", pid=6), event(-30, "ready", pid=7, follows=6)]
    reload = [
        event(0, "restart", pid=8, cause="failed start", follows=7),
        event(0, "kept", pid=7),
        event(0, "reload_end", state="failed", reason="reload failed"),
    ]

    found = fold([*crash, *reload, event(30, "restart"), event(31, "ready", pid=9)], [])

    ended = "#1 ended: exited with code 3 before it was up"
    assert lines(found) == [ended, "reload failed", ended]
    assert [each.until for each in found] == [-30, 0, 31]


def test_a_worker_that_was_kept_leaves_no_incident_open() -> None:
    """Given a sick worker whose successor did not come up, when it is well again, then what follows is another one."""
    new = [event(1, "restart", pid=8), event(1, "cooldown", pid=8), event(1, "kept")]
    sick = [event(0, "unhealthy"), *new, event(5, "recovered")]

    assert [each.until for each in fold([*sick, event(900, "restart"), event(901, "ready", pid=9)], [])] == [5, 901]


def test_what_is_not_over_explains_an_incident_and_of_the_others_the_last_end() -> None:
    cooling = [event(0, "unhealthy", 0, pid=0), event(1, "restart"), event(2, "restart", 2, pid=9)]
    calls = [event(3, "ready", 2, pid=10), event(4, "recovered", 0, pid=0)]
    stopped = [event(5, "restart", 2, pid=10, cause="commanded"), event(5, "stop", 0)]

    open_one, *_ = fold([*cooling, *calls], ["web"])
    over, *_ = fold([*cooling, *calls, *stopped], [])

    assert open_one.subject is cooling[1]
    assert over.subject is cooling[2]


NEVER = float("inf")
DEPENDENCY = Say.DEPENDENCY_DOWN(n=2, total=2)


def outages(events: list[Record], up: list[int]) -> list[tuple[str, float, float]]:
    """Return the lapses of a watcher of which a worker is up now if *up* has one; without that it is not known."""
    return [(*each,) for each in lapses(events, Present(up) if up else None)]


def test_an_outage_is_the_time_without_a_worker_that_is_up() -> None:
    """Given a worker that was up before, a reload and a crash of the last one, then only the crash is an outage."""
    reload = [event(1, "ready", pid=8), event(2, "restart", pid=7, cause="commanded")]
    crash = [event(3, "restart", pid=8), event(4, "restart", pid=9, cause="failed start"), event(5, "ready", pid=10)]

    assert outages([*reload, *crash], []) == [("down", 3, 5)]
    assert outages([*reload, *crash[:2]], []) == [("down", 3, NEVER)]
    assert outages([*reload, *crash[:2]], [11]) == []
    assert outages([event(3, "port_refused"), event(9, "ready", pid=7)], [7]) == [("down", 3, 9)]
    assert outages([event(3, "restart", pid=6, cause="failed start")], []) == [("down", 3, NEVER)]
    assert outages([event(3, "port_refused")], [7]) == []


STOP = [event(0, "ready"), event(3, "end", cause="commanded"), event(4, "stop", pid=0)]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (STOP, [("stopped", 3, NEVER)]),
        ([*STOP, event(9, "ready", pid=8)], [("stopped", 3, 9)]),
        ([*STOP, event(9, "restart", pid=8, cause="failed start")], [("stopped", 3, 9), ("down", 9, NEVER)]),
        ([event(0, "ready"), event(3, "restart"), event(8, "stop", pid=0)], [("down", 3, 8), ("stopped", 8, NEVER)]),
        (
            [event(0, "ready"), event(3, "restart", cause="cannot be run"), event(3, "stop", pid=0)],
            [("down", 3, NEVER)],
        ),
        ([event(0, "ready"), event(3, "unhealthy", pid=0, reason=DEPENDENCY)], [("down", 3, NEVER)]),
        (
            [event(0, "ready"), event(3, "unhealthy", pid=0, reason=DEPENDENCY), event(9, "recovered", pid=0)],
            [("down", 3, 9)],
        ),
        ([event(0, "ready"), event(3, "unhealthy", pid=0, reason=Say.DEPENDENCY_DOWN(n=2, total=3))], []),
        (
            [
                event(0, "ready", seq="a-1"),
                event(3, "unhealthy", pid=0, reason=DEPENDENCY, seq="a-2"),
                event(9, "ready", pid=8, seq="b-1"),
            ],
            [("down", 3, 9)],
        ),
        (
            [
                event(0, "ready", pid=8),
                event(1, "ready"),
                *(event(at, "unhealthy", pid=pid, reason=Say.HUNG(why="")) for at, pid in ((2, 7), (4, 8))),
                event(6, "recovered"),
            ],
            [("down", 4, 6)],
        ),
    ],
    ids=[
        *("stopped", "started again", "starts in vain", "stopped while down", "Circus stops it", "a dependency"),
        *("a dependency is back", "of some workers", "another circusd", "all hang"),
    ],
)
def test_a_stop_is_no_outage_and_a_dependency_that_is_down_is(
    events: list[Record], found: list[tuple[str, float, float]]
) -> None:
    assert outages(events, []) == found


@pytest.mark.parametrize(
    ("events", "current", "found"),
    [
        ([], Present([], "stopped", 50.0), [("stopped", -NEVER, NEVER)]),
        (STOP[:1], Present([], "stopped", 50.0), [("stopped", 50, NEVER)]),
        (STOP, Present([], "up", 50.0), [("stopped", 3, 50)]),
        (STOP, Present([], "down", 50.0), [("stopped", 3, 50), ("down", 50, NEVER)]),
        (STOP[:1], Present([7], "down", 50.0), [("down", 50, NEVER)]),
    ],
    ids=["before the ledger", "not stored yet", "starts", "starts in vain", "a dependency"],
)
def test_the_present_is_as_the_verdict_says(
    events: list[Record], current: Present, found: list[tuple[str, float, float]]
) -> None:
    assert lapses(events, current) == found


def test_workers_of_an_earlier_circusd_are_up_until_the_next_one_has_a_worker() -> None:
    """Given workers of which no end is known, because their circusd was restarted, then they hide no later outage."""
    earlier = [event(0, "ready", pid=7, seq="a-1"), event(0, "ready", 2, pid=8, seq="a-2")]
    restarted = [event(5, "ready", pid=9, seq="b-1"), event(6, "restart", pid=9, seq="b-2")]

    assert outages([*earlier, *restarted, event(8, "ready", pid=10, seq="b-3")], [10]) == [("down", 6, 8)]
    assert outages([*earlier, event(4, "restart", pid=9, cause="failed start", seq="b-1")], [7, 8]) == []


def test_what_was_stopped_throughout_has_no_share_and_its_own_cells() -> None:
    """Given 6 s up, 1.5 down and 2.5 stopped, then a fifth of the time that counts was an outage."""
    events = [event(0, "ready"), event(6, "restart"), event(7.5, "stop", pid=0)]

    found = heartbeat(events, "web", Present([], "stopped", 7.5), begun=0.0, now=10.0, span=10.0, count=5)
    stopped = heartbeat([], "web", Present([], "stopped", 7.5), begun=0.0, now=10.0, span=10.0, count=1)

    assert [cell.word for cell in found.cells] == ["ok", "ok", "ok", "down", "stopped"]
    assert found.shares == [(0.8, 10.0, False)]
    assert ([cell.word for cell in stopped.cells], stopped.shares) == (["stopped"], [(None, 10.0, False)])


def test_of_a_watcher_nothing_is_known_before_its_first_worker() -> None:
    """Given a ledger of 100 s, and a watcher that was added 20 s ago, or of which a worker was up before the ledger."""
    added, grown = [event(80.0, "ready")], [event(80.0, "ready", 2, pid=8)]

    def shares(own: list[Record], *up: int) -> list[Any]:
        return heartbeat(own, "web", Present(up), begun=0.0, now=100.0, span=100.0).shares

    assert (shares(added, 7), shares(grown, 7, 8)) == ([(1.0, 20.0, False)], [(1.0, 100.0, False)])


def test_the_share_of_a_time_without_an_outage_is_whole() -> None:
    assert share([], 0.0, 10.0) == 1.0


def test_a_heartbeat_has_the_worst_of_each_of_its_cells() -> None:
    """Given 10 s without a worker and one sick later, then the cells show it, and the shares the time of the outage."""
    events = [event(0.0, "ready"), event(40.0, "restart"), event(50.0, "ready", pid=8), event(75.0, "unhealthy", 0)]

    found = heartbeat(events, "web", Present([8], is_troubled=True), begun=20.0, now=100.0, span=100.0, count=10)

    words = ["none", "none", "ok", "ok", "down", "degraded", "ok", *["degraded"] * 3]
    assert [cell.word for cell in found.cells] == words
    assert found.shares == [(0.875, 80.0, False)]
    assert heartbeat([], "web", Present(), begun=100.0, now=100.0, span=9.0).shares == []


def test_availability_is_of_the_time_that_is_known() -> None:
    """Given an outage of 12 h and a ledger of 3 days, then one day is known whole, and of a week these three days."""
    events = [event(0.0, "ready"), event(2.5 * DAY, "restart")]

    found = heartbeat(events, "web", Present([], "down", is_troubled=True), begun=0.0, now=3 * DAY, span=DAY)

    assert found.shares == [(0.5, DAY, True), (pytest.approx(5 / 6), 3 * DAY, False)]


def test_the_worst_incident_was_the_longest_without_a_worker() -> None:
    """Given an outage, many ends beside a sibling, and a later end, then the first is the worst, then the second."""
    sibling = event(0.0, "ready", 2, pid=99, watcher="b")
    outage = [event(0.0, "ready"), event(10.0, "restart"), event(12.0, "ready", pid=8)]
    ends = [event(at, "restart", watcher="b") for at in (20.0, 21.0, 22.0)] + [event(23.0, "ready", watcher="b")]
    later = [event(90.0, "restart", 2, watcher="c", pid=5), event(90.0, "ready", 2, watcher="c", pid=6)]
    events = [sibling, *outage, *ends, *later]
    found = fold(events, [])

    def name(some: list[IncidentRecord]) -> str | None:
        incident = worst(some, events, {"b": Present([99]), "web": Present([8])}, now=100.0)
        return None if incident is None else incident.first.watcher

    assert [name(found), name(found[1:]), name(found[2:]), name([])] == ["web", "b", "c", None]
    found[2].until = None
    assert name(found) == "c"  # what is not over comes before all that is
