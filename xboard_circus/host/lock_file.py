"""Hold a lock file, which names the pid of its holder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xboard_circus.errors import XboardError

LOOK_EVERY = 0.2


class NoLockFile(XboardError):
    """A lock file that cannot be made."""


@contextmanager
def locked(path: Path, busy: str, *, within: float = 0.0) -> Iterator[None]:
    """Hold the lock file at *path*.

    Raises:
        NoLockFile: It cannot be made, such as on a full disk.
        XboardError: Another process has held it for *within* seconds; the message begins with *busy*.
    """
    give_up_at = time.monotonic() + within
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NoLockFile(f"{path} cannot be made: {error.strerror}; make room, or let this user write there") from error
    with open(descriptor, "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise XboardError(f"{busy}, with pid {file.read().strip()}") from None
                time.sleep(LOOK_EVERY)
        with suppress(OSError):  # the pid is only for the message
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
