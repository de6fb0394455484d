"""What a forkserver says is a claim: a worker is only what the kernel shows as a child of circusd that nobody has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from xboard_circus.core.sentences import Say
from xboard_circus.host import unix_sockets
from xboard_circus.options.fields import WatcherOptions
from xboard_circus.supervisor import forks, prepared_forkserver
from xboard_circus.supervisor.forks import Forks
from xboard_circus.supervisor.life.output import LastWords, Tail
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.run_once import read_output
from xboard_circus.worker import forkserver
from xboard_circus.worker.fork_orders import GO, HERE, OUTDATED, READY

Answer = Callable[[socket.socket], object]


def order(
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    *,
    known: tuple[int, ...] = (),
    pid: Any = None,
    clock: Callable[[], float] = lambda: 0.0,
    number: int = 1,
    env: Mapping[str, str] | None = None,
) -> tuple[circus_process.Forked | None, Forks]:
    """Order workers of the forkserver *pid* that gives this *answer*, and return the last one.

    The pids *known* are workers already.
    """
    monkeypatch.setattr(circus_process, "arguments_of", lambda _: command())
    monkeypatch.setattr(circus_process, "own_sockets", lambda _: {})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    watchers = [SimpleNamespace(processes=known)]
    loop = SimpleNamespace(remove_reader=lambda _: None)
    supervisor = SimpleNamespace(arbiter=SimpleNamespace(watchers=watchers), loop=loop, soon=lambda _: None)
    armed: Any = SimpleNamespace(
        supervisor=supervisor,
        watcher=SimpleNamespace(uid=None, gid=None),
        clock=clock,
        hide=bytes,
        note_reason=lambda _: None,
        fleet=SimpleNamespace(up=list),
        options=WatcherOptions(),
    )
    process = SimpleNamespace(env=env or {}, pipe_stdout=True, pipe_stderr=False, watcher=armed.watcher)

    async def run() -> tuple[circus_process.Forked | None, Forks]:
        tried = Forks(armed)

        def fork() -> circus_process.Forked | None:
            if tried.state == "off":
                tried.state, tried._orders, tried._basis = "ready", ours, forks._basis(command(), {})
                tried._process = SimpleNamespace(pid=pid, kill=lambda: None)  # type: ignore[assignment]
                tried._configured_for = tried._wanted()
            return tried.fork(process)

        return [fork() for _ in range(number)][-1], tried

    def serve() -> None:
        for _ in range(number):
            _, given, _, _ = socket.recv_fds(theirs, 1 << 16, 8)
            if not given:
                return
            for descriptor in given[1:]:
                os.close(descriptor)
            with socket.socket(fileno=given[0]) as channel, contextlib.suppress(OSError):
                answer(channel)

    server = threading.Thread(target=serve)
    server.start()
    try:
        return asyncio.run(run())
    finally:
        ours.close()
        server.join()
        theirs.close()


def command() -> list[str]:
    worker = [sys.executable, "-m", "xboard_circus.worker", "app:app"]
    return [sys.executable, "-I", "-S", "launch.py", "--wid", "1", "--worker", "token", "--chdir", "/", "--", *worker]


def from_a_child(then: Callable[[subprocess.Popen[bytes]], object]) -> Answer:
    """Answer as a worker that was forked does: from a process of its own."""

    def answer(channel: socket.socket) -> None:
        code = (
            "import os, socket\nc = socket.socket(fileno=int(os.sys.argv[1]))\nc.send(b'here')\nos.write(1, c.recv(9))"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(channel.fileno())], pass_fds=(channel.fileno(),), stdout=subprocess.PIPE
        ) as popen:
            then(popen)

    return answer


def test_a_new_child_is_taken_and_let_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "ANSWERS_WITHIN", 20.0)
    said: list[tuple[int, bytes]] = []

    def note(popen: subprocess.Popen[bytes]) -> None:
        said.append((popen.pid, popen.communicate()[0]))

    worker, tried = order(monkeypatch, from_a_child(note))

    assert worker is not None
    assert said == [(worker.pid, GO)]
    assert (tried.state, worker.stderr) == ("ready", None)
    assert worker.stdout is not None
    worker.stdout.close()


ANSWERS: dict[str, Answer] = {
    "nothing, and its end": lambda channel: None,
    "nonsense": lambda channel: channel.send(b"\0" * 9000),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_forkserver_that_lies_is_ended_and_the_worker_is_started(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    worker, tried = order(monkeypatch, answer)

    assert worker is None
    assert (tried.state, tried._orders) == ("failed", None)


def test_the_forkserver_itself_is_not_taken_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given one that answers in the place of a child, a child of circusd as well, then no worker is taken."""
    monkeypatch.setattr(forks, "ANSWERS_WITHIN", 20.0)
    told: list[bytes] = []

    worker, tried = order(monkeypatch, from_a_child(lambda popen: told.append(popen.communicate()[0])), pid=mock.ANY)

    assert (worker, told, tried.state) == (None, [b""], "failed")


def test_a_child_that_hears_no_order_to_go_on_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a child that closes its end when it has shown itself, then it does not live on without a watcher."""
    monkeypatch.setattr(forks, "ANSWERS_WITHIN", 20.0)
    code = (
        "import os, socket, time\nc = socket.socket(fileno=int(os.sys.argv[1]))\nc.shutdown(socket.SHUT_RD)\n"
        "c.send(b'here')\ntime.sleep(60)"
    )
    codes: list[int] = []

    def answer(channel: socket.socket) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", code, str(channel.fileno())], pass_fds=[channel.fileno()]
        ) as child:
            try:
                codes.append(child.wait(30))
            finally:
                child.kill()

    worker, tried = order(monkeypatch, answer)

    assert (worker, codes, tried.state) == (None, [-signal.SIGKILL], "failed")


def test_a_worker_of_another_watcher_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "ANSWERS_WITHIN", 20.0)
    told: list[bytes] = []

    worker, _ = order(monkeypatch, from_a_child(lambda popen: told.append(popen.communicate()[0])), known=_All())

    assert (worker, told) == (None, [b""])


class _All(tuple[int, ...]):
    def __contains__(self, _: object) -> bool:
        return True


def test_one_that_is_outdated_is_renewed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, tried = order(monkeypatch, lambda channel: channel.send(OUTDATED))

    assert (worker, tried.state, tried.reason) == (None, "off", "")


@pytest.mark.parametrize(("number", "state"), [(2, "off"), (3, "failed")])
def test_that_each_worker_has_another_environment_is_told(
    monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    """Given a `before_spawn` that changes it each time, then no forkserver is started for each worker in vain."""
    monkeypatch.setattr(unix_sockets, "close", lambda _: None)

    worker, tried = order(monkeypatch, lambda _: None, env={"BEGAN": "now"}, number=number)

    told = Say.FORKSERVER_FAILED(why=Say.NO_TWO_WORKERS_ALIKE()) if state == "failed" else ""
    assert (worker, tried.state, tried.reason) == (None, state, told)


def test_one_that_is_late_twice_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "ANSWERS_WITHIN", 0.01)
    worker, tried = order(monkeypatch, lambda channel: channel.recv(16))
    assert (worker, tried.state) == (None, "ready")

    monkeypatch.setattr(forks, "MOST_UNANSWERED", 1)
    worker, tried = order(monkeypatch, lambda channel: channel.recv(16))
    assert (worker, tried.state) == (None, "failed")


@pytest.mark.parametrize(
    ("number", "every", "state"),
    [
        pytest.param(14, 0.2, "ready", id="2 s at most"),
        pytest.param(15, 0.2, "failed", id="then workers are started"),
        pytest.param(99, 60.0, "ready", id="what is long ago is forgotten"),
    ],
)
def test_one_that_is_always_just_in_time_is_ended_when_circusd_has_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, number: int, every: float, state: str
) -> None:
    """Given an answer 0.19 s after each order, of a forkserver that the app has taken over, then the sum is bounded."""
    monkeypatch.setattr(Forks, "_is_new_child", lambda *_: True)
    monkeypatch.setattr(forks, "Forked", lambda _, stdout, __: stdout.close())
    times = (at * every + late for at in itertools.count() for late in (0.0, 0.19))

    def forks_one(channel: socket.socket) -> None:
        channel.send(HERE)
        channel.recv(len(GO))

    _, tried = order(monkeypatch, forks_one, clock=lambda: next(times), number=number)

    assert tried.state == state


def test_a_forkserver_that_is_ready_again_and_again_is_ended() -> None:
    """Given an app that floods circusd with its forkserver's one message, then circusd hears two of them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    armed: Any = SimpleNamespace(
        clock=lambda: 0.0, supervisor=SimpleNamespace(loop=SimpleNamespace(remove_reader=lambda _: None))
    )
    armed.supervisor.soon, armed.note_reason, armed.hide = lambda _: None, lambda _: None, bytes
    with ours, theirs:

        async def run() -> list[str]:
            tried, states = Forks(armed), []
            tried.state, tried._orders = "importing", ours
            tried._process = SimpleNamespace(pid=os.getpid(), kill=lambda: None)  # type: ignore[assignment]
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            for _ in range(2):
                theirs.send(READY)
                tried._read_messages()
                states.append(tried.state)
            return states

        assert asyncio.run(run()) == ["ready", "failed"]


def test_a_system_without_forks_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given macOS, each tick finds that workers are started there, and the first one logs it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    options = SimpleNamespace(worker=SimpleNamespace(preload="server"))
    watcher = SimpleNamespace(cmd="python", args="")
    armed: Any = SimpleNamespace(options=options, has_private_socket=True, watcher=watcher, name="web", hide=bytes)

    with caplog.at_level("WARNING", logger="circus"):
        tried = Forks(armed)
        for _ in range(3):
            tried.keep_up()

    assert (tried.view()["state"], tried.view()["reason"]) == ("off", Say.NO_FORKS_HERE())
    assert [record.getMessage() for record in caplog.records] == [f"xboard: web: {Say.NO_FORKS_HERE()}"]


REFUSALS = """
import os, signal, sys
from xboard_circus.worker import forkserver
before, memory = forkserver.descriptors(), forkserver.shared_memory()
def refused():
    try:
        forkserver.refuse_what_a_fork_would_share(before, memory)
    except forkserver.CannotFork as error:
        return error
print(refused())
signal.setitimer(signal.ITIMER_PROF, 1000)
print(refused())
signal.setitimer(signal.ITIMER_PROF, 0)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
print(refused())
sys.stdout.close()
os.write(1, str(refused()).encode())
"""


def test_an_import_that_sets_what_a_fork_would_lose_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", REFUSALS], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "None",
        "importing it has set a timer",
        *(f"importing it has closed or redirected {name}" for name in ("stderr", "stdout")),
    ]


NOT_DUMPABLE = """
import ctypes, os
from xboard_circus.worker import forkserver
before, memory = forkserver.descriptors(), forkserver.shared_memory()
if os.getuid() == 0:
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 0)
try:
    forkserver.refuse_what_a_fork_would_share(before, memory)
except forkserver.CannotFork as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_DUMPABLE is Linux's")
def test_an_import_after_which_a_process_may_not_be_dumped_is_refused() -> None:
    """Given that, no worker but root's may write its name into its own memory, and each forked one would end."""
    done = subprocess.run([sys.executable, "-c", NOT_DUMPABLE], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["importing it has closed /proc/self/mem"]


FEW_FILES = """
import os, resource, socket
from xboard_circus.worker import forkserver
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if not os.fork():
    ours.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    forkserver.begin({"numbers": [50], "env": {}}, [theirs.detach(), os.open(os.devnull, os.O_RDONLY)], b"", print)
theirs.close()
print(ours.recv(16))
"""


def test_a_child_that_cannot_become_a_worker_does_not_say_that_it_is_there() -> None:
    """Given `rlimit_nofile` below the number of a listener, which a started worker inherits all the same."""
    done = subprocess.run([sys.executable, "-c", FEW_FILES], capture_output=True, text=True, check=True)

    assert (done.stdout, "xboard-circus forkserver: OSError" in done.stderr) == ("b''\n", True)


def test_a_module_that_exits_when_it_is_preloaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "exits_at_once.py").write_text("raise SystemExit('no licence')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(forkserver.CannotFork, match=r"worker\.preload_modules: exits_at_once: SystemExit: no licence"):
        forkserver.import_modules(["exits_at_once"], {}, set())


NUMPY = """
import ctypes, os, sys
from types import SimpleNamespace
from xboard_circus.worker import forkserver
words, seeds = ctypes.create_string_buffer(os.urandom(2496), 2496), []
state = SimpleNamespace(tobytes=lambda: {known})
generator = SimpleNamespace(ctypes=SimpleNamespace(state_address=ctypes.addressof(words)))
generators = dict(get_state=lambda: ("MT19937", state, 624), get_bit_generator=lambda: generator)
sys.modules["numpy"] = SimpleNamespace(random=SimpleNamespace(seed=lambda: seeds.append(1), **generators))
seed = forkserver.seeding()
for _ in range(2):
    if not os.fork():
        seed()
        print(len(seeds), words.raw.hex())
        sys.exit()
    os.wait()
print(len(seeds), words.raw.hex())
"""


@pytest.mark.parametrize(("known", "seeds"), [("words.raw", 1), ("words.raw[4:]", 2), ("b''", 2)])
def test_each_fork_has_words_of_its_own_in_the_generator_of_numpy(known: str, seeds: int) -> None:
    """Given its words where they are thought to lie, they are written and no more, else its own way is taken."""
    code = NUMPY.replace("{known}", known)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    *children, parent = [line.split() for line in done.stdout.splitlines()]
    assert [int(each[0]) for each in children] == [seeds, seeds]
    is_written = seeds == 1
    assert len({words for _, words in [*children, parent]}) == (3 if is_written else 1)
    assert {len(words) for _, words in children} == {2 * 2496}


def test_a_numpy_that_cannot_be_imported_ends_no_forkserver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a None in its place, by which an app forbids its import, then only the fork fails, and a worker starts."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    seed = forkserver.seeding()

    with pytest.raises(AttributeError):
        seed()


FIRST_REQUEST = """
import asyncio, re, sys
from xboard_circus.launch import be_killed_first
from xboard_circus.worker.__main__ import read_options
from xboard_circus.worker.forkserver import import_server, threads
import_server(read_options(["app:app"]))
before = set(sys.modules)
from fastapi import FastAPI
app = FastAPI()
app.get("/")(threads)
compiler = getattr(re, "_compiler", None) or re.sre_compile  # of Python 3.10
compile_anew = compiler.compile
def noted(*given):
    print("compiles", *given)
    return compile_anew(*given)
compiler.compile = noted
async def take(): return {"type": "http.request", "body": b""}
async def send(message): print(message.get("status", ""))
scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
asyncio.run(app({"type": "lifespan"}, take, send))
asyncio.run(app(scope, take, send))
be_killed_first()
print(*(set(sys.modules) - before))
"""


def test_what_a_first_request_needs_is_imported_before_the_fork() -> None:
    """What each worker imports or compiles by itself it has for itself: 2 MiB of anyio for the first function in a
    thread, 0.7 of telemetry for the lifespan, and 0.5 for a pattern with which the lines of an endpoint are found."""
    done = subprocess.run([sys.executable, "-c", FIRST_REQUEST], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["200"]


def test_circusd_lets_go_of_the_names_in_pythons_cache_before_it_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    system = mock.Mock(**{"fork.return_value": 7})
    monkeypatch.setattr(sys, "_clear_type_cache", system.clear)
    monkeypatch.setattr(os, "fork", system.fork)

    assert prepared_forkserver.fork() == 7
    assert system.mock_calls == [mock.call.clear(), mock.call.fork()]


def test_nothing_is_kept_of_the_output_of_a_forkserver_that_has_ended() -> None:
    """Given one that fails at each try, and prints 72 KiB each time, then circusd grew by 100 MiB in a day."""
    written: list[bytes] = []
    tails: dict[int, LastWords] = {}
    stream = Tail(lambda piece: written.append(piece["data"]), tails)
    watcher = SimpleNamespace(stderr_stream=stream, stdout_stream=None)

    async def run() -> LastWords:
        output, end = os.pipe()
        os.write(end, b"one\nwithout an end")
        os.close(end)
        words = LastWords()
        await read_output(watcher, tails, 7, output, words)
        return words

    assert asyncio.run(run()).tail == "one\nwithout an end"
    assert (written, tails) == ([b"one\n", b"without an end"], {})
