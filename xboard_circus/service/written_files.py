"""Write, read and give away files in a folder that another user may change meanwhile: no link is followed.

Root works in the folder of the service's user, who could put a link in the place of a file or of a folder there. So
every part of a path is opened without following links, and what comes next is done to the descriptor, not to the name.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xboard_circus.errors import XboardError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# To pass through: a folder such as /home may be closed to reading.
_PASSAGE = _FOLDER | getattr(os, "O_PATH", 0)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer must not hold us


@dataclass(frozen=True, slots=True)
class Owner:
    """A user and that user's group.

    Attributes:
        has_own_group: The group has nobody else in it, as far as its name says.
    """

    name: str
    group: str
    uid: int
    gid: int

    @property
    def has_own_group(self) -> bool:
        return self.name == self.group


@contextmanager
def opened(folder: Path, *, make: bool = False) -> Iterator[int]:
    """Open *folder*, an absolute path, without following a link in any part of it; with *make* make what is missing."""
    current = os.open("/", _PASSAGE)
    try:
        for position, part in enumerate(folder.parts[1:], start=2):
            try:
                following = _entered(part, current, make=make)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _unusable(Path(*folder.parts[:position]), error) from None
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _entered(part: str, folder: int, *, make: bool) -> int:
    try:
        return os.open(part, _PASSAGE, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, 0o755, dir_fd=folder)
    return os.open(part, _PASSAGE, dir_fd=folder)


def read(path: Path) -> str | None:
    """Return the text of the regular file at *path*; None where there is none, as with a link."""
    try:
        with opened(path.parent) as folder:
            descriptor = os.open(path.name, _FILE, dir_fd=folder)
    except (OSError, XboardError):
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def write(path: Path, text: str, mode: int) -> None:
    """Put a file with *text* in the place of whatever has the name *path*; its folder is made where it is missing."""
    try:
        with opened(path.parent, make=True) as folder:
            new = f".{path.name}.{secrets.token_hex(8)}"
            descriptor = os.open(
                new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    os.fchmod(descriptor, mode)
                os.replace(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
    except OSError as error:
        raise XboardError(f"{path}: cannot be written: {error.strerror}") from None


def delete(path: Path) -> None:
    """Delete the file, or the link, at *path*."""
    try:
        with opened(path.parent) as folder:
            os.unlink(path.name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise XboardError(f"{path}: cannot be deleted: {error.strerror}") from None


def make_folder(path: Path, mode: int, owner: Owner | None) -> None:
    """Make the folder *path* where it is missing, and give it to *owner*."""
    if owner is None:
        path.mkdir(mode, parents=True, exist_ok=True)
        return
    with opened(path.parent) as parent:
        with suppress(FileExistsError):
            os.mkdir(path.name, mode, dir_fd=parent)
        try:
            descriptor = os.open(path.name, _FOLDER, dir_fd=parent)
        except OSError as error:
            raise _unusable(path, error) from None
    try:
        os.fchown(descriptor, owner.uid, owner.gid)
    finally:
        os.close(descriptor)


def share(path: Path, owner: Owner) -> bool:
    """Let *owner* make files in the folder *path*, and keep others' files in there theirs; return whether it was new.

    With the sticky bit nobody but its owner renames or deletes a file, so the user of the service cannot put another
    .venv or another script there for root to run. That takes a group of the user's own and a folder that is not the
    user's; where the group has others in it, the folder is given to the user.
    """
    with opened(path) as passage:
        folder = os.open(".", _FOLDER, dir_fd=passage)
    try:
        found = os.fstat(folder)
        mode, uid = stat.S_IMODE(found.st_mode), owner.uid
        if owner.has_own_group:
            mode |= stat.S_ISVTX | stat.S_IRWXG
            uid = 0 if found.st_uid == owner.uid else found.st_uid
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (uid, owner.gid, mode):
            return False
        os.fchown(folder, uid, owner.gid)
        os.fchmod(folder, mode)
        return True
    finally:
        os.close(folder)


def belongs_to(path: Path, uid: int) -> bool:
    """Return whether there is something at *path*, itself a link or not, that belongs to *uid*."""
    try:
        return path.lstat().st_uid == uid
    except OSError:
        return False


def foreign(path: Path, owner: Owner) -> list[Path]:
    """Return the files at or below *path* that are not *owner*'s."""
    return [each for each in _all_below(path) if not belongs_to(each, owner.uid)]


def give(path: Path, owner: Owner) -> bool:
    """Give the file or folder at *path* to *owner*, and return whether that was done.

    A link, or a file with a second name, which may lie anywhere, stays as it is.
    """
    try:
        with opened(path.parent) as folder:
            descriptor = os.open(path.name, _FILE, dir_fd=folder)
    except (OSError, XboardError):
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            return False
        os.fchown(descriptor, owner.uid, owner.gid)
        return True
    finally:
        os.close(descriptor)


def _all_below(path: Path) -> Iterator[Path]:
    if path.is_symlink() or not path.exists():
        return
    yield path
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, each) for each in [*folders, *files])


def _unusable(path: Path, error: OSError) -> XboardError:
    why = "it is a link, and what it leads to could be anybody's" if path.is_symlink() else error.strerror
    return XboardError(f"{path}: not a folder that root writes in: {why}. Put a folder in its place.")
