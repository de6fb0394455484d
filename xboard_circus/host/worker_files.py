"""Name, sweep and test the files of a worker in the runtime folder. Imports little: every worker does it."""

import os
import re
import socket
import stat
import struct
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from xboard_circus.host import unix_sockets

SUFFIXES = ("sock", "new", "up", "ready", "beat", "code")  # "new": the private socket until it listens
LEFT = "cut"  # stays when the worker ends: circusd reads and removes it
BEAT = CUT = struct.Struct("<Qd")
"""What the file "beat" holds: `LoopBeat`; and "cut": how many requests were cut off, and at which drain limit."""
MOST_NAMES, MOST_CODE, MOST_CUT = 1000, 1 << 20, 10**9
NAME = re.compile(r"([0-9a-z]{1,16})\.(sock|new|up|ready|beat|code|cut)")  # a token, or a pid as in earlier versions


class LoopBeat(NamedTuple):
    """How a worker whose event loop is late shows that it works.

    Attributes:
        steps: A number that it raises for each progress.
        stands_since: Since when its loop has been in one and the same callback, by the monotonic clock; 0: it is not.
    """

    steps: int
    stands_since: float


def new_token() -> str:
    """Return a name for the files of one worker, which no other worker has had."""
    return os.urandom(4).hex()


def is_usable(folder: Path | None) -> bool:
    """Return whether workers can make files in their runtime folder."""
    return folder is not None and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def names_in(folder: Path) -> list[str]:
    """Return the names in *folder*, `MOST_NAMES` at most; none if it cannot be read.

    Its user can make 10,000 a second, and circusd takes a quarter of a millisecond for each in its sweep.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return []


def name_of(folder: Path, token: str, suffix: str) -> str:
    """Return the path of a worker's private socket ("sock") or of its marks ("up", "ready").

    As a string: it is needed twice a second for each worker, and making a `Path` takes longer than the look-up.
    """
    return f"{folder}/{token}.{suffix}"


def path_of(folder: Path | None, token: str, suffix: str) -> Path | None:
    """Return the same as a path; None without a folder."""
    return None if folder is None else Path(name_of(folder, token, suffix))


def has(folder: Path | None, token: str, suffix: str) -> bool:
    """Return whether the worker has made that file; a link or a folder does not count."""
    if folder is not None:
        with suppress(OSError):
            mode = os.lstat(name_of(folder, token, suffix)).st_mode
            return stat.S_ISSOCK(mode) if suffix == "sock" else stat.S_ISREG(mode)
    return False


def remove(folder: Path, token: str, *also: str) -> None:
    """Remove the files of one dead worker. What cannot be removed, such as a folder that its app made, stays."""
    for suffix in (*SUFFIXES, *also):
        with suppress(OSError):
            (folder / f"{token}.{suffix}").unlink()


def _noted(path: str, most: int) -> bytes:
    """Return what a worker has noted in a file, *most* bytes and one more at most; b"" if it has noted nothing.

    It is the worker's own claim; a link is not followed, and nothing is waited for.
    """
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.read(file, most + 1)
        finally:
            os.close(file)
    return b""


def beat_of(sock: str) -> LoopBeat | None:
    """Return what a worker shows of its event loop, beside its private socket *sock*; None if unknown."""
    beat = _noted(f"{os.path.splitext(sock)[0]}.beat", BEAT.size)
    return LoopBeat(*BEAT.unpack(beat)) if len(beat) == BEAT.size else None


def cut_of(folder: Path | None, token: str) -> tuple[int, float]:
    """Return how many requests a worker has cut off at its drain limit, and that limit; none if it noted nothing."""
    note = b"" if folder is None else _noted(name_of(folder, token, LEFT), CUT.size)
    cut, limit = CUT.unpack(note) if len(note) == CUT.size else (0, 0.0)
    return (cut, limit) if cut <= MOST_CUT and 0 <= limit <= MOST_CUT else (0, 0.0)


def code_of(folder: Path, token: str) -> str | None:
    """Return what a worker has noted of the code that it imported, see `worker.app_code`; "" if it has noted nothing,
    None if that is too much to read."""
    code = _noted(name_of(folder, token, "code"), MOST_CODE)
    return code.decode(errors="replace") if len(code) <= MOST_CODE else None


def takes_connections(path: Path) -> bool:
    """Return whether a process listens on the unix socket *path*; one whose queue is full does.

    The kernel refuses a connection to a socket of a process that is gone.
    """
    with unix_sockets.opened() as door:
        door.setblocking(False)
        try:
            door.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # a full queue; no right to connect
            return True
    return True


def peer_of(connection: socket.socket) -> tuple[int, int] | None:
    """Return pid and user of the process at the other end of a unix socket; None where the system does not know.

    To a client that is the process which called ``listen``, even while its event loop does not answer.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, user, _group = struct.unpack("iII", credentials)
    return pid, user


def listener_of(path: Path) -> int | None:
    """Return the pid of the worker that listens on the unix socket *path*; None if unknown."""
    with unix_sockets.opened() as door:
        door.setblocking(False)
        with suppress(OSError):
            door.connect(os.fspath(path))
            return peer[0] if (peer := peer_of(door)) else None
    return None


def is_socket(path: str | os.PathLike[str]) -> bool:
    """Return whether a unix socket lies at *path*; a file of another kind is not ours to remove."""
    with suppress(OSError):
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    return False
