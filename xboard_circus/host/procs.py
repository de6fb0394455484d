"""Identify a process by its pid and its start time, and signal no other.

A pid alone is not enough, because the system reuses it as soon as the first process is reaped. With the start time it
names one process for as long as the machine runs.
"""

import errno
import os
import signal
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar

import psutil

# Linux counts a start in ticks since boot, which no clock step moves; elsewhere it is wall time, in hundredths.
TICKS = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 100

POLL = 0.02
PR_SET_CHILD_SUBREAPER = 36
AT_SECURE = 23  # see getauxval(3)
READ_AT_MOST = 1 << 20
"""Most bytes read of a file in /proc. Any user can show GiBs as an environment or a command line, by
prctl(PR_SET_MM_MAP)."""
MARKS = frozenset(
    f"XBOARD_{name}"
    for name in (
        *("INSTANCE", "CIRCUSD", "HOME", "CONFIG", "WATCHER"),
        *("WID", "WORKER", "LAUNCHER", "SESSION", "FORK_ORDERS"),
    )
)
"""Variables by which we know what is ours. What runs for the user beside us has none of them."""
_CHUNK = 1 << 14
_ENDED = frozenset("ZXx")
_HARMLESS = {
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
}
Users = Collection[int | None]
Found = TypeVar("Found")
Missing = TypeVar("Missing")


class Stat(NamedTuple):
    """Facts of a process from one reading of /proc or psutil."""

    state: str
    parent: int
    threads: int
    started: int

    @property
    def has_ended(self) -> bool:
        """Return whether only the entry in the process table is left.

        A process with a finished first thread is shown as a zombie while its other threads still run, or still close
        its files; until the last has ended it can hold a port.
        """
        return self.state in _ENDED and self.threads <= 1


class Identity(NamedTuple):
    """Identity of one process, and not of the next one with its pid.

    >>> Identity.parse("4242:1760").pid, str(Identity(4242, 1760))
    (4242, '4242:1760')
    """

    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.pid}:{self.started}"

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Parse the text of `str`; ValueError for any other."""
        pid, _, started = text.partition(":")
        if not (pid.isascii() and pid.isdigit() and started.isascii() and started.isdigit()):
            raise ValueError(f"not pid:started: {text[:40]!r}")
        if len(started) > 20 or not 0 < int(pid[:12]) < 2**31:
            raise ValueError(f"no pid has this number: {text[:40]!r}")
        return cls(int(pid), int(started))

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Return the identity of the process that has *pid* now."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)


def start_time(pid: int) -> int | None:
    """Return the start time of *pid* (see `Identity`), also of a zombie; None if it is gone or unreadable."""
    stat = read_stat(pid)
    return None if stat is None else stat.started


def user_of(pid: int) -> int | None:
    """Return the uid of *pid*; None if it is gone."""
    return by_psutil(pid, lambda process: process.uids().real, None)


def by_psutil(pid: int, ask: Callable[[psutil.Process], Found], missing: Missing) -> Found | Missing:
    """Return what psutil reports of *pid*; *missing* if that is gone or may not be looked at."""
    with suppress(psutil.Error, OSError, ValueError):
        return ask(psutil.Process(pid))
    return missing


def folder_of(pid: int) -> str:
    """Return the working directory of *pid*; "" where it is gone, or its path is longer than the kernel shows."""
    return by_psutil(pid, psutil.Process.cwd, "")


def users_of(pid: int) -> set[int]:
    """Return the real, effective and saved uid of *pid*, of which a program with the setuid bit has several; none if
    it is gone."""
    with suppress(psutil.Error, OSError, ValueError, KeyError):
        if sys.platform != "linux":
            return set(psutil.Process(pid).uids())
        return set(map(int, _status(pid)[b"Uid"][:3]))  # a tenth of psutil's work
    return set()


def now() -> int:
    """Return the start time of a process that starts now (see `Identity`)."""
    return int((time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.time()) * TICKS)


def age(started: int) -> float:
    """Return the seconds since *started*."""
    return max(0.0, (now() - started) / TICKS)


def is_of(pid: int, users: Users) -> bool:
    """Return whether *pid* runs as one of *users* alone, or root is among them; or it is gone.

    Whoever gives himself our marks, or runs what has the setuid bit, may have a process of another user's below.
    """
    return 0 in users or users_of(pid) <= {*users}


def is_running(pid: int, started: int, users: Users = (0,)) -> bool:
    """Return whether this very process runs, and is of *users* (see `is_of`); a zombie does not.

    An unreadable one (/proc mounted with hidepid, no descriptor left) counts as running: otherwise the workers of a
    live circusd would be taken for orphans.
    """
    stat = read_stat(pid)
    return _exists(pid) if stat is None else stat.started == started and not stat.has_ended and is_of(pid, users)


def send_signal(pid: int, started: int, signum: int, users: Users) -> bool:
    """Send *signum* to this very process, if it is of *users* by now (see `is_of`); False when it is gone.

    Every signal asks that anew: a program with the setuid bit, such as `sudo`, keeps the pid and the start time of the
    process that becomes it by execve.

    ValueError for pid 1, ourselves and our ancestors (see `spared`); PermissionError for another user's process, and
    for one that cannot be distinguished from the next with its pid.
    """
    if pid <= 1 or pid in spared():
        raise ValueError(f"no signal {signum} to {pid}: it is this process, or one that it runs under")
    pidfd = None
    try:
        pidfd = open_pidfd(pid)
        now, stat = users_of(pid), read_stat(pid)
        if stat is None and _exists(pid):
            raise PermissionError(f"no signal {signum} to {pid}: its start time can't be read")
        if stat is None or stat.started != started or stat.has_ended:
            return False
        if 0 not in users and not set() < now <= {*users}:
            raise PermissionError(f"no signal {signum} to {pid}: it is another user's by now")
        if pidfd is None:
            os.kill(pid, signum)
        elif sys.platform == "linux":
            signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def signal_all(processes: Mapping[Identity, Users], signum: int, patience: float) -> dict[Identity, Users]:
    """Send *signum* to each of *processes* that is of its users; return those that got it and still run after
    *patience* seconds.

    Ourselves, our ancestors and other users' processes are left out.
    """
    got = {}
    for each, users in processes.items():
        with suppress(ValueError, PermissionError):
            if send_signal(*each, signum, users):
                got[each] = users
                if signum == signal.SIGTERM:
                    # A stopped process acts on nothing but SIGKILL until it goes on.
                    send_signal(*each, signal.SIGCONT, users)
    deadline = time.monotonic() + patience
    while (left := {each: got[each] for each in got if is_running(*each)}) and time.monotonic() < deadline:
        time.sleep(POLL)
    return left


def ancestors(of: int | None = None) -> list[int]:
    """Return the ancestors of a process (None: this one), its parent first."""
    found = [os.getpid(), os.getppid()] if of is None else [of]
    while (stat := read_stat(found[-1])) is not None and stat.parent not in found:
        found.append(stat.parent)
    return [pid for pid in found[1:] if pid > 0]


def spared() -> set[int]:
    """Return this process and its ancestors, without a worker in another session.

    The app of a worker may have run the command that has started this circusd, and waits for it: that worker would
    serve the old code for ever.
    """
    own = os.getsid(0)
    above = {pid: session_of(pid) for pid in ancestors()}
    return {os.getpid(), *(pid for pid in above if above[pid] == own or str(above[pid]) != launcher_in(marks(pid)))}


def launcher_in(known: Mapping[str, str] | None) -> str:
    """Return the pid of the launcher in the environment of a worker, by which its session is named; "" without one."""
    return (known or {}).get("XBOARD_LAUNCHER", "").partition(":")[0]


def without_marks(variables: Mapping[str, str]) -> dict[str, str]:
    """Return *variables* without those by which we would take a process, and all that it starts, for one of ours."""
    return {name: value for name, value in variables.items() if name not in MARKS}


def environ(pid: int) -> dict[str, str] | None:
    """Return the environment that *pid* was started with; None if it is gone or may not be read.

    It is empty for a program that writes its title over it (setproctitle without SPT_NOENV=1), and, on some kernels,
    for a zombie. One longer than `READ_AT_MOST` is not read, so its process is not known to be ours. Nor is what runs
    with the setuid bit, such as sudo: whoever runs it has chosen its environment, and not its user.
    """
    if (raw := _environ(pid)) is None:
        return None
    entries = (os.fsdecode(entry).partition("=") for entry in reversed(raw.split(b"\0")))
    return {name: value for name, equals, value in entries if equals}  # of two with one name, getenv() finds the first


def marks(pid: int) -> dict[str, str] | None:
    """Return those of `MARKS` that `environ` has, without a look at the others: any user may have 100,000 of them."""
    if (raw := _environ(pid)) is None:
        return None
    ways = {name: raw.partition(f"\0{name}=".encode())[1:] for name in MARKS}
    return {name: os.fsdecode(rest.partition(b"\0")[0]) for name, (is_there, rest) in ways.items() if is_there}


def _environ(pid: int) -> bytes | None:
    """Return the environment of *pid* as /proc shows it, after a null byte."""
    if sys.platform != "linux":
        known = by_psutil(pid, psutil.Process.environ, None)
        return None if known is None else os.fsencode("".join(f"\0{name}={value}" for name, value in known.items()))
    with suppress(OSError):
        raw = _read(f"/proc/{pid}/environ")
        if b"XBOARD_" not in raw or struct.pack("NN", AT_SECURE, 1) not in _read(f"/proc/{pid}/auxv"):
            return b"\0" + raw
    return None


def command_line(pid: int) -> list[str]:
    """Return the command line of *pid*, or its title; [] where it cannot be read or is too long.

    psutil reads it without a limit, also for a process name of 15 letters.
    """
    if sys.platform != "linux":
        return by_psutil(pid, psutil.Process.cmdline, [])
    with suppress(OSError):
        raw = _read(f"/proc/{pid}/cmdline")
        words = os.fsdecode(raw).rstrip("\0").split("\0")  # a title is shorter than the command line that it replaces
        return words[0].split(" ") if len(words) == 1 and words[0] else words if raw else []
    return []


def config_file_of(pid: int) -> str | None:
    """Return the ini file on the command line of the circusd *pid*; None if that is none, or cannot be read."""
    if not (folder := folder_of(pid)):
        return None
    files = [os.path.join(folder, word) for word in command_line(pid)[1:] if not word.startswith("-")]
    return next((file for file in files if file.endswith((".ini", ".conf", ".cfg")) and os.path.isfile(file)), None)


def name_of(pid: int) -> str:
    """Return the name of the program of *pid*, on Linux its first 15 letters; "?" if it is gone."""
    if sys.platform != "linux":
        return by_psutil(pid, psutil.Process.name, "?")
    with suppress(OSError):
        return os.fsdecode(_read(f"/proc/{pid}/comm")).removesuffix("\n")
    return "?"


def unit_of(pid: int) -> str:
    """Return the systemd unit that has *pid* as its main process, such as "xboard-backend.service"; "" without one."""
    if (environ(pid) or {}).get("SYSTEMD_EXEC_PID") != str(pid):
        return ""
    names = (group.rpartition("/")[2] for group in groups_of(pid).values())
    return next((name for name in names if name.endswith(".service")), "")


def groups_of(pid: int | str = "self") -> dict[str, str]:
    """Return the control groups of *pid*, by the second column of cgroups(7): the tree of each; {} if it is gone."""
    with suppress(OSError):
        lines = os.fsdecode(_read(f"/proc/{pid}/cgroup")).split("\n")  # the only letter that no name may have
        return dict(line.split(":", 2)[1:] for line in lines[:-1])
    return {}


def is_of_our_pid_space(pid: int) -> bool:
    """Return whether *pid* is in our PID namespace; a process in a container is not."""
    if sys.platform != "linux":
        return True
    try:
        own = os.readlink("/proc/self/ns/pid")
    except OSError:
        return True  # a kernel without containers
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid") == own
    return False


def session_of(pid: int) -> int | None:
    """Return the session of *pid*; None where it is gone or may not be read."""
    with suppress(OSError):
        return os.getsid(pid)
    return None


def adopt_orphans() -> None:
    """Adopt descendants that have lost their parent (Linux: a child subreaper, see prctl(2))."""
    import ctypes  # only a forkserver and a container's first process need it

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pids() -> list[int]:
    """Return the pids of all visible processes."""
    return psutil.pids()


def snapshot() -> dict[int, Stat]:
    """Return all visible processes, by pid."""
    return {pid: stat for pid in pids() if (stat := read_stat(pid)) is not None}


def with_descendants(roots: Iterable[int], processes: Mapping[int, Stat]) -> set[int]:
    """Return *roots* and all that is below them among *processes*.

    For many roots: psutil reads all processes for the descendants of each, which took 1.1 s for 200 workers, and this
    4 ms.

    >>> parents = {7: 1, 8: 7, 9: 8, 3: 1}
    >>> sorted(with_descendants({7}, {pid: Stat("S", parent, 1, 0) for pid, parent in parents.items()}))
    [7, 8, 9]
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, stat in processes.items():
        children[stat.parent].append(pid)
    found, left = set[int](), list(roots)
    while left:
        if (pid := left.pop()) not in found:
            found.add(pid)
            left += children[pid]
    return found


def read_stat(pid: int) -> Stat | None:
    """Read the facts of *pid*; None if it is gone or unreadable."""
    if sys.platform != "linux":
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
            return Stat(state, process.ppid(), 1, int(process.create_time() * TICKS))
        return None
    with suppress(OSError):
        raw = _read(f"/proc/{pid}/stat")
        fields = raw.rpartition(b")")[2].split()  # the program's name stands in parentheses and may hold any character
        return Stat(fields[0].decode(), int(fields[1]), int(fields[17]), int(fields[19]))
    return None


class FirstThread(NamedTuple):
    """What Linux shows of the first thread of a process; numbers that it does not count are 0.

    Attributes:
        is_stopped: A signal such as SIGSTOP has stopped it; False where a debugger holds it.
        ran: For how many seconds it was on a core, and *queued* for how many it was ready to be, and none was free.
        waits: How often it left its core to wait, and *turns* how often for another thread.
    """

    is_stopped: bool
    ran: float
    waits: int
    turns: int
    queued: float = 0.0


def first_thread(pid: int) -> FirstThread | None:
    """Return what Linux shows of the first thread of *pid*; None if nothing is known."""
    ran = queued = 0
    with suppress(OSError, ValueError, IndexError):
        ran, queued = map(int, _read(f"/proc/{pid}/schedstat").split()[:2])
    with suppress(OSError, ValueError, LookupError):
        found = _status(pid)
        names = b"voluntary_ctxt_switches", b"nonvoluntary_ctxt_switches"
        waits, turns = (int(found.get(each, [b"0"])[0]) for each in names)
        return FirstThread(found[b"State"][0] == b"T", ran / 1e9, waits, turns, queued / 1e9)
    return None


def would_end(pid: int, signum: int) -> bool:
    """Return whether *signum* ends *pid*, which neither handles nor ignores nor blocks it; False where that is unknown.

    Only as its default action is: SIGSTOP, SIGCONT and their like end nothing.
    """
    with suppress(OSError, ValueError, LookupError):
        found, bit = _status(pid), 1 << signum - 1
        masks = [int(found[name][0], 16) for name in (b"SigCgt", b"SigIgn", b"SigBlk")]
        return signum not in _HARMLESS and not any(mask & bit for mask in masks)
    return False


def _status(pid: int) -> dict[bytes, list[bytes]]:
    """Return what /proc/PID/status has, by name."""
    lines = [line.partition(b":") for line in _read(f"/proc/{pid}/status").splitlines()]
    return {name: value.split() for name, _, value in lines}


def _read(path: str) -> bytes:
    """Read a file of /proc; OSError if it has more than `READ_AT_MOST` bytes."""
    raw = bytearray()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            raw += chunk
            if len(raw) > READ_AT_MOST:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return bytes(raw)


def _exists(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def was_started(child: int, forkservers: Collection[int] = ()) -> bool:
    """Return whether circusd started this child of its own, and did not adopt it from a worker.

    Each that it starts has a session of its own. So may an adopted one, because circusd is the subreaper of its
    workers; but its launcher was the worker's, or, if an app started it, it has none.
    """
    known = marks(child) or {}
    is_launched = "XBOARD_WID" not in known or launcher_in(known) in map(str, (child, *forkservers))
    return session_of(child) == child and "XBOARD_INSTANCE" in known and is_launched


def open_pidfd(pid: int) -> int | None:
    """Open a descriptor of *pid* alone; None where kernel, sandbox or this build of Python cannot.

    It gets readable when the process ends. ProcessLookupError if that is gone already.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


def below(parent: Identity, *, recursive: bool = False) -> list[Identity]:
    """Return the children of *parent*, or all its descendants; none if it is gone."""
    if not is_running(parent.pid, parent.started):
        return []
    children = by_psutil(parent.pid, lambda process: process.children(recursive=recursive), [])
    return [found for child in children if (found := Identity.of(child.pid)) is not None]
