"""Build the state of a watcher that carries no hook of ours: the same keys as of an armed one, most of them empty.

Such watchers stand beside armed ones in circusd's answer, and alone where circusd has no armed watcher and only
Circus's own commands tell of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xboard_circus.core.reason import data_of
from xboard_circus.core.state_schema import NO_FIGURES, WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import entry, judge_unarmed


def unarmed_watcher(
    *,
    name: str,
    status: str,
    numprocesses: int,
    options: Mapping[str, object],
    last_reason: str = "",
    workers: Sequence[WorkerEntry],
) -> WatcherEntry:
    """Return what is shown of a watcher; *options* are Circus's, of which only plain values are passed on."""
    running = sum(worker["phase"] == "up" for worker in workers)
    return {
        "name": name,
        "status": status,
        "armed": False,
        "numprocesses": numprocesses,
        "probe": "none",
        "restarts": 0,
        "ends": {},
        "cooldown_until": None,
        "last_reason": last_reason,
        "last_reason_say": data_of(last_reason),
        "last_reason_age": None,
        "port": None,
        "options": {key: value for key, value in options.items() if isinstance(value, (str, int, float))},
        "reload": None,
        "budget": None,
        "verdict": entry(judge_unarmed(name, status, numprocesses, running), since=0.0),
        "incident": None,
        "workers": list(workers),
    }


def unarmed_worker(*, pid: int, started: int | None, wid: int | None, leaves: bool, age: float | None) -> WorkerEntry:
    """Return the entry of one of its processes, which is not probed; *age* is in seconds."""
    return {
        "pid": pid,
        "started": started,
        "wid": wid,
        "slot": wid or 0,
        "phase": "leaving" if leaves else "up",
        "role": "serving",
        "health": "unknown",
        "held_by": None,
        "ready": None,
        "ready_for": None,
        "age": age,
        "next_try": None,
        "reason": "",
        "say": None,
        "drains": False,
        "latency": None,
        "probe": NO_FIGURES,
        "socket": None,
    }
