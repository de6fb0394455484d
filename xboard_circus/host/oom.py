"""Distinguish the kernel's OOM killer from other senders of SIGKILL, by its own counts, and direct it to processes
that do not serve yet.

Reads a few lines of /proc and /sys, which never block. Without them (macOS) the killer is unknown.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from xboard_circus.core.sentences import Say

HOST = Path("/proc/vmstat")
CGROUPS = Path("/sys/fs/cgroup")
TOPS = (CGROUPS / "memory.events", CGROUPS / "memory" / "memory.oom_control")
FIRST_CHOICE = "1000"
MOST_DESCENDANTS = 256
"""How many processes are looked at for one worker, so that one that starts thousands does not hold circusd up."""
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def count_file_of(pid: int, *, proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> Path | None:
    """Return the file in which the kernel counts its kills in the memory cgroup of process *pid*."""
    try:
        with open(f"{proc}/{pid}/cgroup", "rb", buffering=0) as file:
            return _count_file(file.read(), cgroups)
    except OSError:
        return None


@lru_cache(64)
def _count_file(groups: bytes, cgroups: Path) -> Path | None:
    # Kept, because most workers are in one group, and circusd looks at each of them in each round.
    for line in os.fsdecode(groups).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        name, top = ("memory.oom_control", cgroups / "memory") if controllers else ("memory.events", cgroups)
        # In a container without a namespace of its own the path is the host's, and its own group lies at the top.
        for found in (top / path.lstrip("/") / name, top / name):
            if os.path.isfile(found):
                return found
    return None


def count_in(path: Path) -> int | None:
    """Return how many processes the kernel has killed, as counted in *path*; None without a count."""
    try:
        found = _COUNT.search(path.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def kill_like_others(pid: int) -> None:
    """Undo `launch.be_killed_first` for *pid* and its descendants: they are as probable a choice as this process.

    See /proc/PID/oom_score_adj in proc(5).
    """
    with suppress(OSError):
        usual = _adjustment(os.getpid()).read_text()
        for each in _with_descendants(pid):
            with suppress(OSError):
                if _adjustment(each).read_text().strip() == FIRST_CHOICE:
                    _adjustment(each).write_text(usual)


def _with_descendants(pid: int) -> Iterator[int]:
    # Not by psutil, which reads every process of the host for that: circusd does this for each worker.
    left = deque([pid])
    for _ in range(MOST_DESCENDANTS):
        if not left:
            return
        yield (each := left.popleft())
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                left += map(int, path.read_text().split())


def _adjustment(pid: int) -> Path:
    return Path(f"/proc/{pid}/oom_score_adj")


class OomKills:
    """The last two OOM counts, so that a death can be compared with the time before it.

    One look is not enough: it would include a kill between the reaping and the look.
    """

    def __init__(
        self, *, find: Callable[[int], Path | None] = count_file_of, read: Callable[[Path], int | None] = count_in
    ) -> None:
        self._find, self._read = find, read
        self._files: dict[int, Path] = {}
        self._counts: dict[Path, tuple[int | None, int | None]] = {}

    def look(self, pids: Iterable[int]) -> None:
        """Read the counts for the live processes."""
        # With circusd's own, in whose group most workers are: a group's count says nothing of the time before the first
        # look at it, and a worker may have died by then.
        files = {pid: self._file_of(pid) for pid in (os.getpid(), *pids)}
        counts = {}
        for path in {HOST, *files.values()}:
            now = self._read(path)
            counts[path] = (self._counts.get(path, (None, None))[1] if self._counts else now, now)
        self._files, self._counts = files, counts

    def _file_of(self, pid: int) -> Path:
        found, known = self._find(pid), self._files.get(pid)
        # The kernel shows a process that has died and is not reaped yet at the top of the first version's groups.
        return known or found or HOST if found in TOPS else found or known or HOST

    def killed(self, pid: int) -> str | None:
        """Return the evidence that the kernel just killed *pid*; "" if it did not, None if unknown.

        A count that rose by one explains one death. For a process that was never looked at there is only the host's
        count, which proves something only if it did not rise: the kernel may have killed any process.
        """
        path = self._files.get(pid) or self._find(pid) or HOST
        before, latest = self._counts.get(path, (None, None))
        now = self._read(path)
        if now is None or before is None or (path == HOST and pid not in self._files):
            return "" if self._is_quiet() else None
        if now <= before:
            return ""
        self._counts[path] = (before + 1, latest if latest is None else max(latest, before + 1))
        return Say.OOM_OF_HOST() if path == HOST else Say.OOM_OF_CGROUP()

    def _is_quiet(self) -> bool:
        """Return whether the kernel has killed no process on the whole host since the look before the last one."""
        before, _ = self._counts.get(HOST, (None, None))
        return before is not None and self._read(HOST) == before
