"""The worker as a process: what it tells on its private socket, and what becomes of its clients when it goes."""

import asyncio
import contextlib
import gc
import http.client
import importlib.util
import itertools
import json
import os
import pwd
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from uvicorn.config import WS_PROTOCOLS

import xboard_circus
from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, STATUSES, STRIDE
from xboard_circus.supervisor import handover
from xboard_circus.worker import EXIT_RECYCLED
from xboard_circus.worker.drain import stop_accepting

from .harness import crowding, eventually, holds
from .load import Load
from .processes import open_files, process

HERE = Path(__file__).parent
APP = "worker_app:app"
PLAIN = ("--loop", "asyncio", "--http", "h11")
FAST = ("--loop", "uvloop", "--http", "httptools")
CLOSES = b"connection: close"


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


NEEDS_FAST = pytest.mark.skipif(not installed("uvloop", "httptools"), reason="needs uvloop and httptools")
UPGRADE = (
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
NEEDS_WEBSOCKETS = pytest.mark.skipif(not installed("websockets"), reason="needs websockets")
each_stack = pytest.mark.parametrize(
    "stack", [pytest.param(PLAIN, id="asyncio-h11"), pytest.param(FAST, id="uvloop-httptools", marks=NEEDS_FAST)]
)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(90)
        self.sock.connect(str(self._path))


@dataclass
class Worker:
    """One worker process on the public socket of a `Place`."""

    popen: subprocess.Popen[bytes]
    token: str
    folder: Path
    stderr: Path
    port: int

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.stderr.read_text()

    @property
    def private(self) -> Path:
        return self.folder / f"{self.token}.sock"

    @property
    def ready_file(self) -> Path:
        return self.folder / f"{self.token}.ready"

    @property
    def up_file(self) -> Path:
        return self.folder / f"{self.token}.up"

    def raw(self, request: bytes) -> bytes:
        with contextlib.closing(UnixConnection(self.private)) as connection:
            connection.connect()
            connection.sock.sendall(request)
            return b"".join(iter(lambda: connection.sock.recv(65536), b""))

    def tell(self, query: str = "") -> dict[str, Any]:
        head, _, body = self.raw(f"GET /-/worker?{query} HTTP/1.1\r\n\r\n".encode()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200"), head
        told: dict[str, Any] = json.loads(body)
        return told

    def post(self, path: str) -> tuple[int, dict[str, Any]]:
        head, _, body = self.raw(f"POST {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def take_over(self, instance: str = "this", *, timeout: float = 30) -> socket.socket | None:
        return handover.take_over(self.private, instance=instance, address=("127.0.0.1", self.port), timeout=timeout)

    def state(self) -> str:
        state: str = self.tell()["state"]
        return state

    def wait_ready(self) -> "Worker":
        def ready() -> bool:
            assert self.popen.poll() is None, self.log
            return self.ready_file.exists()

        eventually(ready)
        return self

    def terminate(self) -> None:
        """Send SIGTERM and return when the drain has begun."""
        self.popen.terminate()
        eventually(lambda: self.state() == "draining")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def holds_public_socket(self) -> bool:
        return bool(set(open_files(self.pid).values()) & {f"socket:[{inode}]" for inode in listening_inodes(self.port)})


def listening_inodes(port: int) -> set[str]:
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {line[9] for line in lines if line[3] == "0A" and int(line[1].partition(":")[2], 16) == port}


class Place:
    """A public socket that the test holds, as circusd does, and the workers that were started on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = Path(tempfile.mkdtemp(prefix="xw-"))  # pytest's own paths are too long for a unix socket
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(512)
        self.port: int = self.listener.getsockname()[1]
        self.workers: list[Worker] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def environ(self, env: Mapping[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("XBOARD_", "UVICORN_"))}
        paths = [str(HERE), str(Path(xboard_circus.__file__).parent.parent)]
        ours = {"XBOARD_WORKER_DIR": str(self.runtime), "XBOARD_WATCHER": "web", "XBOARD_WID": "2"}
        ours["XBOARD_WORKER"] = self.token
        return {**clean, **ours, "PYTHONPATH": os.pathsep.join(paths), **env}

    @property
    def token(self) -> str:
        """The token of the worker that is started next."""
        return f"w{len(self.workers)}"

    def start(self, *arguments: str, app: str = APP, env: Mapping[str, str] | None = None, fd: bool = True) -> Worker:
        fds = [self.listener.fileno()] if fd else []
        command = [sys.executable, "-m", "xboard_circus.worker", app, "--no-access-log", *arguments]
        command += ["--fd", str(fds[0])] if fd else []
        return self.start_command(command, env=env or {}, fds=fds)

    def start_command(self, command: Sequence[str], *, env: Mapping[str, str], fds: Sequence[int]) -> Worker:
        stderr = self.folder / f"stderr-{len(self.workers)}"
        with stderr.open("wb") as file:
            popen = subprocess.Popen(command, env=self.environ(env), pass_fds=fds, stderr=file, cwd=self.folder)
        worker = Worker(popen, self.token, self.runtime, stderr, self.port)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        for worker in self.workers:
            worker.popen.kill()
            worker.popen.wait()
        self.listener.close()
        for path in self.runtime.iterdir():
            path.unlink()
        self.runtime.rmdir()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker for the tests that only ask."""
    place = Place(tmp_path_factory.mktemp("steady"))
    yield place.start().wait_ready()
    place.end()


def get(connection: socket.socket, path: str = "/", *headers: str) -> bytes:
    send_request(connection, path, *headers)
    return read_answer(connection)


def send_request(connection: socket.socket, path: str = "/", *headers: str) -> None:
    lines = [f"GET {path} HTTP/1.1", "host: localhost", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode())


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer that has a content-length; whole, or AssertionError."""
    answer = b""
    while True:
        head, separator, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if separator and length and len(body) >= int(length[1]):
            return answer
        more = connection.recv(65536)
        assert more, f"closed after {answer!r}"
        answer += more


# What it tells


def test_it_tells_who_and_how_it_is(steady: Worker) -> None:
    told = steady.tell("live=/&ready=/status/503&timeout=10")

    assert {name: told[name] for name in ("pid", "watcher", "wid", "state", "requests_active", "version")} == {
        "pid": steady.pid,
        "watcher": "web",
        "wid": 2,
        "state": "up",
        "requests_active": 0,
        "version": xboard_circus.__version__,
    }
    assert 0 < told["uptime"] < 600
    assert told["lag"] >= 0
    assert 10_000_000 < told["rss"] < 500_000_000
    assert (told["live"]["ok"], told["live"]["status"]) == (True, 200)
    assert (told["ready"]["ok"], told["ready"]["status"]) == (False, 503)


@pytest.mark.parametrize(
    ("path", "ok", "status", "reason"),
    [
        pytest.param("/status/204", True, 204, "", id="2xx is well"),
        pytest.param("/64k", True, 200, "", id="64 KiB is not too much"),
        pytest.param("/lifespan-state", True, 200, "", id="the app has the state of its lifespan"),
        pytest.param("/headers", True, 200, "", id="the app sees a host and a client"),
        pytest.param("/status/500", False, 500, "status 500", id="an error"),
        pytest.param(
            "/status/302", False, 302, 'status 302, a redirect to "/": it answers, but', id="a redirect is not followed"
        ),
        pytest.param("/huge", False, 200, "status 200, more than 64 KiB in the body", id="1 TB is cut off"),
        pytest.param(
            "/huge", False, 200, "status 200, more than 64 KiB in the body", id="and the app's call ends then"
        ),
        pytest.param("/drip", False, 200, "status 200, body not complete within 0.5 s", id="drop by drop"),
        pytest.param("/slow?s=60", False, None, "no answer within 0.5 s", id="no answer"),
        pytest.param("/raise", False, None, "RuntimeError: told to raise", id="an exception"),
        pytest.param("/exit", False, None, "SystemExit: 7", id="an exit does not end the worker"),
        pytest.param("/nothing", False, None, "incomplete answer", id="nothing"),
    ],
)
def test_what_the_app_says(steady: Worker, path: str, ok: bool, status: int | None, reason: str) -> None:
    limit = 0.5 if "0.5 s" in reason else 20.0  # as little as that is soon over on a crowded machine
    live = steady.tell(f"live={path}&timeout={limit}")["live"]

    assert (live["ok"], live["status"], live["reason"][: len(reason) or None]) == (ok, status, reason)
    assert live["latency"] < 15  # of a path that takes 20 s or a minute


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 404, id="another path"),
        pytest.param(b"POST /-/worker HTTP/1.1\r\n\r\n", 405, id="another method"),
        pytest.param(b"GET /-/worker?timeout=soon HTTP/1.1\r\n\r\n", 400, id="no number"),
        pytest.param(b"GET /-/worker?timeout=-1 HTTP/1.1\r\n\r\n", 400, id="no time"),
        pytest.param(b"GET /-/worker?live=http://other/ HTTP/1.1\r\n\r\n", 400, id="an address instead of a path"),
        pytest.param(b"GET /-/worker?" + b"x" * 9000, 431, id="too long"),
        pytest.param(b"\r\n\r\n", 404, id="nothing"),
    ],
)
def test_what_is_no_question(steady: Worker, request_head: bytes, status: int) -> None:
    assert steady.raw(request_head).startswith(f"HTTP/1.0 {status} ".encode())


def test_the_private_socket_is_for_its_user_alone(steady: Worker) -> None:
    assert steady.private.stat().st_mode & 0o777 == 0o600


def test_the_public_port_knows_nothing_of_it(steady: Worker) -> None:
    with steady.connect() as connection:
        assert get(connection, "/-/worker").endswith(str(steady.pid).encode())  # the app's own answer


def test_probes_of_one_path_share_one_call(steady: Worker) -> None:
    """Given a call that runs, when others ask for the same path, then they get its answer and the app is asked once."""
    answers: list[dict[str, Any]] = []
    path = "live=/status/200?s=3&timeout=20"
    probes = [threading.Thread(target=lambda: answers.append(steady.tell(path)["live"])) for _ in range(5)]
    before = calls_of(steady, "/status/200")

    for probe in probes:
        probe.start()
    for probe in probes:
        probe.join(90)

    assert [answer["ok"] for answer in answers] == [True] * 5
    assert calls_of(steady, "/status/200") == before + 1


def calls_of(worker: Worker, path: str) -> int:
    with worker.connect() as connection:
        return int(get(connection, f"/calls?of={path}").rpartition(b"\r\n")[2])


def test_a_call_that_does_not_end_is_not_followed_by_another(steady: Worker) -> None:
    """Given a path that can't be cancelled, when it is asked again, then that is said, until it has ended."""
    path = "live=/stuck?s=12"
    late = steady.tell(f"{path}&timeout=0.2")["live"]

    again = steady.tell(f"{path}&timeout=0.2")["live"]

    assert late["reason"] == "no answer within 0.2 s"
    assert re.fullmatch(r"the call of \d+\.\d+ s ago is still running", again["reason"])
    eventually(lambda: steady.tell(f"{path}&timeout=20")["live"]["ok"])


def test_who_hangs_up_leaves_nothing_behind(steady: Worker) -> None:
    def open_sockets() -> int:
        return sum(what.startswith("socket:") for what in open_files(steady.pid).values())

    before = open_sockets()
    for _ in range(20):
        with contextlib.closing(UnixConnection(steady.private)) as connection:
            connection.connect()
            connection.sock.sendall(b"GET /-/worker?live=/status/200?s=0.3&timeout=2 HTTP/1.1\r\n\r\n")

    eventually(lambda: open_sockets() <= before)
    assert "Exception in callback" not in steady.log
    assert "exception was never retrieved" not in steady.log


def test_a_full_thread_pool_shows(place: Place) -> None:
    worker = place.start().wait_ready()
    with worker.connect() as connection:
        send_request(connection, "/pool?n=60&s=10")

        told = eventually(lambda: (t := worker.tell("live=/status/200")) and t["threads_used"] and t)

        assert (told["threads_used"], told["threads_limit"]) == (40, 40)
        assert (told["live"]["ok"], told["requests_active"]) == (True, 1)


def test_a_blocked_loop_shows_as_lag(place: Place) -> None:
    worker = place.start().wait_ready()
    with worker.connect() as connection:
        get(connection, "/block?s=0.5")

    told = worker.tell()

    assert 0.3 < told["lag"] < 30
    assert told["requests_served"] == 1


@each_stack
def test_requests_are_counted_by_status_and_latency_and_probes_are_not(place: Place, stack: Sequence[str]) -> None:
    worker = place.start(*stack).wait_ready()
    with worker.connect() as connection:
        for path in ("/status/200", "/status/404", "/block?s=0.3"):
            get(connection, path)
    with worker.connect() as waiting:
        send_request(waiting, "/slow?s=60")

        told = eventually(lambda: (t := worker.tell("live=/status/500"))["traffic"]["active"] and t)

        traffic, numbers = told["traffic"], dict(zip(told["traffic"]["routes"], rows_of(told["traffic"]), strict=True))
        assert (traffic["active"], told["cpu"] > 0) == (1, True)
        # A plain ASGI app has no templates. What the row of all others counts, where there is one, adds up with these.
        assert {"GET /block", "GET /status/{id}"} <= set(numbers)
        row = [sum(column) for column in zip(*numbers.values(), strict=True)]
        assert row[: len(STATUSES)] == [2, 0, 1, 0]
        assert sum(row[FIRST_BUCKET:]) == 3
        assert sum(row[FIRST_BUCKET + BOUNDS.index(0.25) + 1 :]) >= 1  # it took more than 0.25 s


def rows_of(traffic: dict[str, Any]) -> list[list[int]]:
    counts = traffic["counts"]
    return [counts[at : at + STRIDE] for at in range(0, len(counts), STRIDE)]


# Start


@each_stack
def test_it_answers_while_the_lifespan_starts(place: Place, stack: tuple[str, ...]) -> None:
    """Given an app whose start waits, and whose ready path says no at first, then each step shows, ready last."""
    go, ready = place.folder / "go", place.folder / "ready"
    env = {"WORKER_APP_GO": str(go), "WORKER_APP_READY": str(ready), "XBOARD_READY_PATH": "/ready"}
    worker = place.start(*stack, env=env)
    told = eventually(lambda: worker.tell("live=/&ready=/ready"))
    assert (told["state"], told["live"], told["ready"]) == ("starting", None, None)

    go.touch()
    told = eventually(lambda: (t := worker.tell("live=/&ready=/ready"))["live"] and t)
    assert (told["live"]["ok"], told["ready"]["status"]) == (True, 503)
    eventually(worker.up_file.exists)
    assert worker.state() == "up"
    holds(lambda: not worker.ready_file.exists(), seconds=0.5)

    ready.touch()
    eventually(worker.ready_file.exists)
    assert worker.state() == "up"


def test_without_a_folder_it_is_plain_uvicorn(place: Place) -> None:
    worker = place.start("--port", "0", env={"XBOARD_WORKER_DIR": ""}, fd=False)

    port = eventually(lambda: re.search(r"running on http://127.0.0.1:(\d+)", worker.log))

    with socket.create_connection(("127.0.0.1", int(port[1]))) as connection:
        assert get(connection).endswith(str(worker.pid).encode())
    assert list(place.runtime.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "env", "code", "last_line"),
    [
        pytest.param(("--workers", "2"), {}, 2, "--workers does not work under Circus", id="workers"),
        pytest.param(("--reload",), {}, 2, "--reload does not work under Circus", id="reload"),
        pytest.param(("--no-such-option",), {}, 2, "No such option", id="an unknown option"),
        pytest.param((), {"WORKER_APP_DIE": "1"}, 1, "ModuleNotFoundError: No module named 'no_such", id="import"),
        pytest.param(("--fd", "99"), {}, 3, "--fd 99) can't be used", id="no such descriptor"),
        pytest.param(
            (), {"XBOARD_WORKER_DIR": "x" * 120}, 3, "set XBOARD_RUNTIME_DIR to a shorter folder", id="a long path"
        ),
    ],
)
def test_what_does_not_start(
    place: Place, arguments: tuple[str, ...], env: dict[str, str], code: int, last_line: str
) -> None:
    worker = place.start(*arguments, env=env, fd=False)

    assert worker.popen.wait(timeout=90) == code
    assert last_line in worker.log.splitlines()[-1]


def test_an_unbound_descriptor_is_refused(place: Place) -> None:
    """Given a socket that circusd has not bound yet, the worker does not make it listen on a port of the kernel's."""
    with socket.socket() as unbound:
        command = [sys.executable, "-m", "xboard_circus.worker", APP, "--fd", str(unbound.fileno())]
        worker = place.start_command(command, env={}, fds=[unbound.fileno()])

        assert worker.popen.wait(timeout=90) == 3
        assert "it is not bound yet" in worker.log
        assert unbound.getsockname()[1] == 0


@pytest.mark.parametrize("env", [{"WEB_CONCURRENCY": "4"}, {"UVICORN_WORKERS": "4"}, {"UVICORN_RELOAD": "1"}])
def test_the_number_of_workers_is_not_taken_from_the_environment(place: Place, env: dict[str, str]) -> None:
    worker = place.start(env=env).wait_ready()

    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
    assert children == ""


def test_limits_are_raised_as_far_as_they_may(steady: Worker) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    limits = Path(f"/proc/{steady.pid}/limits").read_text()

    files = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    assert re.search(rf"Max open files +{max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0])} ", limits)
    assert re.search(r"Max core file size +0 ", limits)
    assert ("The limit on open files is" in steady.log) == (files < 65536)


@each_stack
def test_answers_on_the_public_socket_leave_at_once(place: Place, stack: tuple[str, ...]) -> None:
    place.start(*stack).wait_ready()
    with place.workers[0].connect() as connection:
        assert get(connection, "/no-delay").endswith(b"1")


@each_stack
def test_busy_connections_do_not_keep_new_ones_out(place: Place, stack: tuple[str, ...]) -> None:
    """Given 20 connections that are always busy, when 20 new ones come, then these take few turns of the loop.

    uvloop accepts one connection a turn, and in each turn all that are busy get an answer.
    """
    place.start(*stack).wait_ready()
    answers: list[bytes] = []

    def keep_busy() -> None:
        with socket.create_connection(("127.0.0.1", place.port)) as connection, contextlib.suppress(OSError):
            while not done.is_set():
                answers.append(get(connection, "/block?s=0.005"))

    done = threading.Event()
    busy = [threading.Thread(target=keep_busy) for _ in range(20)]
    for thread in busy:
        thread.start()
    try:
        eventually(lambda: len(answers) > 100)
        with contextlib.ExitStack() as opened:
            new = [opened.enter_context(socket.create_connection(("127.0.0.1", place.port))) for _ in range(20)]
            for connection in new:
                send_request(connection)
            before = len(answers)  # not sooner: these lines may take a while, and the worker does not wait for them
            for connection in new:
                read_answer(connection)
        turns = (len(answers) - before) / len(busy)
    finally:
        done.set()
        for thread in busy:
            thread.join()

    assert turns < 14


def test_a_preflight_keeps_off_the_public_socket(place: Place) -> None:
    """Given XBOARD_PREFLIGHT, the worker gets ready and tells so, and does not so much as hold the public socket."""
    worker = place.start(env={"XBOARD_PREFLIGHT": "1"}).wait_ready()

    assert worker.tell("live=/")["live"]["ok"]
    assert not worker.holds_public_socket()
    worker.popen.terminate()
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM


def test_sigabrt_leaves_the_stack_of_the_blocked_line(place: Place) -> None:
    worker = place.start().wait_ready()
    with worker.connect() as connection:
        send_request(connection, "/block?s=600")
        eventually(lambda: blocked(worker))

        worker.popen.send_signal(signal.SIGABRT)

        assert worker.popen.wait(timeout=90) == -signal.SIGABRT
    assert "in block_the_loop" in worker.log


def blocked(worker: Worker) -> bool:
    with contextlib.closing(UnixConnection(worker.private)) as connection:
        connection.connect()
        connection.sock.settimeout(3)  # as long as no sound worker takes
        connection.sock.sendall(b"GET /-/worker HTTP/1.1\r\n\r\n")
        try:
            connection.sock.recv(1)
        except TimeoutError:
            return True
    return False


@each_stack
def test_forked_children_hold_neither_the_listener_nor_a_connection(place: Place, stack: tuple[str, ...]) -> None:
    """Given an app that forks children, then none of them holds a socket of the worker's, and the worker goes on."""
    worker = place.start(*stack, app="forking_app:app").wait_ready()
    with worker.connect() as client:
        children = [int(pid) for pid in get(client, "/fork").rpartition(b"\r\n")[2].split()]
        try:
            assert len(children) == 2
            ours = sockets_of(worker.pid)
            assert len(ours) >= 3  # the listener, the private one, the connection
            listeners = {f"socket:[{inode}]" for inode in listening_inodes(worker.port)}
            assert listeners <= ours
            for child in children:
                assert not sockets_of(child) & (listeners | connections_of(worker))
            assert get(client).endswith(b"ok")
            assert worker.state() == "up"
        finally:
            for child in children:
                with contextlib.suppress(ProcessLookupError):  # a pool ends the others when one of them has ended
                    process(child).signal(signal.SIGKILL)


def sockets_of(pid: int) -> set[str]:
    return {what for what in open_files(pid).values() if what.startswith("socket:")}


def connections_of(worker: Worker) -> set[str]:
    """The established connections to the public port, as their inodes in /proc."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    port = f"{worker.port:04X}"
    return {f"socket:[{line[9]}]" for line in lines if line[3] == "01" and line[1].endswith(port)}


@each_stack
def test_a_lifespan_that_fails_has_the_last_word_whoever_asks_meanwhile(place: Place, stack: tuple[str, ...]) -> None:
    """Given a probe that is under way, when the lifespan raises, then the log shows that error and none of ours."""
    go = place.folder / "go"
    (place.folder / "failing_app.py").write_text(
        "import asyncio, os, pathlib\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    while not pathlib.Path(os.environ['GO']).exists():\n"
        "        await asyncio.sleep(0.01)\n"
        "    raise RuntimeError('no database')\n"
    )
    worker = place.start(*stack, "--lifespan", "on", app="failing_app:app", env={"GO": str(go)})
    eventually(worker.tell)
    with contextlib.closing(UnixConnection(worker.private)) as asking:
        asking.connect()
        asking.sock.sendall(b"GET /-/worker HTTP/1.1\r\n")  # not whole: the worker waits for the rest
        eventually(worker.tell)

        go.touch()

        assert worker.popen.wait(timeout=90) == 3
    assert "no database" in worker.log
    assert "CancelledError" not in worker.log
    assert "private_socket" not in worker.log


# Handover


class Gone:
    """A circusd that was killed; what a worker has to know of it and of its instance."""

    def __init__(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as circusd:
            self.env = {"XBOARD_CIRCUSD": f"{circusd.pid}:{process(circusd.pid).started}", "XBOARD_INSTANCE": "this"}
            circusd.kill()


@contextlib.contextmanager
def nothing_leaked() -> Iterator[None]:
    gc.collect()  # what an earlier test left may hold descriptors that are closed meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def user(name: str) -> Iterator[None]:
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@each_stack
def test_the_port_outlives_the_worker_that_hands_it_over(place: Place, stack: tuple[str, ...]) -> None:
    """Given a worker whose circusd is gone, when another takes its socket over while clients come, then each of them
    is answered, by the worker or by the one that is started on what was handed over."""
    worker = place.start(*stack, env=Gone().env).wait_ready()
    place.listener.close()  # as circusd's end does
    with Load(place.url, rate=200, timeout=60) as load:  # a crowded machine may answer late
        eventually(lambda: load.answered > 20)

        taken = worker.take_over()

        assert taken is not None
        assert (taken.getsockname(), taken.get_inheritable()) == (("127.0.0.1", place.port), False)
        place.listener = taken
        answered = load.answered
        eventually(lambda: load.answered > answered + 20)
        successor = place.start(*stack).wait_ready()
        worker.popen.terminate()
        assert worker.popen.wait(timeout=90) == -signal.SIGTERM
        answered = load.answered
        eventually(lambda: load.answered > answered + 20)

    assert load.lost == []
    assert set(load.workers) == {worker.pid, successor.pid}


def test_a_worker_that_starts_hands_the_port_over_too(place: Place) -> None:
    starting = place.start(env={**Gone().env, "WORKER_APP_GO": str(place.folder / "go")})
    eventually(lambda: "Waiting for application startup" in starting.log)

    taken = starting.take_over()
    assert taken is not None
    taken.close()


@pytest.mark.parametrize(
    ("env", "query", "answer"),
    [
        pytest.param({}, "?instance=other", (403, "another instance's"), id="another instance"),
        pytest.param({}, "", (403, "another instance's"), id="no instance"),
        pytest.param({"XBOARD_INSTANCE": ""}, "?instance=", (403, "another instance's"), id="a worker of no instance"),
        pytest.param(
            {"XBOARD_CIRCUSD": ""}, None, (409, "no circusd started this worker"), id="a worker of no circusd"
        ),
        pytest.param({"XBOARD_CIRCUSD": "{here}"}, None, (409, "its circusd, pid {pid}, lives"), id="circusd lives"),
        pytest.param({"XBOARD_PREFLIGHT": "1"}, None, (409, "it has no listening socket of "), id="it does not listen"),
    ],
)
def test_to_whom_the_port_is_not_handed_over(
    place: Place, env: dict[str, str], query: str | None, answer: tuple[int, str]
) -> None:
    here = f"{os.getpid()}:{process(os.getpid()).started}"
    env = {**Gone().env, **{name: value.format(here=here) for name, value in env.items()}}
    worker = place.start(env=env).wait_ready()
    query = "?instance=this" if query is None else query

    status, told = worker.post(f"/-/handover{query}")

    assert (status, told["error"][: len(answer[1].format(pid=os.getpid()))]) == (
        answer[0],
        answer[1].format(pid=os.getpid()),
    )
    with nothing_leaked():
        assert worker.take_over(query.partition("=")[2]) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_does_not_get_the_port(place: Place) -> None:
    """Given a private socket that somebody opened to all, then the worker itself tells other users from its own."""
    worker = place.start(env=Gone().env).wait_ready()
    place.runtime.chmod(0o755)
    worker.private.chmod(0o666)

    with nothing_leaked(), user("nobody"):
        assert worker.post("/-/handover?instance=this") == (403, {"error": "another user's"})
        assert worker.take_over() is None
    with contextlib.closing(worker.take_over() or socket.socket()) as taken:
        assert taken.getsockname()[1] == place.port


def test_a_worker_that_drains_does_not_hand_the_port_over(place: Place) -> None:
    worker = place.start(env=Gone().env).wait_ready()
    with worker.connect() as busy:
        send_request(busy, "/slow?s=4")
        eventually(lambda: worker.tell()["requests_active"] == 1)
        worker.terminate()

        assert worker.post("/-/handover?instance=this") == (409, {"error": "it was ordered to leave"})
        assert worker.take_over() is None


def test_the_worker_goes_on_when_it_is_asked_with_get(steady: Worker) -> None:
    assert steady.raw(b"GET /-/handover?instance=this HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 405 ")


OK = b"HTTP/1.0 200 -\r\n\r\n{}"
Answering = Callable[[socket.socket, socket.socket], object]


def listening(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    sock.listen()
    return sock


def send_another(connection: socket.socket, another: socket.socket) -> None:
    with another:
        socket.send_fds(connection, [OK], [another.fileno()])


@pytest.mark.parametrize(
    ("answer", "timeout"),
    [
        pytest.param(lambda to, sock: to.sendall(OK), 30, id="no descriptor"),
        pytest.param(lambda to, sock: socket.send_fds(to, [OK], [sock.fileno()] * 2), 30, id="two descriptors"),
        pytest.param(lambda to, sock: socket.send_fds(to, [OK], [sock.fileno()] * 40), 30, id="no room for so many"),
        pytest.param(lambda to, sock: socket.send_fds(to, [b"HTTP/1.0 409 -\r\n\r\n{}"], [sock.fileno()]), 30, id="no"),
        pytest.param(lambda to, sock: socket.send_fds(to, [b"what?"], [sock.fileno()]), 30, id="no HTTP"),
        pytest.param(lambda to, sock: socket.send_fds(to, [OK], [0]), 30, id="no socket"),
        pytest.param(lambda to, sock: send_another(to, listening()), 30, id="another port"),
        pytest.param(lambda to, sock: send_another(to, listening(host="127.0.0.2")), 30, id="another host"),
        pytest.param(lambda to, sock: send_another(to, socket.socket()), 30, id="it does not listen"),
        pytest.param(lambda to, sock: send_another(to, socket.socket(type=socket.SOCK_DGRAM)), 30, id="datagrams"),
        pytest.param(lambda to, sock: send_another(to, socket.socket(socket.AF_UNIX)), 30, id="a unix socket"),
        pytest.param(lambda to, sock: (socket.send_fds(to, [OK], [sock.fileno()]), to.recv(1)), 2, id="no end"),
    ],
)
def test_what_is_not_taken_over(answer: Answering, timeout: float) -> None:
    """Given something that poses as a worker, then nothing is taken from it, and no descriptor is left behind."""
    with (
        tempfile.TemporaryDirectory(prefix="xw-") as folder,
        listening() as sock,
        socket.socket(socket.AF_UNIX) as poser,
        nothing_leaked(),
    ):
        path = Path(folder, "1.sock")
        poser.bind(str(path))
        poser.listen()

        def pose() -> None:
            with poser.accept()[0] as connection:
                connection.recv(4096)
                answer(connection, sock)

        thread = threading.Thread(target=pose)
        thread.start()
        taken = handover.take_over(path, instance="this", address=sock.getsockname(), timeout=timeout)
        thread.join(90)

    assert taken is None


def test_a_worker_that_does_not_answer_is_given_up_in_time(place: Place) -> None:
    worker = place.start(env=Gone().env).wait_ready()
    worker.popen.send_signal(signal.SIGSTOP)
    began = time.monotonic()

    with nothing_leaked():
        assert worker.take_over(timeout=1) is None

    assert 0.9 < time.monotonic() - began < 30
    assert handover.take_over(place.runtime / "none.sock", instance="this", address=("127.0.0.1", 1)) is None


@pytest.mark.parametrize(
    ("bound", "wanted", "is_it"),
    [
        pytest.param("0.0.0.0", "", True, id="all of IPv4"),
        pytest.param("0.0.0.0", "127.0.0.1", False, id="more than is wanted"),
        pytest.param("127.0.0.1", "0.0.0.0", False, id="less than is wanted"),
        pytest.param("::", "::", True, id="all of IPv6"),
        pytest.param("::", "0.0.0.0", False, id="another family"),
        pytest.param("::1", "0:0::1", True, id="another way to write it"),
        pytest.param("127.0.0.1", "localhost", False, id="a name is no address"),
    ],
)
def test_where_a_listener_listens(bound: str, wanted: str, is_it: bool) -> None:
    with listening(socket.AF_INET6 if ":" in bound else socket.AF_INET, bound) as sock:
        assert handover.listens_on(sock, (wanted, sock.getsockname()[1])) is is_it


def test_candidates_are_the_sockets_on_which_somebody_listens(place: Place) -> None:
    with contextlib.ExitStack() as bound:
        for name in ("b.sock", "a.sock", "dead.sock", "a.sock.old"):
            sock = bound.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(place.runtime / name))
            if name != "dead.sock":
                sock.listen()
        (place.runtime / "file.sock").touch()

        assert set(handover.candidates(place.runtime)) == {place.runtime / "a.sock", place.runtime / "b.sock"}
        place.runtime.joinpath("a.up").touch()
        assert handover.candidates(place.runtime, ["b", "gone"])[0] == place.runtime / "b.sock"
    assert handover.candidates(place.folder / "none") == []


# End


def test_it_ends_by_the_signal_and_leaves_no_files(place: Place) -> None:
    worker = place.start().wait_ready()

    worker.popen.terminate()

    assert worker.popen.wait(timeout=90) == -signal.SIGTERM
    assert list(place.runtime.iterdir()) == []


def test_a_recycled_worker_says_so_by_its_exit_code(place: Place) -> None:
    worker = place.start("--limit-max-requests", "3").wait_ready()

    for _ in range(3):
        with worker.connect() as connection:
            get(connection, "/", "connection: close")

    assert worker.popen.wait(timeout=90) == EXIT_RECYCLED
    assert list(place.runtime.iterdir()) == []


@NEEDS_WEBSOCKETS
@each_stack
def test_a_client_that_does_not_read_its_websocket_makes_no_crash_of_the_end(
    place: Place, stack: tuple[str, ...]
) -> None:
    """Given a WebSocket that the app fills and its client does not read, when the worker is recycled, then at the
    drain limit the lifespan ends, and the exit code says so: uvicorn's shutdown closed it a second time, and raised."""
    worker = place.start(*stack, "--limit-max-requests", "1", "--timeout-graceful-shutdown", "1").wait_ready()
    with worker.connect() as unread, worker.connect() as connection:
        send_request(unread, "/huge", *UPGRADE)
        assert unread.recv(12) == b"HTTP/1.1 101"
        get(connection, "/", "connection: close")

        assert worker.popen.wait(timeout=90) == EXIT_RECYCLED
    assert "Application shutdown complete." in worker.log
    assert list(place.runtime.iterdir()) == []


@each_stack
def test_open_connections_get_one_more_answer(place: Place, stack: tuple[str, ...]) -> None:
    """Given one connection that was answered, one that was never read and one whose request runs, when the worker is
    told to go, then each gets an answer that closes it, and the listener is closed at once."""
    worker = place.start(*stack).wait_ready()
    with worker.connect() as idle, worker.connect() as unread, worker.connect() as busy:
        get(idle)
        send_request(busy, "/slow?s=4")
        eventually(lambda: worker.tell()["requests_active"] == 1)

        worker.terminate()

        eventually(lambda: not worker.holds_public_socket())
        assert all(CLOSES in answer for answer in (get(idle), get(unread), read_answer(busy)))
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM
    assert "Traceback" not in worker.log


@each_stack
def test_a_request_of_which_a_part_has_arrived_is_waited_for(place: Place, stack: tuple[str, ...]) -> None:
    """Given half a request, when the time of idle connections is over, then the idle one is closed and this one not."""
    worker = place.start(*stack, "--timeout-keep-alive", "0").wait_ready()
    with worker.connect() as idle, worker.connect() as half:
        half.sendall(b"GET / HTTP/1.1\r\nhost: loc")
        worker.terminate()
        assert idle.recv(1) == b""  # closed after timeout_keep_alive + 1 s

        half.sendall(b"alhost\r\n\r\n")

        assert CLOSES in read_answer(half)
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM


def certified(place: Place) -> tuple[Path, ssl.SSLContext]:
    """Return the certificate of a worker, and what a client that trusts it connects with."""
    certificate, authority = place.folder / "certificate.pem", trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return certificate, context


@each_stack
def test_a_handshake_that_takes_long_is_waited_for(place: Place, stack: tuple[str, ...]) -> None:
    """Given a client that has connected and one that has hung up, of a worker with TLS, when the handshake comes two
    seconds after the drain has begun, then the client is answered, and the end does not wait for the other."""
    certificate, context = certified(place)
    worker = place.start(*stack, "--ssl-certfile", str(certificate)).wait_ready()
    before = sockets_of(worker.pid)
    with worker.connect() as connected:
        worker.connect().close()
        eventually(lambda: len(sockets_of(worker.pid) - before) == 1, what="one is accepted, the other is gone")
        worker.terminate()
        holds(lambda: worker.popen.poll() is None, seconds=2)

        with context.wrap_socket(connected, server_hostname="localhost") as late:
            assert CLOSES in get(late)
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM
    assert "Traceback" not in worker.log


@each_stack
@pytest.mark.parametrize("shakes_hands", [False, True], ids=["no handshake", "no request and no goodbye"])
def test_silent_clients_of_a_worker_with_tls_leave_descriptors_to_others(
    place: Place, stack: tuple[str, ...], shakes_hands: bool
) -> None:
    """Given three times as many clients as a worker with TLS has descriptors, that connect and do no more, or end the
    handshake and do no more, then descriptors never run out, and another client is answered."""
    certificate, context = certified(place)
    few = ["sh", "-c", 'ulimit -n 128; exec "$0" "$@"', sys.executable, "-m", "xboard_circus.worker", APP, *stack]
    fd = place.listener.fileno()
    command = [*few, "--no-access-log", "--ssl-certfile", str(certificate), "--fd", str(fd)]
    worker = place.start_command(command, env={}, fds=[fd]).wait_ready()
    with contextlib.ExitStack() as held:
        for number in range(384):
            client = held.enter_context(worker.connect())
            if shakes_hands:
                held.enter_context(context.wrap_socket(client, server_hostname="localhost"))
            if number % 8 == 7:  # an answer after every eight: all of them are accepted
                with worker.connect() as other, context.wrap_socket(other, server_hostname="localhost") as other:
                    assert get(other).startswith(b"HTTP/1.1 200 ")
                eventually(lambda: len(sockets_of(worker.pid)) < 100, what="descriptors are free")
    assert "No connection can be accepted" not in worker.log
    assert "Traceback" not in worker.log


def test_a_second_sigterm_changes_nothing(place: Place) -> None:
    worker = place.start().wait_ready()
    with worker.connect() as busy:
        send_request(busy, "/slow?s=4")
        eventually(lambda: worker.tell()["requests_active"] == 1)
        worker.terminate()

        worker.popen.terminate()

        assert CLOSES in read_answer(busy)
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM


def test_a_second_sigint_ends_the_drain(place: Place) -> None:
    worker = place.start().wait_ready()
    with worker.connect() as busy:
        send_request(busy, "/slow?s=600")
        eventually(lambda: worker.tell()["requests_active"] == 1)
        worker.popen.send_signal(signal.SIGINT)
        eventually(lambda: worker.state() == "draining")

        worker.popen.send_signal(signal.SIGINT)

        worker.popen.wait(timeout=90)


@each_stack
def test_event_streams_end_whole_at_the_limit(place: Place, stack: tuple[str, ...]) -> None:
    """Given an event stream and another endless answer, at the limit the one ends as its client expects, and the other
    visibly cut off; the app is told, and nothing is logged as its error."""
    worker = place.start(*stack, "--timeout-graceful-shutdown", "3").wait_ready()
    with worker.connect() as events, worker.connect() as drip:
        send_request(events, "/events", "accept: text/event-stream")
        send_request(drip, "/drip")
        eventually(lambda: worker.tell()["requests_active"] == 2)

        worker.popen.terminate()

        assert b"".join(iter(lambda: events.recv(65536), b"")).endswith(b"data: tick\n\n\r\n0\r\n\r\n")
        assert not read_until_cut(drip).endswith(b"0\r\n\r\n")
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM
    assert worker.log.count("Traceback") <= 1  # of the answer that was cancelled


def read_until_cut(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            answer += more
    return answer


@each_stack
def test_a_request_that_is_cut_at_the_limit_is_counted_in_the_log(place: Place, stack: tuple[str, ...]) -> None:
    """Given two requests that take longer than the drain, then the last word says how many were cut, and the cure."""
    worker = place.start(*stack, "--timeout-graceful-shutdown", "1").wait_ready()
    with worker.connect() as one, worker.connect() as other, worker.connect() as idle:
        get(idle)
        send_request(one, "/slow?s=60")
        send_request(other, "/drip")
        eventually(lambda: worker.tell()["requests_active"] == 2)

        worker.popen.terminate()
        assert worker.popen.wait(timeout=90) == -signal.SIGTERM

    told = "Cut 2 request(s) at the drain limit of 1 s; raise --timeout-graceful-shutdown / graceful_timeout"
    assert told in worker.log
    assert "Traceback" not in worker.log.partition(told)[2]


@NEEDS_WEBSOCKETS
@pytest.mark.parametrize("protocol", sorted({"websockets", "websockets-sansio"} & WS_PROTOCOLS.keys()))
@each_stack
def test_websockets_are_closed_with_1012_spread_over_the_drain(
    place: Place, stack: tuple[str, ...], protocol: str
) -> None:
    """Given an open WebSocket and one that is opened during the drain on a connection made before, then this works
    until its turn comes, both are closed with 1012, service restart, and the drain is over with the last."""
    from websockets.sync.client import connect

    options = ("--ws", protocol, "--timeout-graceful-shutdown", "60")
    worker = place.start(*stack, *options, env={"XBOARD_WEBSOCKET_SPREAD": "8"}).wait_ready()
    uri = f"ws://127.0.0.1:{worker.port}/"
    with connect(uri) as open_before, worker.connect() as unread:
        worker.terminate()
        assert close_code(open_before) == 1012
        with connect(uri, sock=unread) as opened_after:
            opened_after.send("still there?")
            assert opened_after.recv(timeout=30) == "still there?"
            assert close_code(opened_after) == 1012
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM
    assert "Traceback" not in worker.log


def close_code(client: Any) -> int | None:
    """Wait until the WebSocket is closed; return the code that its server gave."""
    from websockets.exceptions import ConnectionClosed

    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=60)
    return None if closed.value.rcvd is None else closed.value.rcvd.code


@NEEDS_WEBSOCKETS
@each_stack
def test_twenty_websockets_are_closed_one_after_the_other_and_a_request_keeps_its_time(
    place: Place, stack: tuple[str, ...]
) -> None:
    """Given 20 WebSockets and a request of 10 s, when the worker drains over 2 s, then all hear 1012 in several steps
    before the answer of the request is whole, and the worker ends with that, long before the drain limit."""
    from websockets.sync.client import connect

    env = {"XBOARD_WEBSOCKET_SPREAD": "2"}
    worker = place.start(*stack, "--timeout-graceful-shutdown", "60", env=env).wait_ready()
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(21) as pool:
        clients = [opened.enter_context(connect(f"ws://127.0.0.1:{worker.port}/")) for _ in range(20)]
        slow = opened.enter_context(worker.connect())
        send_request(slow, "/slow?s=10")
        eventually(lambda: worker.tell()["requests_active"] == 21)

        def closed_at(client: Any) -> tuple[int | None, float]:
            return close_code(client), time.monotonic()

        waiting = [pool.submit(closed_at, client) for client in clients]
        answer = pool.submit(lambda: (read_until_cut(slow), time.monotonic()))
        worker.terminate()
        heard = [each.result(timeout=60) for each in waiting]
        body, answered_at = answer.result(timeout=60)

    assert {code for code, _ in heard} == {1012}
    moments = sorted(at for _, at in heard)
    steps = 1 + sum(later - earlier > 0.02 for earlier, later in itertools.pairwise(moments))
    assert steps >= 5, moments
    assert moments[-1] < answered_at
    assert body.startswith(b"HTTP/1.1 200")
    assert worker.popen.wait(timeout=90) == -signal.SIGTERM


@pytest.mark.parametrize("turns", range(20, 24))
def test_what_asyncio_has_accepted_is_not_lost_with_the_listener(turns: int) -> None:
    """Given one new connection in each turn of the loop, when the listener is closed in one of them, then every
    connection was made or still waits in the kernel. A plain ``close`` resets those accepted in that turn."""
    made: list[asyncio.BaseTransport] = []
    clients: list[socket.socket] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def close_under_load(listener: socket.socket) -> None:
        async def knock() -> None:
            while True:
                clients.append(socket.create_connection(keeper.getsockname()))
                await asyncio.sleep(0)

        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        knocking = asyncio.create_task(knock())
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop_accepting([server], [listener])
        for _ in range(10):
            await asyncio.sleep(0)
        knocking.cancel()
        for transport in made:
            transport.close()
        await asyncio.sleep(0)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        with socket.socket(fileno=os.dup(listener.fileno())) as keeper:  # as circusd does
            asyncio.run(close_under_load(listener))
            waiting = count_waiting(keeper)
    for client in clients:
        client.close()

    assert made
    assert waiting
    assert len(made) + waiting == len(clients)


def count_waiting(listener: socket.socket) -> int:
    listener.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@each_stack
def test_no_request_is_lost_when_a_worker_is_told_to_go(place: Place, stack: tuple[str, ...]) -> None:
    """Given two workers on one socket, new connections and kept-alive ones with gaps of 5 to 1000 ms between their
    requests, when the workers are replaced one after the other, then every request is answered."""
    keep_alive = ("--timeout-keep-alive", "10")  # longer than any gap of the clients, who use none idle for IDLE_WITHIN
    workers = [place.start(*stack, *keep_alive).wait_ready() for _ in range(2)]
    # What no machine has the time to answer would still be waiting when the drain is over.
    slower = crowding()
    new, often, more = (rate / slower for rate in (100, 200, 100))
    seldom = 10  # as ever: gaps as long as the time-out of kept-alive connections would meet uvicorn's own close
    loads = [
        Load(place.url, rate=new, connections=None),
        Load(place.url, rate=often, connections=1),
        Load(place.url, rate=more, connections=4),
        Load(place.url, rate=seldom, connections=10),
    ]
    with contextlib.ExitStack() as running:
        for load in loads:
            running.enter_context(load)
        eventually(lambda: all(load.answered > 5 for load in loads))
        for worker in workers:
            place.start(*stack, *keep_alive).wait_ready()
            worker.popen.terminate()
            assert worker.popen.wait(timeout=90) == -signal.SIGTERM

    assert {worker.pid for worker in workers} <= set().union(*(load.workers for load in loads))
    assert [load.lost for load in loads] == [[]] * 4
    assert sum(load.answered for load in loads) > 500 / slower


PRINTS = """
import os, sys
from xboard_circus.worker.forsaken import outlive_output
outlive_output(sys.argv[1])
os.write(1, b"begun")
sys.stdin.read()
for _ in range(2000):
    os.write(1, b"x" * 99)
"""


@contextlib.contextmanager
def printing(circusds_output: int) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """A circusd, and a worker of its that prints, with one pipe for stdout and stderr, once its stdin is closed."""
    circusd = subprocess.Popen(["sleep", "600"], stdout=circusds_output or None)
    mark = f"{circusd.pid}:{process(circusd.pid).started}"
    reading, writing = (-1, circusds_output) if circusds_output else os.pipe()
    command = [sys.executable, "-c", PRINTS, mark]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing, stderr=writing)
    try:
        if not circusds_output:
            os.close(writing)
            assert os.read(reading, 100) == b"begun"
            os.close(reading)
        yield circusd, worker
    finally:
        for each in (circusd, worker):
            each.kill()
            each.communicate()


def test_a_worker_with_one_pipe_for_both_outputs_prints_on_when_circusd_is_gone() -> None:
    with printing(0) as (circusd, worker):
        circusd.kill()
        circusd.wait()
        worker.communicate(timeout=90)
        assert worker.returncode == 0


def test_a_worker_does_not_hold_the_pipe_that_circusd_itself_writes_into() -> None:
    """Given `circusd | logger`, when the logger ends, then a worker is told so; nobody hangs on a full pipe."""
    reading, writing = os.pipe()
    with printing(writing) as (_, worker):
        os.close(writing)
        assert os.read(reading, 100) == b"begun"
        os.close(reading)
        worker.communicate(timeout=90)
        assert worker.returncode != 0
