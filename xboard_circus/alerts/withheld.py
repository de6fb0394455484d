"""Withhold the secrets of the alerts from workers of another user, to whom copy_env gives circusd's environment."""

import os
import pwd
from collections.abc import Collection, Mapping
from contextlib import suppress

from xboard_circus.alerts.sinks import secret_variables
from xboard_circus.config import Config


def withheld_from(config: Config, uid: object) -> frozenset[str]:
    """Return the variables that workers with that `uid` do not get; none for circusd's own user."""
    if uid in (None, "") or _number(str(uid)) == os.geteuid():
        return frozenset()
    return secret_variables(config)


def without(env: Mapping[str, str], names: Collection[str], copied: Mapping[str, str]) -> dict[str, str]:
    """Return *env* without those *names* that have a *copied* value; a new value from [env:...] stays."""
    return {name: value for name, value in env.items() if name not in names or copied.get(name) != value}


def _number(uid: str) -> int | None:
    if uid.isdecimal():
        return int(uid)
    with suppress(KeyError):
        return pwd.getpwnam(uid).pw_uid
    return None
