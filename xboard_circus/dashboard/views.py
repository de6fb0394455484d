"""Show the state of a circusd on the page: with figures that circusd does not have, and without secrets."""

import re
from collections.abc import Mapping
from typing import Any

from xboard_circus.core.names import is_helper
from xboard_circus.core.state_schema import WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import Word, condition_of, serves
from xboard_circus.masking import MASK, masked, safe_command

_COMMANDS = ("cmd", "args")
_SECRET = re.compile(r"env|passw|secret|token|credential|key|dsn|auth", re.IGNORECASE)


def watcher(given: WatcherEntry, figures: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a watcher of ``xboard_state`` as the page shows it; *figures* are those of its workers, by pid."""
    workers = [worker(each, figures.get(each["pid"], {})) for each in given["workers"]]
    waits = [each["next_try"] for each in workers if each["next_try"] is not None]
    shown: dict[str, Any] = masked({key: value for key, value in given.items() if key not in ("workers", "options")})
    return {
        **shown,
        "is_helper": is_helper(given["name"]),
        "badness": Word(given["verdict"]["word"]).rank,
        "options": {key: option(key, value) for key, value in given["options"].items()},
        "next_try": min(waits, default=given["cooldown_until"]),
        "workers": workers,
    }


def worker(given: WorkerEntry, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker as the page shows it; memory that was not measured is that of its last probe."""
    shown: dict[str, Any] = masked(given)
    judged = {"condition": condition_of(given), "serves": serves(given)}
    return {**shown, **judged, "rss": given["probe"]["rss"], "cpu": None, "cpu_seconds": None, **figures}


def option(name: str, value: object) -> object:
    """Return the value of an ini option as it may be shown."""
    if name in _COMMANDS:
        return safe_command(str(value).split())
    if _SECRET.search(name) and name not in ("copy_env",) and value not in (None, "", False, True):
        return MASK
    return masked(value)
