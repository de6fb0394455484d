"""The states that a worker and a port can be in: the words of ``status``, the events and the dashboard."""

from __future__ import annotations

from enum import Enum

from xboard_circus.core.sentences import Say


class WorkerState(Enum):
    """What a worker is doing.

    A worker whose ready path fails has no state of its own: it stays what it is and is *not ready* beside that,
    because nothing is done about it but to wait.
    """

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    SICK = "sick"
    WEDGED = "wedged"
    WAITING = "waiting"
    SPARE = "spare"
    DRAINING = "draining"
    STOPPING = "stopping"


class PortState(Enum):
    """How far a watcher is with its port; *none* where it has no port to guard."""

    NONE = "none"
    WAITING = "waiting"
    CLEANING = "cleaning"
    BOUND = "bound"
    REFUSED = "refused"


def nobody_wanted(watcher: str) -> str:
    """Return what to say of an active *watcher* with 0 processes: Circus calls it active, and it serves nobody.

    Unlike that of a stopped one its port stays open, and whoever connects waits for an answer that never comes.

    >>> nobody_wanted("web")
    'no worker is wanted, so nobody answers: `circusctl incr web` starts one, `circusctl stop web` closes its port'
    """
    return Say.NOBODY_WANTED(watcher=watcher)
