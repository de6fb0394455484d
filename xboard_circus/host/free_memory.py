"""Find how much memory can be had, on the host and within the limits of control groups."""

import os
from pathlib import Path

import psutil

from xboard_circus.host import oom

_V2 = (("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


def limit_in(cgroup: Path) -> tuple[int, int] | None:
    """Return total and available bytes of a control group; None without a limit.

    Beyond memory.high the kernel throttles all of its processes.
    """
    for limits, usage, cache in (_V2, _V1):
        try:
            written = [(cgroup / limit).read_text().strip() for limit in limits if os.path.exists(cgroup / limit)]
            most = min(int(each) for each in written if each != "max")
            used = int((cgroup / usage).read_text())
            cached = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # without a limit
            continue
        # The kernel gives back what it only caches of files.
        return most, most - used + int(cached.get(cache, 0))
    return None


def available() -> int:
    """Return how many more bytes this process and its children can have."""
    group = oom.count_file_of(os.getpid())
    limits = [limit_in(folder) for folder in group.parents] if group is not None else []
    return min([psutil.virtual_memory().available, *(limited[1] for limited in limits if limited is not None)])
