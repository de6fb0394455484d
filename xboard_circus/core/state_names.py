"""Name the states of a worker and of a port: the words of ``status``, the events and the dashboard."""

from enum import Enum


class Role(Enum):
    """Role of a worker.

    *successor*: the new worker of a replacement, not proven yet. *retiring*: it still serves while its successor is
    being made, or drains after that.
    """

    SERVING = "serving"
    SUCCESSOR = "successor"
    RETIRING = "retiring"


class Health(Enum):
    """Health of a worker that is up, by its probes.

    *failing*: some probes in a row failed, fewer than the threshold. *sick*: its live path fails. *hung*: its event
    loop neither answers nor makes progress. *busy*: its thread pool is full, or its event loop makes progress without
    answering. *unknown*: it was not probed yet, or is not probed any more.
    """

    OK = "ok"
    BUSY = "busy"
    FAILING = "failing"
    SICK = "sick"
    HUNG = "hung"
    UNKNOWN = "unknown"


BLOCKED = "blocked"
"""The kind of a replacement whose old worker may come back yet; the other kinds are values of `Health`."""


class WorkerState(Enum):
    """What a worker reports of itself on its private socket."""

    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"


class PortState(Enum):
    """State of a watcher's port; *none* where it has no port to guard."""

    NONE = "none"
    WAITING = "waiting"
    CLEANING = "cleaning"
    BOUND = "bound"
    REFUSED = "refused"
