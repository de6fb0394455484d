"""Live where another process lives: in its control groups and namespaces, with its niceness and processors.

What starts the next circusd may be a timer of systemd, a hook of certbot's, or a shell with less: systemd ends with a
unit all that is in its control group, and a child inherits all else.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from xboard_circus.errors import XboardError
from xboard_circus.host import procs
from xboard_circus.host.oom import CGROUPS
from xboard_circus.host.programs import output_of

NAMESPACES = {"user": 0x10000000, "net": 0x40000000, "mnt": 0x00020000}
"""Those that are entered, with their flags for setns(2). Without the mounts of circusd one may go on."""
OF_SYSTEMD = ("", "name=systemd")
"""The trees in which systemd knows the processes of a unit: that of the second version, and its own of the first."""
ANSWERS_WITHIN = 30.0
KILLED_BY = {"control-group", "mixed", ""}


def unit_around(pid: int | str = "self") -> dict[str, str]:
    """Return the service of systemd in whose control group *pid* is, as ``systemctl show`` does; {} without one.

    Only its name where systemctl does not answer.
    """
    groups = procs.groups_of(pid)
    for group in filter(None, map(groups.get, OF_SYSTEMD)):
        units = [part for part in group.split("/") if part.endswith((".service", ".scope"))]
        if not units or units[-1].endswith(".scope"):
            continue
        for manager in ("--system", "--user"):
            asked = ("systemctl", manager, "show", "--property=Id,ControlGroup,MainPID,KillMode", "--", units[-1])
            lines = (output_of(*asked, within=ANSWERS_WITHIN) or "").splitlines()
            found = dict(line.split("=", 1) for line in lines if "=" in line)
            if found.get("ControlGroup") and f"{group}/".startswith(f"{found['ControlGroup']}/"):
                return found
        return {"Id": units[-1]}
    return {}


@contextmanager
def opened(pid: int) -> Iterator[str]:
    """Open the folder of *pid* in /proc and yield its path below /proc: of this process or of none, whoever gets its
    pid; "" where there is none."""
    try:
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it is gone, or this is no Linux
        yield ""
        return
    try:
        yield f"self/fd/{folder}"
    finally:
        os.close(folder)


def enter(circusd: str) -> None:
    """Enter the namespaces and control groups of *circusd*, a path of `opened`, for us and all that we start.

    XboardError where the network of its successor would be another one, or where systemd would end it with our unit.
    """
    if circusd:
        groups = procs.groups_of(circusd)  # first: the /proc of its mounts may be one in which we are not
        _enter_namespaces(circusd)
        _join_groups(groups)


def _enter_namespaces(circusd: str) -> None:
    folder = procs.folder_of(os.getpid())
    for kind, flag in NAMESPACES.items():
        theirs = f"/proc/{circusd}/ns/{kind}"
        with suppress(OSError):  # a kernel without them, or a process that may not be looked at
            if os.readlink(theirs) == os.readlink(f"/proc/self/ns/{kind}"):
                continue
            import ctypes  # os.setns is there from Python 3.12 on

            with open(theirs, "rb", buffering=0) as file:
                failed = ctypes.CDLL(None).setns(file.fileno(), flag)
            if failed and kind != "mnt":
                where = f"circusd runs in another {kind} namespace, which this command may not enter"
                raise XboardError(f"{where}; nothing was stopped: run it in that one, such as in a login shell")
    with suppress(OSError):  # a removed one
        os.chdir(folder)


def _join_groups(theirs: dict[str, str]) -> None:
    ours = procs.groups_of()
    apart = [tree for tree, group in theirs.items() if ours.get(tree) != group and not _join(tree, group)]
    if not set(apart) & set(OF_SYSTEMD):
        return
    unit = unit_around()
    if unit and unit.get("KillMode", "") in KILLED_BY:
        cure = f"run this in a login shell, or write KillMode=process into [Service] of {unit['Id']}"
        what = f"this runs in {unit['Id']}, may not leave it, and systemd would end the next circusd with it"
        raise XboardError(f"{what}; nothing was stopped: {cure}")


def _join(tree: str, group: str) -> bool:
    """Return whether this process is now in *group* of a *tree*, whichever of its usual places that is mounted at."""
    tops = (CGROUPS, CGROUPS / "unified") if tree == "" else (CGROUPS / tree.removeprefix("name="),)
    for top in tops:
        # Made nowhere: of a host with both versions the upper folder is no tree.
        with suppress(OSError), open(f"{top}{group}/cgroup.procs", "rb+", buffering=0) as file:
            file.write(b"0")
            return True
    return False


def live_as(pid: int) -> list[str]:
    """Take over niceness, processors and place before the OOM killer of *pid*; return what this user may not."""
    if sys.platform != "linux":
        return []
    inherited: list[tuple[str, Callable[[int], Any], Callable[[int, Any], object]]] = [
        ("niceness", partial(os.getpriority, os.PRIO_PROCESS), partial(os.setpriority, os.PRIO_PROCESS)),
        ("processors", os.sched_getaffinity, os.sched_setaffinity),
        ("oom_score_adj", lambda of: _oom_score(of).read_text().strip(), lambda of, to: _oom_score(of).write_text(to)),
    ]
    lost = []
    for name, read, write in inherited:
        with suppress(OSError):  # gone, or hidden
            if (own := read(0)) == (theirs := read(pid)):
                continue
            try:
                write(0, theirs)
            except OSError:
                lost.append(f"{name} {own} in place of {theirs}")
    return lost


def _oom_score(pid: int) -> Path:
    return Path(f"/proc/{pid or 'self'}/oom_score_adj")
