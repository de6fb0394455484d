"""Whether the ini passes `check`."""

from __future__ import annotations

from collections.abc import Iterator

from xboard_circus.checks import check as checking
from xboard_circus.checks.findings import Level
from xboard_circus.doctor.case import Case
from xboard_circus.doctor.diagnosis import Diagnosis, bad, good, warning

TOPIC = "settings"


def look(case: Case) -> Iterator[Diagnosis]:
    """Yield what check finds, the ports left out: they have a topic of their own."""
    report = checking.check(case.config_file, running=True)
    for finding in report.findings:
        if finding.level is not Level.OK:
            make = bad if finding.level is Level.ERROR else warning
            # Its own line names the place, and has the hint in it.
            yield make(TOPIC, str(finding), "")
    if not report.errors and not report.warnings:
        yield good(TOPIC, f"{case.config_file} passes `xboard-circus check`")
