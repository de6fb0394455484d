"""Name the states of a worker and of a port: the words of ``status``, the events and the dashboard."""

from enum import Enum

from xboard_circus.core.sentences import Say


class Role(Enum):
    """What a worker is there for.

    *successor*: the new worker of a replacement, not proven yet. *retiring*: it still serves while its successor is
    being made, or drains after that.
    """

    SERVING = "serving"
    SPARE = "spare"
    SUCCESSOR = "successor"
    RETIRING = "retiring"


class Health(Enum):
    """Health of a worker that is up, by its probes.

    *failing*: some probes in a row failed, fewer than the threshold. *sick*: its live path fails. *hung*: its event
    loop does not answer. *unknown*: it was not probed yet, or is not probed any more.
    """

    OK = "ok"
    BUSY = "busy"
    FAILING = "failing"
    SICK = "sick"
    HUNG = "hung"
    UNKNOWN = "unknown"


class WorkerState(Enum):
    """What a worker reports of itself on its private socket."""

    SPARE = "spare"
    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"


class PortState(Enum):
    """How far a watcher is with its port; *none* where it has no port to guard."""

    NONE = "none"
    WAITING = "waiting"
    CLEANING = "cleaning"
    BOUND = "bound"
    REFUSED = "refused"


def nobody_wanted(watcher: str) -> str:
    """Return the reason of an active *watcher* with 0 processes: Circus calls it active, but it has no worker.

    Unlike that of a stopped one its port stays open, and whoever connects waits for an answer that never comes.

    >>> nobody_wanted("web")
    'set to 0 workers, so nothing answers: `circusctl incr web` starts one, `circusctl stop web` closes its port'
    """
    return Say.NOBODY_WANTED(why=Say.SET_TO_NONE(), cure=Say.START_ONE(watcher=watcher))
