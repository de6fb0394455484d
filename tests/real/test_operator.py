"""The operator's word counts: in the middle of whatever we do, circusd answers at once and does as it is told."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .facts_of_state import held
from .harness import (
    FAST_RESTARTS,
    FORKSERVERS,
    PATIENCE,
    Circusd,
    Watcher,
    circusd,
    eventually,
    holds,
    kill,
)
from .processes import process


def test_while_a_worker_of_ours_drains_another_watcher_is_looked_after(tmp_path: Path) -> None:
    """Given a replaced worker that drains, when another watcher's worker dies, then it is back meanwhile."""
    draining = Watcher("slow", told={"drain": "held"}, options={"graceful_timeout": 600})
    with circusd(tmp_path, watchers=[draining, Watcher()], check_delay=1) as c:
        old, _ = c.wait_ready(name="slow")
        dead, _ = c.wait_ready()
        assert c.replace(old, "sick", "slow")["status"] == "ok"
        eventually(lambda: c.worker(old, "slow")["drains"])

        with c.answering():
            kill(dead)
            c.wait_ready()
            c.do("incr", name="web", waiting=True)
            c.wait_ready(3)

        assert c.worker(old, "slow")["drains"]


@contextlib.contextmanager
def being_replaced(folder: Path, phase: str) -> Iterator[tuple[Circusd, int]]:
    """A worker in the middle of a replacement of ours.

    starting: its successor is not ready yet. draining: it was told to go, and does not. hung: it is being killed.
    """
    watcher = Watcher(options={**FAST_RESTARTS, "graceful_timeout": 4}, told={"drain": "30"})
    with circusd(folder, watchers=[watcher], check_delay=1) as c:
        old, _ = c.wait_ready()
        if phase == "starting":
            c.set("boot", "slow 30")
        c.replace(old, "hung" if phase == "hung" else "sick")
        if phase == "draining":
            eventually(lambda: c.worker(old)["drains"])
        elif phase == "starting":
            eventually(lambda: len(c.workers()) == 3)
        c.set("boot", "")
        yield c, old


def test_a_stop_ends_a_halted_worker_by_the_signal_that_lets_it_drain(tmp_path: Path) -> None:
    """Given a worker under SIGSTOP, when its watcher is stopped, then it hears SIGTERM, and no SIGKILL is needed."""
    with circusd(tmp_path, options={"graceful_timeout": 60}) as c:
        halted, _ = c.wait_ready()
        kill(halted, signal.SIGSTOP)

        c.do("stop", name="web", waiting=True, timeout=90)

        ends = eventually(lambda: [end for end in c.events.named("end") if end.message["pid"] == halted])
        assert [end.message["signal"] for end in ends] == ["SIGTERM"]


@pytest.mark.parametrize("phase", ["starting", "hung"])
def test_a_stop_in_a_replacement_stops(tmp_path: Path, phase: str) -> None:
    """Given a replacement under way, when the operator stops the watcher, then it stops and stays stopped."""
    with being_replaced(tmp_path, phase) as (c, _), c.answering():
        c.do("stop", name="web", waiting=True)

        eventually(lambda: [found.pid for found in c.processes()] == [c.pid])
        holds(lambda: c.status() == "stopped" and c.call("list", name="web")["pids"] == [], seconds=1)
        assert len(c.processes()) == 1
        c.do("start", name="web", waiting=True)
        c.wait_ready()


def test_a_stop_that_has_to_kill_answers_when_nothing_is_listed_any_more(tmp_path: Path) -> None:
    """Given twenty workers deaf to SIGTERM, when stopped, then the answer comes when all are gone, and circusd answers.

    Twenty: the signal takes longer to end them all than Circus takes to answer.
    """
    watcher = Watcher(numprocesses=20, options={"graceful_timeout": 0.5}, told={"boot": "ignore-term"})
    with circusd(tmp_path, watchers=[watcher], check_delay=5) as c:
        c.wait_ready(20)

        with c.answering():
            c.do("stop", name="web", waiting=True, timeout=90)

        assert c.call("list", name="web")["pids"] == []
        assert [found.pid for found in c.processes()] == [c.pid]


@pytest.mark.parametrize("phase", ["starting", "draining", "hung"])
def test_a_restart_in_a_replacement_restarts(tmp_path: Path, phase: str) -> None:
    """Given a replacement under way, when the operator restarts the watcher, then two new workers serve."""
    with being_replaced(tmp_path, phase) as (c, _), c.answering():
        before = {found.pid for found in c.processes()} - {c.pid}

        c.do("restart", name="web", waiting=True, timeout=90)  # a successor that has read "slow 30" gets its time

        c.wait_ready()
        eventually(lambda: len(c.processes()) == 3 + FORKSERVERS, what="circusd, two workers and their forkserver")
        assert not before & {found.pid for found in c.processes()}
        holds(lambda: len(c.workers()) == 2, seconds=1)


@pytest.mark.parametrize("phase", ["draining"])
def test_a_quit_in_a_replacement_quits(tmp_path: Path, phase: str) -> None:
    """Given a replacement under way, when the operator quits circusd, then it ends, and all of its processes too."""
    with being_replaced(tmp_path, phase) as (c, _):
        c.stop()

        eventually(lambda: c.processes() == [])


def test_a_decr_in_a_replacement_leaves_one(tmp_path: Path) -> None:
    """Given a replacement under way, when the operator wants one worker fewer, then exactly one serves in the end."""
    with being_replaced(tmp_path, "draining") as (c, _), c.answering():
        c.do("decr", name="web", waiting=True)

        c.wait_ready(1)
        eventually(lambda: len(c.workers()) == 1, what="who was told to go is gone")
        holds(lambda: len(c.workers()) == 1, seconds=1)


@contextlib.contextmanager
def draining_decr(folder: Path, *, graceful_timeout: float) -> Iterator[tuple[Circusd, int]]:
    """Three workers of `slow`, of which one drains for all of *graceful_timeout* because of a `decr`, beside `web`."""
    options = {"graceful_timeout": graceful_timeout}
    slow = Watcher("slow", numprocesses=3, told={"drain": "600"}, options=options)
    with circusd(folder, watchers=[slow, Watcher()], check_delay=1) as c:
        c.wait_ready(3, name="slow")
        c.wait_ready()
        c.do("decr", name="slow")
        yield c, eventually(lambda: [each["pid"] for each in c.watcher("slow")["workers"] if each["drains"]])[0]


def test_a_sigterm_while_a_decr_drains_ends_circusd_within_one_graceful_timeout(tmp_path: Path) -> None:
    """Given a decr that drains, when circusd gets SIGTERM, then the others drain beside it, and not after it."""
    with draining_decr(tmp_path, graceful_timeout=20) as (c, old):
        drains, others = process(old), [pid for pid in c.workers("slow") if pid != old]
        os.kill(c.pid, signal.SIGTERM)

        eventually(lambda: all(c.said("stopped", pid, "slow") for pid in others), what="the others drain")
        assert drains.alive
        c.wait_ended()

        eventually(lambda: c.processes() == [])


def test_a_stop_while_a_decr_drains_waits_for_its_turn(tmp_path: Path) -> None:
    """Given a decr that drains, when circusctl stops another watcher, then it is not refused, and that one stops."""
    with draining_decr(tmp_path, graceful_timeout=4) as (c, _), c.answering():
        refused = c.call("incr", name="web")
        result = c.call("stop", name="web")

        assert (refused["status"], result["status"]) == ("error", "ok")
        eventually(lambda: c.status() == "stopped")
        assert len(c.wait_ready(2, name="slow")) == 2


@pytest.mark.parametrize("how", [{"signum": 9}, {"graceful_timeout": 0.5}, {"graceful_timeout": "0.5"}])
def test_a_kill_of_a_worker_that_drains_ends_it(tmp_path: Path, how: dict[str, Any]) -> None:
    """Given a worker that drains for ten minutes, when circusctl kills it, then it is gone; Circus would do nothing.

    circusctl sends its time limit as a text, which Circus cannot compare.
    """
    with draining_decr(tmp_path, graceful_timeout=600) as (c, old):
        whom = process(old)

        assert c.call("kill", name="slow", pid=old, **how)["status"] == "ok"

        eventually(lambda: not whom.alive, what="the one that drained is gone")
        assert len(c.wait_ready(2, name="slow")) == 2


def test_a_start_in_a_wait_is_answered_and_adds_nothing(tmp_path: Path) -> None:
    """Given a worker that waits for a cooldown beside a sound one, when told to start, then it waits on."""
    options = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 60, "restart.window": 90}
    watcher = Watcher(options=options, told={"boot.wid-2": "die"})
    with circusd(tmp_path, watchers=[watcher], check_delay=1) as c:
        (sound,) = c.wait_ready(1)
        eventually(lambda: c.told("cooldown") and held(c))

        with c.answering():
            c.do("start", name="web", waiting=True)
            holds(lambda: c.workers() == [sound] and len(held(c)) == 1, seconds=1)


def test_a_start_beside_a_replacement_adds_nothing(tmp_path: Path) -> None:
    """Given a replacement under way, when told to start an active watcher, then circusd answers and two serve."""
    with being_replaced(tmp_path, "draining") as (c, old), c.answering():
        c.do("start", name="web", waiting=True)

        eventually(lambda: old not in c.workers())
        c.wait_ready()
        holds(lambda: len(c.workers()) == 2, seconds=1)


def test_a_restart_of_everything_arms_everything_anew(tmp_path: Path) -> None:
    """Given circusctl restart without a name, when a worker dies after it, then it is back."""
    # Circus's own look does not come within the test.
    with circusd(tmp_path, check_delay=120) as c:
        before = c.wait_ready()

        c.do("restart", waiting=False)
        new = eventually(lambda: pids if not set(before) & set(pids := c.wait_ready()) else None)
        kill(new[0])
        c.wait_ready()

        assert c.serves()


PATIENT = {"graceful_timeout": 600}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """A sound watcher, and one that waits for a cooldown of an hour; a stop may take ten minutes."""
    options = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 3600, "restart.window": 90, **PATIENT}
    waiting = Watcher("waiting", numprocesses=1, options=options, told={"boot": "die"})
    with circusd(
        tmp_path_factory.mktemp("operated"),
        watchers=[Watcher(options=PATIENT), waiting],
        check_delay=1,
        circus={"statsd": True},
    ) as c:
        c.wait_ready()
        eventually(lambda: c.told("cooldown", "waiting") and held(c, "waiting"))
        yield c


@pytest.mark.parametrize("name", ["web", "waiting"])
def test_circusctl_tells_status_list_and_stats(operated: Circusd, name: str) -> None:
    """Given a watcher that serves and one that waits, when circusctl asks, then it tells what Circus documents."""
    pids = operated.workers(name)

    status = operated.run_circusctl("status", name)
    listed = operated.run_circusctl("list", name)
    stats = operated.run_circusctl("stats", name)

    assert status.stdout.strip() == "active"
    assert sorted(map(int, re.findall(r"\d+", listed.stdout))) == sorted(pids)
    assert all(f"{pid}: " in stats.stdout for pid in pids)


def size(c: Circusd, name: str) -> int:
    """How many workers and held slots a watcher has."""
    return len(c.watcher(name)["workers"])


@pytest.mark.parametrize("name", ["web", "waiting"])
def test_circusctl_grows_shrinks_and_sets(operated: Circusd, name: str) -> None:
    """Given a watcher that serves and one that waits, when circusctl changes its size, then it has that size."""
    number = size(operated, name)

    operated.do("incr", name=name, waiting=True)
    eventually(lambda: size(operated, name) == number + 1)
    operated.do("set", name=name, options={"numprocesses": number}, waiting=True)
    eventually(lambda: size(operated, name) == number)

    assert operated.watcher(name)["numprocesses"] == number == operated.watchers[name].numprocesses
    assert name != "web" or operated.call("numprocesses", name=name)["numprocesses"] == number


@pytest.mark.parametrize("name", ["web", "waiting"])
def test_a_stop_and_a_start_wait_for_nothing(operated: Circusd, name: str) -> None:
    """Given a watcher that serves and one that waits, when it is stopped and started, then no wait is waited for."""
    start = time.monotonic()

    operated.do("stop", name=name, waiting=True)
    assert operated.status(name) == "stopped"
    operated.do("start", name=name, waiting=True)

    assert operated.status(name) == "active"
    assert time.monotonic() - start < PATIENCE
    eventually(lambda: size(operated, name) == operated.watchers[name].numprocesses)


def test_a_watcher_may_be_added_and_removed(operated: Circusd) -> None:
    """Given circusctl add and rm, when a watcher comes and goes, then ours are the same."""
    operated.wait_ready()
    before = operated.workers()

    operated.do("add", name="extra", cmd="sleep 600", start=True, waiting=True)
    (pid,) = eventually(lambda: operated.workers("extra"))
    assert [watcher["armed"] for watcher in operated.state()["watchers"] if watcher["name"] == "extra"] == [False]
    operated.do("rm", name="extra", waiting=True)

    eventually(lambda: process_is_gone(pid))
    assert operated.workers() == before


def process_is_gone(pid: int) -> bool:
    try:
        return not process(pid).alive
    except ProcessLookupError:
        return True


def test_an_armed_watcher_may_be_removed(tmp_path: Path) -> None:
    """Given an armed watcher, when circusctl removes it, then its workers end and nothing brings them back."""
    with circusd(tmp_path, check_delay=1) as c:
        c.wait_ready()

        c.do("rm", name="web", waiting=True)

        eventually(lambda: [found.pid for found in c.processes()] == [c.pid])
        holds(lambda: len(c.processes()) == 1, seconds=1.5)
        assert c.state()["watchers"] == []


def test_circus_top_shows_our_workers(operated: Circusd) -> None:
    """Given statsd, when circus-top runs on a terminal, then the watcher and the pids of its workers are there."""
    operated.wait_ready()
    see_in_circus_top(operated, {"web", *map(str, operated.workers())})


def see_in_circus_top(c: Circusd, wanted: set[str]) -> None:
    """Run circus-top on a terminal until it shows each of these words."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", "from circus.stats.client import main; main()", "--endpoint", c.stats]
    environment = {**c.environ(), "TERM": "xterm", "LINES": "40", "COLUMNS": "120"}
    top = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment)
    os.close(end)
    seen = ""
    try:

        def shown() -> bool:
            nonlocal seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")
            return wanted <= set(re.findall(r"\w+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", seen)))

        eventually(shown, timeout=90)
    finally:
        top.kill()
        top.wait()
        os.close(terminal)


WRONG = {"restrt.burst": 3, "health.period": "fast", "port.policy": "maybe", "restart.cooldown": 0.1}


@pytest.mark.parametrize("command", ["check", "start"])
def test_the_command_line_refuses_wrong_options(tmp_path: Path, command: str) -> None:
    """Given four wrong options, when checked or started, then each is told with its place and cure; nothing runs."""
    watcher = Watcher(options=WRONG, is_sound=False)
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        result = c.run_cli(command)
        told = " ".join((result.stdout + result.stderr).split())

        assert result.returncode == 1
        for part in (str(c.ini), "watcher:web", *WRONG, "did you mean restart.burst?", "fast", "maybe"):
            assert part in told
        assert c.processes() == []


def test_under_bare_circusd_a_wrong_option_counts_as_its_default_and_is_told(tmp_path: Path) -> None:
    """Given four wrong options, when circusd runs, then the backend serves, and log and last_reason say the same."""
    # A forkserver that is slow on a crowded machine would be the last reason.
    with circusd(tmp_path, watchers=[Watcher(options={"worker.preload": "off", **WRONG}, is_sound=False)]) as c:
        c.wait_ready()
        options, log, last = c.watcher()["options"], c.log("circusd"), c.watcher()["last_reason"]

        assert options["health.period"] == 2
        assert options["port.policy"] == "orphans"
        assert options["restart.cooldown"] == 300
        assert all(name in log for name in WRONG)
        assert "did you mean restart.burst?" in log
        assert any(name in last for name in WRONG)
        assert last in log
