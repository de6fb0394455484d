"""How a watcher is named where circusd tells of it, where a plugin's log lies, and who gives it commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xboard_circus.core.sentences import Say

CIRCUSD = "circusd"
"""In the place of a watcher's name: what is for all of them, or of circusd itself."""


def bus_name(watcher: str) -> str:
    """Return *watcher* as Circus's bus spells it, and with it every record of the ledger.

    >>> bus_name("My Web")
    'my_web'
    """
    return watcher.lower().replace(" ", "_")


def plugin_log_name(plugin: str) -> str:
    """Return the name of the log of ``[plugin:NAME]``.

    >>> plugin_log_name("plugin:xboard"), plugin_log_name("bundle")
    ('plugin-xboard.log', 'plugin-bundle.log')
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", plugin.removeprefix("plugin:")).strip("-") or "xboard"
    return f"plugin-{name}.log"


def stops_for_good(command: Mapping[str, Any]) -> bool | None:
    """Say whether a ``command`` event is a stop that somebody means, or the start that ends it; None for neither.

    The limiter stops a watcher without a guard for its cooldown only.

    >>> stops_for_good({"command": "stop", "by": "circusctl"})
    True
    >>> stops_for_good({"command": "stop", "by": Say.BY_LIMITER()})
    >>> stops_for_good({"command": "restart", "by": "circusctl"})
    False
    """
    if command.get("outcome"):
        return None  # it was refused
    name = str(command.get("command") or "").partition(" ")[0]
    if name == "stop":
        return True if command.get("by") != Say.BY_LIMITER() else None
    return False if name in ("start", "restart") else None
