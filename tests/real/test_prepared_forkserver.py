"""The first forkserver of a circusd is forked from it. Its workers are alike those of one that is a program."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from . import harness
from .harness import Circusd, Watcher, circusd, eventually, kill
from .processes import Process
from .test_forks import forked, forkserver, up
from .test_plugin_process import end_of_stack, facts

SHOWN = """
import atexit, gc, io, json, logging, os, resource, signal, sys, threading, time, traceback

atexit.register(lambda: (time.sleep(0.01), print("left in order", flush=True)))
OF_ONE = "XBOARD_LAUNCHER", "XBOARD_WID", "XBOARD_FORK_SPACE", "XBOARD_SESSION"
LIMITS = resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE


def stream(name):
    it = getattr(sys, name)
    direct, is_original = type(getattr(it, "buffer", None)).__name__, it is getattr(sys, f"__{name}__")
    return [it.name, it.encoding, it.errors, it.line_buffering, it.write_through, direct, is_original]


def shown():
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return {
        "path": sys.path,
        "argv": [sys.argv, sys.orig_argv, sys.executable],
        "environ": {name: value for name, value in os.environ.items() if name not in OF_ONE},
        "folder": os.getcwd(),
        "umask": [os.umask(0o22), os.umask(0o27)][0],
        "limits": [resource.getrlimit(limit) for limit in LIMITS],
        "main": [sys.modules["__main__"].__spec__.name, sys.modules["__main__"].__name__],
        "streams": [stream(name) for name in ("stdin", "stdout", "stderr")],
        "signals": {n: str(signal.getsignal(n)) for n in signal.valid_signals() if not callable(signal.getsignal(n))},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "loggers": [logging.root.level, len(logging.root.handlers), len(logging.getLogger("circus").handlers)],
        "hook": sys.excepthook is sys.__excepthook__,
        "collects": gc.isenabled(),
        "circusd's stack": any("circus" in each.filename.split("/") for each in traceback.extract_stack()),
    }


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            await send({"type": (await receive())["type"] + ".complete"})
    body = json.dumps(shown()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the workers also where those of all other tests are started: here it is all about that."""
    monkeypatch.setattr(harness, "PRELOAD", "server")


def is_of_circusd(c: Circusd, server: Process) -> bool:
    """Return whether a forkserver has its stack where circusd has it: each program has another place."""
    return end_of_stack(server.pid) == end_of_stack(c.pid)


def watcher(folder: Path, **more: Any) -> Watcher:
    code = folder / "code"
    code.mkdir()
    (code / "shown.py").write_text(SHOWN)
    more.setdefault("env", {"PYTHONPATH": code})
    return Watcher(app="shown:app", numprocesses=1, **more)


def seen(c: Circusd, pid: int) -> dict[str, Any]:
    """Return what the worker *pid*, the only one, sees of itself, and what others see of it but for its mark."""
    others: dict[str, Any] = facts(pid)
    del others["streams"]  # pipes of its own
    own = "XBOARD_LAUNCHER", "XBOARD_WORKER", "XBOARD_FORK_ORDERS"
    others["shown"] = {name: "" if name in own else value for name, value in others.pop("environ").items()}
    return {**json.loads(c.get()), **others}


def next_worker(c: Circusd, dead: int) -> int:
    """Wait until another worker than *dead* is up."""
    return eventually(lambda: next((pid for pid in up(c, 1) if pid != dead), 0), what="another worker is up")


def test_a_worker_of_the_first_forkserver_is_like_one_of_a_later_one(tmp_path: Path) -> None:
    """Given a forkserver that was forked from circusd, then nothing tells its worker from one of a program's."""
    with circusd(tmp_path, watchers=[watcher(tmp_path)], circus={"umask": "027"}) as c:
        first = forkserver(c)
        assert is_of_circusd(c, first)
        (pid,) = forked(c, 1)
        was = seen(c, pid)
        kill(pid, signal.SIGINT)
        pid = next_worker(c, pid)
        assert "left in order" in c.log("web")
        kill(first.pid)
        second = forkserver(c, not_pid=first.pid)
        assert not is_of_circusd(c, second)
        kill(pid)

        now = seen(c, *forked(c, 1, without=[pid]))
        assert {name: (was[name], now[name]) for name in was if was[name] != now[name]} == {}
        assert not was["circusd's stack"]


@pytest.mark.parametrize("case", ["variable", "openssl", "module", "limit"])
def test_what_python_would_begin_otherwise_is_a_program(tmp_path: Path, case: str) -> None:
    """Given a variable of Python's or OpenSSL's, a module in place of one of circusd's, or a limit, it is a program."""
    code = tmp_path / "code"
    more = {"variable": {"PYTHONOPTIMIZE": "1"}, "openssl": {"OPENSSL_CONF": "/dev/null"}}
    env = {"PYTHONPATH": code, **more.get(case, {})}
    web = watcher(tmp_path, env=env, options={"rlimit_nofile": 4000} if case == "limit" else {})
    if case == "module":
        (code / "psutil.py").write_text("MINE = True\n")
    with circusd(tmp_path, watchers=[web]) as c:
        server = forkserver(c)
        up(c, 1)

        assert not is_of_circusd(c, server)


def waiting(c: Circusd) -> list[Process]:
    return [each for each in c.processes() if "waits to become" in each.command]


def waits(folder: Path) -> Watcher:
    """Return a watcher that is not started until its env file is there."""
    return watcher(folder, options={"worker.env_file": "late.env"})


def test_what_nobody_takes_ends(tmp_path: Path) -> None:
    """Given a watcher that cannot start, then what was forked for it ends, and a later start has a program."""
    with circusd(tmp_path, watchers=[waits(tmp_path)]) as c:
        eventually(lambda: waiting(c), what="it waits")
        assert os.getsid(waiting(c)[0].pid) == waiting(c)[0].pid
        eventually(lambda: not waiting(c), what="it has ended")
        (tmp_path / "late.env").touch()

        assert not is_of_circusd(c, forkserver(c))


def test_what_waits_ends_with_a_killed_circusd(tmp_path: Path) -> None:
    """Given a circusd that is killed while what it forked waits, then that ends."""
    with circusd(tmp_path, watchers=[waits(tmp_path)]) as c:
        eventually(lambda: waiting(c), what="it waits")
        c.kill9()
        eventually(lambda: not waiting(c), what="it has ended")
