"""The states that a worker and a port can be in: the words of ``status``, the events and the dashboard."""

from __future__ import annotations

from enum import Enum


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
