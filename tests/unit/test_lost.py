"""What became of a circusd that is gone: what it has written down in, what is told out."""

import os
from typing import Any

import pytest

from xboard_circus.core.lost import CircusdLife, Loss, found, witnessed
from xboard_circus.host import circusd_record, procs
from xboard_circus.ledger.record import record_of

CGROUP, HOST = "/sys/fs/cgroup/x/memory.events", "/proc/vmstat"
BEFORE = {CGROUP: 2, HOST: 5}
KILLED = "circusd (pid 7) was killed or crashed, without a stop request"
OOM = "circusd (pid 7) was killed, out of memory: the kernel's OOM killer, oom_kill of {} rose"
LIFE = CircusdLife(pid=7, started=70, boot="b1", seen=100.0, kills=BEFORE)


def told(
    life: CircusdLife = LIFE, *, boot: str = "b1", kills: dict[str, int] = BEFORE, now: float = 105.0
) -> Loss | None:
    reported = life.gone_at is not None and not life.witness
    return found(life, boot=boot, kills=kills, successor=9, now=now, is_reported=reported)


@pytest.mark.parametrize("more", [{}, {"wound_up": True}, {"why": "silent"}, {"gone_at": 1.0}])
def test_an_end_that_was_asked_for_is_no_loss_however_it_came(more: dict[str, Any]) -> None:
    life = LIFE._replace(is_ordered=True, **more)

    assert (told(life), told(life, boot="b2"), witnessed(life, kills={}, now=1)) == (None, None, None)


def test_the_next_one_tells_when_it_was_last_seen_and_for_how_long_it_was_gone() -> None:
    reason = f"{KILLED}; circusd runs again, as pid 9, 5 s after it was last seen"

    assert told() == Loss("circusd_lost", 7, 70, 100.0, reason, None, 5.0, 9)


def test_what_its_plugin_saw_is_not_told_as_a_second_loss() -> None:
    reason = f"circusd runs again, as pid 9, 2 min 1 s after it was lost; {KILLED}"

    assert told(LIFE._replace(gone_at=103.0), now=224.0) == Loss("circusd_back", 7, 70, 103.0, reason, None, 121.0, 9)


def test_what_its_plugin_saw_and_did_not_live_to_report_is_told_as_a_loss() -> None:
    reason = f"{KILLED}; circusd runs again, as pid 9, 2 s after it was last seen"

    assert told(LIFE._replace(gone_at=103.0, witness="8:80")) == Loss(
        "circusd_lost", 7, 70, 103.0, reason, None, 2.0, 9
    )


@pytest.mark.parametrize(
    ("gone_at", "witness", "is_reported"),
    [
        (None, "", False),
        (103.0, "", True),
        (103.0, str(procs.Identity.of(os.getpid())), True),
        (103.0, f"{os.getpid()}:1", False),
        (103.0, "nonsense", False),
    ],
    ids=["nobody saw it", "reported", "being reported", "the witness is gone", "a file that was tampered with"],
)
def test_a_loss_is_reported_while_its_witness_lives_or_once_it_has_said_so(
    gone_at: float | None, witness: str, is_reported: bool
) -> None:
    life = LIFE._replace(gone_at=gone_at, witness=witness)

    assert circusd_record.is_reported(life) == is_reported


@pytest.mark.parametrize(
    ("boots", "kind"),
    [
        (("b1", "b2"), "host_restarted"),
        (("b1", "b1"), "circusd_lost"),
        (("", "b2"), "circusd_lost"),
        (("b1", ""), "circusd_lost"),
    ],
    ids=["another start of the host", "the same", "nobody wrote it down", "nobody can tell it now"],
)
def test_a_restart_of_the_host_is_no_loss_of_circusd(boots: tuple[str, str], kind: str) -> None:
    loss = told(LIFE._replace(boot=boots[0]), boot=boots[1])

    assert loss is not None
    assert loss.kind == kind
    assert ("the host was restarted" in loss.reason) == (kind == "host_restarted")


@pytest.mark.parametrize(
    ("now", "cause", "ended"),
    [
        (BEFORE, None, KILLED),
        ({CGROUP: 3, HOST: 6}, "out of memory", OOM.format("its cgroup")),
        ({CGROUP: 2, HOST: 6}, None, KILLED),
        ({HOST: 6}, "out of memory", OOM.format("the host")),
        ({CGROUP: 0, HOST: 6}, "out of memory", OOM.format("the host")),
        ({CGROUP: 0, HOST: 5}, None, KILLED),
        ({}, None, KILLED),
    ],
    ids=[
        "no kill",
        "its cgroup's count rose",
        "another process of the host",
        "no cgroup any more",
        "a new cgroup of that name",
        "a new cgroup, no kill",
        "nothing can be read",
    ],
)
def test_the_counts_of_the_kernel_tell_a_kill_for_want_of_memory(
    now: dict[str, int], cause: str | None, ended: str
) -> None:
    loss = witnessed(LIFE, kills=now, now=101)

    assert loss is not None
    assert (loss.cause, loss.reason.partition("; workers that")[0]) == (cause, ended)


def test_without_a_cgroup_the_hosts_count_is_asked() -> None:
    loss = witnessed(LIFE._replace(kills={HOST: 5}), kills={HOST: 6}, now=101)

    assert loss is not None
    assert loss.reason.startswith(OOM.format("the host"))


@pytest.mark.parametrize(
    ("more", "cause", "ended"),
    [
        ({"wound_up": True}, "crash", "circusd (pid 7) exited by itself, see its log"),
        ({"why": "it hung"}, "unhealthy", "circusd (pid 7) was killed: it hung"),
        ({"why": "it hung", "wound_up": True}, "unhealthy", "circusd (pid 7) was killed: it hung"),
        ({"next_ended": 7}, "crash", "circusd (pid 7) left in a restart, and the next one ended with exit code 7"),
    ],
    ids=["by itself", "by the monitor", "by the monitor, at SIGTERM", "by a restart"],
)
def test_what_is_written_down_of_the_end_comes_before_the_counts(more: dict[str, Any], cause: str, ended: str) -> None:
    loss = told(LIFE._replace(**more), kills={CGROUP: 9, HOST: 9})

    assert loss is not None
    assert (loss.cause, loss.reason.partition("; circusd runs")[0]) == (cause, ended)


def test_a_clock_that_was_set_back_makes_no_negative_gap() -> None:
    loss = told(now=50.0)

    assert loss is not None
    assert loss.gap == 0.0


def test_the_event_says_who_came_next_only_where_one_did() -> None:
    lost, back = witnessed(LIFE, kills={}, now=1), told()
    assert lost is not None
    assert back is not None

    assert sorted(lost.as_data()) == ["cause", "gone_at", "pid", "reason", "say", "started"]
    assert (back.as_data()["successor"], back.as_data()["gap"]) == (9, 5.0)


def test_a_loss_that_its_plugin_and_the_next_circusd_report_is_recorded_once() -> None:
    """Given a plugin that is killed between its record and its note of that, when both report, then it is one event."""
    lost = witnessed(LIFE, kills={}, now=103.5)
    assert lost is not None
    again = found(LIFE._replace(gone_at=103.5), boot=LIFE.boot, kills={}, successor=9, now=105.0, is_reported=False)
    assert again is not None
    one, other = (
        record_of("circusd", each.kind, {**each.as_data(), **more}, now=1.0)
        for each, more in ((lost, {}), (again, {"seq": "18c-4", "time": 105.0}))
    )

    assert one.seq == other.seq
