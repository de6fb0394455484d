"""Check which users can connect to circusd's endpoints, which have no password.

A client of ``endpoint`` can make circusd run any command, as its user; a client of ``pubsub_endpoint`` or
``stats_endpoint`` can read events and figures. On loopback the first two are guarded by circusd itself, see
`supervisor.guarded_endpoint`; ``stats_endpoint`` belongs to circusd-stats.
"""

import os
import pwd
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from xboard_circus.checks.file_rules import endpoints
from xboard_circus.checks.findings import ERROR, WARNING, Finding, no_folder
from xboard_circus.config import Config, is_armed
from xboard_circus.errors import Command
from xboard_circus.host import sockdiag
from xboard_circus.host.sockets import is_loopback

FIRST_PERSON = 500 if sys.platform == "darwin" else 1000
PEOPLE = range(FIRST_PERSON, 60_001)
NO_SHELLS = ("nologin", "false", "sync")
NAMED = 3
_POWERS = {"endpoint": "can make circusd run any command"}
_POWERS["stats_endpoint"] = "can read the names, pids and load of all processes"


def findings(config: Config, others: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the endpoints on this host, where *others* are its users beside circusd's."""
    others = {*others, *(watcher.uid for watcher in config.watchers if watcher.uid is not None)}
    named = ", ".join(sorted(others)[:NAMED]) + (" and others" if len(others) > NAMED else "")
    for option, place, endpoint, address in endpoints(config):
        if endpoint.startswith("ipc://"):
            yield from _folder(place, (config.folder / endpoint.removeprefix("ipc://")).parent)
        elif option in _POWERS and address and others and is_loopback(address[0]) and not guards(config, option):
            what = f"every user of this host ({named}) {_POWERS[option]}"
            yield Finding(WARNING, place, what, f"write ipc://FOLDER/{option}.sock, with a FOLDER of mode 0700")


def guards(config: Config, option: str) -> bool:
    """Return whether circusd lets only its own user connect to this endpoint on loopback."""
    return option != "stats_endpoint" and any(map(is_armed, config.watchers)) and sockdiag.knows_users()


def _folder(option: str, folder: Path) -> Iterator[Finding]:
    if not os.path.isdir(folder):
        yield no_folder(ERROR, option, folder, "mkdir -p -m 0700 {}")
    elif not os.access(folder, os.W_OK):
        yield Finding(ERROR, option, f"{folder} cannot be written", "name another folder")
    elif not is_closed(folder):
        what = f"other users can enter {folder}, and who gets at the socket can run any command"
        yield Finding(WARNING, option, what, Command("use a folder of its own, and chmod 0700 it"))


def is_closed(folder: Path) -> bool:
    """Return whether only one user, and root, can enter *folder*, because it or a folder above keeps the others out."""
    way = [folder.resolve(), *folder.resolve().parents]
    return any(not stat.S_IMODE(step.stat().st_mode) & 0o077 for step in way)


def people() -> list[str]:
    """Return the other users of this host that can log in; a directory service is not queried."""
    people = (each for each in pwd.getpwall() if each.pw_uid in PEOPLE)
    others = (each for each in people if each.pw_uid != os.geteuid())
    return [each.pw_name for each in others if os.path.basename(each.pw_shell) not in NO_SHELLS]
