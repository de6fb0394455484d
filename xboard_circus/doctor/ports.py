"""Who holds the ports that the ini asks for."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from xboard_circus.checks import port_rules
from xboard_circus.checks.file_rules import addresses
from xboard_circus.checks.findings import Level, Remark
from xboard_circus.doctor.case import Case
from xboard_circus.doctor.diagnosis import Diagnosis, bad, good, warning
from xboard_circus.host import listeners

TOPIC = "ports"


def look(case: Case) -> Iterator[Diagnosis]:
    """Yield a line for every address: who has it, and whether that is right."""
    if case.config is None:
        return
    troubled: dict[str, list[Remark]] = {}
    for section, remark in port_rules.remarks(case.config):
        troubled.setdefault(section, []).append(remark)
        # A port that a stranger has is what keeps the backend down, even where a start would wait for it.
        make = bad if remark.level is Level.ERROR or remark.hint.startswith(("stop ", "look ")) else warning
        yield make(TOPIC, f"[{section}] {remark.what}" if section else remark.what, remark.hint)
    for address in addresses(case.config):
        place = f"[{address.section}] {address.host}:{address.port}"
        if any(f"{address.host}:{address.port}" in remark.what for remark in troubled.get(address.section, [])):
            continue
        refused = listeners.try_bind("0.0.0.0" if address.host == "*" else address.host, address.port)
        if refused is not None and refused.errno == errno.EADDRINUSE:
            yield good(TOPIC, f"{place} is held by our circusd")
        elif case.snapshot is not None and address.public:
            yield bad(
                TOPIC, f"{place}: circusd runs, and nobody listens", "`xboard-circus status` tells what it waits for"
            )
        else:
            yield good(TOPIC, f"{place} is free")
