"""What is written to a log from now on, across its rotation."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.errors import XboardError
from xboard_circus.logs.files import LogFile
from xboard_circus.logs.lines import LONGEST, decoded

MOST_BYTES = 1 << 20  # of one poll, so that a flood comes in pieces
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class LogFollower:
    """Gives the new lines of a log at every `poll`, each once and whole.

    A file that was renamed is read to its end before the next one is begun, so that nothing is lost when it is rotated,
    even several times, between two polls. One that is emptied is read from its start. It need not be there yet.
    """

    def __init__(self, log_file: LogFile, *, from_start: bool = False) -> None:
        self.log_file = log_file
        self._descriptor: int | None = None
        self._position = 0
        self._rest = b""
        if self._open(log_file.path) and not from_start:
            self._position = self._size()

    def __enter__(self) -> "LogFollower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> list[str]:
        """Return what has come since the last call, a MiB at most; never waits.

        Raises:
            OSError: The file is there and can't be read.
        """
        lines: list[str] = []
        left = MOST_BYTES
        while left > 0:
            data = self._read(left)
            left -= len(data)
            lines += self._whole(data)
            if not data and not self._go_on():
                break
        return lines

    def close(self) -> None:
        """Give the file up."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _read(self, most: int) -> bytes:
        if self._descriptor is None and not self._open(self.log_file.path):
            return b""
        assert self._descriptor is not None
        if self._size() < self._position:
            self._position, self._rest = 0, b""
        data = os.pread(self._descriptor, min(most, 1 << 16), self._position)
        self._position += len(data)
        return data

    def _whole(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        return [decoded(line) for line in lines]

    def _go_on(self) -> bool:
        """Switch to the file after the one that is read to its end; False where it does not exist yet."""
        following = None if self._descriptor is None else self._following()
        if following is None:
            return False
        if self._size() > self._position:
            # Whoever renamed it wrote to it in between: it is not read to its end yet.
            os.close(following)
            return True
        self.close()
        if self._rest:
            # The file ended in the middle of a line, and the next begins with a line of its own.
            self._rest += b"\n"
        self._descriptor, self._position = following, 0
        return True

    def _following(self) -> int | None:
        """Open what was begun after our file; None where that is the newest, or while the names are just changing."""
        assert self._descriptor is not None
        own = os.fstat(self._descriptor)
        chain = self._chain()
        if chain and os.path.samestat(chain[0][1], own):
            return None
        if _names(chain) != _names(self._chain()):
            return None
        place = next((place for place, (_, found) in enumerate(chain) if os.path.samestat(found, own)), None)
        # Where ours was deleted, what was written to later is new to us; what is older has been read.
        newer = chain[:place] if place is not None else [each for each in chain if _is_later(each[1], own)]
        if place is None and not newer:
            newer = [each for each in chain if each[0] == self.log_file.path]
        return _opened(*newer[-1]) if newer else None

    def _chain(self) -> list[tuple[Path, os.stat_result]]:
        """Return the files of this log, newest first.

        While they are renamed, each to an older place, one may be seen twice, or not at all. What two looks in a row
        agree on is true: each rotation brings a new file.
        """
        chain = []
        for path in (self.log_file.path, *self.log_file.old()):
            with contextlib.suppress(FileNotFoundError):
                chain.append((path, path.stat()))
        return chain

    def _open(self, path: Path) -> bool:
        try:
            self._descriptor = os.open(path, _READING)
        except FileNotFoundError:
            return False
        self._position = 0
        return True

    def _size(self) -> int:
        assert self._descriptor is not None
        return os.fstat(self._descriptor).st_size


def _names(chain: list[tuple[Path, os.stat_result]]) -> list[tuple[Path, int, int]]:
    return [(path, found.st_dev, found.st_ino) for path, found in chain]


def _is_later(found: os.stat_result, own: os.stat_result) -> bool:
    return found.st_mtime_ns > own.st_mtime_ns


def _opened(path: Path, found: os.stat_result) -> int | None:
    """Open the file at *path* if it is still the one that was *found* there."""
    try:
        descriptor = os.open(path, _READING)
    except FileNotFoundError:
        return None
    if os.path.samestat(os.fstat(descriptor), found):
        return descriptor
    os.close(descriptor)
    return None


def polled(followers: list[LogFollower]) -> Iterator[tuple[LogFile, str]]:
    """Yield (log, line) for all that has come to any of *followers* since the last call."""
    for follower in followers:
        try:
            lines = follower.poll()
        except OSError as error:
            raise XboardError(f"{follower.log_file.path} cannot be read: {error.strerror}") from None
        for line in lines:
            yield follower.log_file, line
