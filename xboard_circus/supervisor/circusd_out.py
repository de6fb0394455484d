"""Keep the file small that circusd's stdout and stderr go to."""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from xboard_circus.host.written_files import opener

OUT_BYTES = 10 << 20
KEPT_OF_OUT = 1 << 20
LOOK_EVERY = 2.0
OUT = Path("logs", "circusd.out")


class OwnOutput:
    """A Circus stream into circusd's own stdout or stderr, for a watcher that has none of its own.

    Its user may then not empty that file, seek in it or fill it past its limit, as with an inherited descriptor.
    """

    _filename = str(OUT)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, piece: dict[str, Any]) -> None:
        left = piece["data"]
        while left:
            left = left[os.write(self._descriptor, left) :]


def own_output(stream: str, user: int | None) -> OwnOutput | None:
    """Return a stream into circusd's stdout or stderr where *user* is another one than circusd's.

    None where that is a pipe, which nobody can empty: circusd would wait for who reads it. Who holds a file can empty
    it; who holds a terminal reads what is typed there.
    """
    descriptor = 1 if stream == "stdout_stream" else 2
    with suppress(OSError):
        is_shared = stat.S_ISREG(os.fstat(descriptor).st_mode) or os.isatty(descriptor)
        if is_shared and user not in (None, os.geteuid()):
            return OwnOutput(descriptor)
    return None


class Output:
    """The file ``logs/circusd.out`` that `xboard-circus start` gives circusd for its stdout and stderr.

    Processes without a stream of their own write to it too, so it can't be renamed: they would go on in the old one. It
    is emptied where it is too large, and its end kept as ``circusd.out.1``. A file of any other name is left alone.
    """

    def __init__(self, folder: Path, *, limit: int = OUT_BYTES) -> None:
        self._path = folder / OUT
        self._limit = limit
        self._looked_at = float("-inf")

    def keep_small(self, now: float) -> None:
        """Empty the file where it is too large, at most once in `LOOK_EVERY` seconds."""
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        for descriptor in (1, 2):
            with suppress(OSError):
                if self._is_too_large(descriptor):
                    with suppress(OSError):  # a full disk: all the more it must be emptied
                        self._keep_the_end()
                    os.ftruncate(descriptor, 0)

    def _is_too_large(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size > self._limit
            and os.path.samestat(found, os.stat(self._path))
            # Without it the next write would go to where the last one ended, behind a hole.
            and bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
        )

    def _keep_the_end(self) -> None:
        with self._path.open("rb") as file:
            file.seek(-min(KEPT_OF_OUT, file.seek(0, os.SEEK_END)), os.SEEK_END)
            end = file.read(KEPT_OF_OUT)
        kept = self._path.with_name(f"{self._path.name}.1")
        kept.unlink(missing_ok=True)
        with open(kept, "wb", opener=opener) as file:
            file.write(end)
