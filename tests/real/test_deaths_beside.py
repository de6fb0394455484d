"""A worker dies beside something else that goes on: a drain, a slot that is held."""

import os
import signal
from pathlib import Path
from typing import Any

from .harness import BUNDLE, Circusd, circusd, eventually, kill
from .processes import Process
from .state_words import is_held, is_leaving, is_up


def in_slot(c: Circusd, slot: int) -> dict[str, Any] | None:
    return next((worker for worker in c.watcher()["workers"] if worker["slot"] == slot), None)


def test_a_crash_beside_the_drain_of_a_decr_is_answered_at_once(tmp_path: Path) -> None:
    """Given a worker that drains because fewer are wanted, when the other is killed, then a new one serves before the
    drain is over."""
    with circusd(tmp_path, options={"graceful_timeout": 600}) as c:
        pids = c.wait_ready()
        held = c.hold_each(pids)
        c.call("decr", name="web", nb=1, waiting=False)
        (drains,) = eventually(lambda: [each["pid"] for each in c.watcher()["workers"] if is_leaving(each)])
        (stays,) = set(pids) - {drains}

        kill(stays)

        fresh = eventually(
            lambda: [each for each in c.watcher()["workers"] if is_up(each) and each["pid"] not in pids],
            what="a new worker is up",
        )
        assert len(fresh) == 1
        assert drains in c.workers(), "it still drains"
        for _, answer in held:
            answer.close()
        c.set("held", "")


def test_a_held_slot_keeps_only_itself_waiting(tmp_path: Path) -> None:
    """Given a slot that cools down, when a healthy sibling dies, then that one is started again at once."""
    options = {"restart.burst": 2, "restart.delay": 1, "restart.delay_max": 60, "restart.cooldown": 500}
    with circusd(tmp_path, numprocesses=3, options={**options, "restart.window": 900}) as c:
        c.wait_ready()
        c.set("boot.wid-1", "die")
        kill(next(each["pid"] for each in c.watcher()["workers"] if each["slot"] == 1))
        eventually(lambda: (found := in_slot(c, 1)) and is_held(found), what="it cools")
        c.set("boot.wid-1", "")
        healthy = in_slot(c, 2)
        assert healthy is not None

        kill(healthy["pid"])

        eventually(lambda: (found := in_slot(c, 2)) and is_up(found) and found["pid"] != healthy["pid"])
        assert not (found := in_slot(c, 1)) or not is_up(found)


def job_of(c: Circusd, worker: int) -> Process:
    """Let a worker start a job in a session of its own; return it."""
    before = {found.pid for found in c.processes()}
    c.tell(worker, "job")
    (job,) = eventually(
        lambda: [found for found in c.processes() if "sleep 600" in found.command and found.pid not in before]
    )
    return job


def test_a_detached_job_outlives_its_worker(tmp_path: Path) -> None:
    """Given jobs that workers have given a session of their own, when the workers are killed as hung and circusd is
    ended and started again, then the jobs live on."""
    options = {"health.period": 0.5, "health.timeout": 0.5, "graceful_timeout": 1}
    with circusd(tmp_path, options=options, plugins=BUNDLE, check_delay=1) as c:
        hung, other = c.wait_ready()
        eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in (hung, other)))
        jobs = [job_of(c, hung), job_of(c, other)]
        c.tell(hung, "block 600")
        eventually(lambda: hung not in c.workers(), what="it is killed as hung")
        c.wait_ready()
        os.kill(c.pid, signal.SIGTERM)
        c.wait_ended()

        c.start_again()
        c.wait_ready()

        assert [job.alive for job in jobs] == [True, True]
        assert c.told("port_freed") == []
