"""What several tests ask of the workers in `xboard_state`, beyond one worker's entry (see state_words.py)."""

from itertools import pairwise
from typing import Any

from .bus import Event
from .harness import Circusd
from .state_words import Worker, health_of, is_held, is_up


def looks_well(worker: Worker) -> bool:
    """Say whether it is shown as one that serves, without any doubt."""
    return is_up(worker) and health_of(worker) in ("ok", "busy")


def held(c: Circusd, name: str = "web") -> list[dict[str, Any]]:
    """Return the entries of the workers that are held."""
    return [worker for worker in c.watcher(name)["workers"] if is_held(worker)]


def pace_of(death: Event) -> float:
    """Return the seconds from the start of a worker that died to the next start of its slot, as decided."""
    return round(float(death.message["lived"]) + float(death.message["wait"]), 2)


def paces(c: Circusd, slot: int, name: str = "web") -> list[float]:
    """Return that of each death in *slot*; AssertionError where a start came sooner after a death than decided."""
    deaths = [death for death in c.failures(name) if death.message["slot"] == slot]
    imports = [start.at for start in c.starts(name) if start.wid == slot]
    for death, (earlier, later) in zip(deaths, pairwise(imports), strict=False):
        assert later - earlier > death.message["wait"]  # it died after the earlier one, however late that came
    return [pace_of(death) for death in deaths]
