"""Find which workers have completed their start."""

from collections.abc import Collection, Iterator
from pathlib import Path

from xboard_circus.core.durations import lasted
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker_phases import BecameReady, CameUp, LifeEvent
from xboard_circus.host import procs, worker_files
from xboard_circus.supervisor.fleet import Worker

WITHOUT_CORE = 0.8
"""Part of the limit of a start; under two suites a worker waited for a core for 0.97 of it."""
UP_BY_UPTIME, UNPROBED = 1.0, 10.0
"""Seconds after which another server than our worker counts as up: it does not report that its start is complete.

One that has `health.url` to itself is up with its first good answer there, unless no probe comes for so long.
"""


def progress(
    workers: Collection[Worker], folder: Path | None, now: float, *, has_url: bool = False
) -> Iterator[tuple[Worker, LifeEvent]]:
    """Yield which workers are up, or ready: as they report in *folder*; without one by ``health.url``, or their age."""
    for worker in workers:
        if worker.is_starting and _is_up(worker, folder, now, has_url=has_url and len(workers) == 1):
            yield worker, CameUp(now)
        is_news = worker.is_up and not worker.life.was_ready
        if is_news and (folder is None or worker_files.has(folder, worker.token, "ready")):
            yield worker, BecameReady()


def found_late(late: str, pid: int, limit: float) -> str:
    """Return the reason *late* of a process that was not up within *limit* seconds, and that no core was free for it
    where it waited for one most of the time: a crowded machine is no fault of the code."""
    thread = procs.first_thread(pid)
    if thread is None or thread.queued < WITHOUT_CORE * limit:
        return late
    return Say.FOUND(found=late, why=Say.NO_CORE_FREE(queued=lasted(thread.queued)))


def _is_up(worker: Worker, folder: Path | None, now: float, *, has_url: bool) -> bool:
    if folder is not None:
        return worker_files.has(folder, worker.token, "up")
    if has_url and worker.probe:
        return worker.probe["ok"] is True
    standing = worker.life.standing
    return standing is not None and now - standing.since > (UNPROBED if has_url else UP_BY_UPTIME)
