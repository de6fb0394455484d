"""Arm a watcher by one line: `hooks.before_start = xboard_circus.plugins.guard.arm`."""

import gc

from xboard_circus.supervisor import prepared_forkserver

if COLLECTS := gc.isenabled():
    prepared_forkserver.prepare()  # first, so that it imports the server while circusd imports what follows
    gc.disable()  # the imports leave next to no garbage, and a tenth of their time would go into the search for it

from typing import Any

from circus import logger

from xboard_circus.supervisor import arming
from xboard_circus.supervisor.patches import boot
from xboard_circus.supervisor.supervisor import Supervisor

boot.install()
if COLLECTS:
    gc.enable()
gc.freeze()  # or Python would look through all that is imported when circusd ends: a fifth of the time of a short life


def arm(watcher: Any, arbiter: Any, hook_name: str, **_: object) -> bool:
    """Arm *watcher*; Circus calls this each time the watcher starts.

    Always returns True and never raises: a backend without our protection is better than none.
    """
    try:
        Supervisor.of(arbiter).arm(watcher)
    except Exception:
        logger.exception("xboard: %s could not be armed; it runs without protection", watcher.name)
        arming.bind_plainly(watcher)
    return True
