"""Report what `check` finds in the ini file."""

from __future__ import annotations

from collections.abc import Iterator

from xboard_circus.checks.check import check
from xboard_circus.checks.findings import Finding, Level, good
from xboard_circus.doctor.case import Case


def look(case: Case) -> Iterator[Finding]:
    """Yield the errors and warnings of `check`, without the ports: they have a topic of their own."""
    report = check(case.config_file, running=True)
    found = [finding for finding in report.findings if finding.level is not Level.OK]
    yield from found or [good("settings", f"{case.config_file} passes `xboard-circus check`")]
