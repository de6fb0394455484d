"""``xboard-circus`` against real circusd and workers."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from xboard_circus.cli import stopping
from xboard_circus.cli.screen import Progress
from xboard_circus.instance import Instance, Silent

from .harness import FORKSERVERS, PATIENCE, Circusd, Watcher, circusd, eventually, holds, kill
from .processes import Process, process


def backend(folder: Path, *watchers: Watcher, **circus: object) -> contextlib.AbstractContextManager[Circusd]:
    """An ini file and its folders; starting circusd is left to the command line."""
    return circusd(folder, watchers=watchers, circus=circus, start=False)


def done(c: Circusd, *arguments: str) -> str:
    """Run a command that has to succeed; return what it says."""
    result = c.run_cli(*arguments)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}{c.report()}"
    return result.stdout


def circusd_of(c: Circusd) -> Process:
    told: dict[str, Any] = json.loads(done(c, "status", "--json"))
    return process(told["circusd"]["pid"])


@contextlib.contextmanager
def begun(c: Circusd, *arguments: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """A command in the middle of its work; *code* runs it in place of the module."""
    program = ["-c", code] if code else ["-m", "xboard_circus"]
    command = [c.python, *program, *arguments, "-c", str(c.ini)]
    with subprocess.Popen(
        command,
        cwd=c.folder,
        env=c.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_until(running: subprocess.Popen[str], words: str) -> None:
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if words in line:
            return
    assert running.stderr is not None
    raise AssertionError(f"ended without {words!r}: {''.join(said)}{running.stderr.read()}")


def test_start_waits_until_all_are_ready_and_stop_until_all_are_gone(tmp_path: Path) -> None:
    """Given an ini file, when started, asked, started again and stopped twice, then each says what it did."""
    with backend(tmp_path) as c:
        said = done(c, "start")
        ready = c.ready()
        told = json.loads(done(c, "status", "--json"))
        again = done(c, "start")
        (shown,) = re.findall(r"^for circusctl: export (CIRCUSCTL_ENDPOINT)=(.+)$", said, re.MULTILINE)
        command = [c.python, "-m", "circus.circusctl", "--timeout", "60", "status"]
        listed = subprocess.run(command, env=os.environ | dict([shown]), capture_output=True, text=True, timeout=240)
        everything, forkservers = c.processes(), c.forkservers()
        stopped = done(c, "stop")
        left = c.processes()
        not_there = c.run_cli("status")

        assert "web: 2 of 2 up\nready\n" in said
        assert "web: active" in listed.stdout
        assert len(ready) == 2
        assert [worker["word"] for worker in told["watchers"][0]["workers"]] == ["up", "up"]
        assert all(worker["rss"] > 1_000_000 for worker in told["watchers"][0]["workers"])
        assert f"circusd of {c.ini} runs already: pid {told['circusd']['pid']}, for " in again
        assert (len(everything), len(forkservers)) == (3 + FORKSERVERS, FORKSERVERS)
        assert stopped.splitlines()[-1] == f"stopped circusd of {c.ini} and all that it ran"  # a slow stop says more
        assert left == []
        assert (not_there.returncode, "does not run" in not_there.stderr) == (1, True)
        assert done(c, "stop") == f"circusd of {c.ini} does not run\n"


def test_two_starts_at_once_make_one_circusd(tmp_path: Path) -> None:
    """Given nothing that runs, when two start it at the same time, then one does and the other finds it running, and
    each says that it is ready once it is."""
    with backend(tmp_path, Watcher(told={"boot": "held"})) as c:
        said: list[str] = []
        threads = [threading.Thread(target=lambda: said.append(done(c, "start"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(c.starts()) == 2, timeout=240, what="both workers start")
        holds(lambda: said == [], seconds=1, what="one says that it is ready while they start")
        c.set("boot", "")
        for thread in threads:
            thread.join(240)

        assert sorted("runs already" in each for each in said) == [False, True]
        assert [each.splitlines()[-1] for each in said] == ["ready", "ready"]
        assert len([each for each in c.processes() if "circus.circusd" in each.command]) == 1


def test_start_of_an_app_that_dies_says_why_and_leaves_circusd_at_it(tmp_path: Path) -> None:
    """Given an app that dies at import, when started, then exit 1 with the reason, and circusd goes on trying."""
    limits = {"restart.burst": 2, "restart.delay": 0.1, "restart.window": 600}
    with backend(tmp_path, Watcher(told={"boot": "die"}, numprocesses=1, options=limits)) as c:
        result = c.run_cli("start")

        assert result.returncode == 1
        assert "web: looping: none of 1 workers is up: " in result.stderr
        assert "told to die at import" in result.stderr
        assert "still trying in the background: `xboard-circus status`" in result.stderr
        assert c.watcher()["cooldown_until"] is not None

        c.set("boot", "refuse set DATABASE_URL in .env")
        before = c.last_told()
        c.do("xboard_retry", name="web")
        refusal = eventually(lambda: c.failures(after=before))[0].message
        assert refusal["cause"] == "failed start"
        assert refusal["reason"] == 'exited with code 1: "set DATABASE_URL in .env"'


def test_start_with_a_stranger_on_the_port_names_it_and_is_up_when_it_is_gone(tmp_path: Path) -> None:
    """Given a stranger on the port, when started, then exit 1 names it; when it goes, the backend comes up."""
    with backend(tmp_path, Watcher(options={"port.retry": 0.5})) as c:
        with socket.create_server(("127.0.0.1", c.watchers["web"].port)):
            result = c.run_cli("start")
            assert result.returncode == 1
            assert f"web: blocked: port {c.watchers['web'].port}: " in result.stderr
            assert f"pid {os.getpid()} (" in result.stderr

        assert len(c.wait_ready()) == 2


def test_a_circusd_that_dies_during_the_start_is_told_with_its_log(tmp_path: Path) -> None:
    """Given a start that waits, when circusd is killed, then the start ends with 1 and the last lines of the log."""
    with backend(tmp_path, Watcher(told={"boot": "held"})) as c, begun(c, "start") as starting:
        read_until(starting, "starting, 0 of 2 workers up")
        assert circusd_of(c).signal(signal.SIGKILL)
        _, errors = starting.communicate(timeout=PATIENCE)

        assert starting.returncode == 1
        assert "circusd ended with exit code -9" in errors
        assert "[INFO] Starting master on pid" in errors


def test_ctrl_c_during_the_start_ends_the_wait_and_nothing_else(tmp_path: Path) -> None:
    """Given a start that waits, when Ctrl-C is pressed, then it says that circusd goes on, which it does."""
    with backend(tmp_path, Watcher(told={"boot": "held"})) as c:
        with begun(c, "start") as starting:
            read_until(starting, "starting, 0 of 2 workers up")
            os.killpg(starting.pid, signal.SIGINT)  # as a terminal does: to all that was started from it
            _, errors = starting.communicate(timeout=PATIENCE)

        assert starting.returncode == 130
        assert "circusd goes on in the background" in errors
        assert "Traceback" not in errors
        c.set("boot", "")
        assert len(c.wait_ready()) == 2


def test_ctrl_c_while_a_cold_restart_stops_says_that_nothing_is_started_and_what_starts_it(tmp_path: Path) -> None:
    """Given workers that take their time to end, when a cold restart is interrupted, it says what is left to do."""
    with backend(tmp_path, Watcher(told={"drain": "3"}, options={"graceful_timeout": 20})) as c:
        assert c.run_cli("start").returncode == 0
        with begun(c, "restart", "--cold") as restarting:
            eventually(lambda: "Arbiter exiting" in c.log("circusd"), what="it stops")
            os.killpg(restarting.pid, signal.SIGINT)
            _, errors = restarting.communicate(timeout=PATIENCE)

        assert restarting.returncode == 130
        assert "is not started again" in errors
        assert "`xboard-circus start`" in errors


@pytest.mark.parametrize("goes", ["the reader of its output", "its terminal"])
def test_a_cold_restart_starts_again_whatever_goes_meanwhile(goes: str, tmp_path: Path) -> None:
    """Given workers that take their time to end, when a cold restart's output is read no more, or its terminal is
    closed, as with a lost connection, then it starts all the same, and ends with 0."""
    with backend(tmp_path, Watcher(told={"drain": "3"}, options={"graceful_timeout": 20})) as c:
        done(c, "start")
        old = circusd_of(c)
        with begun(c, "restart", "--cold") as restarting:
            if goes == "its terminal":
                eventually(lambda: "Arbiter exiting" in c.log("circusd"), what="it stops")
                assert c.call("xboard_reload", name="web")["reason"] == "circusd is ending already"
                restarting.send_signal(signal.SIGHUP)
            else:
                assert restarting.stdout is not None
                restarting.stdout.close()
            assert restarting.wait(2 * PATIENCE) == 0

        c.wait_ready()
        assert circusd_of(c) != old


def test_restart_reads_the_socket_again_and_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """Given a running backend whose [socket:web] has been changed, when restarted, then it serves on the new port."""
    moved = Watcher()
    with backend(tmp_path) as c:
        done(c, "start")
        before = c.processes()
        c.write_ini(socket__web={"port": moved.port})
        said = done(c, "restart", "--yes")

        assert "web: 2 of 2 up\nready\n" in said
        assert not [each for each in before if each.alive]
        socket.create_connection(("127.0.0.1", moved.port), timeout=PATIENCE).close()


def test_restart_with_a_mistake_in_the_ini_leaves_the_running_one_alone(tmp_path: Path) -> None:
    """Given a running backend and a mistake in the ini, when restarted, then exit 1 and the same processes."""
    with backend(tmp_path) as c:
        done(c, "start")
        before = c.processes()
        c.write_ini(watcher__web={"health.period": "fast"})
        result = c.run_cli("restart")

        assert result.returncode == 1
        assert "health.period = fast: not a number of seconds" in result.stdout
        assert c.processes() == before


def test_restart_of_one_watcher_replaces_its_workers_alone(tmp_path: Path) -> None:
    """Given two watchers, when one is restarted by name, then its workers are new and all else is as it was."""
    with circusd(tmp_path, watchers=[Watcher("web"), Watcher("api")]) as c:
        web, api = c.wait_ready(name="web"), c.wait_ready(name="api")
        said = done(c, "restart", "web")

        assert said.endswith("web: 2 of 2 up\nready\n")
        assert not set(web) & set(c.ready("web"))
        assert (c.ready("api"), process(c.pid).alive) == (api, True)


def test_clean_after_a_crash_of_circusd_ends_the_orphans_and_frees_the_port(tmp_path: Path) -> None:
    """Given workers whose circusd was killed, when cleaned, then they are gone and their port can be bound."""
    with circusd(tmp_path) as c:
        workers = [process(pid) for pid in c.wait_ready()]
        c.kill9()
        asked, examined = c.run_cli("status"), c.run_cli("doctor").stdout
        port, checked = c.watchers["web"].port, done(c, "check")
        dry = done(c, "clean", "--dry-run")
        assert all(worker.alive for worker in workers)
        said = done(c, "clean")

        # They serve: nothing that would end them is proposed.
        assert f"still answer on :{port} (2 alive). Cure: run `xboard-circus start`\n" in asked.stderr
        assert "; `xboard-circus start` takes over from workers that serve" in examined
        assert "xboard-circus clean" not in examined
        (line,) = (line for line in checked.splitlines() if f":{port}" in line)
        assert line.endswith(
            f" is still held by 2 processes of circusd {c.pid}, which is gone; "
            "nothing to do: a start takes over, and ends what was left when its own workers are up"
        )
        assert all(f"would stop pid {worker.pid} (" in dry for worker in workers)
        assert all(f"stopping pid {worker.pid} (" in said for worker in workers)
        assert c.processes() == []
        socket.create_server(("127.0.0.1", c.watchers["web"].port)).close()


def test_clean_ends_a_running_circusd_too(tmp_path: Path) -> None:
    """Given a running backend, when cleaned, then all of it is gone."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        said = done(c, "clean")

        assert f"stopping circusd, pid {c.pid}: it runs for {c.ini}" in said
        assert c.processes() == []


@pytest.mark.parametrize("command", ["stop", "clean"])
@pytest.mark.parametrize("job", ["bare", "job"])
def test_what_is_left_alone_is_counted_and_named(tmp_path: Path, job: str, command: str) -> None:
    """Given a worker's child in a session of its own, with and without our mark, when all is stopped, or cleaned, then
    it lives, and is named with what ends it."""
    with circusd(tmp_path, numprocesses=1) as c:
        (pid,) = c.wait_ready()
        c.tell(pid, job)
        (left,) = eventually(lambda: [found for found in c.processes() if found.command == "sleep 600"])
        said = done(c, command)

        named = f"left alone: 1 process that its workers started: pid {left.pid} (sleep 600); `kill {left.pid}` ends it"
        assert said.endswith(f"{named}\n")
        assert "all that it ran" not in said
        assert "nothing that belongs" not in said
        assert c.processes() == [left]


def test_a_hung_circusd_is_stopped_with_all_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a circusd under SIGSTOP, when stopped, then it is killed, and its workers end by SIGTERM."""
    with circusd(tmp_path, options={"graceful_timeout": 5}) as c:
        workers = [process(pid) for pid in c.wait_ready()]
        monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
        instance = Instance(c.ini, answer_within=0.3)
        kill(c.pid, signal.SIGSTOP)
        found = instance.find()
        assert isinstance(found, Silent)
        stopping.stop(instance, found, Progress(Console(quiet=True)), slack=0)

        assert c.processes() == []
        eventually(lambda: all(c.said("stopped", worker.pid) for worker in workers), what="their lifespans ended")


def test_a_relative_unix_endpoint_starts_in_the_folder_of_the_ini(tmp_path: Path) -> None:
    """Given an endpoint ipc://control.sock, when asked from another folder, then circusd is found all the same."""
    folder = Path(os.path.relpath(tmp_path))
    with backend(tmp_path, endpoint="ipc://control.sock", pubsub_endpoint="ipc://events.sock") as c:
        done(c, "start")
        result = subprocess.run(
            [c.python, "-m", "xboard_circus", "-c", str(folder / "circus.ini"), "status"],
            env=c.environ(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

        assert (result.returncode, "2 of 2" in result.stdout) == (0, True), result
        done(c, "stop")
        assert c.processes() == []


def test_a_circusd_without_an_armed_watcher_is_served_too(tmp_path: Path) -> None:
    """Given an ini without our hook, when started, asked and stopped, then Circus's own commands will do."""
    with backend(tmp_path, Watcher(armed=False)) as c:
        said = done(c, "start")
        told = json.loads(done(c, "status", "--json"))
        done(c, "stop")

        assert "web: 2 of 2 up" in said
        assert (told["circusd"]["version"], len(told["watchers"][0]["workers"])) == (None, 2)
        assert c.processes() == []
