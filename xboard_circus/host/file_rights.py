"""Open files with the rights of another user, though this process is root's.

In a folder of another user no look tells what an open will meet: that user exchanges the folder for a link between the
two. A program such as SQLite, which makes files beside the one that it reads, would make them where the link leads.
"""

import errno
import os
import sys
from pathlib import Path

from xboard_circus.host import writers
from xboard_circus.host.users import group_of, groups_of

SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "loongarch64": 159, "ppc64le": 81, "s390x": 206}


def others_at(path: Path) -> tuple[int, int] | None:
    """Return the number and group of a user besides root who owns the file at *path*, or may put another in its place.

    None without one, or where we are not root. FileNotFoundError where it is missing: nothing is known then of who has
    made the folder that is put there in the next moment. PermissionError where only all users together may.
    """
    if os.geteuid() != 0:
        return None
    user, place = next(iter(writers.besides(path, {0})), (writers.User(0, frozenset(), ""), path))
    owner, group = path.lstat()[4:6]
    if owner == 0 and user == writers.ANYBODY:
        raise PermissionError(errno.EPERM, f"{user.name} may write {place}; name another file", os.fspath(path))
    return (uid, group_of(uid, group)) if (uid := owner or user.uid) else None


def take(user: int, group: int) -> None:
    """Give the calling thread, and no other, the rights of *user* on files; OSError where that is not possible."""
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, f"root cannot open it safely on this system; ask as user {user}")
    import ctypes  # no plugin of root's own needs it

    system = ctypes.CDLL(None)  # of Python's own calls each changes all threads
    groups = groups_of(user, group)
    if (call := SETGROUPS.get(os.uname().machine)) is not None:
        system.syscall(call, len(groups), (ctypes.c_uint * len(groups))(*groups))
    for number, change in ((group, system.setfsgid), (user, system.setfsuid)):
        change(ctypes.c_uint(number))
        if change(ctypes.c_uint(-1)) & 0xFFFFFFFF != number:  # how setfsuid(2) tells whether it has changed anything
            raise OSError(errno.EPERM, f"no right to open it as user {user}; ask as that user")
