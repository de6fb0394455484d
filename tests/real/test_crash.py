"""A worker dies, alone or with all others, or its command cannot be run: it is back at once, nobody else notices."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from .bus import Event
from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .load import Load
from .processes import process


def test_a_killed_worker_is_replaced_before_the_next_check_and_its_sibling_loses_nothing(tmp_path: Path) -> None:
    """Given two workers and a check delay of ten minutes, when one is killed, then another serves at once."""
    with circusd(tmp_path, check_delay=600) as c:
        dead, sibling = c.wait_ready()

        with Load(c.url, rate=200, connections=16) as load:
            eventually(lambda: load.workers == {dead, sibling})
            kill(dead)
            c.wait_ready()

        assert sibling in c.workers()
        assert [request for request in load.lost if request.worker == str(sibling)] == []
        (failure,) = c.failures()
        assert (failure.pid, failure.message["cause"], failure.message["wait"]) == (dead, "killed from outside", 0)


@pytest.mark.parametrize("number", [1, 2])
def test_six_kills_in_one_life_lose_what_the_dead_had_alone(tmp_path: Path, number: int) -> None:
    """Given the only worker, or one of two, when it is killed six times, then each time all are back, and no request
    is lost that another worker, or none yet, had."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=number, options=FAST_RESTARTS)]) as c:
        dead: list[int] = []
        with Load(c.url, rate=100, connections=8) as load:
            for _ in range(6):
                pids = set(c.wait_ready(number)) - set(dead)
                dead += eventually(partial(_one_that_answers, load, pids))
                kill(dead[-1])
            pids = set(c.wait_ready(number))
            eventually(partial(_one_that_answers, load, pids))

        eventually(lambda: {each.pid for each in c.failures()} == set(dead), what="all are counted, and no other")
        assert {request.worker for request in load.lost} <= {"", *map(str, dead)}
        assert {request.outcome for request in load.lost} <= {"reset", "closed"}


def _one_that_answers(load: Load, pids: set[int]) -> list[int]:
    return [*load.workers.intersection(pids)][:1]


def test_while_the_only_worker_is_replaced_new_connections_wait_and_are_answered(tmp_path: Path) -> None:
    """Given one worker under 100 requests/s on new connections, when it is killed, then only what it had is lost."""
    with circusd(tmp_path, numprocesses=1, check_delay=600) as c:
        (dead,) = c.wait_ready()

        with Load(c.url, rate=100) as load:
            eventually(lambda: load.answered > 50)
            killed_at = kill(dead)
            (successor,) = eventually(lambda: load.workers - {dead})
            served = load.answered
            eventually(lambda: load.answered > served + 50)

        assert c.workers() == [successor]
        assert [request for request in load.lost if request.start > killed_at] == []
        assert {request.outcome for request in load.lost} <= {"reset", "closed"}


def test_fifty_deaths_at_once_are_all_counted(tmp_path: Path) -> None:
    """Given 50 processes, when all are killed at once, then 50 deaths have their cause, and all 50 are back."""
    sleepers = Watcher(numprocesses=50, command="sleep 600", listens=False)
    with circusd(tmp_path, watchers=[sleepers], check_delay=1) as c:
        dead = run_all(c, "sleep")

        with c.answering(within=3):  # 50 spawns in a row, each until its exec, which waits for a core beside the others
            for pid in dead:
                os.kill(pid, signal.SIGKILL)  # none is waited for: all are dead in a moment
            eventually(lambda: len(c.failures()) == 50)
            alive = run_all(c, "sleep")

        assert sorted(event.pid or 0 for event in c.failures()) == sorted(dead)
        assert {event.message["cause"] for event in c.failures()} == {"killed from outside"}
        assert c.watcher()["restarts"] == 50
        assert not set(alive) & set(dead)


def two_failures(c: Circusd, after: int) -> list[Event] | None:
    found = c.failures(after=after)
    return found if len(found) == 2 else None


def test_a_crash_loop_beside_it_costs_a_watcher_neither_workers_nor_log(tmp_path: Path) -> None:
    """Given a crash loop with last words, when workers of another watcher are killed meanwhile, all are back and log.

    A pipe of a dead process that is closed before Circus's loop has read it to its end, and so forgotten its number,
    makes the next spawn fail that gets this number, in whichever watcher, and leaves a worker that nobody knows of.
    """
    program = tmp_path / "loop.sh"
    program.write_text("#!/bin/sh\nyes last words | head -c 8000 >&2\nexit 1\n")
    program.chmod(0o755)
    options = {"restart.burst": 1000, "restart.delay": 0.1, "restart.delay_max": 0.1}
    loop = Watcher("loop", numprocesses=4, command=str(program), listens=False, options=options)
    # Circus's own look, which puts right what a failed spawn has left, does not come within the test.
    with circusd(tmp_path, watchers=[Watcher(options=FAST_RESTARTS), loop], check_delay=600) as c:
        failures: list[Event] = []
        for _ in range(8):
            pids, last = c.wait_ready(), c.last_told()
            for pid in pids:
                kill(pid)
            # At once: circusd keeps 1 MiB of events, which the loop fills within seconds.
            failures += eventually(partial(two_failures, c, last))
        pids = c.wait_ready()

        assert {event.message["cause"] for event in failures} == {"killed from outside"}
        assert [found.pid for found in c.processes() if "backend:app" in found.command] == pids
        eventually(lambda: all(f"Started server process [{pid}]" in c.log() for pid in pids), what="both have logged")


@pytest.mark.parametrize("missing", ["bin/serve", "cwd"])
def test_a_command_that_cannot_be_run_for_a_while_harms_no_sibling(tmp_path: Path, missing: str) -> None:
    """Given two workers, when one dies while its program or folder is moved away, then it is up once that is back."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "cwd").mkdir()
    serve = tmp_path / "bin" / "serve"
    serve.write_text(f'#!/bin/sh\nexec {sys.executable} -m xboard_circus.worker backend:app --ws none --fd "$1"\n')
    serve.chmod(0o755)
    options = {"working_dir": tmp_path / "cwd", "restart.delay": 0.2, "restart.delay_max": 0.4}
    watcher = Watcher(command=f"{serve} $(circus.sockets.web)", options=options)
    with circusd(tmp_path, watchers=[watcher]) as c:
        dead, sibling = c.wait_ready()

        (tmp_path / missing).rename(tmp_path / "elsewhere")
        kill(dead)
        eventually(lambda: [event for event in c.failures() if event.message["cause"] == "cannot be run"])

        assert str(tmp_path / missing) in c.watcher()["last_reason"]
        assert c.status() == "active"
        assert c.serves()
        (tmp_path / "elsewhere").rename(tmp_path / missing)
        assert sibling in c.wait_ready()


def test_a_relative_working_dir_is_entered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a working_dir relative to circusd's folder, when circusd starts, then its workers are ready."""
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    with circusd(tmp_path, options={"working_dir": os.path.relpath(tmp_path / "inner")}) as c:
        c.wait_ready()


def test_a_user_that_does_not_exist_keeps_down_no_other_watcher(tmp_path: Path) -> None:
    """Given a watcher of an unknown user before a sound one, when circusd boots, then the sound one is up."""
    broken = Watcher("broken", numprocesses=1, options={"uid": "no-such-user", "priority": 9})
    with circusd(tmp_path, watchers=[broken, Watcher()]) as c:
        c.wait_ready(name="web")

        assert eventually(lambda: "no-such-user" in c.watcher("broken")["last_reason"])
        assert c.status("broken") == "active"
        assert {event.message["cause"] for event in c.failures("broken")} == {"cannot be run"}


def test_an_unarmed_crash_loop_turns_no_faster_beside_an_armed_watcher(tmp_path: Path) -> None:
    """Given /bin/false unarmed and a check delay of 1 s, when our workers die too, then it starts once a second."""
    loop = Watcher("loop", numprocesses=1, armed=False, command="/bin/false", listens=False)
    ours = Watcher(options=FAST_RESTARTS)
    with circusd(tmp_path, watchers=[ours, loop], check_delay=1) as c:
        c.wait_ready()

        start, cpu = time.monotonic(), process(c.pid).cpu
        # Three deaths, however soon their successors are up: each costs circusd its share.
        for _ in range(3):
            kill(c.workers()[0])
            c.wait_ready()
        eventually(lambda: len(c.failures()) == 3)
        eventually(lambda: time.monotonic() > start + 3)
        seconds = time.monotonic() - start

        assert len(c.events.named("spawn", "loop", since=start)) <= seconds + 1
        assert process(c.pid).cpu - cpu < 0.2 * seconds


@pytest.mark.parametrize("signum", [11, 9])
def test_the_cause_of_a_death_is_told(tmp_path: Path, signum: int) -> None:
    """Given a worker, when a signal ends it from within or without, then the event and the state name it."""
    with circusd(tmp_path, numprocesses=1) as c:
        (pid,) = c.wait_ready()

        c.tell(pid, f"signal {signum}")
        (failure,) = eventually(c.failures)

        assert {11: "SIGSEGV", 9: "SIGKILL"}[signum] in failure.reason
        assert failure.reason in c.watcher()["last_reason"]
        assert failure.message["wid"] == 1


def run_all(c: Circusd, program: str) -> list[int]:
    """Wait until every process of the watcher has become its command; return the pids."""
    number = c.watchers["web"].numprocesses

    def became() -> list[int] | None:
        pids = [pid for pid in c.workers() if process(pid).command.startswith(program)]
        return pids if len(pids) == number else None

    return eventually(became, what=f"{number} times {program}")
