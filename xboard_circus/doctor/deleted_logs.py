"""Find logs whose file was deleted while a process has it open.

Our own writers begin a new file at their next line. For a watcher that is not armed, Circus's FileStream goes on
writing to a file that nobody can open, and that takes room on the disk until it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.checks.findings import Finding, good, unknown, warning
from xboard_circus.config import is_armed
from xboard_circus.core.names import is_helper
from xboard_circus.doctor.case import Case
from xboard_circus.logs import log_files

_DELETED = " (deleted)"


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each log that circusd or one of its plugins has open, and that was deleted."""
    if case.config is None or case.circusd is None:
        return
    helpers = [each for each in case.snapshot.watchers if is_helper(each.name)] if case.snapshot else []
    try:
        pids = [case.circusd.pid, *(worker.pid for each in helpers for worker in each.workers)]
        gone = {file for pid in pids for file in deleted_files(pid)}
    except OSError as error:
        hint = "look as root, or as circusd's user"
        yield unknown(f"the files of circusd (pid {case.circusd.pid}) cannot be read: {error.strerror}", hint)
        return
    plain = {watcher.name for watcher in case.config.watchers if not is_armed(watcher)}
    lost = [log for log in log_files(case.config) if Path(os.path.realpath(log.path)) in gone]
    for log in lost:
        if log.watcher in plain:
            hint = f"`circusctl stop {log.watcher}` and `circusctl start {log.watcher}`, or use WatchedFileStream"
            yield warning(f"{log.path} was deleted, and {log.watcher} writes on into it: its lines are lost", hint)
        else:
            yield warning(f"{log.path} was deleted", "nothing to do: the next line begins a new file")
    if not lost:
        yield good("no log was deleted under its writer")


def deleted_files(pid: int) -> set[Path]:
    """Return the names that files had which the process has open and which have been deleted."""
    targets = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    return {Path(target.removesuffix(_DELETED)) for target in targets if target.endswith(_DELETED)}
