"""Examine the holders of the ini file's ports."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from xboard_circus.checks import port_rules
from xboard_circus.checks.file_rules import addresses
from xboard_circus.checks.findings import Finding, Level, bad, good
from xboard_circus.doctor.case import Case
from xboard_circus.host import listeners


def look(case: Case) -> Iterator[Finding]:
    """Yield a finding for each address: its holder, and whether that is right."""
    if case.config is None:
        return
    # A port that a stranger has is what keeps the backend down, even where a start would wait for it.
    troubled = list(port_rules.findings(case.config, stranger=Level.ERROR))
    yield from troubled
    for address in addresses(case.config):
        bound = f"{address.host}:{address.port}"
        if any(each.section == address.section and bound in each.what for each in troubled):
            continue
        place = f"[{address.section}] {bound}"
        refused = listeners.try_bind("0.0.0.0" if address.host == "*" else address.host, address.port)
        if refused is not None and refused.errno == errno.EADDRINUSE:
            yield good(f"{place} is held by our circusd")
        elif case.snapshot is not None and address.public:
            yield bad(f"{place}: circusd runs, but no process listens", "`xboard-circus status` shows why")
        else:
            yield good(f"{place} is free")
