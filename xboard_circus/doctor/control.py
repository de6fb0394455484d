"""Examine who can connect to circusd's endpoints, which have no password."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.checks import endpoint_rules
from xboard_circus.checks.file_rules import is_loopback, split_endpoint
from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.doctor.case import Case

TOPIC = "control"


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each endpoint."""
    if case.config is None:
        return
    for option in ("endpoint", "pubsub_endpoint", "stats_endpoint"):
        endpoint = case.config.circus.get(option)
        if not endpoint or (option == "stats_endpoint" and not case.config.circus["statsd"]):
            continue
        if address := split_endpoint(str(endpoint)):
            yield of_address(option, *address)
        elif str(endpoint).startswith("ipc://"):
            yield of_file(option, case.config.folder / str(endpoint).removeprefix("ipc://"))
    if case.config.circus.get("multicast_endpoint"):
        what = "circusd answers anyone in the network who asks for it by multicast"
        yield bad(TOPIC, what, "write multicast_endpoint = with nothing behind it into [circus]")


def of_address(option: str, host: str, port: int) -> Finding:
    """Return who can connect to a TCP endpoint."""
    if not is_loopback(host):
        what = f"{option} tcp://{host}:{port} takes commands from other hosts, without a password"
        return bad(TOPIC, what, f"write {option} = tcp://127.0.0.1:{port} into [circus]")
    what = f"{option} tcp://{host}:{port} is reached from this host alone, by any of its users"
    return good(TOPIC, what)


def of_file(option: str, path: Path) -> Finding:
    """Return who can connect to a unix socket: users who may write to it and enter every folder above."""
    try:
        is_shut = path.exists() and not stat.S_IMODE(path.lstat().st_mode) & 0o022
        is_closed = endpoint_rules.is_closed(path.parent)
    except OSError as error:
        return warning(TOPIC, f"{option} {path} cannot be looked at: {error.strerror}", "look as circusd's user")
    if not is_shut and not is_closed:
        what = f"{option} {path}: other users of this host may enter its folder and give commands"
        return bad(TOPIC, what, f"chmod 0700 {path.parent}")
    return good(TOPIC, f"{option} {path} is reached by its own user alone")
