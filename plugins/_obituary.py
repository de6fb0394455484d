"""What a plugin has to tell of its circusd when that is gone: it may be the only one who is left to tell."""

from __future__ import annotations

import os
import time

from xboard_circus.core.lost import Loss, witnessed
from xboard_circus.host import life, procs


def obituary() -> Loss | None:
    """Return that circusd, which is gone, was lost, and note that it is told; None where it was told to end.

    The next circusd then tells that it is back, and not once more that the other one was lost.
    """
    instance = os.environ.get("XBOARD_INSTANCE", "")
    found = life.read(instance) if instance else None
    if found is None or str(procs.Identity(found.pid, found.started)) != os.environ.get("XBOARD_CIRCUSD"):
        return None
    now = time.time()
    loss = witnessed(found, kills=life.kills_since(found), now=now)
    if loss is not None:
        life.amend(instance, procs.Identity(found.pid, found.started), gone_at=now)
    return loss
