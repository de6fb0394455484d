"""A real circusd with real workers, for one test or one file of tests.

    with circusd(tmp_path, numprocesses=2, options={"restart.delay": 0.2}) as c:
        c.wait_ready()
        os.kill(c.workers()[0], signal.SIGKILL)
        eventually(lambda: len(c.events.named("restart")) == 1)

Nothing here waits without a condition and a deadline, takes a fixed port, or ends a process that it did not start:
circusd gets a mark of the test's own in its environment, every process below inherits it, and the end of the ``with``
block kills what still carries it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, TypeVar

import psutil
from circus.client import CircusClient
from circus.exc import CallError

from xboard_circus.core.verdict import is_up, word_of
from xboard_circus.options.reading import parse_watcher

from . import forked_commands
from .bus import Caller, Event, Events
from .free_ports import free_port
from .processes import Process, end_marked, marked, process, queued, read_stat

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
# Seconds that bound a hang and claim nothing: how soon something comes on a crowded machine is nobody's promise.
PATIENCE = 90.0
COMMAND_ERROR = 5  # circus.commands.errors: the arbiter is busy with another command
ARM = "xboard_circus.plugins.guard.arm"
BUNDLE = {"xboard": "xboard_circus.plugins.bundle.Bundle"}
WORKER = "python -m xboard_circus.worker {app} --fd $(circus.sockets.{name}) --no-access-log {arguments}"
STOCK = f"{sys.executable} -m uvicorn {{app}} --fd $(circus.sockets.{{name}}) --no-access-log {{arguments}}"
UNWANTED = ("XBOARD_", "CIRCUS", "BACKEND_", "PYTHON", "UVICORN", "http_proxy", "https_proxy", "all_proxy")
PRELOAD = os.environ.get("XBOARD_TEST_PRELOAD", "")  # worker.preload where a test does not choose it
FORKSERVERS = int(PRELOAD != "off")  # of each watcher of our own worker whose test does not choose it
FAST_RESTARTS = {"restart.burst": 50, "restart.delay": 0.1, "restart.delay_max": 0.2}  # for tests that fail a lot
# The apps of the tests that neither import FastAPI nor are about what its import makes of a worker.
WITHOUT_FASTAPI = {"backend:app", "simple:app", "printing_app:app", "streams_app:app", "forking_app:app"}
WITHOUT_FASTAPI |= {"transfer_app:app", "setting_app:app", "leaking_app:app", "database_app:app"}
RUNNING: list[Circusd] = []  # those whose logs a failure report shows


def is_well(worker: Mapping[str, Any]) -> bool:
    """Say whether a worker of ``xboard_state`` is up and no probe says that it is sick or hung."""
    return is_up(worker) and worker["health"] not in ("sick", "hung")


def eventually(
    condition: Callable[[], T | None], *, timeout: float = PATIENCE, every: float = 0.02, what: str = ""
) -> T:
    """Return the first true value of *condition*; AssertionError that names it when *timeout* seconds pass without.

    What it raises counts as not yet: what it looks at may be in the making, half written, or gone. RuntimeError goes
    through at once, for what cannot come any more. What takes long is looked at less often, down to a fifth, and a look
    that takes long itself, such as a command, no more than a fifth of the time: the other tests lack what it costs.
    """
    began = time.monotonic()
    deadline = began + timeout
    while True:
        error: Exception | None = None
        value: object = None
        looks_at = time.monotonic()
        try:
            value = result = condition()
            if result:
                return result
        except RuntimeError:
            raise
        except Exception as raised:
            error = raised
        if time.monotonic() >= deadline:
            name = what or f"{condition.__qualname__} ({condition.__code__.co_firstlineno})"
            last = f"{type(error).__name__}: {error}" if error else repr(value)
            raise AssertionError(f"not within {timeout:g} s: {name}; last: {last}") from error
        now = time.monotonic()
        time.sleep(max(every * min(1 + 2 * (now - began), 5), min(4 * (now - looks_at), 1.0)))


def holds(condition: Callable[[], object], *, seconds: float, every: float = 0.05, what: str = "") -> None:
    """Assert that *condition* is true all along for *seconds*: for claims that something does not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what or f"ended early: {condition.__qualname__}"
        time.sleep(every)


def crowding() -> float:
    """How many times longer things may take here than on a machine of our own: 1 with up to two processes a core.

    By those that run now, or did on the average of a minute, which knows little yet of a load that has just begun.
    """
    average, _, _, running, _ = Path("/proc/loadavg").read_text().replace("/", " ").split()[:5]
    return max(1.0, max(float(average), int(running)) / (2 * (os.cpu_count() or 1)))


def time_to_start() -> float:
    """The `health.startup_timeout` of a test that waits for its end: as short as workers here come up within it."""
    return max(25.0, 8 * crowding())


@dataclass(frozen=True)
class Watcher:
    """One ``[watcher:NAME]`` of the test's ini, with a socket of its own unless *listens* is off.

    Attributes:
        command: In place of the worker; ``{port}`` ``{name}`` ``{python}`` are filled in.
        app: The ASGI app that the worker serves, and *arguments* what its command line gets besides.
        options: Further lines of the section: ours (``health.period``) and Circus's (``graceful_timeout``).
        env: Further environment of its processes.
        socket_options: Further lines of its ``[socket:NAME]``.
        told: What the backend is told before it starts; see `Circusd.set`.
        is_sound: The options are right. A wrong one counts as its default, and so would a test with a slip of the pen.
    """

    name: str = "web"
    numprocesses: int = 2
    armed: bool = True
    command: str = ""
    app: str = "backend:app"
    arguments: str = "--ws none"
    listens: bool = True
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    options: Mapping[str, object] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    socket_options: Mapping[str, object] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    is_sound: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether its workers do not need FastAPI, nor a forkserver that imports it."""
        return self.armed and not self.command and self.app in WITHOUT_FASTAPI

    def sections(self, folder: Path) -> Iterator[tuple[str, dict[str, object]]]:
        names = {"app": self.app, "name": self.name, "arguments": self.arguments, "port": self.port}
        command = self.command or (WORKER if self.armed else STOCK)
        lines: dict[str, object] = {
            "cmd": command.format(python=sys.executable, **names),
            "numprocesses": self.numprocesses,
            "copy_env": True,
            "use_sockets": self.listens,
            "priority": 2,  # before the plugins
            "stdout_stream.class": "FileStream",
            "stdout_stream.filename": folder / "logs" / f"{self.name}.log",
            "stderr_stream.class": "FileStream",
            "stderr_stream.filename": folder / "logs" / f"{self.name}.log",
        }
        if self.armed:
            lines["hooks.before_start"] = ARM
        if PRELOAD and self.armed and "xboard_circus.worker" in command:
            lines["worker.preload"] = PRELOAD
        yield f"watcher:{self.name}", {**lines, **self.options}
        yield f"env:{self.name}", {"BACKEND_DIR": folder / self.name, **self.env}
        if self.listens:
            # so_reuseport keeps Circus from binding it at start, before the port guard has looked at the port.
            place = {"host": self.host, "port": self.port, "so_reuseport": self.armed}
            yield f"socket:{self.name}", {**place, **self.socket_options}


@contextlib.contextmanager
def circusd_as(user: str | int, c: Circusd, *, python: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the circusd of *c*, which was not started, as another user. Takes root."""
    command = [python, "-m", "circus.circusd", str(c.ini)]
    with (c.folder / "circusd.out").open("wb") as output:
        theirs = subprocess.Popen(
            command,
            user=user,
            group=user,
            extra_groups=[],
            cwd=c.folder,
            env=c.environ(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield theirs
    finally:
        theirs.terminate()
        theirs.wait()


@contextlib.contextmanager
def circusd(
    folder: Path,
    *,
    watchers: Sequence[Watcher] = (),
    numprocesses: int = 2,
    options: Mapping[str, object] | None = None,
    armed: bool = True,
    plugins: Mapping[str, str] | None = None,
    check_delay: float = 5.0,
    circus: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    start: bool = True,
) -> Iterator[Circusd]:
    """Run circusd in *folder* with *watchers*, or with one called "web" of *numprocesses* and *options*.

    Without *start* there is only its ini, and whatever the test starts on that with the command line.
    """
    chosen = list(watchers) or [Watcher(numprocesses=numprocesses, options=options or {}, armed=armed)]
    main = {"check_delay": check_delay, **(circus or {})}
    running = Circusd(folder, watchers=chosen, plugins=plugins or {}, circus=main, env=env or {}, python=python)
    RUNNING.append(running)
    try:
        running.prepare()
        if start:
            running.start_again()
        yield running
    finally:
        try:
            running.close()
        finally:
            RUNNING.remove(running)
            if sys.exc_info()[0] is not None:
                print(running.report(), file=sys.stderr)


class Circusd:
    """One circusd.ini and the circusd that runs it; may be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        watchers: Sequence[Watcher],
        plugins: Mapping[str, str],
        circus: Mapping[str, object],
        env: Mapping[str, str],
        python: str,
    ) -> None:
        self.folder = folder.resolve()
        self.watchers = {watcher.name: watcher for watcher in watchers}
        self.plugins = dict(plugins)
        self.circus = dict(circus)
        self.extra_env = dict(env)
        self.python = python
        self.mark = uuid.uuid4().hex
        self.ini = self.folder / "circus.ini"
        self.runtime = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))  # short: a unix socket's path has 107 bytes
        self.runtime.chmod(0o711)
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.pubsub = f"tcp://127.0.0.1:{free_port()}"
        self.stats = f"tcp://127.0.0.1:{free_port()}"
        self.events = Events(self.pubsub)
        self._caller = Caller()
        self.past: list[Process] = []  # every circusd of this test, the running one last
        self._popen: subprocess.Popen[bytes] | None = None

    # -- its life --

    def prepare(self) -> None:
        """Write the ini, make the folders that it names, tell the backends what they are to do."""
        for name in ("logs", *self.watchers):
            (self.folder / name).mkdir(exist_ok=True)
        for watcher in self.watchers.values():
            if watcher.armed and watcher.is_sound:
                assert parse_watcher(watcher.options)[1] == []
            for setting, value in watcher.told.items():
                self.set(setting, value, watcher.name)
        self.write_ini()

    def start_again(self, output: int | None = None) -> None:
        """Start circusd on the ini as it is now, with its log or *output* as its own, and wait until it answers."""
        assert self._popen is None or self._popen.poll() is not None, "it still runs"
        command = [self.python, "-m", "circus.circusd", str(self.ini)]
        with (self.folder / "logs" / "circusd.log").open("ab") as log:
            # A session of its own, so that a Ctrl-C in the terminal ends the test and the test ends circusd.
            self._popen = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log if output is None else output,
                start_new_session=True,
            )
        self.past.append(process(self._popen.pid))
        eventually(self._answers, timeout=90, every=0.01, what="circusd answers")

    def start_if_ended(self) -> None:
        """Start circusd again where a test that shared it, or its failure, has ended it."""
        if self._popen is None or self._popen.poll() is not None:
            self.start_again()

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Run one watcher, which does not start by itself, for a while."""
        self.do("start", name=name, match="simple", waiting=True)
        try:
            yield
        finally:
            self.do("stop", name=name, match="simple", waiting=True)

    def _answers(self) -> bool:
        assert self._popen is not None
        if self._popen.poll() is not None:
            # Not an AssertionError: `eventually` would go on waiting for what cannot come.
            raise RuntimeError(f"circusd ended with {self._popen.returncode}\n{self.report()}")
        return bool(self._caller.call(self.endpoint, "numwatchers", {}, timeout=30, waits=False)["status"] == "ok")

    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.lower().startswith(_lower(UNWANTED))}
        paths = [str(HERE), *checkout()]
        marks = {"XBOARD_TEST": self.mark, "XBOARD_RUNTIME_DIR": str(self.runtime / "r")}
        environ = {**clean, **marks, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        for name, value in self.extra_env.items():
            # A folder in front of ours, not in place of ours.
            environ[name] = f"{value}{os.pathsep}{environ[name]}" if name == "PYTHONPATH" else value
        return environ

    def kill9(self) -> None:
        """SIGKILL to circusd itself; its children live on as orphans."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def wait_ended(self, timeout: float = PATIENCE) -> int:
        """Return circusd's exit code when it is gone with all its threads: the first may be a zombie before others."""
        assert self._popen is not None
        return self._popen.wait(timeout)

    def stop(self, timeout: float = PATIENCE) -> None:
        """The command ``quit``, and wait for the end."""
        if self._popen is None or self._popen.poll() is not None:
            return
        popen = self._popen

        def is_accepted() -> bool:
            # Its answer may come too late on a busy machine; then circusd is gone at the next try.
            return popen.poll() is not None or self.call("quit", timeout=20)["status"] == "ok"

        eventually(is_accepted, timeout=timeout, what="quit is accepted")
        popen.wait(timeout)

    def close(self) -> None:
        """End everything that this test started. What circusd leaves behind is no failure here: tests assert that.

        Nothing is asked to end by itself: that takes half a second, and minutes for all of the tests.
        """
        if self._popen is not None and self._popen.poll() is None:
            with contextlib.suppress(psutil.Error):
                circusd = psutil.Process(self._popen.pid)
                circusd.suspend()  # else it starts others meanwhile
                for each in [*circusd.children(recursive=True), circusd]:  # also those without our mark
                    with contextlib.suppress(psutil.Error):
                        each.kill()
        end_marked(XBOARD_TEST=self.mark, XBOARD_INSTANCE=self.instance)
        if self._popen is not None:
            self._popen.wait(PATIENCE)
        self._caller.close()
        self.events.close()
        shutil.rmtree(self.runtime, ignore_errors=True)

    # -- its ini --

    def write_ini(self, **changes: Mapping[str, object]) -> None:
        """Write the ini anew; *changes* are lines by section, ``__`` in its name for ``:``; a None drops a line."""
        sections = dict(self._sections())
        for name, lines in changes.items():
            sections.setdefault(name.replace("__", ":"), {}).update(lines)
        text = "".join(ini_section(name, lines) for name, lines in sections.items())
        self.ini.write_text(text)

    def _sections(self) -> Iterator[tuple[str, dict[str, object]]]:
        endpoints = {"endpoint": self.endpoint, "pubsub_endpoint": self.pubsub, "multicast_endpoint": ""}
        if self.circus.get("statsd"):
            endpoints["stats_endpoint"] = self.stats
        yield "circus", {**endpoints, **self.circus}
        for watcher in self.watchers.values():
            for name, lines in watcher.sections(self.folder):
                if name == f"env:{watcher.name}" and watcher.is_plain:
                    lines = {"PYTHONPATH": os.pathsep.join((str(HERE / "lean"), self.environ()["PYTHONPATH"])), **lines}
                yield name, lines
        for name, use in self.plugins.items():
            yield f"plugin:{name}", {"use": use, "copy_env": True, "copy_path": True}

    # -- commands and state --

    def call(self, command: str, *, timeout: float = 30.0, **properties: object) -> dict[str, Any]:
        """Send *command* and return the reply, whatever it says. CallError when none comes."""
        return self._caller.call(self.endpoint, command, properties, timeout=timeout)

    def do(self, command: str, *, timeout: float = PATIENCE, **properties: object) -> dict[str, Any]:
        """Send *command* until circusd is not busy with another, and insist on success."""

        def accepted() -> dict[str, Any] | None:
            reply = self.call(command, timeout=timeout, **properties)
            busy = reply["status"] == "error" and reply.get("errno") == COMMAND_ERROR
            return None if busy else reply

        reply = eventually(accepted, timeout=timeout, every=0.05, what=f"circusd takes {command}")
        assert reply["status"] == "ok", reply
        return reply

    def state(self) -> dict[str, Any]:
        """The reply to our ``xboard_state``."""
        reply = self.call("xboard_state")
        assert reply["status"] == "ok", reply
        return reply

    def watcher(self, name: str = "web") -> dict[str, Any]:
        """What ``xboard_state`` says of one watcher; LookupError when it is not there."""
        for watcher in self.state()["watchers"]:
            if watcher["name"] == name:
                return dict(watcher)
        raise LookupError(f"no watcher {name}")

    def worker(self, pid: int, name: str = "web") -> dict[str, Any]:
        """What ``xboard_state`` says of one worker; LookupError when it is not there."""
        for worker in self.watcher(name)["workers"]:
            if worker["pid"] == pid:
                return dict(worker)
        raise LookupError(f"no worker {pid} in {name}")

    def by_wid(self, name: str = "web") -> dict[int, int]:
        """The pid of each wid."""
        return {worker["wid"]: worker["pid"] for worker in self.watcher(name)["workers"]}

    def told(self, name: str, watcher: str = "web", *, after: int = 0) -> list[Event]:
        """Our own events called *name* behind that number, asked of circusd itself: none is still on its way."""
        kept = self.call("xboard_events", timeout=PATIENCE, after=after)["events"]  # of a crash loop, 10 MB
        came = time.monotonic()
        return [Event(of, kind, message, came) for of, kind, message in kept if (of, kind) == (watcher, name)]

    def last_told(self) -> int:
        """The number of the last of our own events: what a test finds after it is not its predecessor's."""
        return int(self.call("xboard_events", after=0)["last"])

    def failures(self, name: str = "web", *, after: int = 0) -> list[Event]:
        """The `restart` events that cost something: all but the commanded ones."""
        restarts = self.told("restart", name, after=after)
        return [event for event in restarts if event.message.get("cause") != "commanded"]

    def replace(self, pid: int, kind: str, name: str = "web", *, age: float = 0.0) -> dict[str, Any]:
        """Ask for a worker's replacement as the prober does; return the reply."""
        return self.call(
            "xboard_replace",
            name=name,
            pid=pid,
            started=process(pid).started,
            kind=kind,
            probed_at=time.monotonic() - age,
            reason="the test says so",
        )

    def status(self, name: str = "web") -> str:
        return str(self.call("status", name=name)["status"])

    def status_json(self) -> dict[str, Any]:
        """What ``xboard-circus status --json`` prints."""
        result = self.run_cli("status", "--json")
        reply: dict[str, Any] = json.loads(result.stdout)
        return reply

    def run_cli(self, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run ``xboard-circus ARGUMENTS -c INI`` in the folder of the test; see `forked_commands`."""
        words = [*arguments, "-c", str(self.ini)]
        if self.python == sys.executable and not forked_commands.at_start(self.extra_env):
            forked = forked_commands.run(words, cwd=self.folder, env=self.environ(), timeout=timeout)
            if forked is not None:
                return forked
        return self._run([self.python, "-m", "xboard_circus", *words], timeout)

    def run_circusctl(self, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        # By itself it waits 5 s for an answer, in which a crowded machine does not restart a worker.
        waits = ["--timeout", f"{timeout:.0f}"]
        command = [self.python, "-m", "circus.circusctl", "--endpoint", self.endpoint, *waits, *arguments]
        return self._run(command, timeout)

    def _run(self, command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environ(), capture_output=True, text=True, timeout=timeout, check=False
        )

    @contextlib.contextmanager
    def answering(self, within: float = 1.0, name: str = "web") -> Iterator[None]:
        """Ask for a status all along, and fail when an answer took longer than *within* seconds; see `Answers`."""
        with Answers(self, name) as answers:
            yield
            eventually(lambda: answers.times, what="circusd answers")
        assert answers.worst < within, f"an answer took {answers.worst:.2f} s (limit {within:g})"

    # -- processes --

    @property
    def pid(self) -> int:
        return self.past[-1].pid

    @property
    def instance(self) -> str:
        return hashlib.sha256(os.path.realpath(self.ini).encode()).hexdigest()[:12]

    def workers(self, name: str = "web") -> list[int]:
        """The pids that Circus lists and that live, oldest first; what it has not reaped yet is left out."""
        found = []
        for pid in self.call("list", name=name).get("pids", []):
            with contextlib.suppress(ProcessLookupError):
                found.append(process(pid))
        alive = [each for each in found if each.alive]
        return [each.pid for each in sorted(alive, key=lambda each: (each.started, each.pid))]

    def processes(self) -> list[Process]:
        """Everything alive that this test's circusd ever started, itself too."""
        return marked(XBOARD_TEST=self.mark)

    def forkservers(self) -> list[Process]:
        """The processes from which workers are forked, one for each watcher with `worker.preload`."""
        return [each for each in self.processes() if each.command == "xboard-circus forkserver"]

    def plugin(self, name: str) -> Process:
        """The process of ``[plugin:NAME]``."""
        return process(self.call("list", name=f"plugin:{name}")["pids"][0])

    def _told_ready(self, name: str) -> set[int]:
        """The pids of all whose app has ever told that it serves."""
        with contextlib.suppress(FileNotFoundError):
            return set(map(int, os.listdir(self.folder / name / "ready-at")))
        return set()

    def ready(self, name: str = "web") -> list[int]:
        """The pids whose app serves, by the app's own word and, where the watcher is armed, by circusd's."""
        told = self._told_ready(name)
        serving = [pid for pid in self.workers(name) if pid in told]
        if not self.watchers[name].armed:
            return serving
        up = {worker["pid"] for worker in self.watcher(name)["workers"] if is_well(worker)}
        return [pid for pid in serving if pid in up]

    def words(self, name: str = "web") -> list[str]:
        """The one word for each worker, as people are shown it, sorted."""
        return sorted(word_of(worker) for worker in self.watcher(name)["workers"])

    def word(self, pid: int, name: str = "web") -> str:
        """The one word for a worker; LookupError when it is not there."""
        return word_of(self.worker(pid, name))

    def verdict(self, name: str = "web") -> str:
        """The one word for the watcher."""
        return str(self.watcher(name)["verdict"]["word"])

    def wait_ready(self, number: int | None = None, name: str = "web", *, timeout: float = PATIENCE) -> list[int]:
        """Wait until *number* workers serve, all of the watcher's otherwise; return their pids, oldest first."""
        wanted = self.watchers[name].numprocesses if number is None else number

        def enough() -> list[int] | None:
            # Most looks come before that. Then circusd need not be asked, which takes 5 ms of a core for each of them.
            if sum(read_stat(pid) is not None for pid in self._told_ready(name)) < wanted:
                return None
            pids = self.ready(name)
            return pids if len(pids) == wanted else None

        return eventually(enough, timeout=timeout, what=f"{wanted} workers of {name} ready")

    # -- the backend and its traces --

    def url_of(self, name: str) -> str:
        watcher = self.watchers[name]
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(watcher.host, watcher.host)
        return f"http://{host}:{watcher.port}"

    @property
    def url(self) -> str:
        return self.url_of(next(iter(self.watchers)))

    def get(self, path: str = "/", *, name: str = "web", timeout: float = PATIENCE) -> str:
        """The body of one answer, over a new connection and no proxy."""
        with self.open(path, name=name, timeout=timeout) as answer:
            text: bytes = answer.read()
        return text.decode()

    def open(self, path: str = "/", *, name: str = "web", timeout: float = PATIENCE) -> HTTPResponse:
        """Send one request over a new connection and no proxy; return its answer when the head has come."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        answer: HTTPResponse = opener.open(self.url_of(name) + path, timeout=timeout)
        return answer

    def hold_each(self, pids: Sequence[int], name: str = "web") -> list[tuple[int, HTTPResponse]]:
        """Put a request in flight on each of *pids*, which ends when ``set("held", "")`` says so; see `finish`."""
        self.set("held", "yes", name)
        held: list[tuple[int, HTTPResponse]] = []

        def is_held_by_all() -> bool:
            answer = self.open("/held", name=name, timeout=PATIENCE)
            held.append((int(answer.readline()), answer))
            return {pid for pid, _ in held} >= set(pids)

        eventually(is_held_by_all, what=f"{pids} have a request each")
        return held

    def finish(self, held: Sequence[tuple[int, HTTPResponse]], name: str = "web") -> None:
        """Let the requests of `hold_each` end, and insist that each is answered to its end by who began it."""
        self.set("held", "", name)
        assert [int(answer.read()) for _, answer in held] == [pid for pid, _ in held]

    def serves(self, name: str = "web") -> bool:
        """One request is answered."""
        return self.get(name=name).isdigit()

    def set(self, setting: str, value: str, name: str = "web") -> None:
        """Tell the backend of watcher *name* how to behave; see backend.py. Empty puts it right again."""
        path = self.folder / name / setting
        if not value:
            path.unlink(missing_ok=True)
            return
        hidden = path.with_name(f".{path.name}")
        hidden.write_text(value)
        hidden.replace(path)  # in one step: the backend never reads half of it

    def tell(self, pid: int, order: str, name: str = "web") -> None:
        """Give one worker an order, which it carries out at once; see `backend.obey`."""
        self.set(f"do.pid-{pid}", order, name)

    def starts(self, name: str = "web") -> list[Start]:
        """Every time that the app was imported."""
        try:
            lines = (self.folder / name / "starts").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Start(int(pid), int(wid), float(at)) for pid, wid, at in map(str.split, lines)]

    def said(self, what: str, pid: int, name: str = "web") -> float | None:
        """When a worker told that it is ``ready`` or ``stopped``, on the monotonic clock; None when it did not."""
        try:
            return float((self.folder / name / f"{what}-at" / str(pid)).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def log(self, name: str = "web") -> str:
        """The log of a watcher, or of "circusd"."""
        try:
            return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def report(self, lines: int = 60) -> str:
        """The ends of all logs, for a person who wants to know why a test failed."""
        parts = [f"--- {self.ini}\n{self.ini.read_text() if self.ini.exists() else ''}"]
        for path in sorted((self.folder / "logs").glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path}", *tail]))
        parts.append("\n".join(["--- last events", *(str(event) for event in self.events.all()[-30:])]))
        return "\n".join(parts)


@dataclass(frozen=True)
class Start:
    """One import of the app; *at* is on the monotonic clock."""

    pid: int
    wid: int
    at: float


class Answers:
    """How long circusd takes to answer ``status``, asked 20 times a second from another thread.

    The time in which circusd, or who asks it, was ready to run and the machine had no core for it is left out: it tells
    of the other tests that run beside this one.
    """

    def __init__(self, running: Circusd, name: str) -> None:
        self.times: list[float] = []
        self._asked_at: float | None = None
        self._stop = threading.Event()
        self._client = CircusClient(endpoint=running.endpoint, timeout=30)
        self._name = name
        self._circusd = process(running.pid)
        self._thread = threading.Thread(target=self._ask, daemon=True, name="answers")

    def __enter__(self) -> Answers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(35)

    @property
    def worst(self) -> float:
        waiting = time.monotonic() - self._asked_at if self._asked_at else 0.0
        return max([*self.times, waiting])

    def _ask(self) -> None:
        while not self._stop.is_set():
            self._asked_at, queued = time.monotonic(), self._queued()
            try:
                self._client.send_message("status", name=self._name)
            except CallError:
                self._stop.set()
            self.times.append(time.monotonic() - self._asked_at - (self._queued() - queued))
            self._asked_at = None
            self._stop.wait(0.05)
        self._client.stop()

    def _queued(self) -> float:
        return self._circusd.queued + queued(Path("/proc/thread-self"))


def ini_section(name: str, lines: Mapping[str, object]) -> str:
    kept = {key: value for key, value in lines.items() if value is not None}
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items()) + "\n"


def checkout() -> list[str]:
    """Where the package that pytest sees lies, unless it is installed and found without help."""
    import xboard_circus

    root = Path(next(iter(xboard_circus.__path__))).resolve().parent
    return [] if root.name in ("site-packages", "dist-packages") else [str(root)]


def _lower(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(prefix.lower() for prefix in prefixes)


def read_one_line_of(command: list[str], *, env: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Read the first line of what *command* prints and close the pipe, as `head` does; return its code and errors."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        complaints = running.stderr.read()
        return running.wait(PATIENCE), complaints


def kill(pid: int, signum: int = signal.SIGKILL) -> float:
    """Send a signal to a process of the test; return when, on the monotonic clock.

    After a SIGKILL it is dead, and after a SIGSTOP all of its threads stand still: until its first one has had a turn,
    another goes on, which takes a while on a crowded machine.
    """
    at, killed = time.monotonic(), process(pid)
    assert killed.signal(signum), f"{pid} is gone already"
    if signum == signal.SIGKILL:
        eventually(lambda: not killed.alive, every=0.001, what=f"{pid} dies")
    if signum == signal.SIGSTOP:
        stopped = psutil.STATUS_STOPPED
        eventually(lambda: psutil.Process(pid).status() == stopped, every=0.001, what=f"{pid} stands still")
    return at


def fill(disk: Path) -> Path:
    """Leave no room on a small disk; return the file that takes it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler
