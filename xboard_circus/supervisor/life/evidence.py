"""Collect the evidence of an end before it is lost, for the one record that the ledger keeps of it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core import in_flight, poison
from xboard_circus.core.causes import signal_name
from xboard_circus.core.durations import seconds
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.host import request_slots
from xboard_circus.masking import masked, safe_text
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.patches import circus_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xboard_circus.core.poison import Poisons
    from xboard_circus.core.worker_phases import Gone, Life
    from xboard_circus.host.oom import OomKills
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.life.output import LastWords
    from xboard_circus.supervisor.supervisor import Supervisor

LOG_CHARS = 4096
LOOK_EVERY = 2.0


@contained(False)
def look(supervisor: Supervisor) -> bool:
    """Note what cannot be read after an end: the memory of each worker, and the counts of OOM kills.

    Return whether it was time to look.
    """
    now = supervisor.clock()
    if now < supervisor.looked_at + LOOK_EVERY:
        return False
    supervisor.looked_at = now
    live = {worker.pid: worker for armed in supervisor.armed.values() for worker in armed.fleet}
    supervisor.oom.look(live)
    for worker in live.values():
        if not worker.probe.get("rss"):  # otherwise its probes show it
            worker.rss = circus_process.resident(worker.pid) or worker.rss
    return True


@contained(None)
def oom_of(kills: OomKills, worker: Worker, code: int | None) -> str | None:
    """Return whether the kernel's OOM killer ended a worker, see `OomKills.killed`."""
    return kills.killed(worker.pid) if code == -signal.SIGKILL else None


@contained({})
def of_process(worker: Worker, before: Life, code: int | None, words: LastWords, now: float) -> dict[str, Any]:
    """Return the evidence of a process that has ended, whose life was *before*."""
    found: dict[str, Any] = {
        "exit_code": code,
        "signal": _signal(code),
        **with_say(before.order.by if before.order else None, "by"),
        "follows": worker.follows,
        "lived": round(now - worker.spawned_at, 3),
        "ready_for": None if before.up_since is None else round(now - before.up_since, 3),
        "rss": worker.rss,
        "probes": [_probe(probe, now) for probe in worker.probes],
        "signals": [_signal(-signum) for signum in worker.life.signals],
        "log": words.log[-LOG_CHARS:],
    }
    if worker.native:
        found["native"] = safe_text(worker.native)
    if stack := words.stack:  # masked at each look
        found["stack"] = stack
    return found


@contained({})
def of_live_requests(worker: Worker, *, blames_last: bool, now: float, most: int) -> dict[str, Any]:
    """Return which requests a worker has in flight, *most* at most; empty where it has none."""
    if worker.requests is None:
        return {}
    try:
        seen = request_slots.read(worker.requests)
    except (OSError, request_slots.Unreadable):
        return {"requests_unreadable": True}
    return dict(masked(_recorded(in_flight.listed(seen, now, blames_last=blames_last, most=most))))


@contained({})
def of_requests(worker: Worker, before: Life, code: int | None, gone: Gone, poisons: Poisons) -> dict[str, Any]:
    """Return which requests a worker had in flight when it ended, and close the memory where they are noted.

    *blames* is the route that its end speaks against, see `poison.suspect`. For a SIGKILL that nobody here ordered the
    oldest comes first: the kernel's, for want of memory, or an operator's.
    """
    if worker.requests is None:
        return {}
    try:
        with worker.requests as memory:
            seen = request_slots.read(memory)
    except (OSError, request_slots.Unreadable) as error:
        logger.warning("xboard: worker %s: %s: %s", worker.pid, Say.REQUESTS_UNREADABLE(), error)
        return {"requests_unreadable": True}
    if seen.running == in_flight.NO_REQUEST and before.order is None:
        seen = seen._replace(running=0)  # what ends a worker may have begun since that was noted
    found = in_flight.listed(seen, gone.at, blames_last=before.order is not None or code != -signal.SIGKILL)
    if not found["requests"]:
        return {}
    data = _recorded(found)
    up_for = 0.0 if before.up_since is None else gone.at - before.up_since
    known: dict[str, Any] = {"up_for": up_for, "answered": seen.answered, "suspected": poisons.suspected(gone.at)}
    if blames := poison.suspect(data, gone.cause, gone.reason, code, **known):
        data["blames"] = blames
    return dict(masked(data))


def _recorded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the requests that `in_flight.listed` has *found* by their names in a record."""
    ran_none = {"requests_ran_none": True} if found["ran_none"] else {}
    return {"requests": found["requests"], "requests_others": found["others"], **ran_none}


def of_start(worker: Worker) -> dict[str, Any]:
    """Return what is published of a worker that is up: how long that took, and in which worker's place."""
    took = round((worker.up_since or worker.spawned_at) - worker.spawned_at, 3)
    say = Say.READY if worker.follows is None else Say.READY_IN_PLACE
    reason = say(after=seconds(took), pid=worker.follows)
    return {"reason": reason, **worker.ids, "after": took, "follows": worker.follows}


def _probe(probe: Any, now: float) -> dict[str, Any]:
    """Return a probe with the seconds that it was before the end, without its unknown figures."""
    age = now - probe["at"]
    shown = {key: value for key, value in probe.items() if key != "at" and value not in (None, "")}
    return {"time": round(time.time() - age, 3), "age": round(age, 3), **shown}


def _signal(code: int | None) -> str | None:
    return None if code is None or code >= 0 else signal_name(-code)
