"""Send messages to systemd, and leave listening sockets with it until the next circusd of the service takes them.

See sd_notify(3) and sd_pid_notify_with_fds(3). A unit without FileDescriptorStoreMax= takes none.
"""

import os
import socket
from collections.abc import Collection
from contextlib import suppress

from xboard_circus.host.unix_sockets import MOST_DESCRIPTORS

NAME = "xboard"
_FIRST = 3  # SD_LISTEN_FDS_START


def address() -> str:
    """Return where systemd takes messages; "" where it did not start this process."""
    found = os.environ.get("NOTIFY_SOCKET", "")
    return found if found.startswith(("/", "@")) else ""


def send(to: str, message: str, descriptors: Collection[int] = ()) -> None:
    r"""Send a message to the datagram socket at the address *to*; "@" begins one without a file.

    It never waits: a full queue is an OSError, like every other failure.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.setblocking(False)
        door.connect("\0" + to[1:] if to.startswith("@") else to)
        socket.send_fds(door, [message.encode()], [*descriptors][:MOST_DESCRIPTORS])


def store(listeners: Collection[socket.socket]) -> None:
    """Leave *listeners* with systemd: they stay open until the next circusd takes them, or the service is stopped."""
    if listeners and (to := address()):
        # FDPOLL=0: systemd would drop one that a worker has shut down, and leave the others.
        send(to, f"FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0", [each.fileno() for each in listeners])


def take() -> list[socket.socket]:
    """Take, once, what the circusd before this one has stored; systemd closes its own copies."""
    count, names = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return []
    ours = [number for number, name in enumerate(names[: int(count)], _FIRST) if name == NAME]
    found = [socket.socket(fileno=number) for number in ours]
    for each in found:
        each.set_inheritable(False)
    with suppress(OSError):  # else they stay until the service is stopped
        if found and (to := address()):
            send(to, f"FDSTOREREMOVE=1\nFDNAME={NAME}")
    return found
