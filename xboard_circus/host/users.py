"""Look up the user and the group of a watcher."""

import grp
import pwd
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def user_of(watcher: Any) -> tuple[int | None, int | None]:
    """Return the numbers of a watcher's user and group, None for what is not set or not known."""
    user = _number(watcher.uid, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number(watcher.gid, lambda name: grp.getgrnam(name).gr_gid)
    if user is not None and group is None:
        with suppress(KeyError):
            group = pwd.getpwuid(user).pw_gid
    return user, group


def _number(given: object, find: Callable[[str], int]) -> int | None:
    if given in (None, ""):
        return None
    with suppress(KeyError):
        return int(str(given)) if str(given).isdecimal() else find(str(given))
    return None
