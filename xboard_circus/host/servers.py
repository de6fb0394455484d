"""Find the process that listens at an endpoint of circusd, which is not always circusd.

While circusd is down, any local user can bind its TCP port, or its unix socket in a folder open to others.
"""

import os
import pwd
import socket
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from xboard_circus.host import sockdiag
from xboard_circus.host.sockets import is_loopback, overlaps
from xboard_circus.host.worker_files import peer_of
from xboard_circus.host.writers import is_open


class EndpointServer(NamedTuple):
    """The listener at the other end of a connection.

    Attributes:
        users: Their uids; several sockets may listen on one port. Empty where the listener is gone again.
        sockets: Identity of the listening sockets: their inodes, or the pid behind a unix socket.
        refuses: It has closed the connection of this user.
    """

    users: frozenset[int]
    sockets: frozenset[int]
    refuses: bool = False

    def stranger(self, users: Collection[int]) -> str | None:
        """Return the name of a user besides *users* who listens; None without one."""
        strangers = sorted(self.users - set(users))
        return name_of(strangers[0]) if strangers else None if self.users else "?"


@lru_cache(maxsize=64)
def name_of(user: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return str(user)


def owner_of(path: str) -> str:
    """Return the name of the owner of *path*, or of the nearest accessible folder above it."""
    for step in (Path(path), *Path(path).absolute().parents):
        with suppress(OSError):
            return name_of(step.stat().st_uid)
    return "?"


def server_of(connection: socket.socket) -> EndpointServer | None:
    """Return the listener at the other end; None where this host does not know it, or the address is another host's.

    A connection to an address of this host, not only of its loopback, comes from the same address.
    """
    if sys.platform != "linux":
        return None
    if connection.family == socket.AF_UNIX:
        peer = peer_of(connection)
        return None if peer is None else EndpointServer(frozenset({peer[1]}), frozenset({peer[0]}))
    host, port = connection.getpeername()[:2]
    if not is_loopback(host) and host != connection.getsockname()[0]:
        return None
    found = [each for each in sockdiag.listening(port) if overlaps(ip_address(host), each.address, v6only=each.v6only)]
    if not found and not sockdiag.knows_users():
        return None
    return EndpointServer(frozenset(each.uid for each in found), frozenset(each.inode for each in found))


def users_of(endpoint: str, owner: int | None = 0) -> set[int]:
    """Return the uids that may listen at *endpoint*: ours, root's, *owner*'s, and the only user who can make a unix
    socket.

    Where nothing but the endpoint says whose circusd is meant (None), only that user, if others can lead a unix socket
    elsewhere: a circusd of ours would be shown as his, and get the orders for it.
    """
    users, only = {0, os.geteuid(), owner or 0}, set[int]()
    if endpoint.startswith("ipc:///"):
        path = Path(endpoint.removeprefix("ipc://"))
        with suppress(OSError):
            only = _only_writer(path.parent)
        return only - users if owner is None and is_open(path) else users | only
    return users


def _only_writer(folder: Path) -> set[int]:
    """Return the owner of *folder*, if beside root no other user can put anything into it, or replace it."""
    owner, real = folder.stat().st_uid, folder.resolve()
    steps = map(Path.stat, (real, *real.parents))
    return {owner} if all(step.st_uid in (0, owner) and not step.st_mode & 0o022 for step in steps) else set()
