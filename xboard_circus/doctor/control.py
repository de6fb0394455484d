"""Examine who can connect to circusd's endpoints, which have no password."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.checks import endpoint_rules
from xboard_circus.checks.file_rules import endpoints, is_loopback
from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.doctor.case import Case


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each endpoint."""
    if case.config is None:
        return
    for option, _, endpoint, address in endpoints(case.config):
        if address:
            yield of_address(option, *address)
        elif endpoint.startswith("ipc://"):
            yield of_file(option, case.config.folder / endpoint.removeprefix("ipc://"))
    if case.config.circus.get("multicast_endpoint"):
        what = "circusd answers anyone in the network who asks for it by multicast"
        yield bad(what, "write multicast_endpoint = with nothing behind it into [circus]")


def of_address(option: str, host: str, port: int) -> Finding:
    """Return who can connect to a TCP endpoint."""
    if not is_loopback(host):
        what = f"{option} tcp://{host}:{port} takes commands from other hosts, without a password"
        return bad(what, f"write {option} = tcp://127.0.0.1:{port} into [circus]")
    return good(f"{option} tcp://{host}:{port} is reached from this host alone, by any of its users")


def of_file(option: str, path: Path) -> Finding:
    """Return who can connect to a unix socket: users who may write to it and enter every folder above."""
    try:
        is_shut = path.exists() and not stat.S_IMODE(path.lstat().st_mode) & 0o022
        is_closed = endpoint_rules.is_closed(path.parent)
    except OSError as error:
        return warning(f"{option} {path} cannot be looked at: {error.strerror}", "look as circusd's user")
    if not is_shut and not is_closed:
        what = f"{option} {path}: other users of this host may enter its folder and give commands"
        return bad(what, f"chmod 0700 {path.parent}")
    return good(f"{option} {path} is reached by its own user alone")
