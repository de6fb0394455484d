"""Follow new lines of a log, across its rotation."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.errors import XboardError
from xboard_circus.logs.files import LogFile
from xboard_circus.logs.lines import LONGEST, Place, decoded, open_log

MOST_BYTES = 1 << 20  # of one poll, so that a flood comes in pieces


class LogFollower:
    """Return the new lines of a log at every `poll`, each once and whole.

    A renamed file is read to its end before the next one is begun, so that no line is lost when it is rotated, even
    several times, between two polls. A truncated one is read from its start. It need not exist yet.

    The first call begins at the end, or at *place*; where no file has that any more, at the start of the newest.
    """

    def __init__(self, log_file: LogFile, place: Place | None = None) -> None:
        self.log_file, self._rest = log_file, b""
        paths = [path for path, found in self._chain() if found.st_ino == place.inode] if place is not None else []
        self._file = _opened(paths[0] if paths else log_file.path)
        if self._file is not None and place is None:
            self._file.seek(0, os.SEEK_END)
        elif self._file is not None and place is not None and _inode_of(self._file) == place.inode:
            self._file.seek(place.offset)

    @property
    def place(self) -> Place:
        """Return where the next call begins."""
        return Place(0, 0) if self._file is None else Place(_inode_of(self._file), self._file.tell() - len(self._rest))

    def poll(self) -> list[str]:
        """Return the lines since the last call, a MiB at most; never waits.

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
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, most: int) -> bytes:
        self._file = self._file or _opened(self.log_file.path)
        if self._file is None:
            return b""
        if _left_in(self._file) < 0:
            self._file.seek(0)
            self._rest = b""
        return self._file.read(min(most, 1 << 16))

    def _whole(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        return [decoded(line) for line in lines]

    def _go_on(self) -> bool:
        """Switch to the file after the one that is read to its end; False where it does not exist yet."""
        if self._file is None or (following := self._following(self._file)) is None:
            return False
        if _left_in(self._file):
            # The process that renamed it wrote to it in between: it is not read to its end yet.
            following.close()
            return True
        self.close()
        if self._rest:
            # The file ended in the middle of a line, and the next begins with a line of its own.
            self._rest += b"\n"
        self._file = following
        return True

    def _following(self, file: io.FileIO) -> io.FileIO | None:
        """Open the file that was begun after ours; None where that is the newest, or while the names change."""
        own = os.fstat(file.fileno())
        chain = self._chain()
        if (chain and os.path.samestat(chain[0][1], own)) or _names(chain) != _names(self._chain()):
            return None
        place = next((place for place, (_, found) in enumerate(chain) if os.path.samestat(found, own)), None)
        # Where ours was deleted, files with later lines are new to us; older ones have been read.
        later = [each for each in chain if each[1].st_mtime_ns > own.st_mtime_ns]
        newer = later if place is None else chain[:place]
        if place is None and not newer:
            newer = [each for each in chain if each[0] == self.log_file.path]
        if not newer or (following := _opened(newer[-1][0])) is None:
            return None
        if os.path.samestat(os.fstat(following.fileno()), newer[-1][1]):
            return following
        following.close()
        return None

    def _chain(self) -> list[tuple[Path, os.stat_result]]:
        """Return the files of this log, newest first.

        During a rotation, one may be seen twice, or not at all. Two equal looks in a row are true, because each
        rotation brings a new file.
        """
        chain = []
        for path in (self.log_file.path, *self.log_file.old()):
            with contextlib.suppress(FileNotFoundError):
                chain.append((path, path.stat()))
        return chain


def _names(chain: list[tuple[Path, os.stat_result]]) -> list[tuple[Path, int, int]]:
    return [(path, found.st_dev, found.st_ino) for path, found in chain]


def _opened(path: Path) -> io.FileIO | None:
    with contextlib.suppress(FileNotFoundError):
        return open_log(path)
    return None


def _inode_of(file: io.FileIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _left_in(file: io.FileIO) -> int:
    """Return how many bytes of *file* are not read yet; below 0 if it was truncated meanwhile."""
    return os.fstat(file.fileno()).st_size - file.tell()


def polled(followers: list[LogFollower]) -> Iterator[tuple[LogFile, str]]:
    """Yield (log, line) for all new lines of any of *followers* since the last call."""
    for follower in followers:
        try:
            lines = follower.poll()
        except OSError as error:
            raise XboardError(f"{follower.log_file.path} cannot be read: {error.strerror}") from None
        for line in lines:
            yield follower.log_file, line
