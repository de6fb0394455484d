"""Limit the size of the file with circusd's stdout and stderr."""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from xboard_circus.host.written_files import held, opener

OUT_BYTES = 10 << 20
KEPT_OF_OUT = 1 << 20
LOOK_EVERY = 2.0
OUT = Path("logs", "circusd.out")


class OwnOutput:
    """A Circus stream into circusd's own stdout or stderr, for a watcher without one.

    Its user then cannot truncate that file, seek in it or fill it past its limit, as with an inherited descriptor.
    """

    _filename = str(OUT)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, piece: dict[str, Any]) -> None:
        left = piece["data"]
        while left:
            left = left[os.write(self._descriptor, left) :]


def own_output(stream: str, user: int | None) -> OwnOutput | None:
    """Return a stream into circusd's stdout or stderr for a *user* other than circusd's.

    None for a pipe, because it cannot be truncated, and circusd would wait for its reader. A process with a file can
    truncate it; one with a terminal reads what is typed there, and one with a socket, as of the journal, shuts it down.
    """
    descriptor = 1 if stream == "stdout_stream" else 2
    with suppress(OSError):
        is_shared = stat.S_IFMT(os.fstat(descriptor).st_mode) in (stat.S_IFREG, stat.S_IFSOCK) or os.isatty(descriptor)
        if is_shared and user not in (None, os.geteuid()):
            return OwnOutput(descriptor)
    return None


class Output:
    """The file ``logs/circusd.out``, stdout and stderr of a circusd that `xboard-circus start` started.

    Processes without a stream of their own write to it too, so it cannot be renamed: they would go on in the old one.
    It is truncated where it is too large, and its end kept as ``circusd.out.1``. A file of any other name is left
    alone.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / OUT
        self._looked_at = float("-inf")

    def keep_small(self, now: float) -> None:
        """Truncate the file if it is too large, at most once in `LOOK_EVERY` seconds."""
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        for descriptor in (1, 2):
            with suppress(OSError):
                if self._is_too_large(descriptor):
                    with suppress(OSError):  # a full disk: truncate it all the more
                        self._keep_the_end()
                    os.ftruncate(descriptor, 0)

    def _is_too_large(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size > OUT_BYTES
            and os.path.samestat(found, os.stat(self._path))
            # Without it the next write would go to where the last one ended, behind a hole.
            and bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
        )

    def _keep_the_end(self) -> None:
        with held(self._path) as path:
            with open(path, "rb", opener=opener) as file:
                file.seek(-min(KEPT_OF_OUT, file.seek(0, os.SEEK_END)), os.SEEK_END)
                end = file.read(KEPT_OF_OUT)
            kept = path.with_name(f"{path.name}.1")
            kept.unlink(missing_ok=True)
            with open(kept, "wb", opener=opener) as file:
                file.write(end)
