"""The processes that a test started, no others: found by a mark in their environment, ended by pid and start time."""

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NOBODY = 65534
STATE, PARENT, STARTED = 0, 1, 19  # places in /proc/PID/stat, counted from behind the command's closing bracket


@dataclass(frozen=True)
class Process:
    """One process: *started* is in clock ticks since boot, so a pid used again is another process."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """It runs; a zombie does not."""
        stat = read_stat(self.pid)
        return stat is not None and int(stat[STARTED]) == self.started and stat[STATE] not in "ZX"

    @property
    def parent(self) -> int | None:
        stat = read_stat(self.pid)
        return int(stat[PARENT]) if stat else None

    @property
    def command(self) -> str:
        try:
            return (PROC / str(self.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""

    @property
    def environ(self) -> dict[str, str]:
        """Its environment as it was at exec; empty when it is gone or not ours to read."""
        try:
            text = (PROC / str(self.pid) / "environ").read_bytes().decode(errors="replace")
        except OSError:
            return {}
        return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)

    @property
    def memory(self) -> int:
        """Resident bytes; 0 when it is gone."""
        try:
            pages = int((PROC / str(self.pid) / "statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far, those of the children that it has waited for left out."""
        stat = read_stat(self.pid)
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") if stat else 0.0

    @property
    def queued(self) -> float:
        """Seconds so far in which a thread of it was ready to run, and no core was free for it."""
        return sum(map(queued, (PROC / str(self.pid) / "task").glob("*")))

    def signal(self, signum: int) -> bool:
        """Send *signum*; False when it is gone. The pidfd keeps the pid from being another's in between."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True


def read_stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the command may hold blanks and brackets


def queued(task: Path) -> float:
    """Seconds in which the thread of this folder of /proc waited for a core; 0 when it is gone, or none is counted."""
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def open_files(pid: int) -> dict[int, str]:
    """What each descriptor of a process leads to; those that it closes meanwhile are left out."""
    found = {}
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(entry.name)] = os.readlink(entry)
    return found


def process(pid: int) -> Process:
    """The process that has *pid* now. ProcessLookupError when there is none."""
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return Process(pid, int(stat[STARTED]))


def marked(pids: Iterable[int] | None = None, /, **marks: str) -> list[Process]:
    """Every process alive, or each of *pids*, whose environment holds one of *marks*, oldest first."""
    entries = PROC.iterdir() if pids is None else (PROC / str(pid) for pid in pids)
    return sorted(_marked(entries, marks), key=lambda found: (found.started, found.pid))


def _marked(entries: Iterable[Path], marks: dict[str, str]) -> Iterator[Process]:
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    for entry in entries:
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted.isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                continue  # nearly all are others', and end with this look
            found = process(int(entry.name))
        except OSError:
            continue
        environ = found.environ
        if found.alive and any(environ.get(name) == value for name, value in marks.items()):
            yield found


def end_marked(*, timeout: float = 30.0, **marks: str) -> list[Process]:
    """SIGKILL what carries one of *marks* until none is left; return what had to be killed."""
    killed: dict[Process, None] = {}
    deadline = time.monotonic() + timeout
    while rest := marked(**marks):
        for found in rest:
            found.signal(signal.SIGCONT)
            found.signal(signal.SIGKILL)
            killed[found] = None
        if time.monotonic() > deadline:
            raise AssertionError(f"not to be killed: {rest}")
        time.sleep(0.01)
    return list(killed)


@contextlib.contextmanager
def script_folder() -> Iterator[Path]:
    """Yield a folder for the circusd of a script; a SIGTERM ends the script in order, and with it all its processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory(prefix="xb-script-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Have this process, root's, look as a plain user does."""
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
