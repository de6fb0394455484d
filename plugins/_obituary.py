"""Report the loss of circusd from its plugin, which may be the only process left to do so."""

import os
import time

from xboard_circus.core.lost import Loss, witnessed
from xboard_circus.host import circusd_record, procs


def obituary() -> Loss | None:
    """Return the loss of the circusd that is gone, and record its reporter; None if it had a stop request.

    A circusd that starts meanwhile leaves the loss to this process, and reports that it is back.
    """
    instance = os.environ.get("XBOARD_INSTANCE", "")
    found = circusd_record.read(instance) if instance else None
    if found is None or str(procs.Identity(found.pid, found.started)) != os.environ.get("XBOARD_CIRCUSD"):
        return None
    now = time.time()
    loss = witnessed(found, kills=circusd_record.kills_since(found), now=now)
    if loss is not None:
        circusd_record.amend(instance, _of(loss), gone_at=now, witness=str(procs.Identity.of(os.getpid()) or ""))
    return loss


def reported(loss: Loss) -> None:
    """Record that *loss* is in the ledger and in the alerts; a process that is killed before does not get here."""
    circusd_record.amend(os.environ.get("XBOARD_INSTANCE", ""), _of(loss), witness="")


def _of(loss: Loss) -> procs.Identity:
    return procs.Identity(loss.pid, loss.started)
