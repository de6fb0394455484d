"""Find healthy workers that have reached a recycling limit."""

from typing import Any

from xboard_circus.core.recycling import RecycleLimits, due
from xboard_circus.options.fields import WorkerOptions
from xboard_circus.supervisor.fleet import Worker
from xboard_circus.supervisor.patches import circus_process


def limits_of(options: WorkerOptions, watcher: Any) -> RecycleLimits:
    """Return the recycling limits. Circus's own max_age would end all due workers at once, by the wall clock."""
    age = options.max_age or float(watcher.max_age or 0)
    return RecycleLimits(rss=options.max_rss, requests=options.max_requests, age=age)


def why(worker: Worker, limits: RecycleLimits, now: float) -> str | None:
    """Return why a worker is to be recycled now; None if it is not."""
    return due(
        limits,
        rss=circus_process.resident(worker.process) if limits.rss else None,
        requests=worker.probe.get("requests_served"),
        age=now - (worker.up_since or now),
        spread=worker.spread,
    )
