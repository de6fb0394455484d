"""What the state tells of a watcher that carries no hook of ours: the same keys as of an armed one, most of them empty.

Such watchers stand beside armed ones in circusd's answer, and alone where circusd has no armed watcher and only
Circus's own commands tell of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def unarmed_watcher(
    *,
    name: str,
    status: str,
    numprocesses: int,
    options: Mapping[str, object],
    workers: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    """Return what is shown of a watcher; *options* are Circus's, of which only plain values are passed on."""
    return {
        "name": name,
        "status": status,
        "armed": False,
        "numprocesses": numprocesses,
        "probe": "none",
        "restarts": 0,
        "ends": {},
        "cooldown_until": None,
        "last_reason": "",
        "port": None,
        "options": {key: value for key, value in options.items() if isinstance(value, (str, int, float))},
        "reload": None,
        "budget": None,
        "workers": list(workers),
    }


def unarmed_worker(
    *, pid: int, started: int | None, wid: int | None, state: str, age: float | None
) -> dict[str, object]:
    """Return what is shown of one of its processes, which nobody probes; *age* is in seconds."""
    return {
        "pid": pid,
        "started": started,
        "wid": wid,
        "state": state,
        "age": age,
        "ready": None,
        "ready_for": None,
        "next_try": None,
        "reason": "",
        "latency": None,
        "probe": {},
        "socket": None,
    }
