"""Find which workers have completed their start."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from xboard_circus.core.worker import BecameReady, CameUp, LifeEvent
from xboard_circus.host import worker_files
from xboard_circus.supervisor.fleet import Worker

UP_BY_UPTIME = 1.0
"""Seconds after which another server than our worker counts as up: it does not report that its start is complete."""


def progress(workers: Iterable[Worker], folder: Path | None, now: float) -> Iterator[tuple[Worker, LifeEvent]]:
    """Yield which workers are up, or ready: as they report in *folder*; without one by their age."""
    for worker in workers:
        if worker.is_starting and _is_up(worker, folder, now):
            yield worker, CameUp(now)
        if worker.is_up and not worker.life.was_ready and _reports_ready(worker, folder):
            yield worker, BecameReady()


def _is_up(worker: Worker, folder: Path | None, now: float) -> bool:
    if folder is not None:
        return worker_files.has(folder, worker.token, "up")
    standing = worker.life.standing
    return standing is not None and now - standing.since > UP_BY_UPTIME


def _reports_ready(worker: Worker, folder: Path | None) -> bool:
    return folder is None or worker_files.has(folder, worker.token, "ready")
