"""One rival that runs: its folder, its port, its processes. All carry a mark; nothing else is killed.

All instants are on the monotonic clock, which is one for all processes of a boot.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.rivals import CHECKOUT, OURS, Rival, ask_circusd
from tests.real.free_ports import free_port
from tests.real.processes import Process, end_marked, marked, process

UNWANTED = ("XBOARD_", "CIRCUS", "BENCH_", "PYTHON", "UVICORN", "GUNICORN", "WEB_CONCURRENCY", "SUPERVISOR")


class Never(Exception):
    """What was waited for did not come in time; the text says what happened in its place."""


class Running:
    """A rival in a folder of its own under ``/tmp``, with *workers* workers of the plain app.

    As a context, it starts the rival unless *start* is off; however the block ends, nothing is left of it. *period* is
    that of our probes, *reset_after* our time until a failure is forgotten; the others have their own.
    """

    def __init__(
        self,
        rival: Rival,
        workers: int,
        *,
        spares: int = 0,
        period: float = 1,
        reset_after: float = 300,
        env: dict[str, str] | None = None,
        start: bool = True,
    ) -> None:
        assert not spares or rival.name == OURS
        self.rival, self.workers = rival, workers
        self._starts_at_once = start
        self.folder = Path(tempfile.mkdtemp(prefix="xbb-", dir="/tmp"))  # short, for the paths of unix sockets
        (self.folder / "logs").mkdir()
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.words: dict[str, Any] = {
            "checkout": CHECKOUT,
            "folder": self.folder,
            "python": sys.executable,
            "port": self.port,
            "workers": workers,
            "spares": spares,
            "period": f"{period:g}",
            "reset": f"{reset_after:g}",
            "control": free_port(),
            "pubsub": free_port(),
            "processes": " ".join(f"-p web:web_{number}" for number in range(workers)),
        }
        self._env = env or {}
        self._arguments = rival.arguments(self)
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
        shutil.rmtree(self.folder, ignore_errors=True)

    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(UNWANTED)}
        own = {
            "BENCH_MARK": self.mark,
            "BENCH_FOLDER": str(self.folder),
            "BENCH_PORT": str(self.port),
            "BENCH_WORKERS": str(self.workers),
            "XBOARD_RUNTIME_DIR": str(self.folder / "run"),
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "scripts"), str(CHECKOUT)]),
        }
        return {**clean, **own, **self._env}

    def start(self) -> float:
        """Start it, or start it again; return when."""
        with (self.folder / "output").open("ab") as output:
            at = time.monotonic()
            popen = subprocess.Popen(
                self._arguments,
                cwd=self.folder,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(popen)
        return at

    @property
    def supervisor(self) -> Process:
        return process(self._started[-1].pid)

    @property
    def exit_code(self) -> int | None:
        """What the command ended with; None while it runs."""
        return self._started[-1].poll()

    def kill_supervisor(self) -> float:
        at = time.monotonic()
        self._started[-1].kill()
        self._started[-1].wait()
        return at

    # -- what the app told --

    def told(self, what: str) -> dict[int, float]:
        """Pid and instant of every line of *what*: starts, ready or hung."""
        return {int(pid): float(at) for pid, at in self._lines(what)}

    def told_times(self, what: str) -> list[float]:
        return [float(at) for _, at in self._lines(what)]

    def _lines(self, what: str) -> list[list[str]]:
        try:
            return [line.split() for line in (self.folder / what).read_text().splitlines()]
        except FileNotFoundError:
            return []

    def serving(self) -> dict[int, float]:
        """The workers that live and got ready, and when."""
        alive = {found.pid for found in self.processes()}
        return {pid: at for pid, at in self.told("ready").items() if pid in alive}

    def processes(self) -> list[Process]:
        return marked(BENCH_MARK=self.mark)

    def others(self) -> list[Process]:
        """Everything that was started and is no worker."""
        workers = self.told("starts")
        return [found for found in self.processes() if found.pid not in workers]

    def waits_with_a_spare(self) -> bool:
        """Whether ours has a spare that has imported the app, a worker that serves, and no failure on its account."""
        told = self.told("starts")
        workers = self.state()["watchers"][0]
        of_app = [worker for worker in workers["workers"] if worker["pid"] in told]
        doing = ["spare" if worker["role"] == "spare" else worker["phase"] for worker in of_app]
        return sorted(doing) == ["spare", "up"] and workers["budget"]["used"] == 0

    def state(self) -> dict[str, Any]:
        """The answer of our circusd to ``xboard_state``."""
        return ask_circusd(self, "xboard_state")

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
        """The last line of its logs that tells of an error."""
        logs = [self.folder / "output", *(self.folder / "logs").glob("*.log")]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        wanted = [line for line in lines if "error" in line.lower() or "errno" in line.lower()]
        return wanted[-1].strip()[-110:] if wanted else ""


def answer(port: int, path: str = "/health", timeout: float = 30.0) -> str | None:
    """The body of one answer on a new connection; None when there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    except OSError:
        return None
    return body.decode() if b" 200 " in head.split(b"\r\n")[0] else None


def kill(pid: int, signum: int = signal.SIGKILL) -> float:
    """Kill a worker of ours; return when."""
    at = time.monotonic()
    process(pid).signal(signum)
    return at


def cpu(found: Process) -> float:
    """Seconds of processor time of the threads that live; to the nanosecond where the kernel tells."""
    try:
        tasks = list(Path(f"/proc/{found.pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, ValueError, IndexError):
        return found.cpu


def cpu_with_children(found: Process) -> float:
    """Seconds of processor time, those of the children that it has waited for among them."""
    try:
        return sum(psutil.Process(found.pid).cpu_times()[:4])
    except psutil.Error:
        return 0.0


def pss(found: Process) -> float:
    """MiB of its own: its proportional share of what it shares, and all that it does not."""
    try:
        return float(psutil.Process(found.pid).memory_full_info().pss) / (1 << 20)
    except psutil.Error:
        return 0.0
