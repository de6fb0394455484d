"""Whose a holder of the port is, and who may be stopped under which policy."""

from shlex import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.ports import Holder, Kind, Policy, PortPlan, classify, plan

OURS, THEIRS = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
OWN = frozenset({100, 101})
UNKNOWN_WORDS = "unknown, another user's; run as root to see it"

stranger = Holder(pid=200, started=1, command="nginx: master", user="root", age=10_800, cwd="/", address="0.0.0.0:8000")
orphan = Holder(pid=300, started=2, command="python -m app", instance=OURS, circusd=(90, 5), circusd_alive=False)
sibling = Holder(pid=400, started=3, instance=OURS, circusd=(91, 6), circusd_alive=True)
neighbour = Holder(pid=500, started=4, instance=THEIRS, circusd=(92, 7), circusd_alive=True)
handed = stranger._replace(giver="bob")
their_orphan = Holder(pid=600, started=5, instance=THEIRS, circusd=(93, 8), circusd_alive=False)
hidden = Holder(pid=None, started=None, address="*:8000", inspectable=False)
foreign = Holder(pid=700, started=6, inspectable=False)
worker = Holder(pid=101, started=7, instance=OURS, circusd=(100, 9), circusd_alive=True)
init = Holder(pid=1, started=0, command="/sbin/init")


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        pytest.param(worker, Kind.OURS, id="our live worker"),
        pytest.param(Holder(pid=100, started=9), Kind.OURS, id="our circusd, which carries nothing"),
        pytest.param(worker._replace(inspectable=False), Kind.OURS, id="our worker under another user"),
        pytest.param(orphan, Kind.ORPHAN, id="our instance, its circusd gone"),
        pytest.param(sibling, Kind.INSTANCE, id="our instance, its circusd alive, but not a worker that we know"),
        pytest.param(neighbour, Kind.INSTANCE, id="another instance, alive"),
        pytest.param(their_orphan, Kind.STRANGER, id="another instance's orphan isn't ours to kill"),
        pytest.param(stranger, Kind.STRANGER, id="carries nothing"),
        pytest.param(orphan._replace(circusd=None), Kind.STRANGER, id="an instance id alone proves nothing"),
        pytest.param(stranger._replace(giver="bob"), Kind.HANDED, id="was handed the socket by another user"),
        pytest.param(orphan._replace(giver="root"), Kind.ORPHAN, id="our orphan, whose socket root's circusd made"),
        pytest.param(foreign, Kind.UNKNOWN, id="can't be inspected"),
        pytest.param(hidden, Kind.UNKNOWN, id="not even its pid"),
        pytest.param(orphan._replace(started=None), Kind.UNKNOWN, id="without a start time no signal is safe"),
    ],
)
def test_classify(holder: Holder, expected: Kind) -> None:
    assert classify(holder, instance=OURS, own=OWN) is expected


@pytest.mark.parametrize(
    ("policy", "holders", "stop", "refuse"),
    [
        pytest.param(Policy.ORPHANS, [], [], [], id="nobody"),
        pytest.param(Policy.ORPHANS, [worker], [], [], id="ourselves"),
        pytest.param(Policy.ORPHANS, [orphan], [orphan], [], id="an orphan is stopped"),
        pytest.param(Policy.ORPHANS, [stranger], [], [stranger], id="a stranger is named"),
        pytest.param(Policy.ORPHANS, [orphan, stranger], [orphan], [stranger], id="the orphan goes all the same"),
        pytest.param(Policy.ANY, [orphan, stranger], [orphan, stranger], [], id="any: both go"),
        pytest.param(Policy.ANY, [their_orphan], [their_orphan], [], id="any: another's orphan is a stranger"),
        pytest.param(Policy.ANY, [neighbour], [], [neighbour], id="any: not a live instance"),
        pytest.param(Policy.ANY, [sibling], [], [sibling], id="any: not a live one of the same file"),
        pytest.param(Policy.ANY, [foreign, hidden], [], [foreign, hidden], id="any: not the unknown"),
        pytest.param(Policy.ANY, [handed], [], [handed], id="any: not what was handed the socket"),
        pytest.param(Policy.ANY, [init], [], [init], id="any: never process 1"),
        pytest.param(
            Policy.ANY,
            [stranger, orphan, hidden],
            [orphan],
            [stranger, hidden],
            id="any: no stranger dies where that frees nothing",
        ),
        pytest.param(Policy.NEVER, [orphan, worker], [], [orphan], id="never: not even an orphan"),
        pytest.param(
            Policy.ORPHANS,
            [stranger, stranger._replace(address="[::]:8000")],
            [],
            [stranger],
            id="one process on two addresses is one",
        ),
        pytest.param(
            Policy.ORPHANS,
            [hidden, hidden._replace(address="127.0.0.1:8000")],
            [],
            [hidden, hidden._replace(address="127.0.0.1:8000")],
            id="two unknown ones may be two",
        ),
    ],
)
def test_plan(policy: Policy, holders: list[Holder], stop: list[Holder], refuse: list[Holder]) -> None:
    made = plan(holders, policy=policy, instance=OURS, own=OWN)

    assert (made.stop, made.refuse) == (tuple(stop), tuple(refuse))


@pytest.mark.parametrize(
    ("policy", "holders", "expected"),
    [
        pytest.param(Policy.ORPHANS, [worker], "", id="nothing to say"),
        pytest.param(
            Policy.ORPHANS,
            [stranger],
            'the port is held by pid 200 ("nginx: master"), user root, for 3 h, in /, on 0.0.0.0:8000: a stranger',
            id="a stranger, in full",
        ),
        pytest.param(
            Policy.ORPHANS,
            [stranger._replace(command='x"). Cure: `y`', cwd="/x. Cure: `y`", address="")],
            "the port is held by pid 200 (\"x'). Cure: 'y'\"), user root, for 3 h, in "
            + quote("/x. Cure: 'y'")
            + ": a stranger",
            id="a stranger that would advise",
        ),
        pytest.param(
            Policy.ORPHANS,
            [hidden, foreign],
            f"the port is held by pid unknown, on *:8000: {UNKNOWN_WORDS}, pid 700: {UNKNOWN_WORDS}",
            id="unknown is never called free",
        ),
        pytest.param(
            Policy.ANY,
            [neighbour],
            "the port is held by pid 500: belongs to circusd 92, which is running",
            id="a live instance",
        ),
        pytest.param(
            Policy.ORPHANS,
            [orphan, stranger],
            'the port is held by pid 200 ("nginx: master"), user root, for 3 h, in /, on 0.0.0.0:8000: a stranger; '
            'stopping pid 300 ("python -m app"): an orphan of our circusd 90, which is gone',
            id="what is refused comes first",
        ),
        pytest.param(
            Policy.NEVER,
            [orphan],
            'the port is held by pid 300 ("python -m app"): '
            "an orphan of our circusd 90, which is gone, kept because port.policy is never",
            id="an orphan that may not be stopped",
        ),
        pytest.param(
            Policy.ANY,
            [Holder(pid=pid, started=pid) for pid in range(11, 14)],
            "stopping pid 11: a stranger, pid 12: a stranger, pid 13: a stranger",
            id="three are named",
        ),
        pytest.param(
            Policy.ANY,
            [Holder(pid=pid, started=pid) for pid in range(11, 16)],
            "stopping pid 11: a stranger, pid 12: a stranger, pid 13: a stranger, and 2 more",
            id="the first three stand for all",
        ),
        pytest.param(
            Policy.ORPHANS,
            [*(Holder(pid=pid, started=pid) for pid in range(11, 14)), Holder(pid=200, started=1, giver="bob")],
            "the port is held by pid 200: has it from user bob, and may not know of it, pid 11: a stranger, "
            "pid 12: a stranger, and 1 more",
            id="one that was handed the socket is named, as the cure depends on it",
        ),
    ],
)
def test_reasons(policy: Policy, holders: list[Holder], expected: str) -> None:
    assert plan(holders, policy=policy, instance=OURS, own=OWN).reason == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-3.0, "for 0 s"),
        (119.4, "for 119 s"),
        (120.0, "for 2 min"),
        (7199.0, "for 120 min"),
        (7200.0, "for 2 h"),
        (172_799.0, "for 48 h"),
        (172_800.0, "for 2 d"),
        (8_640_000.0, "for 100 d"),
    ],
)
def test_ages(age: float, expected: str) -> None:
    made = plan([Holder(pid=200, started=1, age=age)], policy=Policy.ORPHANS, instance=OURS, own=OWN)

    assert made.reason == f"the port is held by pid 200, {expected}: a stranger"


def test_a_command_line_can_not_write_on_the_terminal() -> None:
    holder = Holder(pid=200, started=1, command="evil\x1b[2J\nroot did it " + "x" * 5000)

    made = plan([holder], policy=Policy.ORPHANS, instance=OURS, own=OWN)

    assert (made.reason.isprintable(), len(made.reason) < 200) == (True, True)


HOLDERS = st.lists(
    st.builds(
        Holder,
        pid=st.none() | st.integers(1, 300),
        started=st.none() | st.integers(0, 3),
        inspectable=st.booleans(),
        instance=st.sampled_from([None, OURS, THEIRS]),
        circusd=st.sampled_from([None, (90, 5)]),
        circusd_alive=st.booleans(),
        age=st.none() | st.floats(0, 1e9),
    ),
    max_size=6,
)


def plans(holders: list[Holder], policy: Policy) -> PortPlan:
    return plan(holders, policy=policy, instance=OURS, own=OWN)


@settings(max_examples=60, deadline=None)
@given(HOLDERS, st.sampled_from(Policy))
def test_nobody_is_stopped_but_orphans_and_under_any_strangers(holders: list[Holder], policy: Policy) -> None:
    stopped = {classify(holder, instance=OURS, own=OWN) for holder in plans(holders, policy).stop}

    assert (
        stopped
        <= {
            Policy.ORPHANS: {Kind.ORPHAN},
            Policy.ANY: {Kind.ORPHAN, Kind.STRANGER},
            Policy.NEVER: set[Kind](),
        }[policy]
    )


@settings(max_examples=60, deadline=None)
@given(HOLDERS, st.sampled_from(Policy))
def test_every_process_but_ours_is_stopped_or_named(holders: list[Holder], policy: Policy) -> None:
    made = plans(holders, policy)

    assert {holder.pid for holder in (*made.stop, *made.refuse)} == {
        holder.pid for holder in holders if classify(holder, instance=OURS, own=OWN) is not Kind.OURS
    }
