"""What is known of an end, gathered before it is forgotten: for the one record that the ledger keeps of it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from xboard_circus.core.causes import Cause
from xboard_circus.core.reasons import seconds
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor.boundary import contained

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.output import LastWords
    from xboard_circus.supervisor.slot import Spawned
    from xboard_circus.supervisor.supervisor import Supervisor

LOG_CHARS = 4096
UNKNOWN: str | None = None
NOTHING: dict[str, Any] = {}
LOOK_EVERY = 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@contained(None)
def look(supervisor: Supervisor) -> None:
    """Note what nobody can read after an end: the memory of each worker, and the counts of OOM kills."""
    now = supervisor.clock()
    if now < supervisor.looked_at + LOOK_EVERY:
        return
    supervisor.looked_at = now
    live = {pid: spawned for armed in supervisor.armed.values() for pid, spawned in armed.live.items()}
    supervisor.oom.look(live)
    for spawned in live.values():
        spawned.rss = resident(spawned.pid) or spawned.rss


def resident(pid: int) -> int | None:
    """Return the resident memory of a process in bytes, read without a detour; None where that is not Linux."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return None


@contained(UNKNOWN)
def oom_of(armed: ArmedWatcher, spawned: Spawned, code: int | None) -> str | None:
    """Say whether the kernel's OOM killer ended it, see `OomKills.killed`."""
    return armed.supervisor.oom.killed(spawned.pid) if code == -signal.SIGKILL else None


@contained(NOTHING)
def of_process(armed: ArmedWatcher, spawned: Spawned, code: int | None, words: LastWords) -> dict[str, Any]:
    """Return what is known of a process that has ended."""
    now = armed.clock()
    found: dict[str, Any] = {
        "exit_code": code,
        "signal": _signal(code),
        "by": asked_by(spawned),
        "follows": spawned.follows,
        "lived": round(now - spawned.spawned_at, 3),
        "ready_for": None if spawned.ready_at is None else round(now - spawned.ready_at, 3),
        "rss": spawned.rss,
        "probes": [_probe(probe, now) for probe in spawned.probes],
        "signals": [_signal(-signum) for signum in spawned.signals],
        "log": words.tail[-LOG_CHARS:],
    }
    if words.stack:
        found["stack"] = words.stack
    return found


@contained(None)
def tell_ready(armed: ArmedWatcher, spawned: Spawned) -> None:
    """Tell that a worker has become ready, and in whose place."""
    released = spawned.spawned_at if spawned.released_at is None else spawned.released_at
    after = round(armed.clock() - released, 3)
    say = Say.READY if spawned.follows is None else Say.READY_IN_PLACE
    armed.publish(
        "ready",
        reason=say(after=seconds(after), pid=spawned.follows),
        pid=spawned.pid,
        wid=spawned.wid,
        after=after,
        follows=spawned.follows,
    )


def asked_by(spawned: Spawned) -> str | None:
    """Return who wanted it gone; None if nobody did."""
    if spawned.our_kill is Cause.UNHEALTHY:
        return "probe"
    if spawned.our_kill is Cause.FAILED_START:
        return "health.startup_timeout"
    return spawned.commanded_by


def _probe(probe: Any, now: float) -> dict[str, Any]:
    """Return a probe with the seconds that it was before the end, and nothing that is not known."""
    age = now - probe["at"]
    told = {key: value for key, value in probe.items() if key != "at" and value not in (None, "")}
    return {"time": round(time.time() - age, 3), "age": round(age, 3), **told}


def _signal(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
