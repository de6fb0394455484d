"""The port is ours before a worker runs on it; only our own leftovers are removed for that, and everybody is named."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .free_ports import free_port, is_refused, stranger
from .harness import BUNDLE, FORKSERVERS, Circusd, Watcher, circusd, eventually, holds, kill
from .processes import Process, process

RETRY = {"port.retry": 0.5, "port.grace": 1.5}


def orphans_of(c: Circusd) -> list[Process]:
    """Kill circusd; return what outlives it."""
    c.kill9()
    return c.processes()


def test_after_circusd_is_killed_its_successor_takes_over(tmp_path: Path) -> None:
    """Given circusd killed with workers, plugin and stats, when it is started again, then it is alone and serves."""
    with circusd(tmp_path, options=RETRY, plugins=BUNDLE, circus={"statsd": True}) as c:
        c.wait_ready()
        eventually(
            lambda: len(c.processes()) == 5 + FORKSERVERS,
            what="circusd, two workers, forkserver, plugin and circusd-stats",
        )
        orphans = orphans_of(c)
        assert len(orphans) >= 3  # stats and plugin may end by themselves when circusd is gone

        c.start_again()
        fresh = c.wait_ready()

        assert c.serves()
        eventually(lambda: not [orphan for orphan in orphans if orphan.alive])
        assert not set(fresh) & {orphan.pid for orphan in orphans}

        def plugins() -> list[Process]:
            return [found for found in c.processes() if "circus import plugins" in found.command]

        eventually(lambda: plugins() == [c.plugin("xboard")], what="one plugin runs, the new one")
        assert len(c.told("port_freed")) <= 1


def test_an_orphan_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """Given an orphan on the port deaf to SIGTERM, when circusd starts, then it answers all along, and then serves.

    One that cannot be asked for its socket: else the port is taken over from it, and it may drain for longer.
    """
    watcher = Watcher(numprocesses=1, options={**RETRY, "port.grace": 6}, told={"boot": "ignore-term"})
    with circusd(tmp_path, watchers=[watcher]) as c:
        (pid,) = c.wait_ready()
        deaf = process(pid)
        private = Path(c.worker(pid)["socket"])
        c.kill9()
        private.unlink()
        c.set("boot", "")

        start = time.monotonic()
        c.start_again()
        with c.answering():
            eventually(lambda: c.watcher()["port"]["state"] == "cleaning")
            holds(lambda: deaf.alive, seconds=6 - (time.monotonic() - start) - 0.2, what="killed before the grace")
            eventually(lambda: not deaf.alive)
            c.wait_ready()

        assert c.serves()
        (freed,) = c.told("port_freed")
        assert str(pid) in freed.reason


def test_the_children_of_an_orphan_go_with_it(tmp_path: Path) -> None:
    """Given an orphan with a child in its session, when circusd starts again, then both are gone and it serves."""
    with circusd(tmp_path, numprocesses=1, options=RETRY) as c:
        (pid,) = c.wait_ready()
        c.tell(pid, "task")
        (child,) = eventually(lambda: [found for found in c.processes() if found.command == "sleep 600"])
        orphans = orphans_of(c)
        assert child in orphans

        c.start_again()
        c.wait_ready()

        eventually(lambda: not [orphan for orphan in orphans if orphan.alive])


def test_a_job_with_a_session_of_its_own_lives_on_without_our_environment(tmp_path: Path) -> None:
    """Given a job that a worker started in a session of its own with its environment cleared, when circusd is killed
    and started again, and when `clean` removes what is left, then the job lives on."""
    with circusd(tmp_path, numprocesses=1, options=RETRY) as c:
        (pid,) = c.wait_ready()
        c.tell(pid, "bare")
        (job,) = eventually(lambda: [found for found in c.processes() if found.command == "sleep 600"])
        orphans = orphans_of(c)

        c.start_again()
        (pid,) = c.wait_ready()

        eventually(lambda: [orphan for orphan in orphans if orphan.alive] == [job], what="only the job is left")
        c.tell(pid, "bare")
        eventually(lambda: len([found for found in c.processes() if found.command == "sleep 600"]) == 2)
        c.kill9()
        cleaned = c.run_cli("clean")
        eventually(lambda: {found.command for found in c.processes()} == {"sleep 600"}, what=cleaned.stdout)
        assert len(c.processes()) == 2


def test_a_listener_that_a_worker_shuts_down_listens_again(tmp_path: Path) -> None:
    """Given a worker that shuts the shared listener down, then circusd says so and listens again, and all workers
    stay; where another process takes the port first, it is named, and the backend serves when it is gone."""
    watcher = Watcher(options=RETRY)
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = c.wait_ready()
        c.tell(pids[0], "shut")

        (shut,) = eventually(lambda: c.told("port_shut"))
        assert "shut the listening socket down; it listens again" in shut.reason
        eventually(c.serves, what="it serves again")
        assert c.workers() == pids

        os.kill(c.pid, signal.SIGSTOP)  # so that the other one has the port first
        c.tell(pids[0], "shut")
        eventually(lambda: is_refused(watcher.port))
        with stranger(watcher.port, tmp_path) as other:
            os.kill(c.pid, signal.SIGCONT)
            eventually(lambda: c.verdict() == "blocked")
            assert str(other.pid) in c.watcher()["verdict"]["cause"]
            assert len(c.told("port_refused")) == 1
        fresh = c.wait_ready()
        assert c.serves()
        assert not set(fresh) & set(pids)
        assert {each.message["cause"] for each in c.told("restart")} == {"commanded"}


CHANGES = {
    "lowat": "SO_RCVLOWAT",
    "linger": "SO_LINGER",
    "timeout": "TCP_USER_TIMEOUT",
    "blocking": "O_NONBLOCK",
    "backlog": "backlog",
}
"""What a worker may change of a listener, and the option that it is."""


@pytest.fixture(scope="module")
def of_all_changes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """A circusd with a watcher for each of `CHANGES`, and "deaf": what is done to one listener is told once a while."""
    options = {**RETRY, "autostart": False}
    watchers = [Watcher(name, options=options) for name in (*CHANGES, "deaf")]
    with circusd(tmp_path_factory.mktemp("changes"), watchers=watchers) as c:
        yield c


@pytest.fixture
def sharing(of_all_changes: Circusd) -> Circusd:
    of_all_changes.start_if_ended()
    return of_all_changes


def test_a_listener_that_a_worker_makes_deaf_is_made_anew(sharing: Circusd) -> None:
    """Given a worker that has the kernel drop all connections to the shared listener, then circusd says so, and the
    workers are replaced by others on another listener."""
    c, name = sharing, "deaf"
    with c.running(name):
        pids = c.wait_ready(name=name)
        c.tell(pids[0], "deaf", name)

        (deaf,) = eventually(lambda: c.told("port_shut", name))
        assert "drop connections to the listening socket, by IP_MINTTL" in deaf.reason
        eventually(lambda: c.serves(name), what="it serves again")
        fresh = eventually(lambda: [pid for pid in c.wait_ready(name=name) if pid not in pids])
        assert c.get(name=name) in map(str, fresh)
        assert {each.message["cause"] for each in c.told("restart", name)} == {"commanded"}


@pytest.mark.parametrize(("change", "option"), CHANGES.items())
def test_what_a_worker_changes_of_the_listener_is_put_back(sharing: Circusd, change: str, option: str) -> None:
    """Given a worker that changes the listener of all, then circusd puts it back within seconds and says so, and
    the same workers answer."""
    c = sharing
    with c.running(change):
        pids = c.wait_ready(name=change)
        c.tell(pids[0], f"change {change}", change)

        (changed,) = eventually(lambda: c.told("port_shut", change), what="it is put back")
        assert f"changed {option}" in changed.reason
        assert changed.reason in c.watcher(change)["last_reason"]
        for _ in range(20):
            assert c.get(name=change, timeout=5).isdigit()
        assert c.workers(change) == pids


def test_a_child_that_keeps_the_listener_is_named_by_all_and_left_alone(tmp_path: Path) -> None:
    """Given a worker's child with a session of its own and no mark that takes connections, when the workers have been
    reloaded, and restarted, then verdict, event, doctor and stop name it, and it lives until it is ended."""

    def shared() -> bool:
        verdict = c.watcher()["verdict"]
        return verdict["word"] == "degraded" and "shares the listening socket" in verdict["cause"]

    with circusd(tmp_path, watchers=[Watcher(options=RETRY)]) as c:
        c.wait_ready()
        c.tell(c.workers()[0], "hidden_heir")
        (heir,) = eventually(lambda: [each for each in c.processes() if "listener.accept" in each.command])
        assert c.run_cli("reload", "web").returncode == 0
        eventually(shared)
        (told,) = c.told("port_shared")
        for word in (f"pid {heir.pid} (", "python", f"user {pwd.getpwuid(os.getuid()).pw_name}"):
            assert word in told.reason
        assert c.run_cli("restart", "--no-preflight").returncode == 0
        eventually(shared)
        doctor = c.run_cli("doctor").stdout
        assert f"shares the listening socket: pid {heir.pid} (" in doctor
        assert "until then web waits" not in doctor

        stopped = c.run_cli("stop")

        assert (stopped.returncode, heir.alive) == (1, True)
        assert f"the port is held by pid {heir.pid} (" in stopped.stderr
        kill(heir.pid)
        assert c.run_cli("start").returncode == 0
        assert c.verdict() == "ok"


def test_who_listens_beside_the_workers_is_named(tmp_path: Path) -> None:
    """Given a worker's child that has bound the same address, by SO_REUSEPORT, and so takes a share of the connections,
    when the worker has been reloaded, then verdict and event name it."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=RETRY)]) as c:
        c.wait_ready()
        c.tell(c.workers()[0], "heir_beside")
        (heir,) = eventually(lambda: [each for each in c.processes() if "listener.accept" in each.command])
        c.do("xboard_reload", name="web")
        eventually(lambda: c.told("port_shared"))
        assert f"pid {heir.pid} (" in c.told("port_shared")[0].reason
        assert c.verdict() == "degraded"


def test_a_held_slot_leaves_no_orphan(tmp_path: Path) -> None:
    """Given a slot that cools down, when circusd is killed, then nothing of it is left."""
    options = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 60, "restart.window": 60}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options, told={"boot": "die"})]) as c:
        eventually(lambda: c.words() == ["held"] and c.told("cooldown"))

        c.kill9()

        eventually(lambda: c.processes() == [])


@pytest.mark.parametrize(
    ("host", "reuse"),
    [
        pytest.param("127.0.0.1", False, id="the same address"),
        pytest.param("0.0.0.0", False, id="all of IPv4"),
        pytest.param("::", False, id="all of IPv6, which takes IPv4 too"),
        pytest.param("127.0.0.1", True, id="by SO_REUSEPORT, where a second bind would succeed"),
    ],
)
def test_a_stranger_on_the_port_lives_and_is_named(tmp_path: Path, host: str, reuse: bool) -> None:
    """Given a stranger on the port, when circusd starts, then it waits, names it, and serves once it is gone."""
    watcher = Watcher(options=RETRY)
    with stranger(watcher.port, tmp_path, host=host, reuse=reuse) as other, circusd(tmp_path, watchers=[watcher]) as c:
        eventually(lambda: c.watcher()["port"]["state"] == "refused")
        reason = c.watcher()["port"]["reason"]
        for told in (f"pid {other.pid}", "python", pwd.getpwuid(os.getuid()).pw_name, " s", str(tmp_path)):
            assert told in reason
        workers = eventually(lambda: c.watcher()["workers"], what="they are listed")
        assert {(worker["phase"], worker["held_by"]) for worker in workers} == {("held", "port")}
        assert all("port" in worker["reason"] for worker in workers)
        assert c.status() == "active"
        with c.answering():
            holds(lambda: other.alive and not c.starts(), seconds=1.2)
        (refused,) = c.told("port_refused")
        assert str(other.pid) in refused.reason
        assert c.failures() == []

        other.signal(signal.SIGKILL)

        c.wait_ready()
        assert c.serves()


def test_the_operator_may_stop_and_start_while_the_port_is_refused(tmp_path: Path) -> None:
    """Given a stranger on the port, when the watcher is stopped, then it stays so when the stranger is gone."""
    watcher = Watcher(options=RETRY)
    with circusd_beside_stranger(tmp_path, watcher) as (c, other), c.answering():
        c.do("stop", name="web", waiting=True)
        other.signal(signal.SIGKILL)
        holds(lambda: c.status() == "stopped" and not c.workers(), seconds=1.2)

        c.do("start", name="web", waiting=True)
        c.wait_ready()


def test_a_stranger_is_ended_where_the_policy_says_any(tmp_path: Path) -> None:
    """Given a stranger on the port and port.policy = any, when circusd starts, then it is ended and we serve."""
    watcher = Watcher(options={**RETRY, "port.policy": "any"})
    with stranger(watcher.port, tmp_path) as other, circusd(tmp_path, watchers=[watcher]) as c:
        c.wait_ready()

        assert not other.alive
        (freed,) = c.told("port_freed")
        assert str(other.pid) in freed.reason


def test_an_orphan_lives_where_the_policy_says_never(tmp_path: Path) -> None:
    """Given an orphan on the port and port.policy = never, when circusd starts again, then it waits for its end."""
    with circusd(tmp_path, numprocesses=1, options={**RETRY, "port.policy": "never"}) as c:
        (orphan,) = map(process, c.wait_ready())
        c.kill9()

        c.start_again()
        eventually(lambda: c.watcher()["port"]["state"] == "refused")
        holds(lambda: orphan.alive, seconds=1)
        assert "orphan" in c.watcher()["port"]["reason"]
        kill(orphan.pid)

        c.wait_ready()


def test_another_live_circusd_is_named_and_left_alone(tmp_path: Path) -> None:
    """Given two ini files with the same port, when both run, then the second names the first and harms nobody."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    port = free_port()
    with circusd(tmp_path / "first", watchers=[Watcher(port=port, options=RETRY)]) as first:
        pids = first.wait_ready()
        with circusd(tmp_path / "second", watchers=[Watcher(port=port, options=RETRY)]) as second:
            eventually(lambda: second.watcher()["port"]["state"] == "refused")

            assert f"circusd {first.pid}" in second.watcher()["port"]["reason"]
            holds(lambda: first.workers() == pids, seconds=1)
        assert first.serves()


def test_a_server_that_binds_by_itself_waits_for_its_port(tmp_path: Path) -> None:
    """Given uvicorn --port and port.port, when a stranger holds that port, then uvicorn starts once it is gone."""
    with circusd_beside_stranger(tmp_path, binds_by_itself("")) as (c, other):
        holds(lambda: other.alive and not c.starts(), seconds=1)

        other.signal(signal.SIGKILL)

        c.wait_ready()
        assert c.failures() == []


def test_the_children_of_a_dead_parent_do_not_keep_the_port(tmp_path: Path) -> None:
    """Given uvicorn --workers 2, when its parent is killed, then its orphans go and another uvicorn serves."""
    with circusd(tmp_path, watchers=[binds_by_itself("--workers 2")]) as c:
        eventually(lambda: c.serves())
        (parent,) = c.workers()
        eventually(lambda: len({start.pid for start in c.starts()}) >= 2, what="both children imported the app")
        old = {start.pid for start in c.starts()}

        kill(parent)

        eventually(lambda: int(c.get(timeout=1)) not in old)
        eventually(lambda: not [found for found in c.processes() if found.pid in old])


def test_a_lone_server_that_binds_by_itself_and_hangs_is_ended_first(tmp_path: Path) -> None:
    """Given plain uvicorn on its own port with health.url, when its loop is blocked, then another one serves."""
    watcher = binds_by_itself("")
    url = {"health.url": f"http://127.0.0.1:{watcher.port}/", "health.period": 0.3, "health.timeout": 0.3}
    watcher = dataclasses.replace(
        watcher, options={**watcher.options, **url, "health.failure_threshold": 2, "graceful_timeout": 1}
    )
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        eventually(lambda: c.serves())
        (hangs,) = eventually(c.workers)
        eventually(lambda: c.worker(hangs)["latency"] and c.words() == ["up"], what="it is up, and was probed")
        c.tell(hangs, "block 600")

        eventually(lambda: int(c.get(timeout=1)) != hangs, timeout=60)

        assert "unhealthy" in {event.message["cause"] for event in c.failures()}


SLOW = """
import http.server, sys, time
time.sleep(4)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def test_a_server_that_binds_by_itself_is_up_with_the_first_good_answer(tmp_path: Path) -> None:
    """Given a server that listens only after many failed probes, then it is not up before, and never killed as sick."""
    watcher = binds_by_itself("")
    probes = {"health.url": f"http://127.0.0.1:{watcher.port}/", "health.period": 0.2, "health.failure_threshold": 2}
    (tmp_path / "slow.py").write_text(SLOW)
    watcher = dataclasses.replace(
        watcher, command=f"{{python}} {tmp_path / 'slow.py'} {{port}}", options={**watcher.options, **probes}
    )
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        eventually(lambda: c.watcher()["workers"][0]["phase"] == "up")
        c.get()

        eventually(lambda: c.watcher()["workers"][0]["health"] == "ok")
        assert c.failures() == []


def binds_by_itself(arguments: str) -> Watcher:
    port = free_port()
    return Watcher(
        numprocesses=1,
        port=port,
        listens=False,
        command=f"python -m uvicorn backend:app --port {port} --ws none {arguments}",
        options={**RETRY, "port.port": port, "restart.delay": 0.2},
    )


@contextlib.contextmanager
def circusd_beside_stranger(folder: Path, watcher: Watcher) -> Iterator[tuple[Circusd, Process]]:
    with stranger(watcher.port, folder) as other, circusd(folder, watchers=[watcher]) as c:
        eventually(lambda: c.watcher()["port"]["state"] == "refused")
        yield c, other
