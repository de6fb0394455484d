"""Look up the user and the group of a watcher."""

import grp
import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Other = TypeVar("Other", int, None)


def user_of(watcher: Any) -> tuple[int | None, int | None]:
    """Return the numbers of a watcher's user and group, None for what is not set or not known."""
    user = _number(watcher.uid, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number(watcher.gid, lambda name: grp.getgrnam(name).gr_gid)
    return user, group if user is None or group is not None else group_of(user, None)


def uid_of(watcher: Any) -> int:
    """Return the number of the user of a watcher's processes, ours where none is set."""
    return os.geteuid() if (user := user_of(watcher)[0]) is None else user


def group_of(user: int, otherwise: Other) -> int | Other:
    """Return the group of a user; *otherwise* for a number without a user."""
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_gid
    return otherwise


def groups_of(user: int, group: int) -> list[int]:
    """Return all groups of a user, *group* among them: a folder on the way may be open to one of them alone."""
    with suppress(KeyError):
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    return [group]


def members(group: int) -> set[int]:
    """Return the users in a group, as far as the host lists them."""
    found = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group}
    with suppress(KeyError):
        for name in grp.getgrgid(group).gr_mem:
            with suppress(KeyError):
                found.add(pwd.getpwnam(name).pw_uid)
    return found


def _number(given: object, find: Callable[[str], int]) -> int | None:
    if given in (None, ""):
        return None
    with suppress(KeyError):
        return int(str(given)) if str(given).isdecimal() else find(str(given))
    return None
