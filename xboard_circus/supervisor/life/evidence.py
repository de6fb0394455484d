"""What is known of an end, gathered before it is forgotten: for the one record that the ledger keeps of it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from xboard_circus.core.durations import seconds
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Up
from xboard_circus.supervisor.boundary import contained

if TYPE_CHECKING:
    from xboard_circus.host.oom import OomKills
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.life.output import LastWords
    from xboard_circus.supervisor.supervisor import Supervisor
    from xboard_circus.supervisor.watcher import ArmedWatcher

LOG_CHARS = 4096
UNKNOWN: str | None = None
NOTHING: dict[str, Any] = {}
LOOK_EVERY = 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@contained(False)
def look(supervisor: Supervisor) -> bool:
    """Note what nobody can read after an end: the memory of each worker, and the counts of OOM kills.

    Return whether it was time to look.
    """
    now = supervisor.clock()
    if now < supervisor.looked_at + LOOK_EVERY:
        return False
    supervisor.looked_at = now
    live = {worker.pid: worker for armed in supervisor.armed.values() for worker in armed.fleet}
    supervisor.oom.look(live)
    for worker in live.values():
        worker.rss = resident(worker.pid) or worker.rss
    return True


def resident(pid: int) -> int | None:
    """Return the resident memory of a process in bytes, read without a detour; None where that is not Linux."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return None


@contained(UNKNOWN)
def oom_of(kills: OomKills, worker: Worker, code: int | None) -> str | None:
    """Say whether the kernel's OOM killer ended it, see `OomKills.killed`."""
    return kills.killed(worker.pid) if code == -signal.SIGKILL else None


@contained(NOTHING)
def of_process(
    worker: Worker, code: int | None, words: LastWords, *, by: str | None, up_since: float | None, now: float
) -> dict[str, Any]:
    """Return what is known of a process that has ended; *by* is who ordered it to leave."""
    found: dict[str, Any] = {
        "exit_code": code,
        "signal": _signal(code),
        **with_say(by, "by"),
        "follows": worker.follows,
        "lived": round(now - worker.spawned_at, 3),
        "ready_for": None if up_since is None else round(now - up_since, 3),
        "rss": worker.rss,
        "probes": [_probe(probe, now) for probe in worker.probes],
        "signals": [_signal(-signum) for signum in worker.life.signals],
        "log": words.tail[-LOG_CHARS:],
    }
    if words.stack:
        found["stack"] = words.stack
    return found


@contained(None)
def report_up(armed: ArmedWatcher, worker: Worker) -> None:
    """Publish that a worker is up, and in whose place."""
    phase = worker.phase
    assert isinstance(phase, Up)
    after = round(phase.since - worker.released_at, 3)
    say = Say.READY if worker.follows is None else Say.READY_IN_PLACE
    armed.publish(
        "ready",
        reason=say(after=seconds(after), pid=worker.follows),
        pid=worker.pid,
        wid=worker.wid,
        slot=worker.slot,
        after=after,
        follows=worker.follows,
    )


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
