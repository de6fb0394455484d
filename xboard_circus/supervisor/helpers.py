"""What a plugin, or a process of Circus's own, is to know of this circusd before it starts."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.plugins_last import stop_last

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

PLUGIN = "plugin:"
CIRCUS_OWN = ("circusd-stats", "circushttpd")


def is_helper(name: str) -> bool:
    """Say whether a watcher is a plugin or one of Circus's own."""
    return name.startswith(PLUGIN) or name in CIRCUS_OWN


def install(arbiter: Any, supervisor: Supervisor) -> None:
    """Prepare those, too, that `reloadconfig` makes anew; Circus starts these in the same breath."""
    original = arbiter.start_watcher

    def start_watcher(watcher: Any) -> Any:
        prepare(supervisor, watcher)
        return original(watcher)

    arbiter.start_watcher = start_watcher


@contained(None)
def prepare(supervisor: Supervisor, watcher: Any) -> None:
    """Mark a helper, so that the next circusd knows its predecessor's, and mend what Circus gets wrong with it."""
    if is_helper(watcher.name):
        watcher.env = dict(watcher.env or {}, **supervisor.marks())
        watcher.cmd = quoted(watcher.cmd)
        stop_last(supervisor, watcher)


def quoted(command: str, interpreter: str = sys.executable) -> str:
    """Return *command* with the interpreter as one word; Circus writes a plugin's path as it is, blanks and all.

    >>> quoted("/srv/my app/python -c 'x'", "/srv/my app/python")
    "'/srv/my app/python' -c 'x'"
    >>> quoted("/usr/bin/python -c 'x'", "/usr/bin/python")
    "/usr/bin/python -c 'x'"
    """
    if not command.startswith(f"{interpreter} "):
        return command
    return shlex.quote(interpreter) + command.removeprefix(interpreter)
