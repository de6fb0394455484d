"""Read a worker of the reply to ``xboard_state``, whichever words it uses.

One key ``state`` (ready, waiting, wedged, ...), or the keys ``phase``, ``role`` and ``health``: tests that ask here
hold for both.
"""

from collections.abc import Mapping
from typing import Any

Worker = Mapping[str, Any]
PHASES = {"waiting": "held", "starting": "starting", "draining": "leaving", "stopping": "leaving"}
HEALTH = {"ready": "ok", "busy": "busy", "sick": "sick", "wedged": "hung"}
SERVING = ("ok", "busy", "failing", "unknown")


def phase_of(worker: Worker) -> str:
    """Return "held", "starting", "up" or "leaving"."""
    return str(worker["phase"]) if "phase" in worker else PHASES.get(worker["state"], "up")


def health_of(worker: Worker) -> str:
    """Return "ok", "busy", "failing", "sick", "hung", or "unknown" where nobody has probed it."""
    return str(worker["health"]) if "health" in worker else HEALTH.get(worker["state"], "unknown")


def is_held(worker: Worker) -> bool:
    """Say whether it is a slot that waits: for the port, a delay, a cooldown or its turn."""
    return phase_of(worker) == "held"


def is_starting(worker: Worker) -> bool:
    return phase_of(worker) == "starting"


def is_up(worker: Worker) -> bool:
    """Say whether it has started, and has not been told to go."""
    return phase_of(worker) == "up"


def is_leaving(worker: Worker) -> bool:
    return phase_of(worker) == "leaving"


def is_port_taken(watcher: Mapping[str, Any]) -> bool:
    """Say whether a watcher waits because somebody else holds its port, or the path of its unix socket."""
    return watcher["port"]["state"] in ("refused", "taken")


def serves(worker: Worker) -> bool:
    """Say whether it is up, and no probe says that it is sick or hung."""
    return is_up(worker) and health_of(worker) in SERVING
