"""Examine the holders of the ini file's ports."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

from xboard_circus.checks import port_rules
from xboard_circus.checks.file_rules import addresses
from xboard_circus.checks.findings import Finding, Level, bad, good
from xboard_circus.doctor.case import Case
from xboard_circus.host import listeners

TOPIC = "ports"


def look(case: Case) -> Iterator[Finding]:
    """Yield a finding for each address: its holder, and whether that is right."""
    if case.config is None:
        return
    troubled: dict[str, list[Finding]] = {}
    # A port that a stranger has is what keeps the backend down, even where a start would wait for it.
    for section, finding in port_rules.findings(case.config, stranger=Level.ERROR):
        troubled.setdefault(section, []).append(finding)
        yield replace(finding, topic=TOPIC, section=section)
    for address in addresses(case.config):
        place = f"[{address.section}] {address.host}:{address.port}"
        if any(f"{address.host}:{address.port}" in finding.what for finding in troubled.get(address.section, [])):
            continue
        refused = listeners.try_bind("0.0.0.0" if address.host == "*" else address.host, address.port)
        if refused is not None and refused.errno == errno.EADDRINUSE:
            yield good(TOPIC, f"{place} is held by our circusd")
        elif case.snapshot is not None and address.public:
            yield bad(TOPIC, f"{place}: circusd runs, but no process listens", "`xboard-circus status` shows why")
        else:
            yield good(TOPIC, f"{place} is free")
