"""Examine files left by dead processes and broken disks, and deleted logs.

Our own writers begin a new log at their next line. In an unarmed watcher, Circus's FileStream goes on writing to a file
that no user can open, and that takes room on the disk until it is closed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from xboard_circus.checks.findings import Finding, bad, good, unknown, warning
from xboard_circus.config import Config, is_armed
from xboard_circus.core.names import is_helper, some_of
from xboard_circus.doctor.case import Case
from xboard_circus.errors import Command, XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.host.written_files import read_whole
from xboard_circus.ledger.location import ledgers_of
from xboard_circus.logs import log_files

SHOWN = 3
_DELETED = " (deleted)"


def leftovers(case: Case) -> Iterator[Finding]:
    """Yield a finding for each kind of unused file, or one that reports none."""
    yield from [*_found(case)] or [good("no file of a process that is gone")]


def _found(case: Case) -> Iterator[Finding]:
    try:
        stale = runtime.stale(case.instance_id)
    except XboardError as error:
        yield bad(str(error), "")
        return
    if stale:
        what = f"{some_of(stale, SHOWN)} of processes that are gone"
        yield warning(what, "nothing breaks by them; `xboard-circus clean` removes them")
    reports = sorted(runtime.root_path().glob("crash-*.log"))
    if reports:
        hint = "please report it with that file, then delete it"
        yield warning(f"xboard-circus itself has failed: {some_of(reports, SHOWN)}", hint)
    if case.config is not None:
        yield from of_config(case.config)


def of_config(config: Config) -> Iterator[Finding]:
    """Yield a line for each unused file in places that the ini names."""
    for ledger in ledgers_of(config):
        damaged = sorted(ledger.parent.glob(f"{ledger.name}.damaged-*"))
        if damaged:
            hint = Command("check the disk (`dmesg`), then delete them; a new ledger was begun")
            yield warning(f"damaged ledgers were set aside: {some_of(damaged, SHOWN)}", hint)
    if pidfile := config.circus.get("pidfile"):
        path = config.folder / str(pidfile)
        if (pid := _pid_in(path)) is not None and procs.config_file_of(pid) is None:
            yield warning(f"{path} names pid {pid}, which is no circusd", Command("nothing breaks by it; delete it"))


def _pid_in(path: Path) -> int | None:
    try:
        return int(read_whole(path))
    except (OSError, ValueError):
        return None


def deleted_logs(case: Case) -> Iterator[Finding]:
    """Yield a line for each deleted log that circusd or one of its plugins has open."""
    if case.circusd is None:
        return
    helpers = [each for each in case.snapshot.watchers if is_helper(each["name"])] if case.snapshot else []
    try:
        pids = [case.circusd.pid, *(worker["pid"] for each in helpers for worker in each["workers"])]
        gone = {file for pid in pids for file in deleted_files(pid)}
    except OSError as error:
        hint = "look as root, or as circusd's user"
        yield unknown(f"the files of circusd (pid {case.circusd.pid}) cannot be read: {error.strerror}", hint)
        return
    plain = {watcher.name for watcher in case.read_config.watchers if not is_armed(watcher)}
    lost = [log for log in log_files(case.read_config) if Path(os.path.realpath(log.path)) in gone]
    for log in lost:
        if log.watcher in plain:
            hint = f"`xboard-circus restart {quote(log.watcher)}`, or use WatchedFileStream"
            yield warning(f"{log.path} was deleted, and {log.watcher} writes on into it: its lines are lost", hint)
        else:
            yield warning(f"{log.path} was deleted", "nothing to do: the next line begins a new file")
    if not lost:
        yield good("no log was deleted under its writer")


def deleted_files(pid: int) -> set[Path]:
    """Return the former names of deleted files that the process has open."""
    targets = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if os.path.islink(each)]
    return {Path(target.removesuffix(_DELETED)) for target in targets if target.endswith(_DELETED)}
