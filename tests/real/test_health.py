"""Wedged, sick, busy, not ready: four things that look alike from outside, and what is done about each."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds, kill
from .load import Load
from .processes import process

PATHS = {"health.live_path": "/health/live", "health.ready_path": "/health/ready"}
QUICK = {
    **PATHS,
    "health.period": 0.3,
    "health.timeout": 1,  # half of it is soon over on a crowded machine
    "health.failure_threshold": 2,
    **FAST_RESTARTS,
    "graceful_timeout": 5,
}
ROUNDS = 5.0  # seconds in which a prober with QUICK would have killed twice over
NAP = 2.5  # seconds of sleep that no prober is ended for


def probed(c: Circusd, number: int | None = None) -> list[int]:
    """Wait until the workers are ready and each was seen well by the prober once, from when on its failures count."""
    pids = c.wait_ready(number)
    eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in pids), what="each worker was probed")
    return pids


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("quick"), numprocesses=3, options=QUICK, plugins=BUNDLE, check_delay=1) as c:
        yield c


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("SIGSTOP", "most recent call first"),
        ("sleep", "in block_the_loop"),
        ("spin", "in spin"),
        ("deadlock", "in wait_for_a_deadlock"),
        ("regex", "in match_for_ever"),
    ],
)
def test_a_hung_worker_is_replaced_and_its_stack_is_in_the_log(quick: Circusd, how: str, line: str) -> None:
    """Given three workers, when the loop of one stands still for good, whatever for, then it is replaced, only it."""
    hung, *siblings = probed(quick)
    logged, before = len(quick.log()), quick.last_told()

    if how == "SIGSTOP":
        kill(hung, signal.SIGSTOP)
    else:
        quick.tell(hung, f"hang {how}")
    eventually(lambda: hung not in quick.workers())
    probed(quick)

    eventually(lambda: line in quick.log()[logged:], what="circusd has written its last words")
    assert set(siblings) <= set(quick.workers())
    (failure,) = eventually(lambda: quick.failures(after=before))
    assert (failure.pid, failure.message["cause"]) == (hung, "unhealthy")
    why = "a signal such as SIGSTOP has stopped its process" if how == "SIGSTOP" else "no answer 2 times in a row"
    assert f"hung: {why}" in failure.reason


def test_a_sick_worker_whose_slot_has_to_wait_keeps_no_other_from_being_replaced(tmp_path: Path) -> None:
    """Given five workers, when one is sick whose slot has to wait, and then a second, then that is replaced."""
    options = {**QUICK, "restart.burst": 5, "restart.delay": 60, "restart.delay_max": 60}
    with circusd(tmp_path, numprocesses=5, options=options, plugins=BUNDLE, check_delay=1) as c:
        pids = probed(c, 5)
        sick = pids[0]
        for _ in range(2):
            c.set(f"live.pid-{sick}", "500")
            eventually(lambda sick=sick: sick not in c.workers(), what="the sick one is replaced")  # type: ignore[misc]
            before, pids = pids, probed(c, 5)
            (sick,) = set(pids) - set(before)
        c.set(f"live.pid-{sick}", "500")
        eventually(lambda: "restart budget used up" in c.log("plugin-xboard"), what="its slot has to wait")

        other = next(pid for pid in pids if pid != sick)
        c.set(f"live.pid-{other}", "500")
        eventually(lambda: other not in c.workers(), what="the other one is replaced")

        assert sick in c.workers()


@pytest.mark.parametrize("answer", ["500", "drip", "huge", "hang", "raise"])
def test_a_sick_worker_is_replaced_and_the_prober_stays_small(quick: Circusd, answer: str) -> None:
    """Given three workers, when one's live path misbehaves, then it alone goes, and nobody swallows a gigabyte."""
    sick, *siblings = probed(quick)
    prober, before = quick.plugin("xboard"), quick.last_told()
    small, grown = prober.memory, 0

    def gone() -> bool:
        nonlocal grown
        grown = max(grown, process(sick).memory if sick in quick.workers() else 0)
        return sick not in quick.workers()

    quick.set(f"live.pid-{sick}", answer)
    eventually(gone)

    probed(quick)
    assert set(siblings) <= set(quick.workers())
    # Circus lists a worker no more once it is dead; its end is counted when it is reaped.
    (failure,) = eventually(lambda: quick.failures(after=before))
    assert (failure.pid, failure.message["cause"]) == (sick, "unhealthy")
    assert "sick" in failure.reason
    assert grown < 200_000_000
    assert prober.alive
    assert prober.memory - small < 20_000_000


def test_the_new_worker_comes_before_the_sick_one_goes(quick: Circusd) -> None:
    """Given three workers under load, when one turns sick, then its successor serves first, and no request is lost."""
    sick, *siblings = probed(quick)

    with Load(quick.url, rate=100) as load:
        quick.set(f"live.pid-{sick}", "500")
        eventually(lambda: sick not in quick.workers())
        (new,) = set(quick.wait_ready()) - set(siblings)

    assert (quick.said("ready", new) or 0) < (quick.said("stopped", sick) or 0)
    assert load.lost == []


def test_when_all_turn_sick_none_is_killed_but_somebody_is_told(quick: Circusd) -> None:
    """Given three workers, when the live path of all fails and later heals, then there is an alert and its end."""
    pids, before = probed(quick), quick.last_told()

    quick.set("live", "503")
    (alert,) = eventually(lambda: quick.told("unhealthy", after=before))
    holds(lambda: quick.workers() == pids, seconds=ROUNDS)
    quick.set("live", "")
    eventually(lambda: quick.told("recovered", after=before))

    assert "dependency" in alert.reason
    assert "503" in alert.reason
    assert quick.failures(after=before) == []


def test_a_failing_ready_path_is_shown_and_nobody_dies_of_it(quick: Circusd) -> None:
    """Given three workers, when the ready path of one fails, then it is shown as not ready and lives on."""
    pids, before = probed(quick), quick.last_told()

    quick.set(f"ready.pid-{pids[0]}", "503")
    eventually(lambda: quick.worker(pids[0])["ready"] is False)
    holds(lambda: quick.workers() == pids, seconds=ROUNDS)
    quick.set(f"ready.pid-{pids[0]}", "")

    eventually(lambda: quick.worker(pids[0])["ready"])
    assert quick.failures(after=before) == []


def test_the_only_worker_is_replaced_new_one_first(tmp_path: Path) -> None:
    """Given one worker under load, when it turns sick, then its successor serves before it goes; nothing is lost."""
    with circusd(tmp_path, numprocesses=1, options=QUICK, plugins=BUNDLE) as c:
        (sick,) = probed(c)

        with Load(c.url, rate=100) as load:
            c.set(f"live.pid-{sick}", "500")
            eventually(lambda: sick not in c.workers())
            (new,) = c.wait_ready()

        assert (c.said("ready", new) or 0) < (c.said("stopped", sick) or 0)
        assert load.lost == []


def test_one_of_two_is_replaced(tmp_path: Path) -> None:
    """Given two workers, when one turns sick, which is half of them, then it is replaced all the same."""
    with circusd(tmp_path, options=QUICK, plugins=BUNDLE) as c:
        sick, sibling = probed(c)

        c.set(f"live.pid-{sick}", "500")

        eventually(lambda: sick not in c.workers())
        assert sibling in c.wait_ready()


def test_a_full_thread_pool_is_busy_and_nobody_dies_of_it(tmp_path: Path) -> None:
    """Given a FastAPI app whose live path is a plain def, when all 40 threads are taken, then it is left alone."""
    watcher = Watcher(app="backend:threaded_app", arguments="--ws none --factory", options=QUICK)
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)

        c.tell(pids[0], "busy 40 15")
        eventually(lambda: c.word(pids[0]) == "busy")
        holds(lambda: c.workers() == pids, seconds=ROUNDS)
        eventually(lambda: c.word(pids[0]) == "up")

        assert c.workers() == pids
        assert c.failures() == []


def test_a_worker_that_never_gets_ready_counts_as_a_failed_start(tmp_path: Path) -> None:
    """Given an app whose start hangs, when health.startup_timeout is over, then the worker is replaced and counted."""
    options = {**QUICK, "health.startup_timeout": 4, "graceful_timeout": 0.5}
    watcher = Watcher(numprocesses=1, options=options, told={"boot": "hang"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        first = eventually(c.failures)[0]
        c.set("boot", "")
        c.wait_ready()

        assert first.message["cause"] == "failed start"
        assert "health.startup_timeout" in first.reason


def test_circus_brings_back_a_killed_prober(quick: Circusd) -> None:
    """Given the plugin killed, when Circus looks again, then another one probes, and every worker is the same."""
    pids = probed(quick)

    killed = quick.plugin("xboard")
    kill(killed.pid)
    eventually(lambda: quick.plugin("xboard") != killed)
    quick.set(f"ready.pid-{pids[0]}", "503")  # seen by nobody but a prober at work
    eventually(lambda: quick.worker(pids[0])["ready"] is False)
    quick.set(f"ready.pid-{pids[0]}", "")

    assert quick.workers() == pids


def test_a_prober_that_slept_kills_nobody_for_what_it_missed(quick: Circusd) -> None:
    """Given the plugin stopped for many rounds, when it goes on, then no worker dies of its sleep."""
    pids, prober = probed(quick), quick.plugin("xboard")

    kill(prober.pid, signal.SIGSTOP)
    holds(lambda: quick.workers() == pids, seconds=NAP)
    kill(prober.pid, signal.SIGCONT)

    holds(lambda: quick.workers() == pids, seconds=ROUNDS)
    assert quick.plugin("xboard") == prober


def test_a_hung_prober_is_replaced(quick: Circusd) -> None:
    """Given the plugin stopped for good, when it has not reported for long, then it is ended and Circus starts it."""
    pids, prober = probed(quick), quick.plugin("xboard")

    kill(prober.pid, signal.SIGSTOP)

    eventually(lambda: quick.plugin("xboard") != prober)
    assert quick.workers() == pids


@pytest.mark.parametrize("kind", ["hung", "sick"])
def test_an_old_probe_kills_nobody(quick: Circusd, kind: str) -> None:
    """Given a well worker, when its replacement is asked for because of a probe of a minute ago, then it is refused."""
    pids = probed(quick)

    reply = quick.replace(pids[0], kind, age=60)

    assert reply["status"] == "error"
    assert "old" in reply["reason"]
    assert quick.workers() == pids


def test_without_a_private_socket_the_url_is_probed(tmp_path: Path) -> None:
    """Given someone else's command and health.url, when the only worker's answer fails, then it is replaced."""
    watcher = Watcher(
        numprocesses=1,
        command="python -m uvicorn backend:app --fd $(circus.sockets.web) --ws none",
    )
    options = {**QUICK, "health.url": f"http://127.0.0.1:{watcher.port}/health/live"}
    with circusd(tmp_path, watchers=[replace(watcher, options=options)], plugins=BUNDLE) as c:
        (pid,) = c.wait_ready()
        eventually(lambda: c.worker(pid)["latency"] is not None, what="the address was probed")

        c.set(f"live.pid-{pid}", "500")

        eventually(lambda: pid not in c.workers())
        c.wait_ready()


def test_the_state_tells_each_probe_each_cause_and_the_age_of_the_last_round(tmp_path: Path) -> None:
    """Given a worker that was probed, when it is killed, then the state tells its figures, its cause, and the round."""
    with circusd(tmp_path, numprocesses=1, options=QUICK, plugins=BUNDLE) as c:
        (pid,) = probed(c)
        figures = c.worker(pid)["probe"]
        assert figures["latency"] > 0
        assert figures["rss"] > 1 << 20
        assert figures["requests_served"] == 0
        assert figures["requests_active"] == 0

        kill(pid)

        eventually(lambda: c.watcher()["ends"] == {"killed from outside": 1}, what="the end was counted by its cause")
        eventually(lambda: c.state()["probers"][0]["round_age"] < 2, what="a round was reported")


def test_a_dead_database_that_blocks_all_event_loops_does_not_cost_all_workers(tmp_path: Path) -> None:
    """Given four workers that all wait in their event loops for a database, when it does not answer for as long as a
    prober would kill three times over, then one is replaced as a trial; when it answers, the others serve on."""
    with contextlib.ExitStack() as clients, socket.create_server(("127.0.0.1", 0), backlog=512) as database:
        env = {"DATABASE_PORT": str(database.getsockname()[1])}
        web = Watcher(app="database_app:app", numprocesses=4, options=QUICK, env=env)
        with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
            old = set(probed(c, 4))

            def most_wait() -> bool:
                clients.enter_context(block_on_query(web.port))
                return sum(each["health"] in ("failing", "hung") for each in c.watcher()["workers"]) >= 3

            eventually(most_wait)
            eventually(lambda: c.failures(), what="one is replaced as a trial")
            eventually(lambda: any("hang together" in each.reason for each in c.told("unhealthy")), what="it is told")
            eventually(lambda: "hang together" in c.watcher()["verdict"]["cause"], what="so is why it is degraded")
            holds(lambda: len(old & set(c.workers())) >= 3, seconds=ROUNDS)
            kept = old & set(c.workers())
            answering = threading.Thread(target=answer_all, args=(database,), daemon=True)
            answering.start()
            eventually(lambda: all(c.worker(pid)["health"] == "ok" for pid in c.wait_ready(4)))

            assert len(kept - set(c.workers())) <= 1  # a trial may be decided as the database answers
            assert {failure.message["cause"] for failure in c.failures()} == {"unhealthy"}
            clients.close()
        database.shutdown(socket.SHUT_RDWR)


def block_on_query(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(b"GET /query HTTP/1.1\r\nhost: localhost\r\n\r\n")
    return client


def answer_all(database: socket.socket) -> None:
    """Accept and close what connects, until the listener is shut down."""
    with contextlib.suppress(OSError):
        while True:
            database.accept()[0].close()
