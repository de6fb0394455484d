"""A real memory cgroup, so that the kernel's OOM killer really kills."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOTS = [
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),  # version 1
    (Path("/sys/fs/cgroup"), "memory.max"),  # version 2
]


@contextlib.contextmanager
def memory_group(pid: int, *, limit: int) -> Iterator[None]:
    """Put the process *pid* into a memory cgroup of its own with *limit* bytes; skip the test where nobody may."""
    made = _make(limit)
    if made is None:
        pytest.skip("no memory cgroup can be made here: it takes root, and a writable /sys/fs/cgroup")
    try:
        (made / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for left in (made / "cgroup.procs").read_text().split():
            (made.parent / "cgroup.procs").write_text(left)
        _remove(made)


def _make(limit: int) -> Path | None:
    for root, name in ROOTS:
        group = root / f"xboard-test-{uuid.uuid4().hex[:8]}"
        if os.geteuid() != 0 or not root.is_dir():
            continue
        with contextlib.suppress(OSError):
            group.mkdir()
            with contextlib.suppress(OSError):
                (group / name).write_text(str(limit))
                return group
            group.rmdir()
    return None


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
            return
        except OSError:  # its last process is not reaped yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
