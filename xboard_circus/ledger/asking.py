"""Find the record and the story for `why`, for the command line and the dashboard."""

from __future__ import annotations

from pathlib import Path

from xboard_circus.core.names import bus_name
from xboard_circus.ledger.record import Record
from xboard_circus.ledger.searching import search
from xboard_circus.ledger.story import TOLD, subject

BEFORE, AROUND = 200, 1000  # records about the one that is told, for who took its place and what came next
LAST = 200  # deaths and decisions among which the last is looked for


def asked(path: Path, *, watcher: str | None = None, pid: int | None = None) -> tuple[Record, list[Record]] | None:
    """Return the last record that needs a reason, of a process, of a watcher or of anything, and those around it.

    None where nothing is recorded; LedgerError where the ledger at *path* can't be read.
    """
    found = _of_process(path, pid) if pid is not None else _of_watcher(path, watcher)
    if found is None:
        return None
    after = max(0, (found.id or 0) - BEFORE)
    return found, search(path, watcher=found.watcher, after=after, limit=AROUND, earliest=True)


def _of_process(path: Path, pid: int) -> Record | None:
    return subject(search(path, pid=pid, limit=LAST), pid=pid)


def _of_watcher(path: Path, watcher: str | None) -> Record | None:
    name = None if watcher is None else bus_name(watcher)
    found = subject(search(path, watcher=name, kind=TOLD, limit=LAST))
    # Of a watcher that is not armed Circus tells that a process ended, and no more.
    return found or next(iter(search(path, watcher=name, kind="reap", limit=1)), None)
