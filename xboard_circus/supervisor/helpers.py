"""Prepare plugins and Circus's own processes: marks, a path with blanks, and a stop after all workers."""

import asyncio
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from xboard_circus.core.names import is_helper
from xboard_circus.host import runtime
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.patches import circus_process, circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

POLL = 0.02
SLACK = 2.0


@contained(None)
def prepare(supervisor: "Supervisor", watcher: Any) -> None:
    """Mark a helper, so that the next circusd knows its predecessor's, and correct what Circus gets wrong with it."""
    if not is_helper(watcher.name):
        return
    # The places only where they are set: otherwise a plugin looks where circusd does, also when that has changed.
    places = runtime.places()
    marks = {name: value for name, value in supervisor.marks().items() if os.environ.get(name) or name not in places}
    watcher.env = dict(watcher.env or {}, **marks)
    watcher.cmd = quoted(watcher.cmd)
    if getattr(watcher, "xboard_is_patched", False):
        return
    watcher.xboard_is_patched = True
    for each in (circus_watcher.try_helper_again, circus_watcher.start_helper_without_process):
        each(watcher).install()
    if circus_process.OUR_PLUGINS in f"{watcher.cmd} {watcher.args}":
        circus_watcher.stop_last(watcher, lambda: until_workers_are_gone(supervisor)).install()


def quoted(command: str, interpreter: str = sys.executable) -> str:
    """Return *command* with the interpreter as one word; Circus writes a plugin's path with unquoted blanks.

    >>> quoted("/srv/my app/python -c 'x'", "/srv/my app/python")
    "'/srv/my app/python' -c 'x'"
    >>> quoted("/usr/bin/python -c 'x'", "/usr/bin/python")
    "/usr/bin/python -c 'x'"
    """
    if not command.startswith(f"{interpreter} "):
        return command
    return shlex.quote(interpreter) + command.removeprefix(interpreter)


async def until_workers_are_gone(supervisor: "Supervisor") -> None:
    """Wait for armed watchers that are being stopped, no longer than a stop takes."""
    await asyncio.sleep(0)  # Circus begins with all of them in one step of its loop
    watchers = [armed.watcher for armed in supervisor.armed.values()]
    limit = max((float(watcher.graceful_timeout) for watcher in watchers), default=0.0) + SLACK
    deadline = supervisor.clock() + limit
    while supervisor.clock() < deadline and any(watcher.is_stopping() for watcher in watchers):
        await asyncio.sleep(POLL)
