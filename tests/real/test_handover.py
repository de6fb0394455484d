"""circusd is killed, its workers serve on, and the next circusd takes their listening socket over."""

import json
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from xboard_circus.supervisor.supervisor import HELPER_GRACE

from .children import children
from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds, kill
from .load import Load
from .processes import process
from .test_cli import done
from .test_restart import recorded

# What a worker that was taken over may leave: on its path it passes on a listener that only looks like the public one.
# words: folder, port. A user namespace gives any user a network of its own, and root needs none.
LEAVE = """
import ctypes, fcntl, os, socket, struct, sys
folder, port = sys.argv[1], int(sys.argv[2])
NEWNET, NEWUSER, SIOCSIFFLAGS, UP = 0x40000000, 0x10000000, 0x8914, 0x41
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(NEWNET | (NEWUSER if os.geteuid() else 0)):
    print("no namespace:", os.strerror(ctypes.get_errno()))
    sys.exit()
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP))
listener = socket.create_server(("127.0.0.1", port))
listener.setblocking(False)
path = folder + "/00000000.sock"
private = socket.socket(socket.AF_UNIX)
private.bind(path)
private.listen(64)
for mark in ("up", "ready"):
    open(folder + "/00000000." + mark, "w").close()
print("ready")
while True:
    with private.accept()[0] as connection:
        request = connection.recv(4096)
        passed = [listener.fileno()] if b"/-/handover" in request else []
        head = b"HTTP/1.0 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
        if request:
            socket.send_fds(connection, [head], passed)
        if passed:
            print("passed on")
"""


def life_of(c: Circusd) -> Path:
    """Return circusd's record of its life."""
    return next((c.runtime / "r").glob("*/life.json"))


def unprivileged(path: Path) -> str:
    """Make at *path* a Python that may not look into every process, as root's may; other users' may not anyway."""
    drop = "setpriv --bounding-set -sys_ptrace,-sys_admin,-perfmon" if os.geteuid() == 0 else ""
    path.write_text(f'#!/bin/sh\nexec {drop} {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def make_names(folder: Path, first: str) -> None:
    for number in range(10_000):
        os.close(os.open(folder / f"{first}{number:x}.beat", os.O_CREAT | os.O_WRONLY))


def test_nothing_is_lost_when_circusd_is_killed_and_started_again(tmp_path: Path) -> None:
    """Given load on two workers, when circusd is killed and started 3 s later, then new workers take over, 0 lost."""
    with circusd(tmp_path) as c:
        old = c.wait_ready()

        with Load(c.url, rate=100) as new, Load(c.url, rate=50, connections=16) as kept:
            eventually(lambda: new.answered > 50 and kept.answered > 50)
            # A worker that was taken over may put a link in the place of a mark, to a name that no file may have.
            mark = next((c.runtime / "r").glob("*/web/*.up"))
            mark.unlink()
            mark.symlink_to("n" * 300)
            c.kill9()
            served = new.answered
            eventually(lambda: new.answered > served + 3 * new.rate, what="3 s without a circusd")
            c.start_again()
            fresh = c.wait_ready()
            eventually(lambda: set(new.workers) >= set(fresh))
            eventually(lambda: not {found.pid for found in c.processes()} & set(old))
            served = new.answered
            eventually(lambda: new.answered > served + 50)

        assert not set(fresh) & set(old)
        assert new.lost + kept.lost == []
        assert "took" in (tmp_path / "logs" / "circusd.log").read_text()


def test_workers_that_may_not_be_looked_into_are_replaced_like_others(tmp_path: Path) -> None:
    """Given an app that forbids others to look into its processes, and a circusd that may not all the same, when it is
    restarted, or killed and started, then 0 are lost and the old workers end; a job that left their session does not.
    """
    (tmp_path / "closed.py").write_text("import ctypes\nctypes.CDLL(None).prctl(4, 0)\nfrom backend import app\n")
    watcher = Watcher(app="closed:app", options=FAST_RESTARTS)
    python, env = unprivileged(tmp_path / "python"), {"PYTHONPATH": str(tmp_path)}
    with circusd(tmp_path, watchers=[watcher], env=env, python=python, plugins=BUNDLE, start=False) as c:
        # Over TCP it would have to look into the processes of its clients.
        c.endpoint, c.pubsub = f"ipc://{tmp_path}/circusd", f"ipc://{tmp_path}/events"
        c.write_ini()
        c.start_again()
        seen = [process(pid) for pid in c.wait_ready()]
        c.tell(seen[0].pid, "bare")
        [job] = eventually(lambda: [each for each in c.processes() if each.command == "sleep 600"])
        try:
            with Load(c.url, rate=50) as new, Load(c.url, rate=50, connections=8) as kept:
                for is_killed in (False, True):
                    old = seen[-2:]
                    eventually(lambda: set(new.workers) >= {each.pid for each in old})  # noqa: B023
                    if is_killed:
                        process(recorded(c)).signal(signal.SIGKILL)
                    done(c, *(["start"] if is_killed else ["restart", "--no-preflight"]))
                    seen += [process(pid) for pid in c.wait_ready()]
                    assert not set(old) & set(seen[-2:])
                    eventually(lambda: not any(each.alive for each in old), what="the old ones end")  # noqa: B023
            assert new.lost + kept.lost == []
            assert job.alive
            done(c, "stop")
            assert [each for each in seen if each.alive] == []
        finally:
            for each in (*seen, job):
                each.signal(signal.SIGKILL)


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_names_without_number_in_the_runtime_folder_lose_no_request(tmp_path: Path, how: str) -> None:
    """Given 20,000 names that workers have made in their folder, when circusd is killed or restarted, then 0 are lost.

    Half are older than the names of the workers: which come first in a folder is up to its file system.
    """
    with circusd(tmp_path) as c:
        first = c.wait_ready()
        folder = life_of(c).with_name("web")
        make_names(folder, "a")
        for pid in first:
            kill(pid)
        eventually(lambda: not set(c.wait_ready()) & set(first), what="others serve")
        old = c.wait_ready()
        make_names(folder, "b")
        tokens = {Path(each["socket"]).stem for each in c.watcher()["workers"]}
        eventually(lambda: set(json.loads(life_of(c).read_text())["workers"]["web"]) == tokens, what="all are recorded")

        with Load(c.url, rate=100) as new:
            eventually(lambda: new.answered > 50)
            if how == "restart":
                assert c.run_cli("restart", "--no-preflight").returncode == 0
            else:
                c.kill9()
                c.start_again()
            eventually(lambda: not {found.pid for found in c.processes()} & set(old))
            served = new.answered
            eventually(lambda: new.answered > served + 50)

        assert new.lost == []


def test_a_listener_of_another_network_is_not_taken_over(tmp_path: Path) -> None:
    """Given a process that passes on a listener of the same address in a network of its own, when circusd is killed and
    started again, then it takes over from a worker, and nothing is lost."""
    with circusd(tmp_path) as c, children() as others:
        old = c.wait_ready()
        folder = Path(c.watcher()["workers"][0]["socket"]).parent
        evil = others.run(LEAVE, folder, c.watchers["web"].port)
        if (said := evil.line()) != "ready":
            pytest.skip(said)

        with Load(c.url, rate=100) as load:
            eventually(lambda: load.answered > 50)
            c.kill9()
            life_of(c).unlink()  # it names the workers, and the others would be asked first
            c.start_again()
            assert evil.line() == "passed on"
            fresh = [pid for pid in c.wait_ready() if pid not in old]
            eventually(lambda: fresh and set(load.workers) >= set(fresh))
            eventually(lambda: not {found.pid for found in c.processes()} & set(old))
            answered = load.answered
            eventually(lambda: load.answered > answered + 50)

        assert load.lost == []
        assert "it listens in another network namespace" in c.log("circusd")
        evil.end()


def test_old_workers_serve_on_while_the_new_code_does_not_get_ready(tmp_path: Path) -> None:
    """Given new code that dies at import, when circusd is killed and started again, then the old workers serve on."""
    with circusd(tmp_path, options={"restart.burst": 2, "restart.delay": 0.2}) as c:
        old = c.wait_ready()

        c.kill9()
        c.set("boot", "die")
        c.start_again()
        eventually(lambda: c.told("cooldown"))

        with Load(c.url, rate=50) as load:
            eventually(lambda: load.answered > 50)

        assert load.lost == []
        assert set(load.workers) <= set(old)


def test_old_workers_that_hang_are_not_said_to_serve_on(tmp_path: Path) -> None:
    """Given three workers of which a signal has stopped one and another's loop is blocked, when circusd is killed and
    another one's workers do not come up, then one is said to serve on."""
    options = {"restart.burst": 2, "restart.delay": 0.2, "health.timeout": 0.5}
    with circusd(tmp_path, numprocesses=3, options=options) as c:
        stopped, blocked, serves = c.wait_ready()

        c.tell(blocked, "hang sleep")
        c.kill9()
        kill(stopped, signal.SIGSTOP)
        c.set("boot", "die")
        c.start_again()

        eventually(
            lambda: c.watcher()["verdict"]["cause"].startswith("1 of the workers of an earlier circusd serve on")
        )
        assert c.get() == str(serves)


def test_old_workers_serve_on_while_circus_cannot_create_their_watcher(tmp_path: Path) -> None:
    """Given a watcher whose log cannot be opened any more, when another circusd starts, then its old workers serve on,
    what circusd lacks is on show with the cause, and `reloadconfig` brings it back once that is cured."""
    with circusd(tmp_path, watchers=[Watcher(), Watcher("api", numprocesses=1)], plugins=BUNDLE) as c:
        (old,) = c.wait_ready(name="api")
        worker = process(old)
        log = tmp_path / "logs" / "api.log"
        c.kill9()
        log.rename(tmp_path / "logs" / "before.log")
        log.mkdir()
        c.start_again()
        c.wait_ready(name="web")

        verdict = c.watcher("api")["verdict"]
        assert verdict["word"] == "degraded"
        assert f"Circus could not create it: [Errno 21] Is a directory: '{log}'" in verdict["cause"]
        assert verdict["cause"].startswith("1 of the workers of an earlier circusd serve on"), verdict
        shown = done(c, "status")
        assert shown.startswith("degraded for"), shown
        assert "Circus could not create it" in shown
        holds(lambda: worker.alive and c.serves("api"), seconds=HELPER_GRACE + 1, what="the old worker serves")

        log.rmdir()
        c.do("reloadconfig", waiting=True)
        assert old not in c.wait_ready(name="api")
        eventually(lambda: not worker.alive)
        assert c.serves("api")


def test_a_handover_in_the_middle_of_a_start_leaves_the_watcher_running(tmp_path: Path) -> None:
    """Given a start that takes a while, when the port is taken over meanwhile, then the watcher runs in the end.

    The new worker may be up before that; Circus stops a watcher whose start ends without any.
    """
    with circusd(tmp_path, numprocesses=1, options={"warmup_delay": 1}) as c:
        old = c.wait_ready()

        c.kill9()
        c.start_again()
        (new,) = eventually(lambda: set(c.ready()) - set(old))

        eventually(lambda: c.status() == "active")
        assert c.ready() == [new]
        assert c.watcher()["restarts"] == 0


def test_a_stop_and_a_start_in_the_middle_of_a_handover_leave_no_old_worker(tmp_path: Path) -> None:
    """Given a handover, when the watcher is stopped and started before its new workers are ready, the old ones end."""
    with circusd(tmp_path, options={"graceful_timeout": 3, "port.grace": 2}) as c:
        old = c.wait_ready()

        c.kill9()
        c.set("boot", "slow 2")
        c.start_again()
        eventually(lambda: "took" in (tmp_path / "logs" / "circusd.log").read_text())
        c.call("stop", name="web", waiting=True)
        c.call("start", name="web")
        c.set("boot", "")
        c.wait_ready()

        eventually(lambda: not {found.pid for found in c.processes()} & set(old))


def test_fewer_workers_in_the_middle_of_a_handover_leave_no_old_worker(tmp_path: Path) -> None:
    """Given a handover, when one worker less is wanted before the new ones are ready, then the old ones end."""
    with circusd(tmp_path) as c:
        old = c.wait_ready()

        c.kill9()
        c.set("boot", "held")
        c.start_again()
        eventually(lambda: "took" in c.log("circusd"))
        c.do("set", timeout=60, name="web", options={"numprocesses": 1})
        c.set("boot", "")

        eventually(lambda: not {found.pid for found in c.processes()} & set(old), timeout=90)
        assert not set(c.wait_ready(1)) & set(old)


def test_circusd_ends_while_nobody_answers_its_request_for_the_listener(tmp_path: Path) -> None:
    """Given sockets in the workers' folder that never answer, when circusd is told to end, then it does not wait for
    them.
    """
    with ExitStack() as stack, circusd(tmp_path, numprocesses=1) as c:
        old = c.wait_ready()
        folder = life_of(c).with_name("web")
        c.kill9()
        for pid in old:
            kill(pid)
        asked: set[int] = set()
        for number in range(12):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.bind(str(folder / f"{number:08x}.sock"))
            silent.listen(64)
            waiter = threading.Thread(target=note_requests, args=(silent, number, asked), daemon=True)
            waiter.start()
            stack.callback(waiter.join)
            stack.callback(silent.shutdown, socket.SHUT_RDWR)  # which ends the wait for one who asks

        c.start_again()
        eventually(lambda: asked, what="the first is asked for the listener")
        c.stop()

        assert len(asked) < 12


def note_requests(listener: socket.socket, number: int, asked: set[int]) -> None:
    """Note that somebody asks at *listener*, and let each who does wait until nobody can ask any more."""
    with ExitStack() as held, suppress(OSError):
        while True:
            connection = held.enter_context(listener.accept()[0])
            if connection.recv(1):
                asked.add(number)


def test_the_plugin_ends_with_circusd_and_the_workers_do_not(tmp_path: Path) -> None:
    """Given a plugin at work, when circusd is killed, then the plugin is gone at once, and the worker serves on."""
    with circusd(tmp_path, numprocesses=1, plugins=BUNDLE) as c:
        (worker,) = c.wait_ready()
        eventually(lambda: c.state()["probers"])
        (plugin,) = (each["pid"] for each in c.watcher("plugin:xboard")["workers"])

        c.kill9()

        eventually(lambda: plugin not in {found.pid for found in c.processes()})
        assert c.get() == str(worker)
