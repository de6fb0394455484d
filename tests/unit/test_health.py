"""The decision table: hung, sick, busy, not ready, or a dependency that is down."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.health import Event, HealthRules, Observation, Replace, Round, Silence, WatcherHealth, Worker
from xboard_circus.core.state_names import Health

A, B, C, D = (71, 1), (72, 1), (73, 1), (74, 1)

UNKNOWN, OK, BUSY, FAILING, SICK, HUNG = (
    Health.UNKNOWN,
    Health.OK,
    Health.BUSY,
    Health.FAILING,
    Health.SICK,
    Health.HUNG,
)

SEEN = {
    ".": Observation(answered=True, live=True, ready=True),
    "N": Observation(answered=False, reason="timed out after 2 s"),
    "T": Observation(answered=False, is_stopped=True, reason="a signal has stopped it"),
    "F": Observation(answered=True, live=False, ready=True, reason="live path said 500"),
    "b": Observation(answered=True, live=True, ready=True, pool_full=True),
    "B": Observation(answered=True, live=False, ready=True, pool_full=True, reason="live path timed out"),
    "s": Observation(answered=True, starting=True, live=False),
    "r": Observation(answered=True, live=True, ready=False, reason="ready path said 503"),
    "-": Observation(answered=True),
}
WORDS = {UNKNOWN: "unknown", OK: "ok", BUSY: "busy", FAILING: "failing", SICK: "sick", HUNG: "hung"}


def silent(beats: tuple[int, int] | None) -> Observation:
    return Observation(answered=False, reason="timed out after 2 s", beats=beats)


def slots(*workers: Worker) -> dict[Worker, int]:
    return {worker: slot for slot, worker in enumerate(workers, start=1)}


def play(story: dict[Worker, str], rules: HealthRules | None = None) -> list[Round]:
    """Return the verdict on each round of *story*: a letter of SEEN a round for each worker, a blank for none."""
    health = WatcherHealth(rules or HealthRules())
    rounds = zip(*story.values(), strict=True)
    return [
        health.round({w: SEEN[letter] for w, letter in zip(story, letters, strict=True) if letter != " "})
        for letters in rounds
    ]


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        pytest.param(".NN.", "ok failing failing ok", id="two misses are nothing"),
        pytest.param(".NNN", "ok failing failing hung", id="three in a row are hung"),
        pytest.param(".NN.NNN", "ok failing failing ok failing failing hung", id="an answer starts the count anew"),
        pytest.param(".T.", "ok hung ok", id="one that is stopped is hung at once"),
        pytest.param("TT", "unknown unknown", id="but not before it was well"),
        pytest.param(".NNNN", "ok failing failing hung hung", id="it stays hung"),
        pytest.param(".NNN.", "ok failing failing hung ok", id="and is well when it answers"),
        pytest.param(".NNNF", "ok failing failing hung sick", id="it answers, and not well"),
        pytest.param(".FFF", "ok failing failing sick", id="the live path fails three times"),
        pytest.param(".FF.FF", "ok failing failing ok failing failing", id="a success starts the count anew"),
        pytest.param(".FNFNF", "ok failing failing failing failing sick", id="no answer is no success"),
        pytest.param(".FFFN", "ok failing failing sick sick", id="nor does it make a sick one well"),
        pytest.param(".FFFNNN", "ok failing failing sick sick sick hung", id="a sick one can get hung"),
        pytest.param(".FFF.", "ok failing failing sick ok", id="a sick one gets well"),
        pytest.param(".bbbb", "ok busy busy busy busy", id="a full pool is busy"),
        pytest.param(".BBBB", "ok busy busy busy busy", id="so is one whose live path can't get a thread"),
        pytest.param(".FFBF", "ok failing failing busy sick", id="busy is no success"),
        pytest.param(".FBBF", "ok failing busy busy failing", id="busy is no failure"),
        pytest.param(".FFFB", "ok failing failing sick busy", id="not even the sick are killed while they are busy"),
        pytest.param(".rrrr", "ok ok ok ok ok", id="not ready is nothing to act on"),
        pytest.param("-NNN", "ok failing failing hung", id="without a live path the loop still tells"),
        pytest.param("NNNN", "unknown unknown unknown unknown", id="nothing counts before the first success"),
        pytest.param("FFFF", "unknown unknown unknown unknown", id="nor does a live path that fails"),
        pytest.param("ssss", "unknown unknown unknown unknown", id="it says itself that it starts"),
        pytest.param("ssNNN.NNN", "unknown unknown unknown unknown unknown ok failing failing hung", id="a slow start"),
        pytest.param(".sNNNN", "ok unknown unknown unknown unknown unknown", id="a draining worker isn't judged"),
        pytest.param(".FFsF", "ok failing failing unknown unknown", id="what was counted before is forgotten"),
    ],
)
def test_states(story: str, expected: str) -> None:
    assert [WORDS[verdict.healths[A]] for verdict in play({A: story})] == expected.split()


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        pytest.param([(n, n + 1) for n in range(12)], "busy " * 12, id="one that works is never hung"),
        pytest.param([(5, 5), (5, 5), (5, 5)], "failing failing hung", id="one that stands is, in the usual time"),
        pytest.param(
            [(0, 9), (9, 9), (9, 9), (9, 9)], "busy failing failing hung", id="so is one that came to a stand"
        ),
        pytest.param([(0, 0), (4, 4), (8, 8), (9, 9)], "failing busy busy busy", id="it may work between two probes"),
        pytest.param([(0, 0), (0, 0), (0, 1), (1, 1)], "failing failing busy failing", id="the count starts anew"),
        pytest.param([None, None, None], "failing failing hung", id="nothing is known of its progress"),
        pytest.param([(0, 1), None, None, None], "busy failing failing hung", id="nor any more"),
        pytest.param([(9, 3), (3, 2), (2, 1)], "failing failing hung", id="a number that falls is no progress"),
    ],
)
def test_no_answer_with_and_without_progress(beats: list[tuple[int, int] | None], expected: str) -> None:
    health = WatcherHealth(HealthRules())
    health.round({A: SEEN["."]})

    verdicts = [health.round({A: silent(each)}) for each in beats]

    assert [WORDS[verdict.healths[A]] for verdict in verdicts] == expected.split()
    assert [bool(verdict.replace) for verdict in verdicts] == [word == "hung" for word in expected.split()]
    assert all(verdict.not_ready == {A} for verdict in verdicts)


def test_what_was_done_before_an_answer_or_a_pause_is_no_progress_after_it() -> None:
    health = WatcherHealth(HealthRules())
    for seen in (SEEN["."], silent((0, 1)), SEEN["."]):
        health.round({A: seen})
    assert health.round({A: silent((5, 5))}).healths == {A: FAILING}

    health.reset()

    assert health.round({A: silent((7, 7))}).healths == {A: FAILING}


def test_one_miss_is_enough_and_progress_within_it_too() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=1))
    health.round({A: SEEN["."]})

    assert health.round({A: silent((0, 1))}).healths == {A: BUSY}
    assert health.round({A: silent((1, 1))}).healths == {A: HUNG}


def test_an_overload_that_lasts_is_an_event_and_so_is_its_end() -> None:
    """Given a worker that works without an answer for as many probes as make another hung, then it is news once."""
    health = WatcherHealth(HealthRules())
    rounds = [SEEN["."], *(silent((n, n + 1)) for n in range(6)), SEEN["."], silent((9, 10)), SEEN["."]]

    verdicts = [health.round({A: seen}) for seen in rounds]

    reason = "overloaded: its event loop works, but does not get round to probes: timed out after 2 s"
    assert [(number, event) for number, verdict in enumerate(verdicts) for event in verdict.events] == [
        (3, Event("unhealthy", reason, A)),
        (7, Event("recovered", "ok again", A)),
    ]
    assert not any(verdict.replace for verdict in verdicts)


STOPPED = "a signal such as SIGSTOP has stopped its process"
BLOCKED = "event loop blocked for {} s"
NO_SIGN = "no answer and no sign of its event loop for {} s, perhaps C code holds the GIL"


@pytest.mark.parametrize(
    ("seen", "period", "why"),
    [
        pytest.param(Silence(lasts=1.9, stands=1.9), 2.0, "", id="a callback of less than a period"),
        pytest.param(Silence(lasts=0.5, stands=2.0), 2.0, BLOCKED.format(2), id="one of a period"),
        pytest.param(Silence(lasts=0.5, stands=2.0, computes=True), 2.0, BLOCKED.format(2), id="one that computes"),
        pytest.param(Silence(lasts=0.2, stands=9.0), 2.0, "", id="the probe has just begun"),
        pytest.param(Silence(lasts=0.5, stands=0.9), 0.3, "", id="less than a second is never blocked"),
        pytest.param(Silence(lasts=0.5, stands=1.0), 0.3, BLOCKED.format(1), id="a second, at a short period"),
        pytest.param(Silence(lasts=2.0, moves=True), 2.0, "", id="overloaded: other callbacks run"),
        pytest.param(Silence(lasts=0.9, computes=True), 2.0, "", id="it shows nothing, for less than half a period"),
        pytest.param(Silence(lasts=1.0, computes=True), 2.0, NO_SIGN.format(1), id="nothing for half a period"),
        pytest.param(Silence(lasts=0.7, computes=True), 1.0, "", id="its thread takes a moment to show something"),
        pytest.param(Silence(lasts=0.8, computes=True), 1.0, NO_SIGN.format(0.8), id="nothing at a short period"),
        pytest.param(Silence(lasts=2.0), 2.0, "", id="it waits for a core, or for what its live path asks"),
        pytest.param(Silence(lasts=2.0, moves=None, computes=True), 2.0, "", id="its file cannot be read"),
        pytest.param(Silence(lasts=0.5, stopped=0.3), 2.0, STOPPED, id="stopped"),
        pytest.param(Silence(lasts=0.35, stopped=0.15), 2.0, "", id="stopped for a moment"),
    ],
)
def test_which_silence_is_that_of_a_blocked_loop(seen: Silence, period: float, why: str) -> None:
    assert seen.blocked(period) == why


LONG, LATE, WORKS = Silence(lasts=1.0, stands=2.5), Silence(lasts=1.0), Silence(lasts=1.0, moves=True)


@pytest.mark.parametrize(
    ("silent", "up", "gets_one"),
    [
        pytest.param({A: LONG}, {A}, True, id="the only worker"),
        pytest.param({A: LONG}, {A, B}, True, id="one of two"),
        pytest.param({A: LONG, B: LATE}, {A, B}, False, id="both of two: perhaps a dependency blocks them"),
        pytest.param({A: LONG, B: LATE}, {A, B, C, D}, False, id="half of four"),
        pytest.param({A: LONG, B: LATE}, {A, B, C, D, (75, 1)}, True, id="two of five"),
        pytest.param({A: LONG, B: WORKS}, {A, B}, True, id="beside an overloaded one"),
        pytest.param({A: LONG}, {B}, False, id="one that starts is not judged"),
    ],
)
def test_a_blocked_worker_gets_a_successor_ahead(
    silent: dict[Worker, Silence], up: set[Worker], gets_one: bool
) -> None:
    health = WatcherHealth(HealthRules())
    health.round(dict.fromkeys(up, SEEN["."]))

    assert bool(health.ahead(A, silent, period=2.0, up=slots(*up))) is gets_one


def test_one_that_hangs_gets_none_ahead_and_none_does_while_many_hang() -> None:
    health = WatcherHealth(HealthRules())
    for letter in ".NN":
        health.round({A: SEEN[letter], B: SEEN["."]})
    assert health.ahead(A, {A: LONG}, period=2.0, up=slots(A, B))

    health.round({A: SEEN["N"], B: SEEN["."]})
    assert not health.ahead(A, {A: LONG}, period=2.0, up=slots(A, B))
    for _ in range(2):
        health.round({A: SEEN["N"], B: SEEN["N"], C: SEEN["."], D: SEEN["."]}, up=slots(A, B, C, D))
    assert not health.ahead(B, {B: LONG}, period=2.0, up=slots(A, B, C, D))


def test_a_successor_that_hangs_as_its_predecessor_does_is_no_dependency() -> None:
    """Whoever has sent the request that hangs one sends it anew: both are to be replaced as soon as each hangs."""
    health, up = WatcherHealth(HealthRules()), {A: 1, B: 1}

    verdicts = [health.round({A: SEEN[a], B: SEEN[b]}, up=up) for a, b in ("..", "N.", "NN", "NN")]
    assert health.ahead(B, {A: LONG, B: LONG}, period=2.0, up=up)
    verdicts.append(health.round({B: SEEN["N"]}, up={B: 1}))

    assert [[each.worker for each in verdict.replace] for verdict in verdicts] == [[], [], [], [A], [B]]
    assert not any("together" in event.reason for verdict in verdicts for event in verdict.events)


def test_one_that_has_a_successor_is_not_spared_while_many_hang() -> None:
    """Its place is filled: with it, and its successor that hangs too, as many would be spared as one slot may have."""
    health, rules = WatcherHealth(HealthRules(failure_threshold=1)), {A: 1, B: 2, (75, 2): 1}
    health.round(dict.fromkeys(rules, SEEN["."]), up=rules)

    verdict = health.round(dict.fromkeys(rules, SEEN["N"]), up=rules)
    later = health.round({B: SEEN["N"], (76, 3): SEEN["."]}, up={B: 2, (76, 3): 1})

    assert [each.worker for each in verdict.replace] == [A, B]
    assert [each.worker for each in later.replace] == [B]
    assert [event.reason.partition(" workers")[0] for event in verdict.events if not event.worker] == ["2 of 2"]


def test_stopped_workers_get_successors_ahead_as_no_dependency_blocks_them() -> None:
    health, up = WatcherHealth(HealthRules()), slots(A, B)
    health.round(dict.fromkeys(up, SEEN["."]))
    stopped = Silence(lasts=0.5, stopped=0.3)

    assert health.ahead(A, {A: stopped, B: stopped}, period=2.0, up=up) == STOPPED


THREE, ONE = "3 of 4 workers", "one at a time is replaced"


def test_that_many_hang_together_is_told_as_that_of_a_dependency() -> None:
    verdicts = play({A: ".NNNN.", B: ".NNNN.", C: "......", D: ".NNNN."})

    told = [
        (number, event.kind, event.reason)
        for number, v in enumerate(verdicts)
        for event in v.events
        if not event.worker
    ]
    assert told == [
        (
            3,
            "unhealthy",
            f"{THREE} hang together, so a dependency may not answer that they wait for in their event loops: {ONE}",
        ),
        (5, "recovered", "most workers answer again"),
    ]


def test_an_overloaded_worker_does_not_hang_together_with_a_hung_one() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=2))
    health.round({A: SEEN["."], B: SEEN["."]})
    health.round({A: SEEN["N"], B: silent((0, 1))})

    verdict = health.round({A: SEEN["N"], B: silent((1, 2))})

    assert verdict.replace == (Replace(A, HUNG, "no answer 2 times in a row: timed out after 2 s"),)
    assert verdict.reasons[B] == (
        "overloaded: its event loop works, but does not get round to probes: timed out after 2 s"
    )
    assert [event.worker for event in verdict.events] == [A, B]


@pytest.mark.parametrize(
    ("story", "rules", "expected"),
    [
        pytest.param(".N", HealthRules(failure_threshold=1), "ok hung", id="the first miss"),
        pytest.param(".F.", HealthRules(failure_threshold=1), "ok sick ok", id="the first failure"),
        pytest.param(
            ".F..F..",
            HealthRules(failure_threshold=1, success_threshold=2),
            "ok sick sick ok sick sick ok",
            id="two successes to be well",
        ),
        pytest.param(
            ".F.B.",
            HealthRules(failure_threshold=1, success_threshold=2),
            "ok sick sick busy ok",
            id="busy between",
        ),
        pytest.param(
            ".FF.N.",
            HealthRules(failure_threshold=2, success_threshold=2),
            "ok failing sick sick sick sick",
            id="a miss between two successes",
        ),
        pytest.param(
            ".Fs.",
            HealthRules(failure_threshold=1, success_threshold=2),
            "ok sick unknown ok",
            id="who starts again has a clean count",
        ),
        pytest.param(
            ".F.N.",
            HealthRules(failure_threshold=2, success_threshold=1),
            "ok failing ok failing ok",
            id="a failure and a miss aren't two in a row",
        ),
    ],
)
def test_thresholds(story: str, rules: HealthRules, expected: str) -> None:
    assert [WORDS[verdict.healths[A]] for verdict in play({A: story}, rules)] == expected.split()


def names(verdicts: list[Round]) -> str:
    """Return who is to be replaced in each round, in letters."""
    letters = {A: "A", B: "B", C: "C", D: "D"}
    return " ".join("".join(letters[asked.worker] for asked in verdict.replace) or "-" for verdict in verdicts)


@pytest.mark.parametrize(
    ("story", "rules", "expected"),
    [
        pytest.param(
            {A: ".NNNN."}, HealthRules(), "- - - A A -", id="asked for in each round, for as long as it lasts"
        ),
        pytest.param({A: ".FFFF"}, HealthRules(), "- - - A A", id="a lone worker too"),
        pytest.param({A: ".FFFF", B: "....."}, HealthRules(), "- - - A A", id="one of two"),
        pytest.param({A: ".FFF", B: ".FFF"}, HealthRules(), "- - - -", id="both at once: a dependency is down"),
        pytest.param({A: ".FFF", B: "...F"}, HealthRules(), "- - - -", id="the other just begins to fail"),
        pytest.param({A: ".FFFFF", B: "...F.."}, HealthRules(), "- - - - - A", id="the other only stumbled"),
        pytest.param({A: ".FFFF", B: ".FFBB"}, HealthRules(), "- - - A A", id="a busy one doesn't count as failing"),
        pytest.param(
            {A: ".FFF", B: "   F"}, HealthRules(), "- - - -", id="a new worker that fails from the start does"
        ),
        pytest.param({A: ".FFF", B: "   s"}, HealthRules(), "- - - A", id="one that starts doesn't"),
        pytest.param(
            {A: ".NNN", B: ".NNN", C: "....", D: "....", (75, 1): "...."},
            HealthRules(),
            "- - - AB",
            id="hung ones serve nothing: all at once",
        ),
        pytest.param({A: ".NNNN", B: ".NNNN"}, HealthRules(), "- - - A A", id="all hang together: one as a trial"),
        pytest.param({A: "..NNN", B: ".NNNN"}, HealthRules(), "- - - B B", id="the first to hang is the trial"),
        pytest.param(
            {A: ".N      ", B: ".NNNN...", C: "  sss..."},
            HealthRules(failure_threshold=1),
            "- A - - - - - -",
            id="the others get well meanwhile, and live",
        ),
        pytest.param(
            {A: ".N      ", B: ".NNNNNNN", C: "  sss..."},
            HealthRules(failure_threshold=1),
            "- A - - - B B B",
            id="one that does not is next after a pause",
        ),
        pytest.param(
            {A: ".N      ", B: ".NNNNNNN", C: "  s.....", D: "   ....."},
            HealthRules(failure_threshold=1),
            "- A - B B B B B",
            id="no pause when most are well",
        ),
        pytest.param({A: ".TT", B: ".TT"}, HealthRules(), "- AB AB", id="those that are stopped wait for nothing"),
        pytest.param({A: ".TTT", B: ".NNN"}, HealthRules(), "- A A AB", id="nor does another one hang with them"),
        pytest.param({A: ".NNN", B: ".FFF", C: ".FFF"}, HealthRules(), "- - - A", id="hung while a dependency is down"),
        pytest.param({A: ".FFF", B: ".FFF", C: "....", D: "...."}, HealthRules(), "- - - -", id="two of four are half"),
        pytest.param(
            {A: "..FFFF", B: ".FFFFF", C: "......", D: "......", (75, 1): "......"},
            HealthRules(),
            "- - - B B B",
            id="two of five: one at a time, the first first",
        ),
        pytest.param(
            {A: "..FFF ", B: ".FFF..", C: "......", D: "......", (75, 1): "......"},
            HealthRules(),
            "- - - B A -",
            id="the next one when the first is well",
        ),
        pytest.param(
            {A: ".FFF", B: ".FFF", C: "....", D: "....", (75, 1): "...."},
            HealthRules(max_unavailable=2),
            "- - - AB",
            id="two at a time",
        ),
        pytest.param(
            {A: ".FFFFFF.", B: ".FFFF..."}, HealthRules(), "- - - - - - A -", id="one heals, the other doesn't"
        ),
        pytest.param(
            {A: ".FFFFF..", B: ".FFFF..."}, HealthRules(), "- - - - - - - -", id="both heal, one a round later"
        ),
        pytest.param(
            {A: ".FFF.", B: ".FF.."}, HealthRules(), "- - - - -", id="an outage heals in the round that would count"
        ),
        pytest.param({A: ".FFFF", B: ".FF.."}, HealthRules(), "- - - - A", id="and is no excuse for longer"),
        pytest.param({A: ".BBBB", B: "....."}, HealthRules(), "- - - - -", id="nobody is killed for being busy"),
    ],
)
def test_replace(story: dict[Worker, str], rules: HealthRules, expected: str) -> None:
    assert names(play(story, rules)) == expected


def test_a_replacement_says_how_and_why() -> None:
    verdict = play({A: ".NNN", B: ".FFF", C: "...."})[-1]

    assert verdict.replace == (
        Replace(A, HUNG, "no answer 3 times in a row: timed out after 2 s"),
        Replace(B, SICK, "live path failed 3 times in a row: live path said 500"),
    )


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        pytest.param(".", "", id="all is well"),
        pytest.param("..N", "no answer once: timed out after 2 s", id="a first miss"),
        pytest.param("..T", "hung: a signal has stopped it", id="stopped"),
        pytest.param(".FF", "live path failed 2 times in a row: live path said 500", id="failing"),
        pytest.param(".B", "thread pool full: live path timed out", id="busy"),
        pytest.param(".r", "not ready: ready path said 503", id="not ready"),
        pytest.param("N", "timed out after 2 s", id="not started"),
        pytest.param(".FFF.", "sick: ok once, 2 needed", id="on the way"),
        pytest.param(".FFF..", "", id="well again"),
    ],
)
def test_reasons(story: str, expected: str) -> None:
    assert play({A: story}, HealthRules(success_threshold=2))[-1].reasons == {A: expected}


def test_who_is_not_ready_is_told_apart() -> None:
    verdict = play({A: ".r", B: ".N", C: ".-", D: ".s"})[-1]

    assert verdict.not_ready == {A, B}


DOWN = "a dependency is down, so no worker is replaced: 2 of 2 workers fail: live path said 500"
WELL = "the live path of every worker succeeds again"


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        pytest.param(
            {A: ".NNNN."},
            [
                (3, Event("unhealthy", "hung: no answer 3 times in a row: timed out after 2 s", A)),
                (5, Event("recovered", "ok again", A)),
            ],
            id="once when it falls ill, once when it is well",
        ),
        pytest.param(
            {A: ".FFFNNNN.."},
            [
                (3, Event("unhealthy", "sick: live path failed 3 times in a row: live path said 500", A)),
                (8, Event("recovered", "ok again", A)),
            ],
            id="from sick to hung is no news",
        ),
        pytest.param(
            {A: ".FFFB."},
            [
                (3, Event("unhealthy", "sick: live path failed 3 times in a row: live path said 500", A)),
                (5, Event("recovered", "ok again", A)),
            ],
            id="busy is neither",
        ),
        pytest.param(
            {A: ".FFFF..", B: ".FFFFF."},
            [
                (3, Event("unhealthy", DOWN)),
                (5, Event("unhealthy", "sick: live path failed 5 times in a row: live path said 500", B)),
                (6, Event("recovered", WELL)),
                (6, Event("recovered", "ok again", B)),
            ],
            id="one event for all, until fewer fail",
        ),
        pytest.param(
            {A: ".FFFF.FF.", B: ".FFF.FFF."},
            [
                (3, Event("unhealthy", DOWN)),
                (4, Event("unhealthy", "sick: live path failed 4 times in a row: live path said 500", A)),
                (5, Event("recovered", "ok again", A)),
                (8, Event("recovered", WELL)),
            ],
            id="a relapse before all were well is no news",
        ),
        pytest.param(
            {A: ".FFF.FFF.", B: ".FFF.FFF."},
            [
                (3, Event("unhealthy", DOWN)),
                (4, Event("recovered", WELL)),
                (7, Event("unhealthy", DOWN)),
                (8, Event("recovered", WELL)),
            ],
            id="down again is news",
        ),
        pytest.param(
            {A: ".FFF..", B: ".FFFB."},
            [(3, Event("unhealthy", DOWN)), (5, Event("recovered", WELL))],
            id="who is too busy to tell isn't well yet",
        ),
        pytest.param(
            {A: ".FFF. ", B: ".FFFs ", C: "   NN "},
            [(3, Event("unhealthy", DOWN.replace("2 of 2", "2 of 3"))), (4, Event("recovered", WELL))],
            id="who starts or drains can't hold up good news",
        ),
        pytest.param({A: ".FFF  ", B: ".FFF  "}, [(3, Event("unhealthy", DOWN))], id="nobody left is no good news"),
        pytest.param(
            {A: ".FFF s.", B: ".FFF s."},
            [(3, Event("unhealthy", DOWN)), (6, Event("recovered", WELL))],
            id="their successors bring it",
        ),
        pytest.param({A: ".rrrr", B: ".bbbb"}, [], id="neither not ready nor busy is an event"),
    ],
)
def test_events(story: dict[Worker, str], expected: list[tuple[int, Event]]) -> None:
    verdicts = play(story)

    assert [(number, event) for number, verdict in enumerate(verdicts) for event in verdict.events] == expected


def test_a_dependency_that_is_down_is_told_without_words_of_the_probe() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=1))
    failed = Observation(answered=True, live=False)
    health.round({A: SEEN["."], B: SEEN["."]})

    verdict = health.round({A: failed, B: failed})

    assert verdict.events == (
        Event("unhealthy", "a dependency is down, so no worker is replaced: 2 of 2 workers fail their live path"),
    )


@pytest.mark.parametrize("letter", ["N", "F"])
def test_after_a_gap_counting_starts_anew(letter: str) -> None:
    health = WatcherHealth(HealthRules())
    for seen in (".", letter, letter, letter):
        health.round({A: SEEN[seen], B: SEEN["."]})

    health.reset()

    assert [health.round({A: SEEN[letter], B: SEEN["."]}).replace != () for _ in range(3)] == [False, False, True]


def test_an_illness_before_the_gap_still_ends_with_an_event() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=1))
    health.round({A: SEEN["."]})
    health.round({A: SEEN["N"]})

    health.reset()

    assert health.round({A: SEEN["."]}).events == (Event("recovered", "ok again", A),)


def test_another_process_with_the_same_pid_is_another_worker() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=1))
    health.round({(71, 1): SEEN["."]})

    assert health.round({(71, 2): SEEN["N"]}).healths == {(71, 2): UNKNOWN}


def test_rules_may_change_while_it_runs() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=9))
    for letter in ".NN":
        health.round({A: SEEN[letter]})

    health.rules = HealthRules(failure_threshold=2)

    assert health.round({A: SEEN["N"]}).healths == {A: HUNG}


def test_the_defaults_are_those_of_the_design() -> None:
    assert HealthRules() == HealthRules(failure_threshold=3, success_threshold=1, max_unavailable=1)


@pytest.mark.parametrize("rule", ["failure_threshold", "success_threshold", "max_unavailable"])
def test_rules_below_one_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=f"{rule} must be at least 1, not 0"):
        HealthRules(**{rule: 0})


def test_workers_that_disappear_are_forgotten() -> None:
    health = WatcherHealth(HealthRules(failure_threshold=1))
    sizes = []
    for pid in range(100, 200):
        health.round({(pid, 1): SEEN["."]})
        health.round({(pid, 1): SEEN["F"]})
        sizes.append(len(pickle.dumps(health)))

    assert max(sizes) - min(sizes) < 10


STORIES = st.integers(1, 12).flatmap(
    lambda rounds: st.lists(
        st.text(alphabet="".join(SEEN).replace("T", ""), min_size=rounds, max_size=rounds), min_size=1, max_size=5
    ).map(lambda rows: {(pid, 1): row for pid, row in enumerate(rows, 71)})
)
RULES = st.builds(HealthRules, failure_threshold=st.integers(1, 3), success_threshold=st.integers(1, 2))


@settings(max_examples=60, deadline=None)
@given(STORIES, RULES)
def test_no_more_of_the_sick_than_allowed_and_no_busy_one_is_ever_replaced(
    story: dict[Worker, str], rules: HealthRules
) -> None:
    for number, verdict in enumerate(play(story, rules)):
        sick = [asked for asked in verdict.replace if asked.health is SICK]

        assert len(sick) <= rules.max_unavailable
        assert not any(SEEN[story[asked.worker][number]].pool_full for asked in verdict.replace)


@settings(max_examples=60, deadline=None)
@given(STORIES, RULES)
def test_hung_means_exactly_so_many_misses_in_a_row_after_a_success(
    story: dict[Worker, str], rules: HealthRules
) -> None:
    verdicts = play(story, rules)

    for worker, row in story.items():
        for number, verdict in enumerate(verdicts):
            answers = row[: number + 1].rstrip("N")
            misses = number + 1 - len(answers)
            judged = any(SEEN[letter].is_success for letter in answers.rpartition("s")[2])
            assert (verdict.healths[worker] is HUNG) == (judged and misses >= rules.failure_threshold)


@settings(max_examples=60, deadline=None)
@given(STORIES, RULES)
def test_a_worker_is_never_twice_unhealthy_without_having_recovered(
    story: dict[Worker, str], rules: HealthRules
) -> None:
    events = [event for verdict in play(story, rules) for event in verdict.events]

    for worker in (None, *story):
        kinds = [event.kind for event in events if event.worker == worker]
        assert kinds == ["unhealthy", "recovered"] * (len(kinds) // 2) + ["unhealthy"] * (len(kinds) % 2)


def test_what_was_well_when_it_came_up_is_sick_from_the_first_probe_on() -> None:
    """Given a worker that is up and was never probed by this prober, when its live path fails, then it is replaced."""
    health = WatcherHealth(HealthRules(failure_threshold=2))
    well, failing = Observation(answered=True, live=True), Observation(answered=True, live=False, reason="status 500")

    rounds = [health.round({A: failing, B: well, C: well}, up=slots(A, B, C)) for _ in range(2)]

    assert [[each.worker for each in seen.replace] for seen in rounds] == [[], [A]]
