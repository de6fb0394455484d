"""Build the names of watchers on circusd's bus, of plugins' logs, and of the senders of commands."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xboard_circus.core.reason import key_of, reason_in
from xboard_circus.core.sentences import Say

CIRCUSD = "circusd"
"""In place of a watcher's name: an event of all watchers, or of circusd itself."""

_OF_WATCHERS = ("start", "stop", "restart", "reload", "kill", "signal", "incr", "decr", "add", "rm", "set")
CHANGING = frozenset((*_OF_WATCHERS, "quit", "reloadconfig", "xboard_reload", "xboard_retry", "xboard_leave"))
"""Commands that change something: circusd records their sender."""

PLUGIN = "plugin:"
"""Prefix of the name of a plugin's watcher."""

_OF_CIRCUS = frozenset({"circusd-stats", "circushttpd"})


def some_of(things: Sequence[object], most: int) -> str:
    """Return the first *most* of *things*, with commas between them, and how many more follow.

    >>> some_of([7, 8, 9], 2), some_of([7], 2)
    ('7, 8 and 1 more', '7')
    """
    return ", ".join(map(str, things[:most])) + (f" and {len(things) - most} more" if len(things) > most else "")


def is_helper(watcher: str) -> bool:
    """Return whether a watcher is a plugin or a helper of Circus's, not a backend.

    >>> is_helper("plugin:xboard"), is_helper("circusd-stats"), is_helper("web")
    (True, True, False)
    """
    return watcher.startswith(PLUGIN) or watcher in _OF_CIRCUS


def is_backend(watcher: Mapping[str, Any]) -> bool:
    """Return whether a watcher of circusd's state is neither a helper nor our page."""
    return not (watcher["is_page"] or is_helper(watcher["name"]))


def runs_dashboard(command: str) -> bool:
    """Return whether a watcher with that *command* runs our page."""
    return "xboard_circus.dashboard" in command


def bus_name(watcher: str) -> str:
    """Return *watcher* as spelled on Circus's bus and in every record of the ledger.

    >>> bus_name("My Web")
    'my_web'
    """
    return watcher.lower().replace(" ", "_")


def event_number(seq: object) -> tuple[str, int] | None:
    """Return which circusd published an event, and its number there; None for an event that circusd did not number.

    >>> event_number("18a3f-12"), event_number("web reap 71 2026-11"), event_number(None)
    (('18a3f', 12), None, None)
    """
    circusd, _, number = str(seq or "").rpartition("-")
    is_ours = circusd and " " not in circusd and number.isascii() and number.isdigit() and len(number) <= 15
    return (circusd, int(number)) if is_ours else None


def circusd_of(seq: object) -> str | None:
    """Return which circusd published an event; None for an event that circusd did not number."""
    known = event_number(seq)
    return known and known[0]


def plugin_log_name(plugin: str) -> str:
    """Return the name of the log of ``[plugin:NAME]``.

    >>> plugin_log_name("plugin:xboard"), plugin_log_name("bundle")
    ('plugin-xboard.log', 'plugin-bundle.log')
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", plugin.removeprefix(PLUGIN)).strip("-") or "xboard"
    return f"plugin-{name}.log"


def stops_for_good(command: Mapping[str, Any]) -> bool | None:
    """Return whether a ``command`` event is an operator's stop, or the start that ends it; None for neither.

    The limiter stops an unarmed watcher for its cooldown only.

    >>> stops_for_good({"command": "stop", "by": "circusctl"})
    True
    >>> stops_for_good({"command": "stop", "by_say": Say.BY_LIMITER().as_data()})
    >>> stops_for_good({"command": "restart", "by": "circusctl"})
    False
    """
    if command.get("outcome"):
        return None  # it was refused
    name = str(command.get("command") or "").partition(" ")[0]
    if name == "stop":
        return None if key_of(reason_in(command, "by")) == Say.BY_LIMITER.name else True
    return False if name in ("start", "restart") else None
