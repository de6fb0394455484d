"""Limits on open files and processes: of this shell, of circusd, of each watcher's workers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xboard_circus.checks.findings import Finding, bad, graded, unknown
from xboard_circus.doctor.case import Case

FILES, PROCESSES = 65_536, 4_096
FEW_FILES, FEW_PROCESSES = 1_024, 256
USED = 0.8


@dataclass(frozen=True, slots=True)
class Limits:
    """Soft limits, and the hard limit up to which they may be raised; `math.inf` without one."""

    files: float
    processes: float
    most_files: float = math.inf


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each process that matters; of a watcher's workers one is like the other."""
    shown = {"this shell": os.getpid()}
    if case.circusd is not None:
        shown["circusd"] = case.circusd.pid
    if case.snapshot is not None:
        shown.update({each.name: each.workers[0].pid for each in case.snapshot.watchers if each.workers and each.armed})
    for name, pid in shown.items():
        try:
            found = limits_in(Path(f"/proc/{pid}/limits").read_text())
            used = len(os.listdir(f"/proc/{pid}/fd"))
        except (OSError, ValueError):
            hint = "look as root, or as its user"
            yield unknown(f"{name} (pid {pid}): its limits cannot be read", hint)
            continue
        yield of_process(name if name == "this shell" else f"{name} (pid {pid})", found, used, name=name)


def of_process(what: str, found: Limits, used: int, *, name: str) -> Finding:
    """Return whether a process may open and start as much as a busy backend needs."""
    told = f"{what}: {_number(found.files)} open files, {used} in use; {_number(found.processes)} processes"
    hint = "; ".join(_hints(found, name))
    if used > USED * found.files:
        return bad(f"{told}: nearly all are in use", hint or "look for a leak: `ls -l /proc/PID/fd`")
    is_small = found.files < FEW_FILES or found.processes < FEW_PROCESSES
    return graded(told, hint, error=is_small, warning=bool(hint))


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


def limits_in(text: str) -> Limits:
    """Return the soft limits in a ``/proc/PID/limits``; ValueError where they are not in it."""
    files, most_files = _soft_and_hard(text, "Max open files")
    return Limits(files, _soft_and_hard(text, "Max processes")[0], most_files)


def _soft_and_hard(text: str, name: str) -> tuple[float, float]:
    match = re.search(rf"^{name}\s+(\d+|unlimited)\s+(\d+|unlimited)\s", text, re.MULTILINE)
    if match is None:
        raise ValueError(name)
    soft, hard = (math.inf if each == "unlimited" else int(each) for each in match.groups())
    return soft, hard


def _number(limit: float) -> str:
    return "unlimited" if limit == math.inf else str(int(limit))
