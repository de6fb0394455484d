"""circusd as root, the backend as a user of its own."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pty
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from xboard_circus.core.sentences import Say
from xboard_circus.dashboard.circusd_queries import CircusdQueries
from xboard_circus.host.procs import Identity, command_line, send_signal, users_of
from xboard_circus.host.session import members

from .attacker import PYTHON, completed_as, taking_descriptors
from .harness import (
    BUNDLE,
    FAST_RESTARTS,
    FORKSERVERS,
    PATIENCE,
    Watcher,
    checkout,
    circusd,
    circusd_as,
    eventually,
    kill,
)
from .processes import process
from .test_forks import forked, preload
from .test_levels import differences, facts_of
from .visitor import page

USER = "www-data"
QUERY = """
import sys
from xboard_circus.dashboard.circusd_queries import CircusdQueries
CircusdQueries(sys.argv[1], deadline=5).state()
"""


def www_data() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of another user"),
    pytest.mark.skipif(www_data() is None, reason=f"there is no user {USER}"),
]


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="xb-users-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def python(open_folder: Path) -> str:
    """An interpreter with all packages that www-data can run.

    Root's own mostly is not: pyenv lies below /root, which nobody else may enter. Hard links make a second way to the
    same files; they cost no time and no room. So the compiled ones come along: that user may write none.
    """
    prefix, version = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    home = open_folder / "python"
    if runs_as_user(sys.executable):
        return sys.executable
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    interpreter = home / "bin" / "python"
    shutil.copy2(Path(sys.executable).resolve(), interpreter)
    for library in (prefix / "lib").glob("libpython*"):
        link_or_copy(str(library), str(home / "lib" / library.name))
    unneeded = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "tkinter", "config-*")
    stdlib = home / "lib" / version
    shutil.copytree(prefix / "lib" / version, stdlib, ignore=unneeded, copy_function=link_or_copy, symlinks=True)
    packages = stdlib / "site-packages"
    unneeded = shutil.ignore_patterns("mypy*", "hypothesis*", "pip", "ruff*")
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=unneeded, copy_function=link_or_copy, symlinks=True)
    for root in [*checkout(), str(Path(__file__).parent)]:
        for item in Path(root).glob("*"):
            copy_readable(item, packages / item.name)
    if not runs_as_user(str(interpreter), home):
        pytest.skip(f"no interpreter here that {USER} can run, and none could be made")
    return str(interpreter)


def copy_readable(item: Path, to: Path) -> None:
    if item.name in ("xboard_circus", "clock"):
        shutil.copytree(item, to, dirs_exist_ok=True)
    elif item.suffix == ".py":
        shutil.copy2(item, to)


def link_or_copy(source: str, to: str) -> str:
    try:
        os.link(source, to, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, to, follow_symlinks=False)
    return to


def runs_as_user(interpreter: str, home: Path | None = None) -> bool:
    environment = library_path(home) if home else {}
    try:
        done = subprocess.run(
            [interpreter, "-c", "import circus, uvicorn, xboard_circus"],
            user=USER,
            group=USER,
            cwd="/",
            env=environment,
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def library_path(home: Path) -> dict[str, str]:
    """The interpreter looks for libpython where it was built, which is the place that www-data may not enter."""
    return {"LD_LIBRARY_PATH": str(home / "lib")}


def test_workers_of_another_user_work_and_their_files_are_that_users(open_folder: Path, python: str) -> None:
    """Given root's circusd and uid = www-data, when a worker dies or turns sick, then all is as with one user."""
    user = www_data()
    assert user is not None
    folder = open_folder / "run"
    (folder / "web").mkdir(parents=True)
    os.chown(folder / "web", user.pw_uid, user.pw_gid)
    options = {
        "uid": USER,
        "working_dir": folder / "web",
        "health.live_path": "/health/live",
        "health.period": 0.3,
        "health.timeout": 2,
        "health.failure_threshold": 2,
        "run.before": "sh -c 'id -un > migrated && env >> migrated'",
    }
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web = Watcher(app="printing_app:app", options=options)
    with circusd(folder, watchers=[web], plugins=BUNDLE, python=python, env=env) as c:
        sick, dead = c.wait_ready()
        facts = json.loads(c.get("/facts"))

        assert (facts["uid"], facts["gid"]) == (user.pw_uid, user.pw_gid)
        assert (facts["environ"]["HOME"], facts["environ"]["USER"]) == (user.pw_dir, USER)
        assert (folder / "web" / "ready-at" / str(sick)).stat().st_uid == user.pw_uid
        migrated = (folder / "web" / "migrated").read_text().splitlines()
        assert (migrated[0], {f"HOME={user.pw_dir}", f"USER={USER}"} - set(migrated)) == (USER, set())
        sockets = [Path(worker["socket"]) for worker in c.watcher()["workers"]]
        for path in sockets:
            assert path.stat().st_uid == user.pw_uid
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        kill(dead)
        c.wait_ready()
        eventually(lambda: c.worker(sick)["latency"] is not None)
        c.set(f"live.pid-{sick}", "500")
        eventually(lambda: sick not in c.workers())
        c.wait_ready()
        c.kill9()
        assert all(c.get() for _ in range(10)), "prints fail"
        c.start_again()
        c.wait_ready()
        assert c.serves()


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_process_to_which_a_worker_hands_the_listener_is_not_to_be_ended_for_that(
    open_folder: Path, python: str
) -> None:
    """Given a worker of another user that hands the listener to a process of root's which takes descriptors from
    anybody, when that is found, then verdict and doctor name it, and their cure is not to end it."""
    folder = open_folder / "handed"
    (folder / "web").mkdir(parents=True)
    shutil.chown(folder / "web", USER)
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web = Watcher(numprocesses=1, options={"uid": USER})
    with taking_descriptors(folder.name) as taker, circusd(folder, watchers=[web], python=python, env=env) as c:
        (worker,) = c.wait_ready()
        c.tell(worker, f"hand {folder.name}")
        assert taker.stdout is not None
        assert taker.stdout.readline() == "has it\n"
        c.do("xboard_reload", name="web")
        verdict = eventually(lambda: (found := c.watcher()["verdict"])["word"] == "degraded" and found)
        doctor = c.run_cli("doctor").stdout

        assert f"pid {taker.pid} (" in verdict["cause"]
        assert verdict["cure"] == Say.CURE_HANDED()
        for text in (verdict["cause"], doctor):
            assert ", and may not know of it" in text
        assert Say.CURE_SHARED() not in doctor


def test_a_forked_worker_of_another_user_is_what_a_started_one_is(open_folder: Path, python: str) -> None:
    """Given root's circusd and watchers that differ in worker.preload alone, with a user, a group, limits, a folder and
    an environment of their own, then what /proc and the app say of their workers is the same."""
    user, folder = www_data(), open_folder / "alike"
    assert user is not None
    options = {"uid": USER, "gid": "games", "working_dir": folder / "home", "rlimit_nofile": 300, "rlimit_core": 0}
    watchers = [
        Watcher(
            level,
            numprocesses=1,
            app="printing_app:app",
            env={"SHADE": "blue"},
            options={**FAST_RESTARTS, **options, "worker.preload": level},
        )
        for level in ("off", "server", "app")
    ]
    for name in ("home", *(watcher.name for watcher in watchers)):
        (folder / name).mkdir(parents=True)
        shutil.chown(folder / name, USER)
    env = library_path(open_folder / "python") if python != sys.executable else {}
    with circusd(folder, watchers=watchers, circus={"umask": "027"}, python=python, env=env) as c:
        pids = {"off": c.wait_ready(name="off")[0]}
        pids |= {level: forked(c, 1, level)[0] for level in ("server", "app")}
        assert preload(c, "app")["level"] == "app"

        def alike() -> dict[str, Any]:
            started, *others = (facts_of(c, pid, name) for name, pid in pids.items())
            for other in others:
                assert differences(other, started) == {}, differences(other, started)
            return started

        started = eventually(alike)  # a connection that has been answered may be open for a moment
        ids, umask = (started["status"][key].split() for key in ("Uid", "Gid")), started["status"]["Umask"]
        assert [*ids] == [[str(user.pw_uid)] * 4, [str(grp.getgrnam("games").gr_gid)] * 4]
        assert (umask, started["status"]["CapEff"].strip("0")) == ("0027", "")
        assert (started["environ"]["SHADE"], started["cwd"]) == ("blue", str(folder / "home"))


def test_a_link_in_the_place_of_working_dir_leads_no_worker_to_where_its_user_may_not_go(
    open_folder: Path, python: str
) -> None:
    """Given a working_dir in a folder of www-data's, when that user puts a link there to a folder that only root may
    enter, then no process of that user stands in there, and the reason says so."""
    folder = open_folder / "linked"
    secret = folder / "of-root" / "project"
    (folder / "home" / "web").mkdir(parents=True)
    secret.mkdir(parents=True)
    secret.parent.chmod(0o700)
    (folder / "web").mkdir()  # the backend's traces
    for path in (folder / "web", folder / "home", folder / "home" / "web"):
        shutil.chown(path, USER, USER)
    env = library_path(open_folder / "python") if python != sys.executable else {}
    options = {"uid": USER, "working_dir": folder / "home" / "web", **FAST_RESTARTS}
    with circusd(folder, watchers=[Watcher(numprocesses=1, options=options)], python=python, env=env) as c:
        (pid,) = c.wait_ready()
        assert os.readlink(f"/proc/{pid}/cwd") == str(folder / "home" / "web")
        swap = f"cd {folder}/home && mv web old && ln -s {secret} web"
        assert completed_as(USER, ["/bin/sh", "-ec", swap], PATH=os.defpath).returncode == 0

        places: set[str] = set()

        def why() -> str:
            places.update(place for each in c.workers() if (place := place_of(each)))
            return str(c.watcher()["last_reason"] or "")

        kill(pid)
        eventually(lambda: f"{folder / 'home' / 'web'} as user {USER}: Permission denied" in why(), every=0.01)
        eventually(lambda: why() and places, every=0.01, what="one of the processes, which end at once, is seen")
        eventually(lambda: any(worker["held_by"] for worker in c.watcher()["workers"]) and why())
        assert places == {"/"}, places


def place_of(pid: int) -> str | None:
    """Return the folder that a process is in; None where it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def test_what_an_env_file_sets_acts_on_processes_of_the_user_alone(open_folder: Path, python: str) -> None:
    """Given an env file by which each program's loader writes a file, when workers run, then no such file is root's."""
    user, folder = www_data(), open_folder / "loader"
    assert user is not None
    traces = folder / "web" / "traces"
    traces.mkdir(parents=True)
    for path in (folder / "web", traces):
        os.chown(path, user.pw_uid, user.pw_gid)
    (folder / ".env").write_text(f"LD_DEBUG=statistics\nLD_DEBUG_OUTPUT={traces}/of\nGREETING=hello\n")
    options = {"uid": USER, "worker.env_file": ".env", "run.before": "/bin/sh -c '/bin/true && /bin/true'"}
    env = library_path(open_folder / "python") if python != sys.executable else {}
    with circusd(folder, watchers=[Watcher(options=options)], python=python, env=env) as c:
        pids = c.wait_ready()

        owners = {int(path.suffix[1:]): path.stat().st_uid for path in traces.iterdir()}
        assert {process(pid).environ["GREETING"] for pid in pids} == {"hello"}
        assert {process(pid).environ["LD_DEBUG"] for pid in pids} == {"statistics"}
        assert set(owners.values()) == {user.pw_uid}
        servers = {each.pid for each in c.forkservers()}
        assert len(servers) == FORKSERVERS
        assert servers <= {*owners}  # and the processes of run.before: a forked worker loads nothing
        assert len(owners) > 1

        # Another user is told whose circusd it is, by the command line and by a page of its own.
        private = Path(tempfile.mkdtemp(dir=folder), "circusd.sock")
        for command in (
            ["-m", "xboard_circus", "status", "-c", str(c.ini)],
            ["-c", QUERY, c.endpoint],
            ["-c", QUERY, f"ipc://{private}"],
        ):
            told = completed_as(USER, [python, *command], XBOARD_RUNTIME_DIR=str(folder / "none"), **env)
            assert f"it is run by root, and {USER} may not command it; run this as root, or write" in told.stderr, told


ALERT = """
[alert:chat]
type = webhook
url_env = XBOARD_WEBHOOK
secret_env = XBOARD_SIGN
shape = feishu
"""


def test_workers_of_another_user_get_no_secret_of_the_alerts(open_folder: Path, python: str) -> None:
    """Given secrets of alerts in circusd's environment and copy_env, then a worker of another user, its
    forkserver, run.before and a process of an unarmed watcher have none, also when that user has got the file and taken
    the alerts out; root's own worker and what [env:...] sets keep theirs."""
    user, folder = www_data(), open_folder / "secrets"
    assert user is not None
    (folder / "web").mkdir(parents=True)
    os.chown(folder / "web", user.pw_uid, user.pw_gid)
    secrets = {"XBOARD_WEBHOOK": "http://127.0.0.1:9/hunter2", "XBOARD_SIGN": "hunter3"}
    env = {**(library_path(open_folder / "python") if python != sys.executable else {}), **secrets, "OTHER": "1"}
    options = {"uid": USER, "working_dir": folder / "web", "run.before": "sh -c 'env >of-before'"}
    watchers = [
        Watcher(options=options),
        Watcher("root", numprocesses=1),
        Watcher(
            "cron",
            numprocesses=1,
            armed=False,
            listens=False,
            command="sleep 1000",
            options={"uid": USER, "priority": 1},
        ),
    ]
    with circusd(folder, watchers=watchers, plugins=BUNDLE, python=python, env=env, start=False) as c:
        c.ini.write_text(c.ini.read_text() + ALERT)
        c.start_again()
        workers = c.wait_ready()
        (own,) = c.wait_ready(name="root")
        (cron,) = eventually(lambda: c.workers("cron"))
        below = psutil.Process(c.pid).children(recursive=True)
        pids = {each.pid for each in below if each.uids().real == user.pw_uid}  # with the forkserver

        for pid in pids:
            environ = psutil.Process(pid).environ()
            assert environ["OTHER"] == "1"
            assert {name: value for name, value in environ.items() if "hunter" in value} == {}, pid
        assert {*workers, cron} <= pids
        assert len(pids - {*workers, cron}) >= FORKSERVERS
        of_before = (folder / "web" / "of-before").read_text()
        assert ("hunter" in of_before, "OTHER=1" in of_before) == (False, True)
        assert secrets.items() <= process(own).environ.items()

        c.ini.write_text(c.ini.read_text().replace("[env:web]", "[env:web]\nXBOARD_SIGN = the-apps-own"))
        reloaded = c.run_circusctl("reloadconfig")
        assert reloaded.returncode == 0, reloaded
        eventually(lambda: {process(pid).environ.get("XBOARD_SIGN") for pid in c.ready()} == {"the-apps-own"})
        assert {"XBOARD_WEBHOOK" in process(pid).environ for pid in c.ready()} == {False}

        c.ini.write_text(c.ini.read_text().replace(ALERT, ""))
        shutil.chown(c.ini, USER)
        kill(cron)
        eventually(lambda: c.workers("cron") not in ([], [cron]))
        environ = process(c.workers("cron")[0]).environ
        assert (environ["OTHER"], secrets.keys() & environ.keys()) == ("1", set())


# Beside a helper of its own it starts one that becomes root, as sudo lets some users.
CLIMBS = """
import os, subprocess
from backend import app
for become in () if os.path.exists("once") else ("os.setuid(os.getuid())", "os.setuid(0)"):
    subprocess.Popen([{python!r}, "-I", "-c", f"import os, time; {{become}}; time.sleep(600)"])
open("once", "w").close()
"""


def climbs_in(folder: Path, user: pwd.struct_passwd, told: dict[str, str] | None = None) -> tuple[Watcher, Path]:
    """Return a watcher of *user* whose worker starts `CLIMBS`, and the program that it starts."""
    (folder / "web").mkdir(parents=True)
    os.chown(folder / "web", user.pw_uid, user.pw_gid)
    sudo = folder / "sudo"
    shutil.copy(PYTHON, sudo)
    sudo.chmod(0o4755)
    (folder / "web" / "climbs.py").write_text(CLIMBS.format(python=str(sudo)))
    options = {"uid": USER, "working_dir": folder / "web", "worker.preload": "off", "graceful_timeout": 2}
    return Watcher(app="climbs:app", numprocesses=1, options=options, told=told or {}), sudo


def in_session_of(leader: int, user: int) -> dict[int, Identity] | None:
    """Return what `CLIMBS` has started in that session, by its user; None until both have theirs."""
    found = {next(iter(them)): each for each in members(leader) if len(them := users_of(each.pid)) == 1}
    return found if found.keys() == {0, user} else None


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_process_of_roots_below_a_trial_is_not_ended_with_it(open_folder: Path, python: str) -> None:
    """Given the app of a watcher of www-data's that starts a process which becomes root, when root tries the app, then
    that process runs on after the trial."""
    user, folder = www_data(), open_folder / "tried"
    assert user is not None
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web, sudo = climbs_in(folder, user)
    with circusd(folder, watchers=[web], python=python, env=env, start=False) as c:
        run = c.run_cli("check", "--deep")
        assert run.returncode == 0, run
        found = [Identity.of(each.pid) for each in psutil.process_iter() if command_line(each.pid)[:1] == [str(sudo)]]
        left = [each for each in found if each is not None]
        try:
            assert [each for each in left if 0 in users_of(each.pid)], "root's has been ended"
        finally:
            for each in left:
                send_signal(*each, signal.SIGKILL, {os.geteuid()})


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_process_of_roots_in_the_session_of_a_workers_is_not_ended_with_it(open_folder: Path, python: str) -> None:
    """Given a worker of www-data's that has started a process which became root, when the worker is killed, then what
    it left of its own user is ended, and root's is named and left alone."""
    user, folder = www_data(), open_folder / "climbs"
    assert user is not None
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web, _ = climbs_in(folder, user)
    with circusd(folder, watchers=[web], python=python, env=env) as c:
        (pid,) = c.wait_ready()
        left = eventually(lambda: in_session_of(pid, user.pw_uid), what="both have their user")
        try:
            kill(pid)
            eventually(lambda: not process(left[user.pw_uid].pid).alive, what="the worker's own is ended")
            what = f"left alone, as other users', what worker {pid} has left behind: {left[0].pid} (sudo)"
            eventually(lambda: what in c.log("circusd"), what="root's is named")
            assert process(left[0].pid).alive
        finally:
            send_signal(*left[0], signal.SIGKILL, {os.geteuid()})


@pytest.mark.parametrize("given", ["in the file", "by set"])
def test_a_worker_of_another_user_without_a_stream_prints_through_circusd(
    open_folder: Path, python: str, given: str
) -> None:
    """Given uid = www-data and no stream, when a worker prints, then it is in circusd's own log, which the worker can
    neither empty nor fill without a bound: it has a pipe."""
    user, folder = www_data(), open_folder / f"stream {given}"
    assert user is not None
    (folder / "web").mkdir(parents=True)
    os.chown(folder / "web", user.pw_uid, user.pw_gid)
    streams = [f"{name}_stream.{option}" for name in ("stdout", "stderr") for option in ("class", "filename")]
    uid = USER if given == "in the file" else None
    options = {"uid": uid, "working_dir": folder / "web", **dict.fromkeys(streams)}
    env = library_path(open_folder / "python") if python != sys.executable else {}
    web = Watcher(app="printing_app:app", numprocesses=1, options=options)
    with circusd(folder, watchers=[web], python=python, env=env) as c:
        (pid,) = c.wait_ready()
        if uid is None:
            before, own = pid, os.readlink(f"/proc/{c.pid}/fd/1")
            for path in (folder / "web").iterdir():
                os.chown(path, user.pw_uid, user.pw_gid)
            c.do("set", name="web", options={"uid": USER})
            (pid,) = eventually(lambda: [each for each in c.ready() if each != before])
            theirs = [each.pid for each in c.processes() if users_of(each.pid) == {user.pw_uid}]
            assert pid in theirs
            assert [each for each in theirs if own in open_in(each)] == []
        c.get()

        printed = [os.readlink(f"/proc/{pid}/fd/{descriptor}") for descriptor in (1, 2)]
        assert [kind.partition(":")[0] for kind in printed] == ["pipe", "pipe"]
        eventually(lambda: "Application startup complete" in c.log("circusd"))


@pytest.mark.parametrize("stream", ["stdout_stream", "stderr_stream"])
def test_no_worker_of_another_user_gets_the_terminal_of_circusd(stream: str) -> None:
    """Given circusd in root's terminal, then what such a worker prints goes through circusd: who holds a terminal reads
    what root types there, and stops all that is written to it."""
    ours, theirs = pty.openpty()
    code = "from xboard_circus.supervisor.circusd_out import own_output; import sys; "
    code += "own_output(sys.argv[1], 33)({'data': b'passed on'})"
    try:
        subprocess.run([sys.executable, "-c", code, stream], stdout=theirs, stderr=theirs, check=True, timeout=60)
        assert os.read(ours, 100) == b"passed on"
    finally:
        os.close(ours)
        os.close(theirs)


def open_in(pid: int) -> set[str]:
    """Return what is open in a process."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a library that is just being loaded
            found.add(os.readlink(each))
    return found


def test_an_unarmed_process_of_another_user_gets_no_socket_that_root_has_yet_to_bind(open_folder: Path) -> None:
    """Given watchers of www-data without our hook, before, between and behind armed ones, they have the listeners that
    Circus has bound for such, and no other socket: with one of root's making they could be root at a port."""
    folder = open_folder / "unbound"
    folder.mkdir()

    def unarmed(name: str, priority: int, stdin: str | None = None, **more: Any) -> Watcher:
        options = {"uid": USER, "working_dir": "/", "use_sockets": True, "priority": priority, "stdin_socket": stdin}
        return Watcher(name, numprocesses=1, armed=False, options=options, **more)

    def has(name: str) -> set[str]:
        (pid,) = eventually(lambda: c.workers(name), what=f"a process of {name}")
        return {each for each in open_in(pid) if each.startswith("socket:")}

    serves = {"command": "sh -c 'exec sleep 1000' $(circus.sockets.{name})"}
    armed = [Watcher(name, numprocesses=1, options={"priority": at}) for name, at in (("web", 10), ("page", 5))]
    idle: dict[str, Any] = {"listens": False, "command": "sleep 1000"}
    jobs = [unarmed("first", 20, **serves), unarmed("idle", 19, **idle), unarmed("middle", 7, **idle)]
    last, refused = unarmed("last", 1, **serves), unarmed("refused", 18, "web", **idle)
    with circusd(folder, watchers=[*armed, *jobs, last, refused]) as c:
        for each in armed:
            c.wait_ready(name=each.name)
        own = {
            each.laddr.port: os.readlink(f"/proc/{c.pid}/fd/{each.fd}")
            for each in psutil.Process(c.pid).net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }

        bound_by_circus = {own[c.watchers[name].port] for name in ("first", "last")}
        assert [has(each.name) for each in (*jobs, last)] == [bound_by_circus] * 4
        assert c.workers("refused") == []
        assert "nothing has bound web yet, its stdin: raise the priority of who does" in c.log("circusd")


@pytest.mark.parametrize("where", ["file", "terminal", "journal"])
def test_no_unarmed_process_of_another_user_gets_the_output_of_circusd(open_folder: Path, where: str) -> None:
    """Given watchers of www-data without our hook and without a stream, whenever they start and whenever they get that
    user, then what circusd itself prints into, a terminal, a file or a socket, is open in none of their processes."""
    folder = open_folder / f"unarmed-{where}"
    folder.mkdir()
    streams = [f"{name}_stream.{option}" for name in ("stdout", "stderr") for option in ("class", "filename")]
    bare = {"working_dir": "/", "use_sockets": True, **dict.fromkeys(streams)}

    def unarmed(name: str, **options: object) -> Watcher:
        says = f"sh -c 'echo {name} is passed on; echo so is its stderr >&2; exec sleep 1000'"
        return Watcher(name, numprocesses=1, armed=False, listens=False, command=says, options={**bare, **options})

    def seen(name: str) -> set[str]:
        (pid,) = eventually(lambda: c.workers(name), what=f"a process of {name}")
        return open_in(pid)

    def said(name: str) -> bool:
        told = c.log("circusd") if where == "file" else printed.decode(errors="replace")
        return f"{name} is passed on" in told

    theirs = [unarmed("first", uid=USER, priority=20), unarmed("last", uid=USER, priority=1)]
    watchers = [Watcher(numprocesses=1), *theirs, unarmed("moved", priority=5)]
    printed = bytearray()
    ours, line = map(socket.socket.detach, socket.socketpair()) if where == "journal" else pty.openpty()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(ours, 4096):
                printed.extend(piece)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with circusd(folder, watchers=watchers, start=False) as c:
        c.start_again(None if where == "file" else line)
        c.wait_ready()
        own = os.readlink(f"/proc/{c.pid}/fd/1")
        assert own in seen("moved")  # root's own has it, as ever
        (before,) = c.workers("moved")
        c.do("set", name="moved", options={"uid": USER})
        eventually(lambda: before not in c.workers("moved") and c.workers("moved"))

        for name in ("first", "last", "moved"):
            assert own not in seen(name), name
            eventually(partial(said, name))
    os.close(line)
    reader.join(PATIENCE)
    os.close(ours)


def test_bare_circusd_starts_no_worker_whose_user_could_become_root(open_folder: Path, python: str) -> None:
    """Given root's circusd in a folder that www-data may write, its worker is blocked, and nothing planted acts."""
    folder, target = open_folder / "doors", open_folder / "roots-file"
    target.write_text("root's own\n")
    env = library_path(open_folder / "python") if python != sys.executable else {}
    root = Watcher("root", numprocesses=1)
    web = Watcher(options={"uid": USER})
    lines = {"endpoint_owner": USER}
    folder.mkdir()
    with circusd(folder, watchers=[root, web], plugins=BUNDLE, circus=lines, python=python, env=env, start=False) as c:
        (folder / "logs" / "root.log").symlink_to(target)
        (folder / "sqlite3.py").write_text(f"open({str(folder / 'proof')!r}, 'a').close()\n")  # for the plugin
        for path in (folder, folder / "logs", folder / "web"):
            shutil.chown(path, USER)
        c.start_again()
        c.wait_ready(name="root")  # the sibling
        verdict = eventually(lambda: v if (v := c.watcher()["verdict"])["word"] == "blocked" else None)

        what = f"{USER} may write {folder}, which circusd uses as root"
        assert what in verdict["cause"]
        assert f"`chown root {folder}`" in verdict["cure"]
        assert {worker["held_by"] for worker in c.watcher()["workers"]} == {"before"}
        assert c.status("plugin:xboard") == "stopped"
        assert "plugin:xboard is not started" in c.log("circusd")
        assert "not a plain file, in a folder that" in eventually(lambda: c.watcher("root")["output"]["reason"])
        assert target.read_text() == "root's own\n"
        assert not (folder / "proof").exists()
        (folder / "sqlite3.py").unlink()  # `python -m` runs what lies in its folder
        checked = c.run_cli("check")
        assert what in checked.stdout, checked
        asked = completed_as(USER, [python, "-c", QUERY, c.endpoint], **env)  # the endpoint's owner
        assert asked.returncode == 0, asked.stderr

        for path in (folder, folder / "logs"):
            shutil.chown(path, "root")
        c.wait_ready()


def test_start_opens_no_log_of_circusd_through_another_users_link(tmp_path: Path) -> None:
    """Given a link in the place of circusd's log, where others may write, when root starts it, it is refused."""
    target = tmp_path / "of-root"
    target.touch()
    with circusd(tmp_path, start=False) as c:
        (tmp_path / "logs").chmod(0o777)
        (tmp_path / "logs" / "circusd.log").symlink_to(target)

        started = c.run_cli("start")

        assert started.returncode == 1
        why = "circusd.log: not a plain file, in a folder that another user may write; delete it"
        told = started.stdout + started.stderr  # where people can log in, the check comes first
        assert why in told or f"every user of this host may write {tmp_path}/logs" in told
        assert target.read_text() == ""


def test_roots_circusd_writes_to_no_log_through_the_link_of_an_account_of_the_system(tmp_path: Path) -> None:
    """Given root's circusd, whose logs are where a user of no watcher may write, as in /var/log, then that user's links
    get neither circusd's own lines nor those of a watcher that Circus has read before anything of ours ran."""
    user, targets = www_data(), {name: tmp_path / f"roots-{name}" for name in ("first", "circusd")}
    assert user is not None
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, target in targets.items():
        target.write_text("root's own\n")
        (logs / f"{name}.log").symlink_to(target)
    os.chown(logs, user.pw_uid, user.pw_gid)
    prints = f"sh -c 'while sleep 0.1; do echo printed; touch {tmp_path}/has-printed; done'"
    first = Watcher("first", numprocesses=1, armed=False, listens=False, command=prints, options={"priority": 9})
    lines = {"logoutput": str(logs / "circusd.log")}
    with circusd(tmp_path, watchers=[first, Watcher(numprocesses=1)], circus=lines, start=False) as c:
        c.start_again()
        c.wait_ready()
        (tmp_path / "has-printed").unlink(missing_ok=True)
        eventually((tmp_path / "has-printed").exists, what="the watcher prints")
        c.do("incr", name="web", waiting=True)

        assert {name: target.read_text() for name, target in targets.items()} == dict.fromkeys(targets, "root's own\n")


def test_a_program_that_the_user_may_not_run_is_told_and_harms_nobody(tmp_path: Path) -> None:
    """Given a program in a folder closed to www-data, when the watcher starts, then the reason names it."""
    program = tmp_path / "private" / "sleep"
    program.parent.mkdir(mode=0o700)
    program.symlink_to("/bin/sleep")
    options = {"uid": USER, "priority": 9, "working_dir": "/"}  # pytest's own folder is closed to that user
    broken = Watcher("broken", command=f"{program} 600", listens=False, options=options)
    with circusd(tmp_path, watchers=[broken, Watcher()]) as c:
        c.wait_ready(name="web")
        # On a crowded machine a launcher may live so long that it counts as up; the next one ends in time.
        eventually(lambda: "cannot be run" in {event.message["cause"] for event in c.failures("broken")})
        eventually(lambda: str(program) in str(c.watcher("broken")["last_reason"]))
        assert c.status("broken") == "active"


def test_root_does_not_restart_the_circusd_of_another_user(open_folder: Path, python: str) -> None:
    """Given a circusd of www-data, when root restarts it, then it is refused; a page of root's shows it over ipc.

    When root stops it, then it is named who else may start it again.
    """
    folder = open_folder / "theirs"
    folder.mkdir()
    env = library_path(open_folder / "python") if python != sys.executable else {}
    with (
        tempfile.TemporaryDirectory(prefix="xb-theirs-", dir="/run") as place,  # in /tmp anybody could make another
        circusd(folder, circus={"endpoint": f"ipc://{place}/x.sock"}, python=python, env=env, start=False) as c,
    ):
        c.endpoint = f"ipc://{place}/x.sock"
        for path in (Path(place), c.folder, *c.folder.rglob("*"), c.runtime):
            shutil.chown(path, USER, USER)
        with circusd_as(USER, c, python=python) as theirs:
            workers = c.wait_ready()
            page = CircusdQueries(c.endpoint, deadline=5)
            assert page.state()["circusd"]["pid"] == theirs.pid
            page.client.close()
            c.extra_env["XBOARD_RUNTIME_DIR"] = str(open_folder / "of-root")

            for order in (["restart", "--no-preflight"], ["restart", "--cold"]):
                refused = c.run_cli(*order)
                assert refused.returncode == 1, refused
                assert f"circusd (pid {theirs.pid}) is run by {USER}" in refused.stderr

            assert theirs.poll() is None
            assert c.ready() == workers

            stopped = c.run_cli("stop")
            assert (stopped.returncode, theirs.wait(PATIENCE)) == (0, 0), stopped
            assert (
                f"a monitor of {USER} would start it again; `xboard-circus stop` as {USER} ends that" in stopped.stderr
            )


def test_a_running_plugin_of_roots_obeys_no_included_file_that_has_become_another_users(open_folder: Path) -> None:
    """Given root's circusd and an included file that is given to a user, who has a command for alerts and logs of
    root's there, when a worker dies, and logs are pruned, then both are refused until root has the file again."""
    (folder := open_folder / "anew").mkdir()
    theirs, precious, proof = (folder / name for name in ("theirs.ini", "auth.log.1", "proof"))
    theirs.touch()
    precious.touch()
    os.utime(precious, (0, 0))
    options = {"include": theirs}
    with circusd(folder, plugins=BUNDLE, circus=options, numprocesses=1) as c:
        c.wait_ready()
        log = c.folder / "logs" / "plugin-xboard.log"
        shutil.chown(theirs, USER)
        command = f"[alert:x]\ntype = command\ncommand = touch {proof}\nmin_severity = info\n"
        stream = f"stdout_stream.filename = {folder}/auth.log\nstdout_stream.backup_count = 9\n"
        stream += "stdout_stream.max_bytes = 9\n"
        theirs.write_text(f"{command}[watcher:x]\ncmd = true\nstdout_stream.class = FileStream\n{stream}")
        said = f"{USER} may write {theirs}, and would have {c.ini} name what root runs; "
        eventually(lambda: f"the alerts stay as they were: {said}" in log.read_text())
        before = c.plugin("xboard")
        kill(before.pid)
        eventually(lambda: c.plugin("xboard").pid != before.pid)
        kill(c.workers()[0])
        eventually(lambda: f"log_pruner: XboardError: {said}" in log.read_text())
        c.wait_ready()
        assert precious.exists()
        assert not proof.exists()
        shutil.chown(theirs, "root")
        eventually(lambda: "alert:x: sends" in log.read_text())
        kill(c.workers()[0])
        eventually(proof.exists)


def test_roots_page_that_starts_anew_obeys_no_included_file_that_has_become_another_users(open_folder: Path) -> None:
    """Given root's circusd with the page, and an included file that is given to a user, who has the tokens made
    elsewhere and another file of root's shown as a log, when the page starts anew, then it is refused, and says so in
    one line, until root has the file again."""
    folder, tokens = open_folder / "page", open_folder / "tokens"
    for made in (folder, tokens):
        made.mkdir(0o755)
    theirs = folder / "theirs.ini"
    theirs.touch()
    with circusd(folder, watchers=[page()], circus={"include": theirs}) as c:
        eventually(lambda: c.words("dashboard") == ["up"], what="the page serves")
        shutil.chown(theirs, USER)
        theirs.write_text(f"[watcher:dashboard]\ndashboard.folder = {tokens}\n")
        kill(c.workers("dashboard")[0])
        said = f"{USER} may write {theirs}, and would have {c.ini} name what root runs; "
        eventually(lambda: said in str(c.watcher("dashboard")["last_reason"]))
        assert [*tokens.iterdir()] == []
        shutil.chown(theirs, "root")  # the trap is sound
        eventually(lambda: c.words("dashboard") == ["up"], what="the page serves")
        assert [each.name for each in tokens.iterdir()] == ["dashboard.token"]
