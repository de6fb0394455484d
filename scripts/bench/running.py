"""Run one rival: its folder, its port, its processes. All carry a mark; nothing else is killed.

All instants are on the monotonic clock, which is one for all processes of a boot. What comes from PyPI is imported in
the functions that use it: `scripts/bench.py` loads this file before it is in its own environment.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.free_ports import free_port
from tests.real.processes import Process, end_marked, marked, process

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
SETTINGS = {"period": 1, "reset": 300, "level": "server"}
"""Of ours alone: seconds between probes, and until a failure is forgotten, and what is imported before a fork."""
UNWANTED = ("XBOARD_", "CIRCUS", "BENCH_", "PYTHON", "UVICORN", "GUNICORN", "GRANIAN", "WEB_CONCURRENCY", "SUPERVISOR")


class Never(Exception):
    """An awaited event did not come in time; the text says what happened instead."""

    word = "never"


class Cannot(Never):
    """The rival has no way to do it; the text says why."""

    word = "cannot"


class NotHere(Never):
    """The rival cannot run on this machine; the text says what it needs."""

    word = "not here"


@dataclass(frozen=True)
class Rival:
    """One way to keep an app up.

    Attributes:
        command: Command that starts it; ``{python}``, ``{bin}``, ``{file}``, ``{port}`` and ``{workers}`` are filled
            in.
        settings: Its file in ``settings/``.
        reload: Orders a running one to replace its workers, in its gentlest way.
        needs: Its requirement, and a shell condition for that.
        cannot: The rows that it cannot do, and why.
        sweep: Removes what it leaves beside its processes and its folder.
    """

    name: str
    title: str
    command: str
    settings: str = ""
    reload: Callable[["Running"], None] | None = None
    needs: tuple[str, str] = ("", "")
    cannot: dict[str, str] = field(default_factory=dict)
    sweep: str = ""

    def check(self, row: str) -> None:
        """Raise if there is nothing to measure in *row*."""
        what, condition = self.needs
        if subprocess.run(["sh", "-c", condition], capture_output=True, check=False).returncode != 0:
            raise NotHere(f"it takes {what}")
        if row in self.cannot:
            raise Cannot(self.cannot[row])


class Running:
    """A rival in a folder of its own under ``/tmp``, with *workers* workers of the plain app.

    As a context, it starts the rival unless *start* is off; however the block ends, nothing is left of it. *given*
    are other `SETTINGS`.
    """

    def __init__(
        self, rival: Rival, workers: int, *, env: dict[str, str] | None = None, start: bool = True, **given: object
    ) -> None:
        self.workers, self._starts_at_once = workers, start
        self.folder = Path(tempfile.mkdtemp(prefix="xbb-", dir="/tmp"))  # short, for the paths of unix sockets
        (self.folder / "logs").mkdir()
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.words: dict[str, Any] = {"checkout": CHECKOUT, "folder": self.folder, "python": sys.executable}
        self.words |= {"bin": Path(sys.executable).parent, "port": self.port, "workers": workers, **SETTINGS, **given}
        self.words |= {"control": free_port(), "pubsub": free_port()}
        self.words["processes"] = " ".join(f"-p web:web_{number}" for number in range(workers))
        self._env = env or {}
        settings = self.folder / rival.settings
        if rival.settings:
            text = (HERE / "settings" / rival.settings).read_text()
            settings.write_text(re.sub(r"@([a-z]+)", lambda found: str(self.words[found[1]]), text))
        self._arguments, self._sweep = (
            [part.format(file=settings, **self.words) for part in command.split()]
            for command in (rival.command, rival.sweep)
        )
        self._started: list[subprocess.Popen[bytes]] = []

    # -- its life --

    def __enter__(self) -> "Running":
        try:
            if self._starts_at_once:
                self.start()
                self.until(lambda: len(self.serving()) >= self.workers, 30, f"{self.workers} workers ready")
                self.until(lambda: answer(self.port) is not None, 30, "an answer")
                time.sleep(2.5)  # time to count its workers as running: supervisor's startsecs, a first probe
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end_marked(BENCH_MARK=self.mark)
        for popen in self._started:
            popen.wait(5)
        if self._sweep:
            subprocess.run(self._sweep, cwd=self.folder, capture_output=True, check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(UNWANTED)}
        own = {"MARK": self.mark, "FOLDER": self.folder, "PORT": self.port, "WORKERS": self.workers}
        path = os.pathsep.join(map(str, [self.folder, CHECKOUT / "scripts", CHECKOUT]))
        where = {"XBOARD_RUNTIME_DIR": str(self.folder / "run"), "PYTHONPATH": path}
        return {**clean, **{f"BENCH_{name}": str(value) for name, value in own.items()}, **where, **self._env}

    def start(self) -> float:
        """Start it, or start it again; return when."""
        with (self.folder / "output").open("ab") as output:
            at = time.monotonic()
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            where = {"cwd": self.folder, "env": self.environ(), "start_new_session": True}
            popen = subprocess.Popen(self._arguments, **streams, **where)
        self._started.append(popen)
        return at

    @property
    def supervisor(self) -> Process:
        return process(self._started[-1].pid)

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of the command; None while it runs."""
        return self._started[-1].poll()

    def kill_supervisor(self) -> None:
        self._started[-1].kill()
        self._started[-1].wait()

    # -- records of the app --

    def recorded(self, what: str) -> list[tuple[int, float]]:
        """Return pid and instant of every line of *what*: starts, ready or hung."""
        file = self.folder / what
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(pid), float(at)) for pid, at in map(str.split, lines)]

    def has_written(self, text: str) -> bool:
        """Return whether *text* is in any file that it has written: output, logs, records."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return any(text.encode() in file.read_bytes() for file in files)

    def serving(self) -> dict[int, float]:
        """Return the live and ready workers, and when they got ready."""
        ready = dict(self.recorded("ready"))
        alive = marked(ready, BENCH_MARK=self.mark)  # a look at all processes of the machine costs more than its wait
        return {found.pid: ready[found.pid] for found in alive}

    def processes(self) -> list[Process]:
        return marked(BENCH_MARK=self.mark)

    def others(self) -> list[Process]:
        """Return every process that was started and is no worker."""
        workers = dict(self.recorded("ready"))  # a master that preloads the app is no worker
        return [found for found in self.processes() if found.pid not in workers]

    def query_circusd(self, command: str, **properties: object) -> dict[str, Any]:
        """Return the answer of a running circusd of ours; it raises for a refusal."""
        from xboard_circus.circus_client import CircusdClient

        with CircusdClient(f"tcp://127.0.0.1:{self.words['control']}") as client:
            return client.call(command, deadline=10.0, **properties)

    # -- waiting --

    def until(self, condition: Callable[[], bool], within: float, what: str, *, every: float = 0.02) -> None:
        """Wait for *condition*; Never when *within* seconds pass, or nothing is left that could fulfil it."""
        give_up_at = time.monotonic() + within
        while not condition():
            code = self.exit_code
            if code not in (None, 0) or (code == 0 and not self.processes()):
                raise Never(": ".join(filter(None, (f"exit code {code}", self.last_words()))))
            if time.monotonic() > give_up_at:
                raise Never(f"{what}: not within {within:g} s")
            time.sleep(every)

    def last_words(self) -> str:
        """Return the last line of its logs with an error."""
        logs = [self.folder / "output", *(self.folder / "logs").glob("*.log")]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        wanted = [line for line in lines if "error" in line.lower() or "errno" in line.lower()]
        return wanted[-1].strip()[-110:] if wanted else ""


def answer(port: int, path: str = "/health") -> str | None:
    """Return the body of one answer on a new connection; None without one."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            return _send(connection, path)()
    except OSError:
        return None


def _send(connection: socket.socket, path: str) -> Callable[[], str | None]:
    """Send a request; the returned function waits for the body of its answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())

    def body() -> str | None:
        head, _, text = connection.makefile("rb").read().partition(b"\r\n\r\n")
        return text.decode() if b" 200 " in head.split(b"\r\n")[0] else None

    return body


def answering_pids(port: int, connections: int) -> list[str | None]:
    """Open *connections*, then send a request on each; return the pid in each answer of the plain app."""
    with ExitStack() as stack:
        made = (socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(connections))
        bodies = [_send(connection, "/") for connection in [*map(stack.enter_context, made)]]
        return [body() for body in bodies]


def cpu(found: Process) -> float:
    """Return the processor time of the live threads in seconds; to the nanosecond if the kernel shows it."""
    with suppress(OSError, ValueError, IndexError):
        tasks = list(Path(f"/proc/{found.pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return found.cpu


def cpu_with_children(found: Process) -> float:
    """Return the processor time in seconds, also of the children that it has waited for."""
    import psutil

    with suppress(psutil.Error):
        return sum(psutil.Process(found.pid).cpu_times()[:4])
    return 0.0


def pss(found: Process) -> float:
    """Return the MiB of its own: its proportional share of what it shares, and all that it does not."""
    import psutil

    with suppress(psutil.Error):
        return float(psutil.Process(found.pid).memory_full_info().pss) / (1 << 20)
    return 0.0
