"""Workers that circusd does not know by their pid: behind a wrapper; and files in the runtime folder that lie."""

import os
import signal
import socket
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .harness import (
    BUNDLE,
    FAST_RESTARTS,
    HERE,
    PATIENCE,
    Circusd,
    Watcher,
    circusd,
    eventually,
    holds,
    kill,
    time_to_start,
)
from .processes import Process, process

WORKER = "python -m xboard_circus.worker backend:app --ws none --fd $(circus.sockets.web)"
QUICK = {
    "health.live_path": "/health/live",
    "health.ready_path": "/health/ready",
    "health.period": 0.3,
    "health.startup_timeout": 20,
    "graceful_timeout": 5,
    **FAST_RESTARTS,
}
SHELL = f"sh -c '{WORKER}; exit $?'"


def forwarding() -> str:
    return f"{sys.executable} {HERE / 'wrapper.py'} {WORKER}"


def wrapped(command: str, **options: object) -> Watcher:
    return Watcher(command=command, numprocesses=1, options={**QUICK, **options})


def probed(c: Circusd) -> dict[str, Any]:
    """Wait until the one worker is up and ready, and was probed; return what circusd shows of it."""

    def ready() -> Any:
        (worker,) = c.watcher()["workers"]
        return worker["latency"] is not None and worker["ready"] and worker

    found: dict[str, Any] = eventually(ready)
    return found


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(forwarding(), id="it forwards signals"),
        pytest.param(SHELL, id="a shell that does not exec"),
        pytest.param(f"{sys.executable} -m uv run --no-project --no-cache --offline {WORKER}", id="uv run"),
    ],
)
def test_a_worker_behind_a_wrapper_is_probed_and_replaced_like_any_other(tmp_path: Path, command: str) -> None:
    """Given a wrapper, then its worker is ready, outlives startup_timeout, is reloaded, and ends with `stop`."""
    startup = time_to_start()
    with circusd(tmp_path, watchers=[wrapped(command, **{"health.startup_timeout": startup})], plugins=BUNDLE) as c:
        first, before = probed(c), c.last_told()
        start = c.starts()[-1]
        assert start.pid != first["pid"]

        eventually(
            lambda: c.worker(first["pid"])["age"] > startup + 2,
            timeout=startup + PATIENCE,
            what="it outlives its start",
        )
        assert c.failures(after=before) == []
        assert [each["pid"] for each in c.watcher()["workers"]] == [first["pid"]]

        def is_reloaded() -> bool:
            result = c.run_cli("reload", "--no-preflight")
            # On a crowded machine a new worker may take longer than that to be ready.
            assert (result.returncode == 0) != ("was not ready within" in result.stderr), result.stdout + result.stderr
            return result.returncode == 0

        eventually(is_reloaded)
        eventually(lambda: not process_lives(start.pid))
        second = c.starts()[-1].pid

        c.do("stop", name="web", waiting=True)
        eventually(lambda: not process_lives(second))


@pytest.mark.parametrize(
    "command", [pytest.param(forwarding(), id="it forwards signals"), pytest.param(SHELL, id="a shell")]
)
def test_a_hung_worker_behind_a_wrapper_leaves_its_stack(tmp_path: Path, command: str) -> None:
    """Given a wrapper, when the event loop of its worker stands still, then the record of the kill has the worker's
    stack, and another worker takes its place."""
    quick = {"health.timeout": 1, "health.failure_threshold": 2}
    with circusd(tmp_path, watchers=[wrapped(command, **quick)], plugins=BUNDLE) as c:
        probed(c)
        (start,) = c.starts()
        before = c.last_told()

        c.tell(start.pid, "block 600")
        (failure,) = eventually(lambda: c.failures(after=before))

        assert failure.message["cause"] == "unhealthy"
        assert "in block_the_loop" in failure.message["stack"]
        eventually(lambda: c.starts()[-1].pid != start.pid, what="another takes its place")
        eventually(lambda: not process_lives(start.pid))


def process_lives(pid: int) -> bool:
    try:
        return process(pid).alive
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("boot", ["", "sleep 60"], ids=["it serves", "it imports the app"])
def test_a_worker_ends_when_its_wrapper_is_killed(tmp_path: Path, boot: str) -> None:
    """Given a wrapper that is killed, then its worker does not stay behind, and another takes its place."""
    with circusd(tmp_path, watchers=[Watcher(command=forwarding(), numprocesses=1, options=QUICK)]) as c:
        eventually(lambda: c.starts())
        eventually(lambda: c.said("ready", c.starts()[0].pid))
        if boot:
            c.set("boot", boot)
            c.do("restart", name="web")
            eventually(lambda: len(c.starts()) == 2)
        worker = process(c.starts()[-1].pid)

        c.set("boot", "")
        kill(worker.parent or 0)

        eventually(lambda: not worker.alive)
        eventually(lambda: c.starts()[-1].pid != worker.pid, what="another takes its place")
        eventually(lambda: c.said("ready", c.starts()[-1].pid))


def test_the_worker_may_stand_in_args(tmp_path: Path) -> None:
    """Given `cmd = python` and the rest in `args`, then the worker is asked on its private socket."""
    command, _, args = WORKER.partition(" ")
    with circusd(tmp_path, watchers=[wrapped(command, args=args)], plugins=BUNDLE) as c:
        probed(c)

        assert c.watcher()["probe"] == "private"
        assert "a trial worker was ready" in c.run_cli("check", "--deep").stdout


def folder_of(c: Circusd) -> Path:
    return c.runtime / "r" / c.instance / "web"


def next_pids(number: int) -> list[int]:
    """Return which pids the kernel gives next: from its last one on, and from 300 on behind the largest."""
    last = int(Path("/proc/loadavg").read_text().split()[-1])
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    return [pid if pid < largest else pid - largest + 300 for pid in range(last + 1, last + 1 + number)]


def plant(c: Circusd, pids: Iterable[int]) -> None:
    """Make the marks that a worker of each of *pids* would leave, if they had its pid for their name."""
    for pid in pids:
        for suffix in ("ready", "up"):
            (folder_of(c) / f"{pid}.{suffix}").touch()


def test_files_of_the_dead_do_not_speak_for_a_new_worker(tmp_path: Path) -> None:
    """Given marks under each pid that a new worker may get, then it is up when it says so itself, not before; and a
    reload whose new worker does not come up fails, and leaves the old one."""
    with circusd(tmp_path, numprocesses=1, options={**QUICK, "health.startup_timeout": 600}) as c:
        (first,) = c.wait_ready()
        c.set("boot", "held")
        for _ in range(10):  # on a crowded machine others may get these pids
            plant(c, pids := next_pids(2000))
            kill(first)
            (first,) = eventually(lambda: set(c.workers()) & {start.pid for start in c.starts()} - {first})  # noqa: B023
            holds(lambda: c.worker(first)["ready_for"] is None, seconds=1)  # noqa: B023
            if first in pids:
                break
        assert first in pids, "no proof: others have got these pids"
        c.set("boot", "")
        assert c.wait_ready() == [first]

        c.set("boot", "held")
        with ThreadPoolExecutor(1) as pool:
            reload = pool.submit(c.run_cli, "reload", "web", "--no-preflight")
            (second,) = eventually(lambda: set(c.workers()) - {first})
            try:
                plant(c, [second])
                eventually(lambda: second in {start.pid for start in c.starts()})
                holds(lambda: c.worker(second)["ready_for"] is None and first in c.workers(), seconds=1)
            finally:
                kill(second)  # for which the reload waits
            result = reload.result()
        assert result.returncode == 1
        assert "web: 1 of 1 workers serve on" in result.stderr
        assert c.ready() == [first]


def test_a_folder_in_the_place_of_a_mark_breaks_nothing(tmp_path: Path) -> None:
    """Given an app that makes folders of its worker's files' names, when it dies, then that is counted as any death."""
    web = Watcher(numprocesses=1, options=QUICK, told={"boot": "held"})
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c:
        eventually(lambda: c.watcher()["workers"])
        (worker,) = c.watcher()["workers"]
        for suffix in (".ready", ".up"):
            Path(worker["socket"]).with_suffix(suffix).mkdir()
        eventually(lambda: c.starts())

        kill(worker["pid"])

        assert eventually(c.failures)[0].pid == worker["pid"]
        c.set("boot", "")
        c.wait_ready()


def test_files_of_dead_generations_are_swept(tmp_path: Path) -> None:
    """Given circusd and its workers killed, when it starts and ends again, then only files of the living are there."""
    with circusd(tmp_path, options=QUICK) as c:
        old = c.wait_ready()
        c.kill9()
        for pid in old:
            kill(pid)
        dead = {path.name for path in folder_of(c).iterdir()}
        assert dead

        c.start_again()
        c.wait_ready()

        def names() -> set[str]:
            return {path.name for path in folder_of(c).iterdir()}

        whole = {"sock", "up", "ready", "beat", "code"}
        eventually(lambda: {name.rpartition(".")[2] for name in names()} == whole, what="the living have all of theirs")
        assert dead.isdisjoint(names())
        c.stop()

        assert list(folder_of(c).iterdir()) == []


def test_forked_children_of_the_app_do_not_keep_the_port(tmp_path: Path) -> None:
    """Given pools of processes that outlive their worker, the first one left by a reload, when the watcher is stopped,
    then the port is free."""
    with circusd(tmp_path, watchers=[Watcher(app="forking_app:app", numprocesses=1, options=QUICK)]) as c:
        eventually(lambda: c.get("/"))
        children = [process(int(pid)) for pid in c.get("/fork").split()]
        assert children

        try:
            reload(c)
            children += [process(int(pid)) for pid in c.get("/fork").split()]
            c.do("stop", name="web", waiting=True)
            port = c.watchers["web"].port
            eventually(lambda: is_refused(port), what="circusd gives the port back")

            assert all(child.alive for child in children), "no proof: they are gone, and the port with them"
            socket.create_server(("127.0.0.1", port)).close()
        finally:
            for child in children:
                child.signal(signal.SIGKILL)


def reload(c: Circusd) -> None:
    """Reload, and wait until each worker has been replaced."""
    c.do("xboard_reload", name="web")
    eventually(lambda: c.watcher()["reload"]["state"] == "done", what="the reload is done")


@pytest.mark.parametrize("how", ["killed", "stopped", "reloaded"])
def test_the_pool_of_a_dead_worker_is_ended_with_it(tmp_path: Path, how: str) -> None:
    """Given a pool of processes, when its worker is killed or reloaded, or the watcher is stopped, then the pool is
    gone too; the pool of the worker in its place is not."""
    with circusd(tmp_path, watchers=[Watcher(app="forking_app:app", numprocesses=1, options=QUICK)]) as c:
        eventually(lambda: c.get("/"))
        (worker,) = c.workers()
        children = [process(int(pid)) for pid in c.get("/pool").split()]
        before, later = c.last_told(), list[Process]()

        if how == "killed":
            os.kill(worker, signal.SIGKILL)
        elif how == "stopped":
            c.do("stop", name="web", waiting=True)
        else:
            reload(c)
            later = [process(int(pid)) for pid in c.get("/pool").split()]

        eventually(lambda: not any(child.alive for child in children), what="the pool is gone")
        eventually(lambda: [it.pid for it in c.told("swept", after=before)] == [worker], what="it is recorded")
        assert all(child.alive for child in later)


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
