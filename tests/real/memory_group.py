"""A real cgroup: of memory, so that the kernel's OOM killer really kills, or of processes."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOTS = [
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),  # version 1
    (Path("/sys/fs/cgroup"), "memory.max"),  # version 2
]
USED = ("memory.usage_in_bytes", "memory.current")
OF_PROCESSES = [(Path("/sys/fs/cgroup/pids"), "pids.max"), (Path("/sys/fs/cgroup"), "pids.max")]


@dataclass(frozen=True)
class Group:
    """A cgroup; *limit* is the file that bounds it."""

    folder: Path
    limit: str

    def __str__(self) -> str:
        return self.folder.name

    def processes(self) -> int:
        """Count the processes in it, those that have ended and were not reaped among them."""
        return len((self.folder / "cgroup.procs").read_text().split())

    def leave(self, size: int) -> None:
        """Bound it to *size* bytes more than it takes now."""
        used = next(each for each in USED if (self.folder / each).exists())
        (self.folder / self.limit).write_text(str(int((self.folder / used).read_text()) + size))

    def shrink(self) -> None:
        """Leave it 1 MiB: the kernel kills now, or, with version 1, when the process wants more."""
        with contextlib.suppress(OSError):  # where it has killed already
            (self.folder / self.limit).write_text(str(1 << 20))


@contextlib.contextmanager
def memory_group(pid: int, *, limit: int) -> Iterator[Group]:
    """Put the process *pid* into a memory cgroup of its own with *limit* bytes; skip the test where nobody may."""
    with _group(ROOTS, pid, limit) as made:
        yield made


@contextlib.contextmanager
def process_group(pid: int, *, limit: int) -> Iterator[Group]:
    """Put the process *pid* into a cgroup of its own with *limit* processes; skip the test where nobody may."""
    with _group(OF_PROCESSES, pid, limit) as made:
        yield made


@contextlib.contextmanager
def _group(roots: list[tuple[Path, str]], pid: int, limit: int) -> Iterator[Group]:
    made = _make(roots, limit)
    if made is None:
        pytest.skip("no such cgroup can be made here: it takes root, and a writable /sys/fs/cgroup")
    try:
        (made.folder / "cgroup.procs").write_text(str(pid))
        yield made
    finally:
        for left in (made.folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                (made.folder.parent / "cgroup.procs").write_text(left)
        _remove(made.folder)


def _make(roots: list[tuple[Path, str]], limit: int) -> Group | None:
    for root, name in roots:
        group = root / f"xboard-test-{uuid.uuid4().hex[:8]}"
        if os.geteuid() != 0 or not root.is_dir():
            continue
        with contextlib.suppress(OSError):
            group.mkdir()
            with contextlib.suppress(OSError):
                (group / name).write_text(str(limit))
                return Group(group, name)
            group.rmdir()
    return None


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            group.rmdir()
            return
        except OSError:  # its last process is not reaped yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
