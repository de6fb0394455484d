"""Workers that are forked from a process which has imported the server, or the app: as good as started ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from xboard_circus.worker.fork_orders import OUTDATED

from . import harness
from .direct_forkserver import ORDER, answer_to_an_order, direct_forkserver, fork_and_let_go
from .harness import BUNDLE, FAST_RESTARTS, PATIENCE, Circusd, Watcher, circusd, crowding, eventually, kill
from .load import Load
from .processes import Process, open_files, process

FORKS = int(os.environ.get("XBOARD_TEST_FORKS", "300"))
PIDFD_GETFD = 438  # the number of the call, the same for all processors; Python has no name for it
APP = {**FAST_RESTARTS, "worker.preload": "app"}
SIMPLE = """
import gc, json, os
assert gc.isenabled()
used = int
{before}
VERSION = {version!r}
with open(os.environ["BACKEND_DIR"] + "/imports", "a") as file:
    file.write(f"{{os.getpid()}}\\n")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            await send({{"type": (await receive())["type"] + ".complete"}})
    used()
    body = json.dumps([os.getpid(), VERSION]).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the workers also where those of all other tests are started: here it is all about that."""
    if harness.PRELOAD == "off":
        monkeypatch.setattr(harness, "PRELOAD", "server")


def preload(c: Circusd, name: str = "web") -> dict[str, Any]:
    return dict(c.watcher(name)["preload"])


def forkserver(c: Circusd, *, not_pid: int = 0, name: str = "web") -> Process:
    """Wait until there is one that forks, other than *not_pid*."""

    def ready() -> Process | None:
        now = preload(c, name)
        return process(now["pid"]) if now["state"] == "ready" and now["pid"] != not_pid else None

    return eventually(ready, what="a forkserver is ready")


def importing(c: Circusd, *known: int) -> int:
    """Wait until there is one more than those *known*, as in a reload; return its pid."""
    return eventually(lambda: next((each.pid for each in c.forkservers() if each.pid not in known), 0))


def is_forked(c: Circusd, pid: int) -> bool:
    """Whether a worker has the text of a forkserver's environment, and not that of a launcher of its own."""
    return "XBOARD_FORK_LEVEL" in process(pid).environ


def up(c: Circusd, number: int, name: str = "web", timeout: float = PATIENCE) -> list[int]:
    """Wait until *number* workers are up, of an app that does not tell the harness itself."""

    def enough() -> list[int] | None:
        pids = [each["pid"] for each in c.watcher(name)["workers"] if each["phase"] == "up"]
        return pids if len(pids) == number else None

    return eventually(enough, timeout=timeout, what=f"{number} workers are up")


def forked(c: Circusd, number: int, name: str = "web", *, without: Sequence[int] = ()) -> list[int]:
    """Wait until *number* workers are up, each of them forked, and none of *without*.

    On a crowded machine a fork may not come in time, and the worker is started then: kill that one, for another try.
    """

    def all_forked() -> list[int] | None:
        pids = up(c, number, name)
        started = [pid for pid in pids if pid not in without and not is_forked(c, pid)]
        for pid in started:
            kill(pid)
        return None if started or set(pids) & set(without) else pids

    return eventually(all_forked, what=f"{number} workers are forked")


def write_app(folder: Path, *, version: int = 1, before: str = "") -> None:
    # Each version has a size of its own: Python takes a compiled file for that of a source of the same second and size.
    # Replaced, as in a deployment: half a file would be imported as such.
    (folder / "simple.new").write_text(SIMPLE.format(version=version, before=before) + "#" * version)
    (folder / "simple.new").replace(folder / "simple.py")


def simple(folder: Path, numprocesses: int = 2, **options: object) -> Watcher:
    write_app(folder)
    return Watcher(app="simple:app", numprocesses=numprocesses, options={"working_dir": folder, **APP, **options})


def reload(c: Circusd, end: str) -> None:
    """Reload, and wait until that has come to this *end*."""
    c.do("xboard_reload", name="web")
    eventually(lambda: c.watcher()["reload"]["state"] == end, what=f"the reload is {end}")


def versions(c: Circusd, pids: Sequence[int], name: str = "web") -> set[int]:
    """Ask until each of *pids* has answered; return the versions that they serve."""
    found: dict[int, int] = {}

    def all_answered() -> bool:
        pid, version = json.loads(c.get(name=name))
        found[pid] = version
        return set(pids) <= set(found)

    eventually(all_answered, what="each worker answers")
    return {found[pid] for pid in pids}


def test_workers_are_forked_and_are_all_that_started_ones_are(tmp_path: Path) -> None:
    with circusd(tmp_path) as c:
        server, pids = forkserver(c), forked(c, 2)

        for pid in pids:
            worker = process(pid)
            assert worker.parent == c.pid
            assert os.getsid(pid) == pid
            assert worker.environ["XBOARD_LAUNCHER"].startswith(f"{pid}:")
            assert " -m xboard_circus.worker backend:app --fd " in worker.command
        assert server.command == "xboard-circus forkserver"
        assert len(sockets(server.pid)) <= 1

        eventually(lambda: json.loads(c.get("/facts"))["is_frozen"], what="the app is frozen")
        facts = json.loads(c.get("/facts"))
        assert facts["collects_garbage"]
        assert facts["environ"]["XBOARD_WID"] in ("1", "2")
        assert not [name for name in facts["environ"] if name.startswith("XBOARD_FORK") or name == "XBOARD_LAUNCHER"]

        kill(pids[0])
        assert len(set(forked(c, 2, without=pids[:1])) - set(pids)) == 1
        assert c.told("restart")[0].message["exit_code"] == -signal.SIGKILL


def sockets(pid: int) -> list[int]:
    return [descriptor for descriptor, what in open_files(pid).items() if what.startswith("socket:")]


@pytest.mark.parametrize("level", ["off", "app"])
def test_a_worker_that_is_ready_is_seen_to_be_up_at_once(tmp_path: Path, level: str) -> None:
    """Given a start of circusd with nothing else to do, then `status` does not say "starting" until its next round."""
    with circusd(tmp_path, options={"worker.preload": level}) as c:
        eventually(lambda: c.words() == ["up", "up"])
        seen_at = time.monotonic()

        assert seen_at - max(c.said("ready", pid) or 0.0 for pid in c.workers()) < crowding()


def test_off_starts_each_worker(tmp_path: Path) -> None:
    with circusd(tmp_path, options={"worker.preload": "off"}) as c:
        assert not any(is_forked(c, pid) for pid in c.wait_ready())
        assert preload(c) == {"level": "", "state": "off", "pid": None, "reason": "", "say": None}
        told = c.status_json()["watchers"][0]["preload"]
        assert told == {"level": "", "state": "off", "pid": None, "reason": "", "say": None}
        assert json.loads(c.get("/facts"))["collects_garbage"]
        eventually(lambda: json.loads(c.get("/facts"))["is_frozen"], what="the app is frozen")


def test_a_command_with_a_program_in_front_is_started(tmp_path: Path) -> None:
    command = "env python -m xboard_circus.worker {app} --fd $(circus.sockets.{name}) {arguments}"
    with circusd(tmp_path, watchers=[Watcher(command=command)]) as c:
        assert not any(is_forked(c, pid) for pid in c.wait_ready())
        assert "not `python -m xboard_circus.worker` alone" in preload(c)["reason"]
        assert "not `python -m xboard_circus.worker` alone" in c.run_cli("check", "--deep").stdout


def test_an_app_that_finds_no_memory_for_its_import_before_the_fork_is_imported_by_each_worker(tmp_path: Path) -> None:
    """Given rlimit_as and an app that takes more than that in the forkserver, then the workers are started."""
    watcher = simple(tmp_path, rlimit_as=1 << 30)
    write_app(tmp_path, before="hoard = b'x' * (2 << 30) if os.environ['XBOARD_WID'] == '0' else b''")
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = up(c, 2)

        assert not any(is_forked(c, pid) for pid in pids)
        assert (versions(c, pids), c.failures()) == ({1}, [])
        eventually(lambda: (preload(c)["state"], "MemoryError" in preload(c)["reason"]) == ("failed", True))
        eventually(lambda: c.forkservers() == [])


def read_of_libraries(pid: int) -> int:
    pages = psutil.Process(pid).memory_maps()
    return sum(each.private_clean + each.shared_clean for each in pages if ".so" in each.path)


def test_it_gives_back_what_only_the_import_has_read_of_libraries(tmp_path: Path) -> None:
    """Given workers that are forked, when no more is for a while, then less of the libraries' files is in its memory
    than half of a worker's, and the next worker, which has it for its parent, serves as the others do. circusd and its
    plugin give back as much of what the import of Circus has read."""
    program = [sys.executable, "-c", "import circus.arbiter; print(flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as imports:
        assert imports.stdout is not None
        assert imports.stdout.readline()
        of_circus = read_of_libraries(imports.pid)
        imports.communicate(b"\n")

    with circusd(tmp_path, numprocesses=2, plugins=BUNDLE) as c:
        one, other = c.wait_ready()
        served = forkserver(c)
        eventually(lambda: read_of_libraries(served.pid) < read_of_libraries(other) / 2)
        both = c.pid, c.plugin("xboard").pid
        eventually(lambda: max(map(read_of_libraries, both)) < of_circus * 0.6)

        kill(one)
        (new,) = eventually(lambda: {*c.ready()} - {one, other})
        assert is_forked(c, new)
        assert forkserver(c).pid == served.pid
        eventually(lambda: c.get() == str(new))


def test_nothing_is_left_of_it_after_a_stop(tmp_path: Path) -> None:
    with circusd(tmp_path) as c:
        c.wait_ready()
        server = forkserver(c)
        c.do("stop", name="web", match="simple", waiting=True)
        eventually(lambda: not server.alive)
        c.do("start", name="web", match="simple", waiting=True)
        c.wait_ready()
        assert forkserver(c).pid != server.pid
        c.stop()
        eventually(lambda: c.processes() == [], what="nothing is left")


def test_another_environment_takes_another_forkserver(tmp_path: Path) -> None:
    """Given an env file that changes, when a worker is killed, then the next one has the new value."""
    (tmp_path / ".env").write_text("SHADE=blue\n")
    with circusd(tmp_path, options={**FAST_RESTARTS, "worker.env_file": ".env"}) as c:
        pids, server = c.wait_ready(), forkserver(c)
        (tmp_path / ".env").write_text("SHADE=red\n")
        for pid in pids:
            kill(pid)
        c.wait_ready()

        assert {json.loads(c.get("/facts"))["environ"]["SHADE"] for _ in range(8)} == {"red"}
        assert forkserver(c, not_pid=server.pid).alive


def test_a_changed_file_of_the_server_is_imported_anew(tmp_path: Path) -> None:
    """Given a file that the forkserver has imported, when that changes, then the next worker has the new one."""
    library = tmp_path / "library"
    library.mkdir()
    site = library / "sitecustomize.py"
    site.write_text("import os\nos.environ['SHADE'] = 'old'\n")
    watcher = Watcher(options=FAST_RESTARTS, env={"PYTHONPATH": f"{library}:{Path(__file__).parent}"})
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids, server = c.wait_ready(), forkserver(c)
        site.write_text("import os\nos.environ['SHADE'] = 'new'\n")

        for pid in pids:
            kill(pid)
        c.wait_ready()
        assert {json.loads(c.get("/facts"))["environ"]["SHADE"] for _ in range(8)} == {"new"}
        assert forkserver(c, not_pid=server.pid).alive


def test_another_folder_in_the_place_of_working_dir_is_entered(tmp_path: Path) -> None:
    """Given a link as working_dir, as deployments have it, when that leads elsewhere, then the next worker is there."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    with circusd(tmp_path, options={**FAST_RESTARTS, "working_dir": current}) as c:
        pids, server = c.wait_ready(), forkserver(c)
        current.unlink()
        current.symlink_to("two")
        for pid in pids:
            kill(pid)
        c.wait_ready()

        assert {json.loads(c.get("/facts"))["cwd"] for _ in range(8)} == {str(tmp_path / "two")}
        newer = forkserver(c, not_pid=server.pid)

        current.unlink()
        kill(newer.pid)
        told = 'the forkserver has ended: cannot be run: "no working directory'
        eventually(lambda: told in preload(c)["reason"], what="the launcher's words are told")


def test_a_worker_of_another_version_than_its_siblings_is_reported_at_level_app(tmp_path: Path) -> None:
    """Given a link as working_dir that leads to the next release, when a worker dies before a reload, then it is told
    that the next one is of that release, until a reload."""
    for name, version in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        write_app(tmp_path / name, version=version)
    current = tmp_path / "current"
    current.symlink_to("one")
    watcher = Watcher(app="simple:app", numprocesses=2, options={"working_dir": current, **APP})
    with circusd(tmp_path, watchers=[watcher]) as c:
        forkserver(c)
        pids = up(c, 2)
        current.unlink()
        current.symlink_to("two")
        kill(pids[0])

        told = "have imported different versions of simple: `xboard-circus reload web`"
        eventually(lambda: told in c.watcher()["last_reason"], what="it is told")
        assert versions(c, up(c, 2)) == {1, 2}
        reload(c, "done")
        pids = up(c, 2)
        kill(pids[0])
        assert versions(c, forked(c, 2, without=pids[:1])) == {2}
        assert c.log("circusd").count(told) == 1


def test_level_app_imports_the_app_once(tmp_path: Path) -> None:
    """Given worker.preload = app, all workers are of one import, also after the file has changed, until a reload."""
    with circusd(tmp_path, watchers=[simple(tmp_path)]) as c:
        server, pids = forkserver(c), forked(c, 2)
        write_app(tmp_path, version=2)

        kill(pids[0])
        others = forked(c, 2, without=pids[:1])
        assert versions(c, others) == {1}
        reload(c, "done")

        new = forked(c, 2, without=others)
        assert versions(c, new) == {2}
        imported = list(map(int, (tmp_path / "web" / "imports").read_text().split()))
        assert not {*pids, *others, *new} & {*imported}
        assert {server.pid, forkserver(c, not_pid=server.pid).pid} <= {*imported}


def test_code_that_cannot_be_imported_ends_a_reload_before_a_worker_is_touched(tmp_path: Path) -> None:
    with circusd(tmp_path, watchers=[simple(tmp_path)]) as c:
        pids = up(c, 2)
        write_app(tmp_path, version=2, before="import not_there")

        reload(c, "failed")

        said = c.watcher()["reload"]
        assert said["reason"] == "the new code cannot be imported: \"ModuleNotFoundError: No module named 'not_there'\""
        assert "Traceback" in said["log"]
        assert (up(c, 2), said["replaced"]) == (pids, [])
        write_app(tmp_path, version=3)
        reload(c, "done")
        assert versions(c, up(c, 2)) == {3}


def test_a_failed_reload_leaves_the_forkserver_of_the_old_code(tmp_path: Path) -> None:
    """Given new code that cannot be imported, when workers die in its import and after the reload has failed, then they
    are forked with the old code, as if no reload had been tried."""
    with circusd(tmp_path, watchers=[simple(tmp_path)]) as c:
        server, pids = forkserver(c), forked(c, 2)
        write_app(tmp_path, version=2, before="import time; time.sleep(3); import not_there")
        c.do("xboard_reload", name="web")
        importing(c, server.pid)

        kill(pids[0])
        between = forked(c, 2, without=pids[:1])
        assert (versions(c, between), c.watcher()["reload"]["state"]) == ({1}, "running")
        eventually(lambda: c.watcher()["reload"]["state"] == "failed", what="the reload has failed")
        kill(pids[1])
        assert versions(c, forked(c, 2, without=pids)) == {1}

        assert [each.pid for each in c.forkservers()] == [server.pid] == [preload(c)["pid"]]
        assert preload(c)["reason"] == ""


def test_a_worker_that_is_forked_while_the_new_code_is_imported_is_replaced_too(tmp_path: Path) -> None:
    """Given a reload in whose import each worker dies, then their successors, which have the old code, are replaced."""
    with circusd(tmp_path, watchers=[simple(tmp_path)]) as c:
        server, pids = forkserver(c), forked(c, 2)
        write_app(tmp_path, version=2, before="import time; time.sleep(3)")
        c.do("xboard_reload", name="web")
        importing(c, server.pid)
        for number in (1, 2):
            kill(pids[number - 1])
            between = forked(c, 2, without=pids[:number])
        assert (versions(c, between), c.watcher()["reload"]["state"]) == ({1}, "running")
        eventually(lambda: c.watcher()["reload"]["state"] == "done", what="the reload is done")

        assert versions(c, new := up(c, 2)) == {2}
        assert not {*new} & {*between}
        eventually(lambda: [each.pid for each in c.forkservers()] == [preload(c)["pid"]], what="the old one is gone")
        assert not server.alive


def test_code_whose_import_takes_too_long_ends_a_reload_with_that_reason(tmp_path: Path) -> None:
    with circusd(tmp_path, watchers=[simple(tmp_path, **{"health.startup_timeout": 6})]) as c:
        pids = up(c, 2)
        write_app(tmp_path, version=2, before="import time; time.sleep(600)")

        reload(c, "failed")

        said = c.watcher()["reload"]["reason"]
        assert "not up within health.startup_timeout = 6 s" in said  # and why, where no core was free for it
        assert up(c, 2) == pids


@pytest.mark.parametrize(("times", "end"), [(1, "done"), (2, "failed")])
def test_an_import_that_a_signal_stops_is_tried_again_and_says_nothing_of_the_code(
    tmp_path: Path, times: int, end: str
) -> None:
    watcher = simple(tmp_path, **{"health.startup_timeout": 15})
    with circusd(tmp_path, watchers=[watcher]) as c:
        known, pids = [forkserver(c).pid], up(c, 2)
        write_app(tmp_path, version=2, before="import time; time.sleep(1)")
        c.do("xboard_reload", name="web")
        for _ in range(times):
            known.append(importing(c, *known))
            kill(known[-1], signal.SIGSTOP)
        eventually(lambda: c.watcher()["reload"]["state"] == end, timeout=2 * PATIENCE, what=f"the reload is {end}")

        said = "the forkserver did not answer within 15 s, since a signal has stopped it"
        assert (said in c.watcher()["reload"]["reason"]) == (end == "failed")
        assert said in c.log("circusd")
        assert (up(c, 2) == pids) == (end == "failed")
        left = {known[0]} if end == "failed" else set()
        eventually(lambda: {each.pid for each in c.forkservers()} & {*known} == left, what="those that hang are gone")


def test_code_of_too_many_files_is_said_not_to_be_compared(tmp_path: Path) -> None:
    """Given modules whose paths take more than a MiB, then a reload is done, and says that versions may be mixed."""
    deep = tmp_path.joinpath(*["d" * 250] * 14)
    deep.mkdir(parents=True)
    for number in range(300):
        (deep / f"{number}.py").touch()
    watcher = simple(tmp_path, 1, **{"worker.preload": "server"})
    module = "module = sys.modules[f'made{number}'] = types.ModuleType('made')\n    module.__file__ = "
    write_app(tmp_path, before=f"import sys, types\nfor number in range(300):\n    {module}f'{deep}/{{number}}.py'")
    with circusd(tmp_path, watchers=[watcher]) as c:
        up(c, 1)
        reload(c, "done")

        assert "too many files to compare" in c.watcher()["reload"]["reason"]


# As that of PyTorch: its first use makes a context, with a thread and a device, which no child of a fork may use.
CUDA = """
import os, threading
def init():
    global owner, device
    owner, device = os.getpid(), open("/dev/full", "wb")
    threading.Thread(target=threading.Event().wait, daemon=True).start()
def multiply():
    if os.getpid() != owner:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
"""
POOL = """
import urllib3
pool = urllib3.HTTPConnectionPool("127.0.0.1", int(os.environ["OF_POOL"]))
def used():
    assert pool.request("GET", "/").status == 204
used()
"""
UNSAFE = {
    "a thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "thread",
    ),
    "an event loop": ("import asyncio\nloop = asyncio.new_event_loop()", "eventpoll"),
    "a connection": ("import socket\npair = socket.socketpair()", "socket"),
    "a pool of connections": (POOL, "socket"),
    "a library like CUDA": ("import cuda\ncuda.init()\nused = cuda.multiply", "thread"),
    "a device": ("device = open('/dev/full', 'wb')", "/dev/full"),
    "a file with a position": ("data = open(__file__, 'rb')", "simple.py"),
    "a database": ("import sqlite3\nrows = sqlite3.connect('rows.db')", "rows.db"),
    "a process": ("import subprocess\njob = subprocess.Popen(['sleep', '600'])", "process"),
    "a lock of all workers": ("import multiprocessing\nlock = multiprocessing.Lock()", "memory"),
    "memory of all workers": ("import mmap\nnumbers = mmap.mmap(-1, 4096)", "memory"),
    "a socket for stdin": ("import socket\nos.close(0)\nclient = socket.socket()", "socket"),
    "a signal at its parent's end": ("import ctypes\nctypes.CDLL(None).prctl(1, 15, 0, 0, 0)", "parent"),
    "a locked file": (
        "import fcntl\nleader = open(f'{os.getpid()}.lock', 'a')\nfcntl.flock(leader, fcntl.LOCK_EX)",
        ".lock",
    ),
}


@pytest.mark.parametrize(("case", "named"), [(case, named) for case, (_, named) in UNSAFE.items()], ids=UNSAFE)
def test_an_app_whose_import_cannot_be_shared_is_imported_by_each_worker(
    sharing: Circusd, case: str, named: str
) -> None:
    with sharing.running(name := name_of(case)):
        pids = forked(sharing, 2, name)

        assert preload(sharing, name)["level"] == "server"
        assert versions(sharing, pids, name) == {1}
        assert named in str(preload(sharing, name)["reason"])
        # `last_reason` is another one where a started worker was killed for a fork.
        assert named in "".join(line for line in sharing.log("circusd").splitlines() if name in line)
        assert set(map(str, pids)) <= set((sharing.folder / name / "imports").read_text().split())


ENDS_ITS_THREAD = """
import threading
ended = threading.Event()
thread = threading.Thread(target=ended.wait, daemon=True)
thread.start()
os.register_at_fork(before=lambda: (ended.set(), thread.join()))
"""


REAPS = """
import signal
def reap(*_):
    try:
        while os.waitpid(-1, 0)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
"""


NUMPY = """
import os
class random:
    def seed():
        with open('seeded', 'a') as file:
            file.write(f'{os.getpid()}\\n')
"""
APPS = {
    **{case: before for case, (before, _) in UNSAFE.items()},
    "ends its threads": ENDS_ITS_THREAD,
    "ignores SIGCHLD": "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "reaps": REAPS,
    "numpy": "import numpy",
    "changes the folder": "os.chdir('below')",
}
"""What an app does when it is imported, each in a watcher of one circusd."""


def name_of(case: str) -> str:
    return f"app-{list(APPS).index(case):02}"


class Empty(BaseHTTPRequestHandler):
    """Answers without a body, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def of_all_apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    folder = tmp_path_factory.mktemp("apps").resolve()
    watchers = []
    for case, before in APPS.items():
        place = folder / name_of(case)
        (place / "below").mkdir(parents=True)
        (place / "numpy.py").write_text(NUMPY)
        (place / "cuda.py").write_text(CUDA)
        write_app(place, before=before)
        options = {"working_dir": place, "autostart": False, **APP}
        watchers.append(Watcher(name_of(case), 2, app="simple:app", options=options))
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as peer:
        threading.Thread(target=peer.serve_forever, daemon=True).start()
        with circusd(folder, watchers=watchers, env={"OF_POOL": str(peer.server_port)}) as c:
            yield c
        peer.shutdown()


@pytest.fixture
def sharing(of_all_apps: Circusd) -> Circusd:
    """The circusd of all `APPS`; see `Circusd.running`."""
    of_all_apps.start_if_ended()
    return of_all_apps


@pytest.mark.parametrize("case", ["ignores SIGCHLD", "reaps"])
def test_an_app_that_waits_for_no_child_is_forked_again_and_again(sharing: Circusd, case: str) -> None:
    with sharing.running(name := name_of(case)):
        server, pids = forkserver(sharing, name=name), forked(sharing, 2, name)
        kill(pids[0])
        forked(sharing, 2, name, without=pids[:1])
        assert forkserver(sharing, name=name).pid == server.pid
        assert "Traceback" not in sharing.log(name)


def test_an_app_that_takes_long_to_import_is_imported_once_in_a_reload(tmp_path: Path) -> None:
    """Given an import of 7 s, then a start does not wait for it, and says so. A reload does, also where the forkserver
    is killed in the middle of it."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before="import time; time.sleep(7)")
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = up(c, 2, timeout=3 * PATIENCE)  # the forkserver and both workers import at once
        assert not any(is_forked(c, pid) for pid in pids)
        assert "takes more than 5 s" in preload(c)["reason"]
        server = forkserver(c)
        write_app(tmp_path, version=2, before="import time; time.sleep(7)")

        c.do("xboard_reload", name="web")
        kill(importing(c, server.pid))
        done = "the reload is over"
        eventually(lambda: c.watcher()["reload"]["state"] == "done", timeout=3 * PATIENCE, what=done)

        assert preload(c)["reason"] == ""
        imported = list(map(int, (tmp_path / "web" / "imports").read_text().split()))
        assert forkserver(c).pid in imported
        assert not all(pid in imported for pid in up(c, 2))  # one that was not forked in time is started


@pytest.mark.parametrize("is_included", [False, True])
def test_a_level_that_is_changed_in_the_file_is_in_force_for_the_next_worker(tmp_path: Path, is_included: bool) -> None:
    """Also where another ini includes that file, as a service's does."""
    with circusd(tmp_path, watchers=[simple(tmp_path)], start=False) as c:
        if is_included:
            included = c.ini.rename(tmp_path / "included.ini")
            endpoints = f"endpoint = {c.endpoint}\npubsub_endpoint = {c.pubsub}\nmulticast_endpoint =\n"
            c.ini.write_text(f"[circus]\ninclude = {included}\n{endpoints}")
        c.start_again()
        if is_included:
            c.ini = included

        pids = forked(c, 2)
        for level in ("server", "app"):
            server = forkserver(c)
            c.write_ini(watcher__web={"worker.preload": level})
            c.do("reloadconfig", waiting=True)
            forkserver(c, not_pid=server.pid)
            assert preload(c)["level"] == level
        assert up(c, 2) == pids

        c.write_ini(watcher__web={"worker.preload": "off"})
        c.do("reloadconfig", waiting=True)
        kill(pids[0])
        eventually(lambda: preload(c)["state"] == "off" and not c.forkservers(), what="the forkserver is gone")
        (new,) = eventually(lambda: set(up(c, 2)) - set(pids), what="another worker is up")
        assert not is_forked(c, new)
        assert is_forked(c, pids[1])


COUNTED = """
import os
with open("counted", "a") as file:
    file.write(f"{os.getpid()} ")
"""


def test_modules_of_worker_preload_modules_are_imported_once_for_all_workers(tmp_path: Path) -> None:
    """Given a module that the app imports, when the file adds it to those to be preloaded, the forkserver alone imports
    it; and when that module changes, the next forkserver does."""
    options: dict[str, Any] = {"worker.preload": "server"}
    watcher = simple(tmp_path, **options)
    write_app(tmp_path, before="import counted")
    (tmp_path / "counted.py").write_text(COUNTED)
    with circusd(tmp_path, watchers=[watcher]) as c:
        imported, first = tmp_path / "counted", forkserver(c)
        pids = forked(c, 2)
        assert set(imported.read_text().split()) >= {*map(str, pids)}

        c.write_ini(watcher__web={"worker.preload_modules": "json, counted"})
        c.do("reloadconfig", waiting=True)
        server, before = forkserver(c, not_pid=first.pid), len(imported.read_text().split())
        for old in up(c, 2):
            kill(old)
            forked(c, 2, without=[old])
        assert preload(c)["reason"] == ""
        assert imported.read_text().split().count(str(server.pid)) == 1
        assert not set(imported.read_text().split()[before:]) & set(map(str, forked(c, 2)))

        (tmp_path / "counted.py").write_text(COUNTED + "CHANGED = True\n")
        kill(up(c, 2)[0])
        newer = forkserver(c, not_pid=server.pid)
        eventually(lambda: str(newer.pid) in imported.read_text().split(), what="it is imported anew")


def test_a_module_that_cannot_be_preloaded_is_named_and_the_workers_are_started(tmp_path: Path) -> None:
    options: dict[str, Any] = {"worker.preload": "server", "worker.preload_modules": "json, no_such_module"}
    with circusd(tmp_path, watchers=[simple(tmp_path, **options)]) as c:
        pids = up(c, 2)

        assert not any(is_forked(c, pid) for pid in pids)
        told = eventually(lambda: preload(c)["reason"], what="the reason is told")
        assert "worker.preload_modules: no_such_module: ModuleNotFoundError" in told
        assert "no_such_module" in c.run_cli("status").stdout
        checked = c.run_cli("check")
        assert "finds no module no_such_module" in checked.stdout + checked.stderr


@pytest.mark.parametrize("before", ["", UNSAFE["a thread"][0], "import nothing_there"])
def test_check_deep_says_why_an_app_is_not_imported_before_the_fork(tmp_path: Path, before: str) -> None:
    options: dict[str, Any] = {"worker.preload_modules": "json"}
    watcher = simple(tmp_path, **options)
    write_app(tmp_path, before=before)
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        checked = c.run_cli("check", "--deep")

        said = checked.stdout + checked.stderr
        assert ("the app is not imported before the fork" in said) == ("thread" in before), said
        assert (checked.returncode == 0) == ("nothing" not in before), said
        assert not list(c.runtime.rglob("preflight-*"))


def test_status_says_all_along_why_an_app_is_not_imported_before_the_fork(tmp_path: Path) -> None:
    """Given an app that leaves a thread, when a worker has died since, then status says both."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before=UNSAFE["a thread"][0])
    with circusd(tmp_path, watchers=[watcher]) as c:
        kill(up(c, 2)[0])
        eventually(lambda: "last: killed from outside" in c.run_cli("status").stdout)

        assert "the app is not imported before the fork" in c.run_cli("status").stdout


def test_an_app_that_ends_its_threads_before_a_fork_is_imported_once(sharing: Circusd) -> None:
    """As numpy does, whose OpenBLAS ends its threads by pthread_atfork(3), and starts them anew when they are used."""
    with sharing.running(name := name_of("ends its threads")):
        pids = forked(sharing, 2, name)

        assert (preload(sharing, name)["level"], preload(sharing, name)["reason"]) == ("app", "")
        assert versions(sharing, pids, name) == {1}


def test_an_app_that_starts_a_thread_at_each_fork_is_imported_by_each_worker(tmp_path: Path) -> None:
    thread = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    watcher = simple(tmp_path)
    write_app(tmp_path, before=f"import threading, time\nos.register_at_fork(after_in_parent=lambda: {thread})")
    with circusd(tmp_path, watchers=[watcher]) as c:
        up(c, 2)
        eventually(lambda: preload(c)["level"] == "server", what="the app is forked no more")
        server = forkserver(c)
        assert "started 1 thread(s) after its import" in preload(c)["reason"]
        pids = up(c, 2)
        kill(pids[0])
        forked(c, 2, without=pids[:1])
        assert forkserver(c).pid == server.pid
        assert c.log("circusd").count("thread(s)") == 1


def test_the_end_of_a_forkserver_is_seen_below_which_a_daemon_was_forked(tmp_path: Path) -> None:
    daemon = "os.setsid(); open('daemon', 'w').write(str(os.getpid())); time.sleep(600)"
    twice = f"if not os.fork():\n        if not os.fork():\n            {daemon}\n        os._exit(0)\n    os.wait()"
    watcher = simple(tmp_path)
    write_app(tmp_path, before=f"import time\nif os.environ['XBOARD_WID'] == '0':\n    {twice}")
    with circusd(tmp_path, watchers=[watcher]) as c:
        forked(c, 2)
        server, job = forkserver(c), process(int((tmp_path / "daemon").read_text()))
        try:
            kill(server.pid)
            second = forkserver(c, not_pid=server.pid)
            assert job.alive
        finally:
            job.signal(signal.SIGKILL)
        assert preload(c)["level"] == "app"
        kill(int((tmp_path / "daemon").read_text()))
        assert second.alive


def test_what_an_import_has_started_ends_with_the_forkserver_that_cannot_share_it(tmp_path: Path) -> None:
    watcher = simple(tmp_path, numprocesses=1)
    write_app(tmp_path, before="import subprocess\njob = subprocess.Popen(['sleep', '600'])")
    with circusd(tmp_path, watchers=[watcher]) as c:
        (pid,) = up(c, 1)

        def parents() -> list[int | None]:
            return [each.parent for each in c.processes() if each.command == "sleep 600"]

        eventually(lambda: parents() == [pid], what="its own is left alone")


@pytest.mark.parametrize("then", ["raise RuntimeError", "time.sleep(600)"])
def test_what_a_failed_import_has_started_ends_with_the_forkserver(tmp_path: Path, then: str) -> None:
    """Given an app that starts a process and then fails or hangs in the forkserver alone, in a process that does not
    hear SIGTERM, then nothing is left of any try."""
    watcher = simple(tmp_path, **{"health.startup_timeout": 6})
    job = "import subprocess\n    subprocess.Popen(['sh', '-c', 'trap : TERM; while :; do sleep 1000; done'])"
    write_app(tmp_path, before=f"import time\nif os.environ['XBOARD_WID'] == '0':\n    {job}\n    {then}")
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = up(c, 2)

        def jobs() -> list[Process]:
            """What runs that is below no forkserver of this moment."""
            servers = {each.pid for each in c.forkservers()}
            return [each for each in c.processes() if "sleep 1000" in each.command and each.parent not in servers]

        eventually(lambda: preload(c)["state"] == "failed", what="the first import has failed")
        eventually(lambda: jobs() == [], what="what it has started is gone")
        assert up(c, 2) == pids
        c.stop()
        eventually(lambda: c.processes() == [], what="nothing is left")


def test_what_an_app_does_at_its_exit_is_not_done_by_the_forkserver(tmp_path: Path) -> None:
    """Given a folder that the app removes at its exit, the workers keep it when the forkserver ends."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before="import atexit\natexit.register(lambda: open(f'exit-{os.getpid()}', 'w').close())")
    with circusd(tmp_path, watchers=[watcher]) as c:
        up(c, 2)
        server = forkserver(c)
        c.kill9()
        eventually(lambda: not server.alive, what="the forkserver ends")
        assert not (tmp_path / f"exit-{server.pid}").exists()


OWN_LOGGING = """
import logging, sys
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(logging.Formatter("own: %(message)s"))
logging.getLogger("uvicorn.access").handlers = [handler]
"""
LAZY = """
import types
class Lazy(types.ModuleType):
    def __getattr__(self, name):
        raise RuntimeError(name)
sys.modules["lazy"] = Lazy("lazy")  # it has no file before it is used
"""


@pytest.mark.parametrize("level", ["app", "off"])
def test_what_an_app_has_made_of_uvicorns_loggers_stays(tmp_path: Path, level: str) -> None:
    watcher = simple(tmp_path, 2, **{"worker.preload": level})
    write_app(tmp_path, before=OWN_LOGGING + LAZY)
    with circusd(tmp_path, watchers=[watcher]) as c:
        assert any(is_forked(c, pid) for pid in (forked if level == "app" else up)(c, 2)) is (level == "app")
        c.get()
        eventually(lambda: "own: 127.0.0.1" in c.log(), what="the access log is the app's own")


@pytest.mark.parametrize("level", ["app", "off"])
def test_an_app_is_imported_with_its_env_file_and_log_config(tmp_path: Path, level: str) -> None:
    """Given a log config that turns loggers off which there are already, the app's own are none of them."""
    (tmp_path / "shade.env").write_text("SHADE=blue\n")
    handlers = {"stderr": {"class": "logging.StreamHandler"}}
    config = {"version": 1, "handlers": handlers, "root": {"handlers": ["stderr"], "level": "INFO"}}
    (tmp_path / "log.json").write_text(json.dumps(config))
    arguments = "--ws none --env-file shade.env --log-config log.json"
    watcher = replace(simple(tmp_path, 2, **{"worker.preload": level}), arguments=arguments)
    before = "import logging\nlog = logging.getLogger('own')\nlog.info('the shade is %s', os.environ.get('SHADE'))"
    write_app(tmp_path, before=before)
    app = tmp_path / "simple.py"
    app.write_text(app.read_text().replace("    body =", "    log.info('a request came')\n    body ="))
    with circusd(tmp_path, watchers=[watcher]) as c:
        assert any(is_forked(c, pid) for pid in (forked if level == "app" else up)(c, 2)) is (level == "app")
        c.get()
        eventually(lambda: "a request came" in c.log(), what="the app's logger writes")
        assert "the shade is blue" in c.log()


def test_an_app_that_changes_the_folder_is_forked_all_the_same(sharing: Circusd) -> None:
    with sharing.running(name := name_of("changes the folder")):
        server, pids = forkserver(sharing, name=name), forked(sharing, 2, name)
        kill(pids[0])
        pids = forked(sharing, 2, name, without=pids[:1])
        assert {os.readlink(f"/proc/{pid}/cwd") for pid in pids} == {str(sharing.folder / name / "below")}
        assert forkserver(sharing, name=name).pid == server.pid


def test_a_command_that_names_the_worker_takes_no_forkserver(tmp_path: Path) -> None:
    """Given a command of its own for each worker, no forkserver is started and ended at each spawn."""
    with circusd(tmp_path, watchers=[Watcher(arguments="--ws none --header X-Wid:$(circus.wid)")]) as c:
        assert not any(is_forked(c, pid) for pid in c.wait_ready())
        assert preload(c)["state"] == "off"
        assert "$(circus.wid)" in preload(c)["reason"]


def test_a_child_that_comes_too_late_ends_without_a_word(tmp_path: Path) -> None:
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        pids, server = forked(c, 2), forkserver(c)  # the last order was answered
        kill(server.pid, signal.SIGSTOP)
        kill(pids[0])
        c.wait_ready()
        kill(server.pid, signal.SIGCONT)
        kill(pids[1])

        forked(c, 2)  # it has taken the next order, so the late one is over
        assert "Traceback" not in c.log()


def test_an_app_that_fails_in_its_start_is_mended_on_disk_without_a_reload(tmp_path: Path) -> None:
    """Given worker.preload = app and a lifespan that fails, when the file is mended, then the next try is of it."""
    watcher = simple(tmp_path)
    good = (tmp_path / "simple.py").read_text()
    (tmp_path / "simple.py").write_text(good.replace("        while True:", "        os._exit(7)\n        while True:"))
    with circusd(tmp_path, watchers=[watcher]) as c:
        eventually(lambda: len(c.failures()) > 2, what="no worker comes up")
        (tmp_path / "simple.new").write_text(good)
        (tmp_path / "simple.new").replace(tmp_path / "simple.py")

        assert versions(c, up(c, 2)) == {1}


def test_each_worker_has_random_numbers_of_its_own(sharing: Circusd) -> None:
    """Given an app that has imported numpy, whose generator a fork copies, then each forked worker seeds it anew."""
    with sharing.running(name := name_of("numpy")):
        pids = forked(sharing, 2, name)
        assert preload(sharing, name)["level"] == "app"
        assert set(pids) <= set(map(int, (sharing.folder / name / "seeded").read_text().split()))


TELLS = """
import sys
from collections.abc import Mapping
def tell(what):
    with open({file!r}, 'a') as file:
        file.write(f'{{os.getpid()}} {{what}}\\n')
class Told(Mapping):
    @classmethod
    def __subclasshook__(cls, other):
        tell(other.__name__)
        return NotImplemented
clear = sys._clear_type_cache
def clear_and_tell():
    clear()
    tell('cleared')
sys._clear_type_cache = clear_and_tell
"""


def test_what_each_worker_would_write_into_the_app_is_written_once_before_the_fork(tmp_path: Path) -> None:
    """Given an app with mappings of its own, then Python asks these once for all workers whether the number, the text
    and the pair in lines of the log are one, and lets go of the app's attributes that it has looked up."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before=TELLS.format(file=str(tmp_path / "told")))
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = up(c, 2)
        server = forkserver(c)
        told = [line.split() for line in (tmp_path / "told").read_text().splitlines()]

        assert server.pid not in pids
        once = [what for pid, what in told if pid == str(server.pid)]
        assert sorted(once) == ["cleared", "int", "str", "tuple"]
        assert {what for pid, what in told if int(pid) in pids}.isdisjoint(once)


def test_an_import_that_hangs_holds_up_no_worker_for_long(tmp_path: Path) -> None:
    """Given an app that hangs in its first import alone, when that is over its time, then it is imported anew."""
    watcher = simple(tmp_path, **{"health.startup_timeout": 6})
    hang = "if not os.path.exists('once'):\n    open('once', 'w').close()\n    import time; time.sleep(600)"
    write_app(tmp_path, before=hang)
    with circusd(tmp_path, watchers=[watcher]) as c:
        assert len(up(c, 2)) == 2
        server = forkserver(c)

        assert preload(c)["level"] == "app"
        assert str(server.pid) in (tmp_path / "web" / "imports").read_text().split()
        eventually(lambda: len([each for each in c.processes() if each.command == server.command]) == 1)


def test_a_worker_that_dies_while_no_forkserver_answers_is_started(tmp_path: Path) -> None:
    """Given a forkserver that is killed, and a next one that hangs in the app's import, when a worker dies, then one is
    started in its place, its sibling serves on, and that is reported once. Later ones are forked again."""
    watcher = simple(tmp_path, **{"health.startup_timeout": 6})
    write_app(
        tmp_path,
        before="import time\nif os.environ['XBOARD_WID'] == '0':\n    while os.path.exists('hang'): time.sleep(0.1)",
    )
    with circusd(tmp_path, watchers=[watcher]) as c:
        server, (dead, sibling) = forkserver(c), forked(c, 2)
        (hang := tmp_path / "hang").touch()
        with Load(c.url) as load:
            kill(server.pid)
            importing(c, server.pid)
            load.stop()  # what the one that is killed has in flight is lost
        kill(dead)
        (new,) = {*eventually(lambda: now if dead not in (now := up(c, 2)) else None)} - {sibling}

        assert (is_forked(c, new), load.lost) == (False, [])
        hang.unlink()
        forkserver(c, not_pid=server.pid)
        kill(new)
        assert sibling in forked(c, 2, without=[dead, new])
        assert c.log("circusd").count("no worker is forked") == 1, c.log("circusd")


def test_a_job_that_an_app_has_detached_lives_on_below_circusd_and_leaves_no_zombie(tmp_path: Path) -> None:
    with circusd(tmp_path, check_delay=1, options=FAST_RESTARTS) as c:
        pid = c.wait_ready()[0]
        known = {each.pid for each in c.processes()}
        c.tell(pid, "job")
        job = eventually(
            lambda: next(
                (each for each in c.processes() if "sleep 600" in each.command and each.pid not in known), None
            )
        )
        kill(pid)
        c.wait_ready()

        assert job.alive
        job.signal(signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{job.pid}").exists(), what="circusd has reaped it")


def test_six_kills_in_a_row_are_each_made_good(tmp_path: Path) -> None:
    """Given one worker, when it is killed six times in one life, then each successor is forked, and all are counted."""
    watcher = Watcher(numprocesses=1, options=FAST_RESTARTS)
    with circusd(tmp_path, watchers=[watcher]) as c:
        forkserver(c)
        dead: list[int] = []
        for _ in range(6):
            dead += forked(c, 1, without=dead)
            kill(dead[-1])
        eventually(lambda: set(dead) <= {each.message["pid"] for each in c.failures()})


def test_thousands_of_forks_leave_nothing_in_the_forkserver(tmp_path: Path) -> None:
    """Given so many orders, no descriptor, no zombie and no memory is left of them in the forkserver."""
    with direct_forkserver(tmp_path) as (orders, server):
        for _ in range(50):
            fork_and_let_go(orders)
        eventually(lambda: not psutil.Process(server.pid).children())
        before = server.memory, len(open_files(server.pid))
        for _ in range(FORKS):
            fork_and_let_go(orders)

        # It still has to wait for the end of what it forked last.
        eventually(lambda: (len(open_files(server.pid)), psutil.Process(server.pid).children()) == (before[1], []))
        assert server.memory - before[0] < 256 * 1024, server.memory - before[0]


def test_a_flood_of_orders_leaves_nothing_and_the_next_one_is_carried_out(tmp_path: Path) -> None:
    """Given orders faster than they can be carried out, of which nobody awaits the answer, then their workers end."""
    with direct_forkserver(tmp_path) as (orders, server):
        before = len(open_files(server.pid))
        for _ in range(FORKS):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs, open(os.devnull, "wb") as null:
                socket.send_fds(orders, [ORDER], [theirs.fileno(), null.fileno(), null.fileno()])

        fork_and_let_go(orders)
        eventually(lambda: (len(open_files(server.pid)), psutil.Process(server.pid).children()) == (before, []))


OPENS_FILES = """
KEPT = []
def reopen():
    KEPT.extend(open(f"own-{number}.log", "a") for number in range(40))
    print("all are open")
os.register_at_fork(after_in_child=reopen)
def used():
    found = [os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)) for file in KEPT]
    print(f"kept: {all(found)} of {len(found)}", flush=True)
"""


def test_files_that_an_app_opens_in_each_fork_and_the_listener_take_no_place_of_each_others(tmp_path: Path) -> None:
    """Given a hook that opens logs after each fork, when workers serve, then each is still itself."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before=OPENS_FILES)
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = forked(c, 2)
        assert versions(c, pids) == {1}
        eventually(lambda: "kept: " in c.log(), what="a worker has looked at its files")
        assert "kept: False" not in c.log()
        assert "kept: True of 80" in c.log()  # the process between, and the worker


def test_another_python_in_the_place_of_its_own_ends_it(tmp_path: Path) -> None:
    """Given a virtualenv that is made anew with another Python, when a worker is ordered, then none is forked."""
    for folder in ("bin", f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"):
        (tmp_path / folder).mkdir(parents=True)
    base, python = Path(sys.executable).resolve(), tmp_path / "bin" / "python"
    (tmp_path / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (tmp_path / folder / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python.symlink_to(base)
    with direct_forkserver(tmp_path, str(python)) as (orders, _):
        fork_and_let_go(orders)

        shutil.copy2(base, tmp_path / "other")
        (tmp_path / "new").symlink_to("other")
        (tmp_path / "new").replace(python)

        eventually(lambda: answer_to_an_order(orders) == OUTDATED, what="it says that it is outdated")


def test_a_reload_makes_a_forkserver_of_its_own(tmp_path: Path) -> None:
    """Given worker.preload = server, then the workers of a reload come from another forkserver, and the first ends."""
    with circusd(tmp_path) as c:
        first, before = forkserver(c), forked(c, 2)

        reload(c, "done")

        forkserver(c, not_pid=first.pid)
        assert not set(forked(c, 2)) & set(before)
        eventually(lambda: not first.alive, what="the first one has ended")


VISITS = """
def visits(phase, facts):
    if (phase, facts["generation"]) == ("start", 2):
        print("visits", os.getpid(), len(gc.get_objects()), flush=True)
gc.callbacks.append(visits)
KEPT = [[number] for number in range(100_000)]
"""


def test_what_was_loaded_before_the_fork_is_left_alone_by_the_garbage_collector(tmp_path: Path) -> None:
    """Given that a collection writes into each object that it visits, then a worker visits none of what it shares."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before=VISITS)
    with circusd(tmp_path, watchers=[watcher]) as c:
        pids = forked(c, 2)
        assert versions(c, pids) == {1}
        found = {int(pid): int(number) for pid, number in re.findall(r"^visits (\d+) (\d+)$", c.log(), re.MULTILINE)}

    assert all(found[pid] < 10_000 for pid in pids), found


def test_a_burst_of_connections_goes_to_all_forked_workers(tmp_path: Path) -> None:
    """Given forty connections at once, fifty times, then the worker with the most of them has no more than 23 in the
    mean: on a crowded machine 14 to 20, and 27 to 36 where no worker has regard for its siblings."""
    with circusd(tmp_path, watchers=[simple(tmp_path, 4, **{"worker.preload": "server"})]) as c:
        forked(c, 4)

        def largest() -> int:
            with ExitStack() as stack:
                address = "127.0.0.1", c.watchers["web"].port
                made = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE)) for _ in range(40)]
                for connection in made:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answers = [b"".join(iter(lambda c=each: c.recv(4096), b"")) for each in made]  # type: ignore[misc]
            return Counter(json.loads(each.partition(b"\r\n\r\n")[2])[0] for each in answers).most_common(1)[0][1]

        found = sorted(largest() for _ in range(50))

    assert statistics.mean(found) <= 23, found
