"""Examine recent trouble: restarts in the ledger, errors in the logs."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from shlex import quote

from xboard_circus.checks.findings import Finding, good, unknown, warning
from xboard_circus.config import Config
from xboard_circus.core.incidents import DAY
from xboard_circus.core.lost import BACK, LOST
from xboard_circus.doctor.case import Case
from xboard_circus.errors import XboardError
from xboard_circus.ledger import Record
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.query import search
from xboard_circus.logs import Line, LogFile, log_files, tail
from xboard_circus.masking import printable

RECORDS, LINES = 1000, 5000
LONGEST = 160
# As circusd, the plugins, uvicorn and Python's logging write it, with or without a time stamp; further on in a line the
# same word means nothing.
_BEFORE = r"^(?:[\d-]+[ T][\d:.,]+\s+)?(?:\[\d+\] \| )?"
_ERROR = re.compile(rf"{_BEFORE}(?:\S+\[\d+\] \[(?:ERROR|CRITICAL)\]|(?:ERROR|CRITICAL|FATAL)[: ]|Traceback \(most)")
# Circus writes it at every restart, and nothing is wrong.
_HARMLESS = re.compile(r"ConflictError|arbiter is already running")


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each watcher that was restarted and each log with errors in the last day."""
    found = [*_restarts(case.read_config, case.now), *_errors(case.read_config, case.now)]
    yield from found or [good("no restart and no error in the last day")]


def _restarts(config: Config, now: float) -> Iterator[Finding]:
    try:
        records = search(ledger_of(config), since=now - DAY, kind={"restart", LOST, BACK}, limit=RECORDS)
        yield from of_losses([record for record in records if record.kind != "restart"])
        yield from of_restarts([record for record in records if record.kind == "restart"])
    except XboardError as error:
        yield unknown(str(error), "the restarts of the last day are not known")


def of_losses(records: list[Record]) -> Iterator[Finding]:
    """Yield a line for each lost circusd; one loss may have two records, of its end and of the next start."""
    if records:
        count = len({(record.pid, record.data.get("started")) for record in records})
        times = "once" if count == 1 else f"{count} times"
        yield warning(_lately(f"circusd itself was lost {times}", records), "`xboard-circus why circusd` shows more")


def of_restarts(records: list[Record]) -> Iterator[Finding]:
    """Yield a line for each watcher with failures of its workers."""
    by_watcher: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.cause != "commanded":
            by_watcher[record.watcher].append(record)
    for watcher, found in by_watcher.items():
        failures = "1 failure" if len(found) == 1 else f"{len(found)} failures"
        yield warning(_lately(f"{watcher}: {failures}", found), f"`xboard-circus why {quote(watcher)}` shows more")


def _errors(config: Config, now: float) -> Iterator[Finding]:
    for log in log_files(config):
        try:
            lines = tail(log, LINES, since=now - DAY)
        except OSError as error:
            yield unknown(f"{log.path} cannot be read: {error.strerror}", "look as its user")
            continue
        if found := of_lines(log, lines):
            yield found


def of_lines(log: LogFile, lines: list[Line]) -> Finding | None:
    """Return the last error in *lines*; None without one."""
    found = [line for line in lines if _ERROR.search(line.text) and not _HARMLESS.search(line.text)]
    if not found:
        return None
    count = "1 error" if len(found) == 1 else f"{len(found)} errors"
    lately = "in the last day" if found[-1].time is not None else "in its last lines"
    text = printable(found[-1].text[:LONGEST])
    return warning(f"{log.id}: {count} {lately}, the last: {text}", f"`xboard-circus logs {quote(log.id)}` shows them")


def _lately(what: str, records: list[Record]) -> str:
    last = records[-1]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.time))
    reason = last.reason or last.cause or "no reason is recorded"
    return f"{what} in the last day, the last at {at}: {reason[:LONGEST]}"
