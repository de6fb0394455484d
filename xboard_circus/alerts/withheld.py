"""Withhold the secrets of the alerts from workers of another user: with copy_env they get circusd's environment."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from xboard_circus.alerts.sinks import secret_variables
from xboard_circus.config import Config
from xboard_circus.host.users import user_of


def withheld_from(config: Config, watcher: Any) -> frozenset[str]:
    """Return the variables that the workers of *watcher* do not get; none for those of circusd's own user."""
    is_own = watcher.uid in (None, "") or user_of(watcher)[0] == os.geteuid()
    return frozenset() if is_own else secret_variables(config)


def without(env: Mapping[str, str], names: Collection[str], copied: Mapping[str, str]) -> dict[str, str]:
    """Return *env* without those *names* that have a *copied* value; a new value from [env:...] stays."""
    return {name: value for name, value in env.items() if name not in names or copied.get(name) != value}
