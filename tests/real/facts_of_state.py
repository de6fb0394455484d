"""What several tests ask of the workers in `xboard_state`, beyond one worker's entry (see state_words.py)."""

from typing import Any

from xboard_circus.worker.fork_orders import LEVEL

from .harness import Circusd, eventually
from .processes import process
from .state_words import Worker, health_of, is_held, is_spare, is_up


def looks_well(worker: Worker) -> bool:
    """Say whether it is shown as one that serves, without any doubt."""
    return is_up(worker) and health_of(worker) in ("ok", "busy")


def held(c: Circusd, name: str = "web") -> list[dict[str, Any]]:
    """Return the entries of the workers that are held."""
    return [worker for worker in c.watcher(name)["workers"] if is_held(worker)]


def wait_for_spare(c: Circusd, *, other_than: int = 0) -> int:
    """Wait for a spare that has imported the app; return its pid."""

    def imported() -> list[int]:
        began = {start.pid for start in c.starts()}
        spares = [worker["pid"] for worker in c.watcher()["workers"] if is_spare(worker)]
        began |= {pid for pid in spares if process(pid).environ.get(LEVEL) == "app"}  # forked from one that has
        return [pid for pid in spares if pid in began and pid != other_than]

    return eventually(imported, what="a spare has imported the app")[0]
