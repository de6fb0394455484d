"""Memory and load of this host, and of the container that it may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from xboard_circus.checks.findings import Finding, graded, warning
from xboard_circus.doctor.case import Case
from xboard_circus.host import oom

MIB = 1 << 20
LITTLE, VERY_LITTLE = 0.10, 0.04
HIGH, VERY_HIGH = 1.5, 4.0
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in all and bytes that can still be had."""

    total: int
    available: int


def memory(_case: Case) -> Iterator[Finding]:
    """Yield a line for the host's memory, one for the container's limit, one where the kernel has killed for want."""
    found = psutil.virtual_memory()
    yield of_memory("this host", Memory(found.total, found.available))
    if (limited := limit_in(CGROUP)) is not None and limited.total < found.total:
        yield of_memory("this container", limited)
    if killed := oom.count_in(oom.HOST):
        what = f"the kernel has killed {killed} processes for want of memory since boot"
        yield warning(what, "`dmesg -T | grep -i oom`; set worker.max_rss, or lower numprocesses")


def load(_case: Case) -> Iterator[Finding]:
    """Yield a line for the load of the last five minutes."""
    yield of_load(os.getloadavg()[1], os.cpu_count() or 1)


def of_memory(where: str, found: Memory) -> Finding:
    """Return whether that is enough."""
    share = found.available / max(1, found.total)
    what = f"{found.available / MIB:,.0f} MiB of {found.total / MIB:,.0f} can be had on {where}"
    hint = "`top -o %MEM` shows who has it; lower numprocesses, or set worker.max_rss"
    return graded(what, hint, error=share < VERY_LITTLE, warning=share < LITTLE)


def of_load(five_minutes: float, cores: int) -> Finding:
    """Return whether the cores keep up."""
    what = f"{five_minutes:.1f} over five minutes, with {cores} cores"
    hint = "`top` shows who; with a load this high probes come late: raise health.timeout, or take work off this host"
    return graded(what, hint, error=five_minutes > VERY_HIGH * cores, warning=five_minutes > HIGH * cores)


def limit_in(cgroup: Path) -> Memory | None:
    """Return the memory of a control group of version 2; None where it has no limit."""
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        cached = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None
    # What is only cached of files is given back when it is wanted.
    return Memory(int(most), int(most) - used + int(cached.get("inactive_file", 0)))
