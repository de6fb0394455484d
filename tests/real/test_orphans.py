"""An orphan carries our marks, and its circusd and parent are gone. Nobody else is ended for a mark."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from xboard_circus.host.listeners import try_bind

from .free_ports import stranger
from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds, kill
from .processes import Process, process
from .state_words import is_port_taken

RETRY = {"port.retry": 0.5, "port.grace": 1, "graceful_timeout": 2, **FAST_RESTARTS}
SWEEPS = 3.0  # seconds in which a sweep would have ended it


@contextlib.contextmanager
def job_in_a_shell(environ: Mapping[str, str], folder: Path) -> Iterator[list[Process]]:
    """A shell with *environ* in which a job runs, started from here: shell and job."""
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], env=environ, cwd=folder, stdout=subprocess.PIPE)
    job = None
    try:
        assert shell.stdout is not None
        job = process(int(shell.stdout.readline()))
        yield [process(shell.pid), job]
    finally:
        if job is not None:
            job.signal(signal.SIGKILL)
        shell.kill()
        shell.communicate()


def do(c: Circusd, *commands: str) -> None:
    for command in commands:
        if command == "kill -9":
            c.kill9()
        else:
            result = c.run_cli(command)
            assert result.returncode == 0, result.stdout + result.stderr


def answers(c: Circusd) -> bool:
    return bool(c.call("numwatchers", timeout=1)["status"] == "ok")


def sleeping(c: Circusd) -> list[Process]:
    return [each for each in c.processes() if each.command == "sleep 600"]


PLANNED = ["restart", "restart --cold", "stop, start", "clean, start"]
OF_ONE_THAT_HANGS = ["restart", "stop, start"]


@pytest.mark.parametrize(
    ("way", "hangs"), [*((way, False) for way in PLANNED), *((way, True) for way in OF_ONE_THAT_HANGS)]
)
def test_what_circusd_has_adopted_outlives_it(tmp_path: Path, way: str, hangs: bool) -> None:
    """Given jobs that a dead worker has left in sessions of their own, with our marks and without any, when circusd is
    restarted or stopped, or killed because it hangs, then they live."""
    # Started workers leave their children to the first process of the host.
    with circusd(tmp_path, options={**RETRY, "worker.preload": "server"}, plugins=BUNDLE) as c:
        pid = c.wait_ready()[0]
        for count, order in enumerate(("job", "bare"), start=1):
            c.tell(pid, order)
            jobs = eventually(lambda: found if len(found := sleeping(c)) == count else None, what=order)  # noqa: B023
        kill(pid)
        c.wait_ready()
        eventually(lambda: all(each.parent == c.pid for each in jobs), what="circusd has adopted the jobs")
        if hangs:
            kill(c.pid, signal.SIGSTOP)

        for command in way.split(", "):
            result = c.run_cli(*command.split())
            assert result.returncode == 0, result.stdout + result.stderr

        c.wait_ready()
        assert [each.alive for each in jobs] == [True, True]
        for each in jobs:
            each.signal(signal.SIGKILL)


WAYS = ["restart", "stop, start", "kill -9, start", "kill -9, clean", "stop, clean"]


@pytest.mark.parametrize("way", WAYS)
def test_a_shell_with_a_workers_environment_is_no_orphan(tmp_path: Path, way: str) -> None:
    """Given a job in a shell that has a worker's environment and a living parent, when the backend is restarted,
    stopped, started or cleaned, then both live."""
    with circusd(tmp_path, options=RETRY) as c:
        pids = c.wait_ready()
        with job_in_a_shell(process(pids[0]).environ, tmp_path) as started:
            do(c, *way.split(", "))

            if not way.endswith("clean"):
                eventually(lambda: answers(c) and not set(pids) & set(c.wait_ready()), what="new workers serve")
            holds(lambda: [each.alive for each in started] == [True, True], seconds=SWEEPS, what="it was ended")


@pytest.mark.parametrize("mark", ["1:1", "999999999:1", "junk"])
def test_a_mark_that_names_no_circusd_proves_no_orphan(tmp_path: Path, mark: str) -> None:
    """Given a process on the port whose marks are ours but name no circusd, and whose parent lives, when circusd
    starts, then it is named and lives."""
    watcher = Watcher(options=RETRY)
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        marks = {"XBOARD_INSTANCE": c.instance, "XBOARD_CIRCUSD": mark, "XBOARD_WATCHER": "web"}
        with stranger(watcher.port, tmp_path, env=marks) as other:
            c.start_again()

            eventually(lambda: is_port_taken(c.watcher()), what="the port is taken")
            assert f"pid {other.pid}" in c.watcher()["port"]["reason"]
            holds(lambda: other.alive, seconds=SWEEPS, what="it was ended")


@pytest.mark.parametrize("mark", ["pid 1", "junk"])
def test_no_mark_evades_the_policy_any(tmp_path: Path, mark: str) -> None:
    """Given port.policy = any and a process on the port with a mark that names pid 1, or junk, when circusd starts,
    then it is ended, and the backend serves."""
    watcher = Watcher(options={**RETRY, "port.policy": "any"})
    value = f"1:{process(1).started}" if mark == "pid 1" else mark
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        marks = {"XBOARD_INSTANCE": "0123456789ab", "XBOARD_CIRCUSD": value}
        with stranger(watcher.port, tmp_path, env=marks) as other:
            c.start_again()

            c.wait_ready()
            assert not other.alive


def test_a_start_ends_the_orphans_on_circusds_own_ports(tmp_path: Path) -> None:
    """Given circusd-stats and workers of a watcher that is no longer armed, when circusd was killed, then a start ends
    them, and `status` advises it."""
    with circusd(tmp_path, watchers=[Watcher(), Watcher("plain")], circus={"statsd": True}) as c:
        old = c.wait_ready(), c.wait_ready(name="plain")
        stats = process(eventually(lambda: c.workers("circusd-stats"))[0])
        port = int(c.stats.rpartition(":")[2])
        eventually(lambda: try_bind("127.0.0.1", port), what="it listens")
        c.kill9()
        kill(stats.pid, signal.SIGSTOP)  # or it ends by itself, once it finds circusd gone
        c.write_ini(**{"watcher:plain": {"hooks.before_start": None}, "socket:plain": {"so_reuseport": None}})
        assert try_bind("127.0.0.1", port)

        status = c.run_cli("status")
        assert "Cure: run `xboard-circus start`" in status.stderr
        started = c.run_cli("start")

        assert started.returncode == 0, started.stdout + started.stderr
        assert f"ending pid {stats.pid}" in started.stdout
        assert not {stats.pid, *old[1]} & {each.pid for each in c.processes()}
        assert not set(old[0]) & set(c.wait_ready())


def test_a_worker_without_a_mark_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Given the worker of a watcher that was never armed, when circusd was killed, then `start` and `status` name it
    and the command that ends it; after that the start succeeds."""
    with circusd(tmp_path, watchers=[Watcher(), Watcher("plain", 1, armed=False)]) as c:
        c.wait_ready()
        (plain,) = c.wait_ready(name="plain")
        c.kill9()

        cure = f"`kill {plain}` ends it"
        status, refused = c.run_cli("status"), c.run_cli("start")
        assert (refused.returncode, cure in " ".join((refused.stdout + refused.stderr).split())) == (1, True), refused
        assert cure in status.stderr
        assert "`xboard-circus start` is refused" in status.stderr

        kill(plain)
        assert c.run_cli("start").returncode == 0


def test_the_end_of_an_orphan_away_from_the_port_is_recorded(tmp_path: Path) -> None:
    """Given a worker's task that outlives worker and circusd, when circusd starts again, then it ends the job, and
    `xboard-circus events` names it."""
    with circusd(tmp_path, numprocesses=1, options=RETRY, plugins=BUNDLE) as c:
        (worker,) = c.wait_ready()
        c.tell(worker, "task")
        (job,) = eventually(lambda: [found for found in c.processes() if found.command == "sleep 600"])
        os.kill(worker, signal.SIGSTOP)  # so that it does not serve on and hand over
        c.kill9()
        kill(worker)
        assert job.alive

        c.start_again()

        eventually(lambda: not job.alive, what="the orphan is ended")
        c.wait_ready()

        def recorded() -> list[str]:
            """Return the kinds of the events that name the job."""
            told = c.run_cli("events", "--json").stdout.splitlines()
            return [each["kind"] for each in map(json.loads, told) if str(job.pid) in each["reason"]]

        eventually(recorded, every=0.5, what="the ledger names the orphan that was ended")
