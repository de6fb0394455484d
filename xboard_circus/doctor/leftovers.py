"""Files that dead processes and broken disks have left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.config import Config
from xboard_circus.doctor.case import Case
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.ledger.location import ledgers_of

TOPIC = "leftovers"
SHOWN = 3


def look(case: Case) -> Iterator[Finding]:
    """Yield a finding for each kind of unused file, or one that says that none is left."""
    found = list(_found(case))
    yield from found
    if not found:
        yield good(TOPIC, "no file of a process that is gone")


def _found(case: Case) -> Iterator[Finding]:
    try:
        stale = runtime.stale(case.instance_id)
    except XboardError as error:
        yield bad(TOPIC, str(error), "")
        return
    if stale:
        what = f"{_named(stale)} of processes that are gone"
        yield warning(TOPIC, what, "nothing breaks by them; `xboard-circus clean` removes them")
    reports = sorted(runtime.root_path().glob("crash-*.log"))
    if reports:
        hint = "please report it with that file, then delete it"
        yield warning(TOPIC, f"xboard-circus itself has failed: {_named(reports)}", hint)
    if case.config is not None:
        yield from of_config(case.config)


def of_config(config: Config) -> Iterator[Finding]:
    """Yield a line for what was left in places that the ini names."""
    for ledger in ledgers_of(config):
        damaged = sorted(ledger.parent.glob(f"{ledger.name}.damaged-*"))
        if damaged:
            hint = "check the disk (`dmesg`), then delete them; a new ledger was begun"
            yield warning(TOPIC, f"damaged ledgers were set aside: {_named(damaged)}", hint)
    if pidfile := config.circus.get("pidfile"):
        path = config.folder / str(pidfile)
        if (pid := _pid_in(path)) is not None and not procs.is_running(pid, procs.start_time(pid) or 0):
            yield warning(TOPIC, f"{path} names pid {pid}, which is gone", "nothing breaks by it; delete it")


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _named(paths: list[Path]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(map(str, paths[:SHOWN])) + (f" and {more} more" if more > 0 else "")
