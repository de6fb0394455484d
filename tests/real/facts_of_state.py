"""What several tests ask of the workers in `xboard_state`, beyond one worker's entry (see state_words.py)."""

from typing import Any

from .harness import Circusd
from .state_words import Worker, health_of, is_held, is_up


def looks_well(worker: Worker) -> bool:
    """Say whether it is shown as one that serves, without any doubt."""
    return is_up(worker) and health_of(worker) in ("ok", "busy")


def held(c: Circusd, name: str = "web") -> list[dict[str, Any]]:
    """Return the entries of the workers that are held."""
    return [worker for worker in c.watcher(name)["workers"] if is_held(worker)]
