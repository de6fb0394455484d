"""``xboard-circus restart`` loses no request: another circusd takes the workers' port over, whatever happens."""

import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import xboard_circus
from xboard_circus.host import procs
from xboard_circus.supervisor.supervisor import HELPER_GRACE

from .free_ports import free_port, is_refused
from .harness import BUNDLE, FAST_RESTARTS, PATIENCE, Circusd, Watcher, circusd, eventually, holds
from .load import Load
from .processes import Process, process
from .test_cli import begun, done, read_until

SLOW = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(float(sys.argv[1])), sys.exit()))
time.sleep(600)
"""
HELD_BY_FILE = """
import os, signal, sys, time
def end(*_):
    while os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    sys.exit()
signal.signal(signal.SIGTERM, end)
time.sleep(600)
"""
UNIX = {"path": "x.sock", "host": None, "port": None, "so_reuseport": None}
DIES = """
import os, sys
if "circus.circusd" in sys.orig_argv:
    os._exit(7)
"""
KILLED_AT = """
import os, runpy, signal, sys
from xboard_circus.circus_client import CircusdClient
from xboard_circus.cli import launching
from xboard_circus.host import runtime
when, place, name = sys.argv.pop(1).split()
place = globals()[place]
def killed(*args, call=getattr(place, name), **more):
    try:
        if when == "after":
            call(*args, **more)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(place, name, killed)
runpy.run_module("xboard_circus", run_name="__main__")
"""
"""The command line, which gets SIGKILL before or after the call of one function."""
STOPPED = """
import os, runpy, signal
from xboard_circus.circus_client import CircusdClient
def leave(client, leave=CircusdClient.leave, **more):
    os.kill(client.pid(), signal.SIGSTOP)
    return leave(client, **more)
CircusdClient.leave = leave
runpy.run_module("xboard_circus", run_name="__main__")
"""
"""The command line, which orders a circusd to leave that a signal has stopped just before."""
IMPATIENT = """
import runpy
from xboard_circus.cli import launching
launching.ANSWER_WITHIN = 2.0
runpy.run_module("xboard_circus", run_name="__main__")
"""
"""The command line, which waits less long for the answer of a circusd that it has started."""

OLDER = """
import runpy
from xboard_circus.host import inbox
inbox.make = lambda path: None
runpy.run_module("xboard_circus", run_name="__main__")
"""
"""The command line, which cannot take the endpoints over."""


RESTARTED = """
import runpy, subprocess, sys, time
from xboard_circus.cli import reloading
from xboard_circus.host import runtime
checked = reloading.check_file
def check_file(instance, **more):
    checked(instance, **more)
    old = runtime.supervisor_of(instance.id)
    restart = ["restart", "--no-preflight", "-c", str(instance.config_file)]
    subprocess.Popen([sys.executable, "-m", "xboard_circus", *restart])
    while runtime.supervisor_of(instance.id) in (None, old):
        time.sleep(0.01)
reloading.check_file = check_file
runpy.run_module("xboard_circus", run_name="__main__")
"""
"""The command line, behind whose check of the file a restart replaces circusd."""


@contextlib.contextmanager
def under_load(c: Circusd, path: str | None = None) -> Iterator[None]:
    """Send requests all along, half of them on kept connections, and insist that none is lost."""
    with Load(c.url, rate=25, path=path) as new, Load(c.url, rate=25, connections=8, path=path) as kept:
        eventually(lambda: new.answered > 12 and kept.answered > 12)
        yield
        served = new.answered, kept.answered
        eventually(lambda: new.answered > served[0] + 12 and kept.answered > served[1] + 12)
    assert new.lost + kept.lost == []


@contextlib.contextmanager
def held_loops(url: str, clients: int) -> Iterator[list[str]]:
    """Keep all loops busy: each client sends the next request, which holds the loop for 250 ms, once it is answered.

    Yields the outcomes, "" for each answer.
    """
    outcomes: list[str] = []
    over = threading.Event()

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        while not over.is_set():
            try:
                connection.request("GET", "/block?s=0.25")
                answer = connection.getresponse()
                outcomes.append("" if answer.read() and answer.status == 200 else f"status {answer.status}")
            except OSError as error:
                outcomes.append(repr(error))
                connection.close()
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        try:
            for _ in range(clients):
                pool.submit(client)
            yield outcomes
        finally:
            over.set()


def circusds(c: Circusd) -> list[Process]:
    """Every circusd of this test that runs now, and what waits to become one."""
    return [each for each in c.processes() if "circus.circusd" in each.command]


def newcomer(c: Circusd, known: list[Process]) -> Process | None:
    """What runs now, or waits to become one, beside the circusds that are *known*."""
    return next((each for each in circusds(c) if each not in known), None)


def recorded(c: Circusd) -> int:
    """The circusd that is recorded as the one in charge."""
    pid: int = json.loads((c.runtime / "r" / c.instance / "circusd.json").read_text())["pid"]
    return pid


def successor(c: Circusd) -> Process:
    """What waits to become the next circusd, once the old one has begun to end for it."""
    old = [each.pid for each in circusds(c)]
    return eventually(
        lambda: next((each for each in circusds(c) if each.pid not in old and each.pid == recorded(c)), None),
        every=0.005,
        what="the old circusd leaves",
    )


def settled(c: Circusd, old: Process, is_new: bool) -> list[Process] | None:
    """The one circusd that is left, once it is the recorded one: another than *old* where *is_new*."""
    found = circusds(c)
    is_alone = [each.pid for each in found] == [recorded(c)]
    return found if is_alone and (found != [old]) == is_new else None


def slow(folder: Path, seconds: float) -> Watcher:
    """A plain watcher whose end takes that long: so long does circusd leave."""
    (folder / "slow.py").write_text(SLOW)
    command = f"{{python}} {folder}/slow.py {seconds}"
    return Watcher("slow", armed=False, listens=False, numprocesses=1, command=command)


def held(folder: Path) -> Watcher:
    """A plain watcher that does not end while there is a file ``hold``: so long does circusd leave."""
    (folder / "held.py").write_text(HELD_BY_FILE)
    command = f"{{python}} {folder}/held.py {folder}/hold"
    return Watcher("slow", armed=False, listens=False, numprocesses=1, command=command)


def is_connected(endpoint: str) -> bool:
    """Say whether a client of *endpoint* is connected, and waits."""
    port = f":{int(endpoint.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(port) and row[3] == "01" for row in rows)


def gone(processes: list[Process]) -> bool:
    return not [each for each in processes if each.alive]


def unchanged(c: Circusd, before: list[Process], refused: subprocess.CompletedProcess[str]) -> bool:
    """Say whether a restart was refused, and all that ran before it runs on, and nothing else."""
    return refused.returncode == 1 and c.processes() == before


def test_restart_loses_nothing_and_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """Given load on two workers, when restarted, then circusd and workers are new, 0 lost, and no loss is recorded."""
    with circusd(tmp_path, watchers=[Watcher(app="printing_app:app")], plugins=BUNDLE) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c):
            said = done(c, "restart")
            eventually(lambda: gone(before), what="the old ones end")

        assert "web: 2 of 2 up\nready\n" in said
        assert len(circusds(c)) == 1
        assert len(c.wait_ready()) == 2
        assert c.state()["circusd"]["lost"] is None
        kinds = {json.loads(line)["kind"] for line in done(c, "events", "--json").splitlines()}
        assert not kinds & {"circusd_lost", "circusd_back"}


def test_restart_on_a_unix_socket_loses_nothing(request: pytest.FixtureRequest) -> None:
    """Given load on a unix socket, when restarted, then 0 lost, and the path is there all along."""
    short = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(short))
    with circusd(short, watchers=[Watcher(socket_options=UNIX)]) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c, path=f"{short}/x.sock"):
            done(c, "restart", "--no-preflight")
            eventually(lambda: gone(before), what="the old ones end")

        assert len(circusds(c)) == 1


def test_a_restart_under_overload_loses_nothing(tmp_path: Path) -> None:
    """Given two workers whose loops are late by seconds, and new connections beside, when restarted, then 0 lost."""
    with circusd(tmp_path, options={"graceful_timeout": 120, "port.grace": 120}) as c:
        c.wait_ready()
        before = c.processes()

        with held_loops(c.url, clients=28) as kept, Load(f"{c.url}/block?s=0.25", rate=3, timeout=120) as new:
            eventually(lambda: len(kept) > 28 and new.answered > 3)
            done(c, "restart", "--no-preflight")
            eventually(lambda: gone(before), timeout=120, what="the old ones end")

        assert [each for each in kept if each] + new.lost == []
        assert "took" in c.log("circusd")
        assert "timed out" not in c.log("circusd")


TITLES = """
import ctypes, pathlib
def setproctitle(title):
    begin, end = map(int, pathlib.Path("/proc/self/stat").read_text().split()[-3:-1])  # env_start, env_end
    ctypes.memset(begin, 0, end - begin)
"""


def test_a_restart_from_another_terminal_keeps_the_variables_of_the_first(tmp_path: Path) -> None:
    """Given a circusd started with variables, when restarted where they are missing or differ, then those missing are
    kept and named, and what is set there wins; also where a package is installed that lets Circus write a title over
    the variables of its process."""
    (tmp_path / "setproctitle.py").write_text(TITLES)
    installed = {"PYTHONPATH": str(tmp_path)}
    with circusd(tmp_path, start=False) as c:
        c.extra_env = {"SHOP_URL": "first", "SHOP_MODE": "first", "SSH_TTY": "first", **installed}
        done(c, "start")
        c.wait_ready()

        c.extra_env = {"SHOP_MODE": "second", **installed}
        said = done(c, "restart")

        assert "kept from the circusd that runs, because it is not set here: SHOP_URL\n" in said
        [pid, _] = c.wait_ready()
        environ = procs.environ(pid) or {}
        assert (environ["SHOP_URL"], environ["SHOP_MODE"]) == ("first", "second")
        assert "SSH_TTY" not in environ


def test_a_restart_keeps_a_variable_that_begins_as_those_of_a_unit_do(tmp_path: Path) -> None:
    """Given an ini whose port is in LISTEN_PORT, when restarted from a shell that has it, and one of a unit's, then 0
    lost, and the new workers have LISTEN_PORT alone."""
    port = str(free_port())
    with circusd(tmp_path, watchers=[Watcher(port=int(port))], start=False) as c:
        c.write_ini(socket__web={"port": "$(circus.env.LISTEN_PORT)"})
        c.extra_env = {"LISTEN_PORT": port, "WATCHDOG_PATH": "of-the-backend"}
        done(c, "start")
        before = [*circusds(c), *map(process, c.wait_ready())]

        c.extra_env |= {"LISTEN_FDS": "1", "WATCHDOG_USEC": "1"}
        with under_load(c):
            done(c, "restart", "--no-preflight")
            eventually(lambda: gone(before), what="the old ones end")

        for pid in c.wait_ready():
            environ = procs.environ(pid) or {}
            assert (environ["LISTEN_PORT"], environ["WATCHDOG_PATH"]) == (port, "of-the-backend")
            assert not {"LISTEN_FDS", "WATCHDOG_USEC"} & environ.keys()


def test_a_restart_by_a_worker_loses_nothing(tmp_path: Path) -> None:
    """Given a restart with the variables of a worker, as its app starts it, then 0 lost, and another circusd runs."""
    with circusd(tmp_path) as c:
        worker = c.wait_ready()[0]
        before = c.processes()
        found = procs.environ(worker) or {}
        c.extra_env = {name: value for name, value in found.items() if name.startswith("XBOARD_")}

        with under_load(c):
            done(c, "restart", "--no-preflight")
            eventually(lambda: gone(before), what="the old ones end")

        assert len(circusds(c)) == 1


def test_what_is_refused_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """Given bad code, or an address that changes, when restarted, then exit 1 says why, and nothing is touched."""
    moved = Watcher().port
    with circusd(tmp_path) as c:
        c.wait_ready()
        before = c.processes()

        c.set("boot", "die")
        refused = c.run_cli("restart")
        assert unchanged(c, before, refused)
        assert "told to die at import" in refused.stderr
        assert "nothing was replaced; 2 of 2 workers serve on" in refused.stderr
        c.set("boot", "")

        c.write_ini(socket__web={"port": moved})
        refused = c.run_cli("restart")
        assert unchanged(c, before, refused)
        moves = f"its address changes from 127.0.0.1:{c.watchers['web'].port} to 127.0.0.1:{moved}"
        assert f"web is stopped and started, not replaced: {moves}" in refused.stdout
        assert "requests to web fail until the new workers are up; nothing was stopped" in refused.stderr
        assert "`xboard-circus restart --yes`" in refused.stderr


def test_a_restart_on_a_venv_made_anew_with_another_python_and_back_loses_nothing(tmp_path: Path) -> None:
    """Given a circusd whose .venv, with its Python and packages, is deleted and made anew with another Python, when
    restarted, then 0 lost, circusd and all workers run the new one, and `status` shows it; then so back again."""
    venv = tmp_path / ".venv"

    def make(*options: str) -> None:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", *options, venv], check=True)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
        for package in (xboard_circus, psutil):
            shutil.copytree(Path(str(package.__file__)).parent, venv / "packages" / package.__name__)

    make("--symlinks")
    with circusd(tmp_path, env={"PYTHONPATH": str(venv / "packages")}, python=str(venv / "bin" / "python")) as c:
        c.wait_ready()
        with under_load(c):
            for python in ("--copies", "--symlinks"):
                before = c.processes()
                make(python)
                said = done(c, "restart")
                eventually(lambda: gone(before), what="the old ones end")  # noqa: B023
                (left,) = circusds(c)
                programs = {Path(f"/proc/{pid}/exe").resolve() for pid in (left.pid, *c.wait_ready())}
                assert {each.is_relative_to(venv) for each in programs} == {python == "--copies"}
                assert "is killed" not in said
        assert f", Python {platform.python_version()}\n" in done(c, "status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_runtime_folder_refuses_a_restart_and_no_start_or_stop(tmp_path: Path) -> None:
    """Given a full file system under the runtime folder, when restarted, then exit 1 names it, nothing is touched.

    A start after a kill of circusd succeeds, and circusd is recorded when there is room. So does a stop.
    """

    def fill() -> None:
        with contextlib.suppress(OSError), (c.runtime / "r" / "full").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    with circusd(tmp_path, start=False) as c:
        (c.runtime / "r").mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=711", "tmpfs", c.runtime / "r"]).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            c.start_again()
            c.wait_ready()
            before = c.processes()
            fill()

            refused = c.run_cli("restart", "--no-preflight")

            assert unchanged(c, before, refused)
            assert "No space left on device" in refused.stderr
            assert "nothing was stopped" in refused.stderr

            c.kill9()
            started = c.run_cli("start")
            assert (started.returncode, "No space left on device" in started.stdout) == (0, True), started
            assert c.state()["circusd"]["pid"] != c.pid
            (c.runtime / "r" / "full").unlink()
            eventually(lambda: recorded(c) == c.state()["circusd"]["pid"])
            fill()
            stopped = c.run_cli("stop")
            assert stopped.returncode == 0, stopped
            assert c.processes() == []
        finally:
            c.close()
            subprocess.run(["umount", "-l", c.runtime / "r"], check=True)


def test_a_successor_that_dies_leaves_the_old_workers_serving(tmp_path: Path) -> None:
    """Given a circusd that dies at its start, when restarted, then 0 lost, exit 1 says what to do, which cures it;
    `status` says what serves meanwhile, and the ledger tells once that no circusd ran, and why."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        old = c.wait_ready()

        with under_load(c):
            (tmp_path / "sitecustomize.py").write_text(DIES)
            c.extra_env["PYTHONPATH"] = str(tmp_path)
            failed = c.run_cli("restart", "--no-preflight")
            del c.extra_env["PYTHONPATH"]
            assert failed.returncode == 1
            assert "circusd ended with exit code 7" in failed.stderr
            assert "the workers of the old circusd serve on" in failed.stderr
            assert "`xboard-circus restart` tries again" in failed.stderr
            assert circusds(c) == []
            assert int(c.get()) in old
            shown = c.run_cli("status")
            answers = f"Its workers still answer on :{c.watchers['web'].port} (2 alive)"
            assert (shown.returncode, answers in shown.stderr) == (1, True), shown

            (tmp_path / "sitecustomize.py").unlink()
            done(c, "restart", "--no-preflight")

        assert len(circusds(c)) == 1
        eventually(lambda: not {each.pid for each in c.processes()} & set(old))
        why = f"circusd (pid {c.pid}) left in a restart, and the next one ended with exit code 7"
        eventually(lambda: why in done(c, "events", "--kind", "circusd_lost"), every=0.2, what="the ledger tells it")
        assert done(c, "events", "--json").count('"circusd_lost"') == 1


def test_a_kill_of_restart_at_any_step_leaves_one_circusd_in_charge(tmp_path: Path) -> None:
    """Given load, when the command is killed at each of its steps, then one circusd is left, which has all workers."""
    steps = {
        "after runtime make_gate": False,
        "after launching start_detached": False,
        "before CircusdClient leave": False,
        "after CircusdClient leave": True,
        "before launching wait_for_answer": True,
    }
    with circusd(tmp_path) as c:
        c.wait_ready()
        with under_load(c):
            for step, is_new in steps.items():
                before, (old,) = c.workers(), circusds(c)
                command = [c.python, "-c", KILLED_AT, step, "restart", "--no-preflight", "-c", str(c.ini)]
                killed = subprocess.run(command, cwd=c.folder, env=c.environ(), capture_output=True, timeout=PATIENCE)
                assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)

                (left,) = eventually(partial(settled, c, old, is_new), what=f"one is left in charge after {step}")
                assert bool(set(before) & set(c.wait_ready())) != is_new
                assert c.state()["circusd"]["pid"] == left.pid
        assert len(circusds(c)) == 1
        assert not list((c.runtime / "r" / c.instance).glob("gate-*.sock"))


def test_ctrl_c_in_a_restart_leaves_the_circusd_in_charge_that_it_names(tmp_path: Path) -> None:
    """Given load, when a restart gets Ctrl-C at each of its moments, then 0 lost, exit 130, and its words name the one
    circusd that is left: the old one until it begins to end, then the new one, which goes on with all workers."""
    with circusd(tmp_path, watchers=[Watcher(), held(tmp_path)]) as c:
        c.wait_ready()
        with under_load(c):
            for moment, (reach, words) in MOMENTS.items():
                (old,), before = circusds(c), c.ready()
                is_new = "{new}" in words
                c.set("boot", "held")
                options = [] if reach is tries_new_code else ["--no-preflight"]
                with begun(c, "restart", *options, code=STOPPED if reach is order_waits else "") as restarting:
                    undo = reach(c, restarting, old)
                    os.killpg(restarting.pid, signal.SIGINT)
                    for boot in ("boot", "boot.wid-2"):
                        c.set(boot, "")
                    _, errors = restarting.communicate(timeout=PATIENCE)
                undo()
                (left,) = eventually(partial(settled, c, old, is_new), what=f"one is left in charge: {moment}")
                assert restarting.returncode == 130, (moment, errors)
                assert words.format(old=old.pid, new=left.pid) in errors, (moment, errors)
                ready = c.wait_ready()
                assert bool(set(before) & set(ready)) != is_new, moment
        assert c.log("circusd").count("these workers serve on for the next one") == 4


Reach = Callable[[Circusd, "subprocess.Popen[str]", Process], Callable[[], object]]


def tries_new_code(c: Circusd, _: "subprocess.Popen[str]", __: Process) -> Callable[[], object]:
    imported = len(c.starts())
    eventually(lambda: len(c.starts()) > imported, what="the new code is tried")
    return lambda: None


def order_waits(c: Circusd, _: "subprocess.Popen[str]", old: Process) -> Callable[[], object]:
    """Wait for the order to leave, which is in the queue of a circusd that a signal has stopped."""
    eventually(lambda: psutil.Process(old.pid).status() == psutil.STATUS_STOPPED, what="the old one is stopped")
    eventually(lambda: is_connected(c.endpoint), what="it is ordered to leave")
    return lambda: old.signal(signal.SIGCONT)


def old_leaves(c: Circusd, _: "subprocess.Popen[str]", __: Process) -> Callable[[], object]:
    (hold := c.folder / "hold").touch()
    successor(c)
    return hold.unlink


def old_is_gone(c: Circusd, restarting: "subprocess.Popen[str]", old: Process) -> Callable[[], object]:
    second = successor(c)
    assert second.signal(signal.SIGSTOP)
    read_until(restarting, "started circusd")
    assert not old.alive
    return lambda: second.signal(signal.SIGCONT)


def listener_is_handed_over(c: Circusd, _: "subprocess.Popen[str]", __: Process) -> Callable[[], object]:
    handed = c.log("circusd").count("took")
    eventually(lambda: c.log("circusd").count("took") > handed, what="the listener is taken over")
    return lambda: None


def one_worker_is_new(c: Circusd, restarting: "subprocess.Popen[str]", _: Process) -> Callable[[], object]:
    c.set("boot.wid-2", "held")
    c.set("boot", "")
    read_until(restarting, "1 of 2 workers up")
    return lambda: None


MOMENTS: dict[str, tuple[Reach, str]] = {
    "the new code is tried": (tries_new_code, "nothing was restarted"),
    "the order to leave waits": (order_waits, "nothing was restarted: circusd (pid {old}) runs on"),
    "the old one leaves": (old_leaves, "circusd (pid {old}) ends, and circusd (pid {new}) follows it"),
    "the old one is gone": (old_is_gone, "circusd goes on in the background, pid {new}"),
    "the listener is handed over": (listener_is_handed_over, "circusd goes on in the background, pid {new}"),
    "one of two workers is new": (one_worker_is_new, "circusd goes on in the background, pid {new}"),
}
"""Moments of a restart, how each is reached, and what the command says then."""


def test_a_kill_of_either_circusd_in_the_middle_of_a_restart_loses_nothing(tmp_path: Path) -> None:
    """Given a restart, when the old circusd is killed, or then the new one, then 0 lost, the words say what runs."""
    hold = tmp_path / "hold"
    with circusd(tmp_path, watchers=[Watcher(), held(tmp_path)]) as c:
        c.wait_ready()
        with under_load(c):
            hold.touch()
            with begun(c, "restart", "--no-preflight") as restarting:
                second = successor(c)
                os.kill(c.pid, signal.SIGKILL)
                hold.unlink()
                _, errors = restarting.communicate(timeout=90)
            assert restarting.returncode == 0, errors
            assert circusds(c) == [second]

            hold.touch()
            with begun(c, "restart", "--no-preflight") as restarting:
                assert successor(c).signal(signal.SIGKILL)
                hold.unlink()
                _, errors = restarting.communicate(timeout=90)
            assert restarting.returncode == 1
            assert "the workers of the old circusd serve on" in errors
            done(c, "start")

        assert len(circusds(c)) == 1


def test_a_successor_that_hangs_leaves_the_old_workers_serving(tmp_path: Path) -> None:
    """Given a successor under SIGSTOP, when it does not answer, then 0 lost, and the words say what does: a restart."""
    with circusd(tmp_path) as c:
        command = [c.python, "-c", IMPATIENT, "restart", "--no-preflight", "-c", str(c.ini)]
        with under_load(c):
            for _ in range(5):  # a successor that answered before it was stopped is none that hangs
                old = c.wait_ready()
                known = circusds(c)
                with subprocess.Popen(
                    command, cwd=c.folder, env=c.environ(), stderr=subprocess.PIPE, text=True
                ) as restarting:
                    hangs = eventually(partial(newcomer, c, known), every=0.005)
                    assert hangs.signal(signal.SIGSTOP)
                    _, errors = restarting.communicate(timeout=90)
                if restarting.returncode:
                    break
                hangs.signal(signal.SIGCONT)
                eventually(partial(gone, [each for each in circusds(c) if each != hangs]), what="the old circusd ends")

            assert restarting.returncode == 1
            assert f"circusd (pid {hangs.pid}) runs, and does not answer" in errors
            assert "the workers of the old circusd serve on" in errors
            assert "`xboard-circus restart` replaces it" in errors
            assert circusds(c) == [hangs]
            assert int(c.get()) in old
            started = c.run_cli("start")
            assert (started.returncode, "Cure: run `xboard-circus restart`" in started.stderr) == (1, True)

            done(c, "restart", "--no-preflight")
            eventually(lambda: not {each.pid for each in c.processes()} & {*old, hangs.pid})

        assert len(circusds(c)) == 1


def test_what_is_asked_between_two_circusds_is_answered_by_the_new_one(tmp_path: Path) -> None:
    """Given an old circusd that has left and a new one under SIGSTOP, when asked, then it says so, and answers later.

    Nothing hangs for that, and a kill of the new one frees the ports.
    """
    hold = tmp_path / "hold"
    with circusd(tmp_path, watchers=[Watcher(), held(tmp_path)]) as c, ThreadPoolExecutor(2) as pool:
        c.wait_ready()
        for ending in (signal.SIGCONT, signal.SIGKILL):
            (old,) = circusds(c)
            hold.touch()
            with begun(c, "restart", "--no-preflight") as restarting:
                second = successor(c)
                assert second.signal(signal.SIGSTOP)
                hold.unlink()
                eventually(partial(gone, [old]), what="the old one ends")

                waiting = pool.submit(c.run_circusctl, "status", timeout=2 * PATIENCE)
                status = c.run_cli("status")
                assert (status.returncode, "no reply within" in status.stderr) == (1, True), status
                eventually(lambda: is_connected(c.endpoint), what="circusctl is connected")
                assert second.signal(ending)
                _, errors = restarting.communicate(timeout=90)

            assert (restarting.returncode == 0) == (ending == signal.SIGCONT), errors
            if ending == signal.SIGKILL:
                done(c, "start")  # its ports are free, and circusctl connects again
            assert "web: " in waiting.result().stdout  # active, or starting yet
            c.wait_ready()


def test_a_restart_takes_over_changed_endpoints(tmp_path: Path) -> None:
    """Given another endpoint in the ini, then both swapped, when restarted, then circusd answers there, and a port that
    is no endpoint any more is free."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        for is_moved in (True, False):
            before = c.endpoint
            c.endpoint, c.pubsub = (f"tcp://127.0.0.1:{free_port()}", c.pubsub) if is_moved else (c.pubsub, c.endpoint)
            c.write_ini()

            done(c, "restart", "--no-preflight")

            assert "web: active" in c.run_circusctl("status").stdout
            assert is_refused(int(before.rpartition(":")[2])) == is_moved
        assert "in use" not in c.log("circusd")


def test_a_restart_by_an_older_release_binds_the_endpoints_anew(tmp_path: Path) -> None:
    """Given a command that has no inbox for the endpoints, when restarted, then 0 lost, and the log says it."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        command = [c.python, "-c", OLDER, "restart", "--no-preflight", "-c", str(c.ini)]
        with under_load(c):
            restarted = subprocess.run(command, cwd=c.folder, env=c.environ(), capture_output=True, timeout=PATIENCE)

        assert restarted.returncode == 0, restarted.stderr
        assert "the endpoints are free until the next circusd binds them" in c.log("circusd")
        assert len(circusds(c)) == 1


def test_a_restart_on_a_file_without_an_armed_watcher_starts_all_the_same(tmp_path: Path) -> None:
    """Given a file whose only armed watcher was exchanged for one that is not, when restarted, then circusd answers."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        c.watchers = {"plain": Watcher("plain", 1, armed=False, listens=False, command="sleep 600")}
        c.write_ini()

        done(c, "restart", "--no-preflight")

        assert c.status("plain") == "active"
        done(c, "clean")


def test_a_stop_after_a_kill_of_restart_ends_the_successor_too(tmp_path: Path) -> None:
    """Given a restart that was killed while the old circusd leaves, when stopped, then no circusd starts any more."""
    with circusd(tmp_path, watchers=[Watcher(), slow(tmp_path, 3)]) as c:
        c.wait_ready()
        with begun(c, "restart", "--no-preflight") as restarting:
            waits = successor(c)
            restarting.kill()
            restarting.communicate(timeout=PATIENCE)

        c.run_cli("stop")

        assert not waits.alive
        assert circusds(c) == []
        done(c, "clean")


def test_two_restarts_at_once_leave_one_circusd_and_lose_nothing(tmp_path: Path) -> None:
    """Given two restarts at the same time, when both are done, then one circusd runs, 0 lost, and both ended well: each
    names the circusd that it has started, one of them the one that is left, and the ledger has no loss."""
    with circusd(tmp_path, options={"health.startup_timeout": 60}, plugins=BUNDLE) as c:
        c.wait_ready()
        before = c.processes()
        c.set("boot", "slow 1")

        with under_load(c), begun(c, "restart", "--no-preflight") as one, begun(c, "restart", "--no-preflight") as two:
            said = [each.communicate(timeout=90) for each in (one, two)]
            eventually(lambda: gone(before), what="the old ones end")

        assert (one.returncode, two.returncode) == (0, 0), said
        assert all(output.endswith("web: 2 of 2 up\nready\n") for output, _ in said), said
        (left,) = circusds(c)
        started = [int(pid) for output, _ in said for pid in re.findall(r"started circusd, pid (\d+)", output)]
        assert (len(set(started)), left.pid in started) == (2, True)
        kinds = [json.loads(line)["kind"] for line in done(c, "events", "--json").splitlines()]
        assert (not {"circusd_lost", "circusd_back"} & set(kinds), "command" in kinds) == (True, True)
        assert len(c.wait_ready()) == 2


def test_a_reload_during_a_restart_waits_for_the_new_circusd(tmp_path: Path) -> None:
    """Given a restart that replaces circusd while a reload checks the file, then the new circusd reloads, and all."""
    watchers = [Watcher("api", numprocesses=1), Watcher("web", numprocesses=1)]
    with circusd(tmp_path, watchers=watchers, circus={"warmup_delay": 5}) as c:  # between the starts of the two
        for name in c.watchers:
            c.wait_ready(name=name)
        old = c.pid

        reloaded = subprocess.run(
            [c.python, "-c", RESTARTED, "reload", "--no-preflight", "-c", str(c.ini)],
            cwd=c.folder,
            env=c.environ(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert reloaded.returncode == 0, reloaded
        assert "reloaded" in reloaded.stdout
        assert recorded(c) != old
        assert [c.watcher(name)["reload"]["state"] for name in ("api", "web")] == ["done", "done"]


def test_a_stop_during_a_restart_stops_what_the_restart_starts(tmp_path: Path) -> None:
    """Given a restart whose successor waits for the old circusd to end, when stopped, then nothing runs afterwards."""
    with circusd(tmp_path, watchers=[Watcher(), slow(tmp_path, 4)]) as c:
        c.wait_ready()
        with begun(c, "restart", "--no-preflight") as restart:
            successor(c)
            stopped = done(c, "stop")
            restart.communicate(timeout=90)

        assert "stopped circusd" in stopped
        assert c.processes() == []


def test_a_circusd_that_hangs_is_replaced_without_a_lost_request(tmp_path: Path) -> None:
    """Given a circusd under SIGSTOP, when restarted, then it is killed, its workers serve on, and 0 are lost."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c):
            assert process(c.pid).signal(signal.SIGSTOP)
            said = done(c, "restart", "--no-preflight")
            eventually(lambda: gone(before), what="the old ones end")

        assert "is killed, its workers serve on" in said
        assert len(circusds(c)) == 1


def test_the_healthy_one_of_two_serves_over_a_restart_and_a_reload_while_the_other_cools(tmp_path: Path) -> None:
    """Given one worker that cools down beside a healthy one, when restarted and reloaded, then none is lost."""
    limits = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 300}
    with circusd(tmp_path, options=limits) as c:
        c.wait_ready()
        c.set("boot.wid-2", "die")
        os.kill(c.by_wid()[2], signal.SIGKILL)
        eventually(lambda: c.watcher()["cooldown_until"] is not None, what="slot 2 cools down")
        before = c.processes()

        with under_load(c):
            c.run_cli("restart", "--no-preflight", "--timeout", "5")
            eventually(lambda: c.watcher()["cooldown_until"] is not None, what="slot 2 cools down anew")
            eventually(lambda: gone(before), what="the old ones end")
            (healthy,) = c.ready()
            c.run_cli("reload", "--no-preflight")
            holds(lambda: c.serves(), seconds=0.5)

        assert healthy not in c.ready() or c.ready() == [healthy]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_restart_of_a_circusd_that_still_boots_stops_no_watcher_for_good(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Given a circusd that has started one watcher of two, when restarted again, then both run, 0 lost.

    A third, which an operator has stopped, stays so.
    """
    short = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(short))
    path = f"{short}/x.sock" if kind == "unix" else None
    late = Watcher("late", options={"priority": 1}, socket_options=UNIX if path else {})
    idle = Watcher("idle", options={"priority": 1})
    with circusd(short, watchers=[Watcher(), late, idle]) as c:
        for name in ("web", "late", "idle"):
            c.wait_ready(name=name)
        c.do("stop", name="idle", waiting=True)
        before = c.processes()

        with Load(c.url_of("late"), rate=50, path=path) as load, begun(c, "restart", "--no-preflight") as first:
            c.write_ini(circus={"warmup_delay": 60})
            (booting,) = eventually(partial(settled, c, circusds(c)[0], True), what="another circusd")
            eventually(lambda: c.watcher()["armed"] and c.watcher("late")["status"] == "starting")
            c.write_ini()
            done(c, "restart", "--no-preflight")
            first.communicate(timeout=90)
            eventually(lambda: gone([*before, booting]), what="the old ones end")

        assert load.lost == []
        assert len(c.wait_ready(name="late")) == 2
        assert (c.status("late"), c.status("idle")) == ("active", "stopped")
        assert "late stays stopped" not in c.log("circusd")


def test_what_an_operator_has_stopped_stays_so_over_a_restart(tmp_path: Path) -> None:
    """Given a stopped watcher, one with a guard and one without, when restarted, then both stay stopped until told."""
    api, plain = Watcher("api", numprocesses=1), Watcher("plain", 1, armed=False, listens=False, command="sleep 600")
    with circusd(tmp_path, watchers=[Watcher(), api, plain]) as c:
        old = c.wait_ready()
        for name in ("api", "plain"):
            c.do("stop", name=name, waiting=True)

        c.do("restart", waiting=True, timeout=90)
        assert [c.status(name) for name in ("api", "plain")] == ["stopped", "stopped"]
        said = done(c, "restart", "--no-preflight")

        assert "api stays stopped; `xboard-circus start api` starts it" in said
        assert not set(old) & set(c.wait_ready())
        assert [c.status(name) for name in ("api", "plain")] == ["stopped", "stopped"]
        assert [c.verdict(name) for name in ("api", "plain")] == ["stopped", "stopped"]
        for name in ("api", "plain"):
            c.do("start", name=name, waiting=True)
        assert (len(c.wait_ready(name="api")), len(c.workers("plain"))) == (1, 1)
        c.do("stop", name="api", waiting=True)
        done(c, "restart", "--cold")
        c.wait_ready(name="api")


def test_who_has_no_place_in_the_next_circusd_answers_what_is_in_flight(tmp_path: Path) -> None:
    """Given a request on a watcher that the file has no more, and one with autostart = False, when restarted twice,
    then the request is answered long after; no restart waits for it, but a stop does; and no old worker serves on."""
    api = Watcher("api", numprocesses=1, arguments="--ws none --timeout-graceful-shutdown 120")
    idle = Watcher("idle", numprocesses=1)
    with circusd(tmp_path, watchers=[Watcher(), api, idle]) as c:
        kept = c.wait_ready()
        drains, ends = (process(c.wait_ready(name=name)[0]) for name in ("api", "idle"))
        held = c.hold_each([drains.pid], "api")
        del c.watchers["api"]
        c.write_ini(watcher__idle={"autostart": False})

        said = done(c, "restart", "--no-preflight")

        assert "idle is stopped, when it has answered what is in flight: it has autostart = False" in said
        assert (ends.alive, is_refused(idle.port), c.status("idle")) == (False, True, "stopped")
        assert "SIGKILL" not in done(c, "restart", "--no-preflight")
        holds(lambda: drains.alive, seconds=HELPER_GRACE + 1, what="it answers")
        assert not set(kept) & set(c.wait_ready())
        with ThreadPoolExecutor(1) as pool:
            stop = pool.submit(done, c, "stop")
            holds(lambda: drains.alive, seconds=1, what="it answers while all is stopped")
            c.finish(held, "api")
            assert "and all that it ran" in stop.result()
        assert not drains.alive


def test_what_circusctl_and_the_page_restart_as_a_whole_loses_nothing(tmp_path: Path) -> None:
    """Given load, when all is restarted by circusctl, then as the page does it, 0 lost, and a plain watcher is new."""
    plain = Watcher("plain", armed=False, listens=False, numprocesses=1, command="sleep 600")
    with circusd(tmp_path, watchers=[Watcher(), plain], plugins=BUNDLE) as c:
        c.wait_ready()
        circusd_pid, plugin = c.pid, c.plugin("xboard")

        with under_load(c):
            for order in ({"but": ["plugin:xboard"], "match": "regex"}, {}):
                web, beside = c.ready(), c.workers("plain")
                assert c.call("restart", timeout=90, waiting=True, **order)["status"] == "ok"
                assert not set(web) & set(c.wait_ready())
                assert not set(beside) & set(eventually(lambda: c.workers("plain")))
                assert plugin.alive == bool(order)

        assert [each.pid for each in circusds(c)] == [circusd_pid]
        assert "Arbiter exiting" not in c.log("circusd")


def test_a_changed_backlog_and_watchers_that_come_and_go_lose_nothing(tmp_path: Path) -> None:
    """Given load, when the file gets another backlog, one more watcher with its socket, and one less, then 0 lost.

    The backlog is that of the file for workers that come, and after a restart.
    """
    api = Watcher("api", numprocesses=1)
    (tmp_path / "api").mkdir()
    with circusd(tmp_path, watchers=[Watcher(socket_options={"backlog": 77}, options=FAST_RESTARTS)]) as c:
        old = c.wait_ready()
        assert backlogs(c) == [77]
        more = dict(api.sections(tmp_path))

        with under_load(c):
            for sections in ({"socket:web": {"backlog": 99}}, more, {}):
                c.write_ini(**sections)
                c.do("reloadconfig", waiting=True)
                assert backlogs(c) == [99 if "socket:web" in sections else 77]
                if sections is more:
                    c.watchers["api"] = api
                    c.wait_ready(name="api")
                    del c.watchers["api"]

        assert c.ready() == old
        assert c.call("numwatchers")["numwatchers"] == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE)
        c.write_ini(**{"socket:web": {"backlog": 88}})
        with under_load(c):
            done(c, "restart", "--no-preflight")
            eventually(lambda: not set(c.wait_ready()) & set(old))
            assert backlogs(c) == [88]


def backlogs(c: Circusd) -> list[int]:
    found: list[int] = json.loads(c.get("/backlogs"))
    return found
