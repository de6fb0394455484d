"""Send messages to systemd, leave listening sockets with it until the next circusd of the service takes them, and look
up what it does with the service.

See sd_notify(3) and sd_pid_notify_with_fds(3). A unit without FileDescriptorStoreMax= takes none.
"""

import os
import socket
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from xboard_circus.host import procs
from xboard_circus.host.unix_sockets import MOST_DESCRIPTORS

NAME = "xboard"
OUR_UNIT = "XBOARD_SERVICE"
"""Variable of our units with their own name: they keep what circusd leaves at a restart."""
ANSWER_WITHIN = 5.0
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
    """Take, once, what the circusd before this one has stored; systemd closes its own copies.

    Each process of the service may store what it likes, such as a file, which would come again at each start.
    """
    count, names = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return []
    ours = [number for number, name in enumerate(names[: int(count)], _FIRST) if name == NAME]
    found = []
    for number in ours:
        try:
            found.append(socket.socket(fileno=number))
        except OSError:  # no socket
            os.close(number)
    for each in found:
        each.set_inheritable(False)
    with suppress(OSError):  # else they stay until the service is stopped
        if ours and (to := address()):
            send(to, f"FDSTOREREMOVE=1\nFDNAME={NAME}")
    return found


def own_unit() -> str:
    """Return the name of our unit if systemd runs this process in it: it ends, or keeps, what circusd leaves."""
    unit = procs.unit_of(os.getpid())
    return unit if unit and unit == os.environ.get(OUR_UNIT) else ""


def job_of(unit: str, *, of_user: bool) -> str | None:
    """Return the type of systemd's job for *unit*, such as "restart"; "" without one, None if unknown.

    For a thread, for 5 s at most. Of the system's manager only root is answered without D-Bus, so root lists the jobs
    in a file while the unit stops.
    """
    with suppress(OSError):
        if not of_user:
            return _job_in(Path("/run", f"{unit.removesuffix('.service')}.job").read_text(encoding="utf-8"))
    command = ["systemctl", *(["--user"] if of_user else []), "list-jobs", "--no-legend", "--plain", unit]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN, check=True)
        return _job_in(done.stdout)
    return None


def _job_in(listed: str) -> str:
    words = listed.split()  # its number, the unit, the type, the state
    return words[2] if len(words) == 4 else ""
