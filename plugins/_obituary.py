"""Report the loss of circusd from its plugin, which may be the only process left to do so."""

import os
import time

from xboard_circus.core.lost import Loss, witnessed
from xboard_circus.host import circusd_record, procs


def obituary() -> Loss | None:
    """Return the loss of the circusd that is gone, and record it as reported; None if it had a stop request.

    The next circusd then reports that it is back, and not the loss once more.
    """
    instance = os.environ.get("XBOARD_INSTANCE", "")
    found = circusd_record.read(instance) if instance else None
    if found is None or str(procs.Identity(found.pid, found.started)) != os.environ.get("XBOARD_CIRCUSD"):
        return None
    now = time.time()
    loss = witnessed(found, kills=circusd_record.kills_since(found), now=now)
    if loss is not None:
        circusd_record.amend(instance, procs.Identity(found.pid, found.started), gone_at=now)
    return loss
