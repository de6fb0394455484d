"""How a watcher is named where circusd tells of it."""

from __future__ import annotations


def bus_name(watcher: str) -> str:
    """Return *watcher* as Circus's bus spells it, and with it every record of the ledger.

    >>> bus_name("My Web")
    'my_web'
    """
    return watcher.lower().replace(" ", "_")
