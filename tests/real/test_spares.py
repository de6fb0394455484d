"""A hot spare has imported the app and waits: it serves in the moment in which a worker dies."""

import signal
import socket
import time
from pathlib import Path
from typing import Any

from xboard_circus.core.verdict import word_of

from .harness import BUNDLE, FAST_RESTARTS, Circusd, circusd, eventually, holds, kill
from .load import Load, Request
from .processes import process

SPARE = {"worker.spares": 1, "restart.burst": 3, "restart.delay": 0.2, "restart.cooldown": 60}


def words(c: Circusd) -> dict[int, str]:
    return {worker["pid"]: word_of(worker) for worker in c.watcher()["workers"]}


def spares(c: Circusd) -> list[int]:
    return [pid for pid, word in words(c).items() if word == "spare"]


def wait_for_spare(c: Circusd) -> int:
    def told() -> list[dict[str, Any]]:
        return [start for start in c.watcher()["workers"] if start["role"] == "spare"]

    return int(eventually(told)[0]["pid"])


def test_a_spare_serves_when_the_only_worker_is_killed_and_only_what_that_had_is_lost(tmp_path: Path) -> None:
    """Given one worker and one spare, when the worker is killed, then the spare serves and a new spare is made."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c:
        (first,) = c.wait_ready()
        spare = wait_for_spare(c)
        eventually(lambda: c.said("ready", first))

        assert c.watcher()["numprocesses"] == 1
        assert c.said("ready", spare) is None
        with Load(c.url, rate=100) as load:
            eventually(lambda: load.answered > 50)
            kill(first)
            dead_at = time.monotonic()
            eventually(lambda: str(spare) in {str(worker) for worker in load.workers})
            eventually(lambda: spares(c) not in ([], [spare]))

        assert [request for request in load.lost if request.start > dead_at] == []
        assert eventually(c.ready) == [spare]


def test_of_many_kills_each_loses_only_what_the_dead_worker_had(tmp_path: Path) -> None:
    """Given one worker, one spare and load, when the serving one is killed 6 times, then each loses its own alone."""
    with circusd(tmp_path, numprocesses=1, options={**SPARE, **FAST_RESTARTS}) as c:
        c.wait_ready()
        deaths: dict[int, float] = {}  # when each was dead
        with Load(c.url, rate=100) as new, Load(c.url, rate=100, connections=8) as kept:
            for _ in range(6):
                wait_for_spare(c)
                (serving,) = eventually(lambda: [pid for pid, word in words(c).items() if word == "up"])
                served = new.answered
                eventually(lambda count=served: new.answered > count + 20)  # type: ignore[misc]
                kill(serving)
                deaths[serving] = time.monotonic()
                eventually(lambda dead=serving: new.workers - {dead} and dead not in words(c))  # type: ignore[misc]
            served = new.answered
            eventually(lambda: new.answered > served + 20)

        def was_on_a_dead_worker(request: Request) -> bool:
            # A busy client sends on a connection of the dead one until it comes to read that it has ended.
            return any(
                request.worker == str(pid) or request.start <= dead <= request.start + request.latency + 1
                for pid, dead in deaths.items()
            )

        lost = [*new.lost, *kept.lost]
        assert [request for request in lost if not was_on_a_dead_worker(request)] == []
        assert len(lost) <= len(deaths) * (8 + 20)  # its kept-alive connections, and what had just come
        assert len(c.failures()) == len(deaths)


def test_a_crash_looping_app_does_not_eat_its_spares(tmp_path: Path) -> None:
    """Given a worker and a spare of an app that dies 50 ms after it serves, when it loops, then the schedule holds."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c:
        c.wait_ready()
        wait_for_spare(c)

        for _ in range(3):
            (serving,) = eventually(lambda: [pid for pid, word in words(c).items() if word == "up"])
            kill(serving)
            eventually(lambda dead=serving: dead not in words(c))  # type: ignore[misc]
        eventually(lambda: c.events.named("cooldown"))
        spawned = len(c.events.named("spawn"))

        holds(lambda: "up" not in words(c).values(), seconds=1.5)
        assert len(c.events.named("spawn")) <= spawned + 1
        assert len(spares(c)) == 1


def test_a_rolling_reload_renews_the_spares_too(tmp_path: Path) -> None:
    """Given one worker and one spare under load, when it is reloaded, then both are new and nothing is lost."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c:
        (first,) = c.wait_ready()
        spare = wait_for_spare(c)

        with Load(c.url, rate=100) as new, Load(c.url, rate=50, connections=8) as kept:
            eventually(lambda: new.answered > 20 and kept.answered > 20)
            c.do("xboard_reload", name="web")
            eventually(lambda: c.watcher()["reload"]["state"] == "done", timeout=60)
            eventually(lambda: spares(c) and spare not in words(c))

        assert first not in words(c)
        assert new.lost + kept.lost == []
        assert c.watcher()["restarts"] == 0


def test_a_spare_that_does_not_answer_costs_no_startup_timeout(tmp_path: Path) -> None:
    """Given a halted spare, when the only worker dies, then the spare is killed and another worker serves soon."""
    with circusd(tmp_path, numprocesses=1, options={**SPARE, "health.startup_timeout": 60}) as c:
        (first,) = c.wait_ready()
        silent = process(wait_for_spare(c))
        eventually(lambda: list(c.runtime.rglob("*.sock"))[1:], what="the spare has imported the app")
        silent.signal(signal.SIGSTOP)

        kill(first)

        eventually(lambda: not silent.alive, timeout=15, what="the silent spare is killed")
        assert silent.pid not in c.wait_ready(timeout=15)
        assert c.watcher()["restarts"] == 1  # the death of the first alone


def test_stop_ends_a_spare_at_once(tmp_path: Path) -> None:
    """Given a waiting spare, when the operator stops the watcher, then nothing of it is left."""
    with circusd(tmp_path, numprocesses=1, options={**SPARE, "graceful_timeout": 60}) as c:
        c.wait_ready()
        wait_for_spare(c)

        c.do("stop", name="web", waiting=True, timeout=30)  # half of what Circus gives a worker to end in

        assert words(c) == {}
        assert c.status() == "stopped"


def test_a_spare_that_waits_ends_with_circusd_where_others_serve(tmp_path: Path) -> None:
    """Given a worker that serves and a spare, when circusd is killed, then the spare ends and the worker serves on."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c:
        (serving,) = c.wait_ready()
        spare = wait_for_spare(c)
        eventually(lambda: "waiting for the order to serve" in c.log())

        with Load(c.url, rate=50) as load:
            c.kill9()
            eventually(lambda: spare not in {found.pid for found in c.processes()})
            served = load.answered
            eventually(lambda: load.answered > served + 20)
            c.start_again()
            (fresh,) = c.wait_ready()
            eventually(lambda: fresh in load.workers)

        assert load.lost == []
        assert load.workers == {serving, fresh}


def test_a_spare_serves_without_circusd_where_nobody_else_does(tmp_path: Path) -> None:
    """Given a worker and a spare, when circusd and then the worker are gone, then the spare serves, and hands over."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c:
        (serving,) = c.wait_ready()
        spare = wait_for_spare(c)
        eventually(lambda: "waiting for the order to serve" in c.log())

        kill(spare, signal.SIGSTOP)  # so that it sees both deaths at once
        c.kill9()
        kill(serving)
        process(spare).signal(signal.SIGCONT)
        eventually(lambda: c.get(timeout=5) == str(spare))

        with Load(c.url, rate=50) as load:
            c.start_again()
            (fresh,) = c.wait_ready()
            eventually(lambda: fresh in load.workers)
            eventually(lambda: spare not in {found.pid for found in c.processes()}, timeout=60)

        assert load.lost == []


def test_a_spare_serves_though_a_worker_that_dies_with_circusd_takes_connections_for_a_moment(tmp_path: Path) -> None:
    """Given a worker of which a thread is left, when that is gone after the spare has looked, then the spare serves."""
    with circusd(tmp_path, numprocesses=1, options=SPARE) as c, socket.socket(socket.AF_UNIX) as dying:
        (serving,) = c.wait_ready()
        spare = wait_for_spare(c)
        eventually(lambda: "waiting for the order to serve" in c.log())
        (mark,) = (c.runtime / "r").glob("*/web/*.up")
        kill(spare, signal.SIGSTOP)
        c.kill9()
        kill(serving)
        mark.with_suffix(".sock").unlink()
        dying.bind(str(mark.with_suffix(".sock")))
        dying.listen()

        kill(spare, signal.SIGCONT)
        dying.accept()[0].close()
        dying.close()

        eventually(lambda: c.get(timeout=5) == str(spare))


def test_workers_and_a_spare_that_all_hang_are_replaced(tmp_path: Path) -> None:
    """Given two workers and a spare, when the spare hangs, then both workers, then others serve, and a spare waits."""
    options = {**SPARE, "health.period": 0.5, "health.timeout": 1, "health.failure_threshold": 2, "restart.burst": 9}
    with circusd(tmp_path, options={**options, "health.live_path": "/health/live"}, plugins=BUNDLE) as c:
        stopped = [*c.wait_ready(), wait_for_spare(c)]
        eventually(lambda: None not in [worker["latency"] for worker in c.watcher()["workers"]], what="all are probed")

        kill(stopped[2], signal.SIGSTOP)
        eventually(
            lambda: any(worker["health"] == "hung" for worker in c.watcher()["workers"]) or stopped[2] not in words(c)
        )
        for pid in stopped[:2]:
            kill(pid, signal.SIGSTOP)

        eventually(lambda: len(set(c.wait_ready()) - set(stopped)) == 2, timeout=60, what="both are replaced")
        eventually(lambda: spares(c) not in ([], stopped[2:]), timeout=60, what="the spare is replaced")
