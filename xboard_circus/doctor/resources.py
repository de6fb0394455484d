"""Examine the resources of the host: room on disks, memory, load, and limits of processes."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from xboard_circus import config as configuration
from xboard_circus.checks.findings import Finding, bad, graded, unknown, warning
from xboard_circus.config import Config
from xboard_circus.doctor.case import Case
from xboard_circus.host import oom, runtime
from xboard_circus.host.free_memory import limit_in
from xboard_circus.ledger.location import ledgers_of

MIB = 1 << 20
# Disks: the smaller of bytes and share counts, because a large disk has much left at five per cent.
LOW_BYTES, VERY_LOW_BYTES = 1024 * MIB, 100 * MIB
LOW_SHARE, VERY_LOW_SHARE = 0.1, 0.05
LOW_FILES, VERY_LOW_FILES = 0.05, 0.01
# Variables of the sample app; an app of the user's own keeps to its folder, or is unknown to us.
DATA_VARIABLES = ("XBOARD_DB", "XBOARD_UPLOADS")
# Memory and load.
LITTLE, VERY_LITTLE = 0.10, 0.04
HIGH, VERY_HIGH = 1.5, 4.0
# Limits.
FILES, PROCESSES = 65_536, 4_096
FEW_FILES, FEW_PROCESSES = 1_024, 256
USED = 0.8


def disk(case: Case) -> Iterator[Finding]:
    """Yield a line for each file system that is written to."""
    seen: dict[int, list[Path]] = {}
    for folder in folders(case.read_config):
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        seen.setdefault(there.stat().st_dev, []).append(there)
    yield from (of_room(", ".join(map(str, dict.fromkeys(each))), os.statvfs(each[0])) for each in seen.values())


def folders(config: Config) -> list[Path]:
    """Return the folders of the database, uploads, logs, the ledger and the runtime files."""
    found = [config.folder, *configuration.log_folders(config), runtime.root_path()]
    found += [ledger.parent for ledger in ledgers_of(config)]
    for watcher in config.watchers:
        files = [watcher.env[name] for name in DATA_VARIABLES if name in watcher.env]
        found += [watcher.working_dir, *((watcher.working_dir / file).parent for file in files)]
    return list(dict.fromkeys(found))


def of_room(where: str, found: os.statvfs_result) -> Finding:
    """Return whether a file system has room; 0 of 0 inodes means that it does not count them."""
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        return bad(f"nothing can be written to {where}: it is mounted read-only", "mount it for writing")
    what = f"{free / MIB:,.0f} MiB of {size / MIB:,.0f} left for {where}"
    hint = "delete or move something, or lower backup_count, ledger.max_mb and logs.keep_days"
    error, warning = free < min(VERY_LOW_BYTES, size * VERY_LOW_SHARE), free < min(LOW_BYTES, size * LOW_SHARE)
    of_bytes = graded(what, hint, error=error, warning=warning)
    what = f"{found.f_favail} of {found.f_files} inodes left for {where}"
    error, warning = (found.f_favail < found.f_files * share for share in (VERY_LOW_FILES, LOW_FILES))
    of_files = graded(what, "delete small files", error=error, warning=warning)
    return min(of_bytes, of_files, key=lambda finding: finding.level.rank)


def memory(_case: Case) -> Iterator[Finding]:
    """Yield a line for the host's memory, one for the container's limit, one for OOM kills."""
    found = psutil.virtual_memory()
    yield of_memory("this host", found.total, found.available)
    if (limited := limit_in(oom.CGROUPS)) is not None and limited[0] < found.total:
        yield of_memory("this container", *limited)
    if killed := oom.count_in(oom.HOST):
        what = f"the kernel has killed {killed} processes for want of memory since boot"
        yield warning(what, "`dmesg -T | grep -i oom`; set worker.max_rss, or lower numprocesses")


def of_memory(where: str, total: int, available: int) -> Finding:
    """Return whether the available bytes are enough."""
    share = available / max(1, total)
    what = f"{available / MIB:,.0f} MiB of {total / MIB:,.0f} can be had on {where}"
    hint = "`top -o %MEM` shows who has it; lower numprocesses, or set worker.max_rss"
    return graded(what, hint, error=share < VERY_LITTLE, warning=share < LITTLE)


def load(_case: Case) -> Iterator[Finding]:
    """Yield a line for the load of the last five minutes."""
    yield of_load(os.getloadavg()[1], os.cpu_count() or 1)


def of_load(five_minutes: float, cores: int) -> Finding:
    """Return whether the cores keep up."""
    what = f"{five_minutes:.1f} over five minutes, with {cores} cores"
    hint = "`top` shows who; with a load this high probes come late: raise health.timeout, or take work off this host"
    return graded(what, hint, error=five_minutes > VERY_HIGH * cores, warning=five_minutes > HIGH * cores)


class Limits(NamedTuple):
    """Soft limits, and the hard limit up to which they may be raised; `math.inf` without one."""

    files: float
    processes: float
    most_files: float = math.inf


def limits(case: Case) -> Iterator[Finding]:
    """Yield a line for each process that matters; one worker of a watcher stands for the others."""
    shown = {"this shell": os.getpid()}
    if case.circusd is not None:
        shown["circusd"] = case.circusd.pid
    if case.snapshot is not None:
        armed = [each for each in case.snapshot.watchers if each["workers"] and each["armed"]]
        shown |= {each["name"]: each["workers"][0]["pid"] for each in armed}
    for name, pid in shown.items():
        try:
            found, used = limits_of(pid), psutil.Process(pid).num_fds()
        except (psutil.Error, OSError, LookupError):  # only Linux has limits of other processes
            yield unknown(f"{name} (pid {pid}): its limits cannot be read", "look as root, or as its user")
            continue
        yield of_process(name if name == "this shell" else f"{name} (pid {pid})", found, used, name=name)


def limits_of(pid: int) -> Limits:
    """Return the limits of a process: from /proc, because prlimit(2) takes CAP_SYS_RESOURCE even of root."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    found = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    values = (*found["Max open files"], found["Max processes"][0])
    files, most, processes = (math.inf if each == "unlimited" else int(each) for each in values)
    return Limits(files, processes, most)


def of_process(what: str, found: Limits, used: int, *, name: str) -> Finding:
    """Return whether a process may open and start as much as a busy backend needs."""
    files, processes = ("unlimited" if each == math.inf else int(each) for each in (found.files, found.processes))
    shown = f"{what}: {files} open files, {used} in use; {processes} processes"
    hint = "; ".join(_hints(found, name))
    if used > USED * found.files:
        return bad(f"{shown}: nearly all are in use", hint or "look for a leak: `ls -l /proc/PID/fd`")
    is_small = found.files < FEW_FILES or found.processes < FEW_PROCESSES
    return graded(shown, hint, error=is_small, warning=bool(hint))


def _hints(found: Limits, name: str) -> Iterator[str]:
    if found.files < FILES <= found.most_files:
        yield f"`ulimit -n {FILES}` before `xboard-circus start`"
    elif found.files < FILES:
        unit = f"LimitNOFILE={FILES} into its unit"
        yield f"as root, write `* - nofile {FILES}` into /etc/security/limits.conf, or {unit}"
    if found.files < FILES and name not in ("this shell", "circusd"):
        yield f"or rlimit_nofile = {FILES} in [watcher:{name}]"
    if found.processes < PROCESSES:
        yield f"`ulimit -u {PROCESSES}` before `xboard-circus start`"
