"""How a watcher is named where circusd tells of it, and a plugin where its log lies."""

from __future__ import annotations

import re


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
