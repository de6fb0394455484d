"""Write, read and give away files in a folder that another user may change meanwhile: no link is followed.

Root works in the folder of the service's user, who could replace a file or folder there by a link. So every part of a
path is opened without following links, and each operation is on the descriptor, not on the name. A writer that only
continues a file in the ini, such as a log, opens it with `opener`.
"""

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from xboard_circus.errors import XboardError
from xboard_circus.host.users import members

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# To pass through, because a folder such as /home may be closed to reading.
_PASSAGE = _FOLDER | getattr(os, "O_PATH", 0)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer must not block us

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DESCRIPTORS = "/proc/self/fd"
MOST_LINKS = 40
_LINK_ABOVE = "another user's link is in the place of a folder on its way; put a folder there, or `chown -h root` it"

NO_PLAIN_FILE = "it is no plain file"
LEASED = "a process of its owner's holds a lease on it"
_WHY = {errno.EWOULDBLOCK: LEASED, errno.ENXIO: "it is a pipe that no process reads"}
LARGEST = 1 << 20


class Owner(NamedTuple):
    """A user and that user's group.

    Attributes:
        has_own_group: The group has that user's name, and no other user in it, as far as the host lists them.
    """

    name: str
    group: str
    uid: int
    gid: int

    @property
    def has_own_group(self) -> bool:
        return self.name == self.group and members(self.gid) <= {self.uid}

    @classmethod
    def of(cls, user: str) -> "Owner | None":
        """Return the *user* and that user's group; None without such a user."""
        with suppress(KeyError):
            found = pwd.getpwnam(user)
            return cls(user, grp.getgrgid(found.pw_gid).gr_name, found.pw_uid, found.pw_gid)
        return None


def opener(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open *path* as `open` does; if root opens it in a folder that another user may write, only a plain file.

    Through a link of that user's, also in the place of a folder, root would write a log into a file of its own, or make
    one in /etc/logrotate.d. A pipe that no process reads is an error, because circusd would wait for its reader.
    """
    folder, name = os.path.split(os.path.abspath(path))
    parent = _open_folder(folder)
    is_closed = os.geteuid() != 0 or _is_closed(parent)
    how = flags if is_closed else flags & ~os.O_TRUNC | os.O_NOFOLLOW  # what is refused is not emptied before
    try:
        descriptor = os.open(name, how | os.O_NONBLOCK, mode, dir_fd=parent)
    except OSError as error:
        error.filename = os.fspath(path)
        error.strerror = _WHY.get(error.errno or 0, error.strerror)
        if is_closed or error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
    else:
        found = os.fstat(descriptor)
        # A second name may be that of a file of root's.
        if is_closed or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            if flags & ~how & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)
    finally:
        os.close(parent)
    why = f"not a plain file, in a folder that another user may write; delete it, `chown root`, `chmod go-w` {folder}"
    raise PermissionError(errno.EPERM, why, os.fspath(path))


def _is_closed(folder: int) -> bool:
    """Return whether root alone may write the open *folder*."""
    found = os.fstat(folder)
    return found.st_uid == 0 and not found.st_mode & 0o022


def _open_folder(folder: str) -> int:
    """Open *folder* to pass through; root follows no link of another user's on the way."""
    if os.geteuid() != 0 or not hasattr(os, "O_PATH"):
        return os.open(folder, _PASSAGE & ~os.O_NOFOLLOW)
    try:
        with ExitStack() as passed:
            for step in _steps(folder, passed):
                if stat.S_ISLNK(step.found.st_mode) and step.found.st_uid != 0:
                    raise PermissionError(errno.EPERM, _LINK_ABOVE)
            return os.dup(step.descriptor)
    except OSError as error:
        error.filename = folder
        raise


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield *path* by the descriptor of its folder if this is root, who follows no link of another user's there.

    What is renamed or deleted beside it is then in that folder, whatever is put in the folder's place meanwhile.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with ExitStack() as passed:
        if os.geteuid() == 0 and os.path.exists(_DESCRIPTORS):
            passed.callback(os.close, parent := _open_folder(folder))
            folder = f"{_DESCRIPTORS}/{parent}"
        yield Path(folder, name)


def rotate_held(writer: object, attribute: str, rotate: Callable[[], object]) -> None:
    """Call *rotate* of a *writer*, whose log has the path in *attribute*, while that path is `held`."""
    path = getattr(writer, attribute)
    try:
        with held(path) as place:
            setattr(writer, attribute, os.fspath(place))
            rotate()
    finally:
        setattr(writer, attribute, path)


class Settled(NamedTuple):
    """Where a path led: the *file* without links, its *owner* (None: missing), and the owners of the links."""

    file: str
    owner: int | None
    links: set[int]


def settle(path: Path) -> Settled:
    """Return where *path* leads, as `os.path.realpath` does, and its owner, all in one moment.

    A user who may put a link in the place of a file could exchange it between two looks.
    """
    owner, links, place, left = None, set[int](), list[str](), list[str]()
    if not hasattr(os, "O_PATH"):
        real = os.path.realpath(path)
        return Settled(real, os.stat(real).st_uid if os.path.exists(real) else None, links)
    try:
        with ExitStack() as passed:
            for step in _steps(str(path.absolute()), passed):
                place, left = step.place, step.left
                if stat.S_ISLNK(step.found.st_mode):
                    links.add(step.found.st_uid)
                elif not left:
                    owner = step.found.st_uid
    except OSError as error:  # the rest is missing, or may not be looked at
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # that says nothing of an owner
            raise
    return Settled(os.path.normpath(os.path.join("/", *place, *reversed(left))), owner, links)


def resolved(path: str | os.PathLike[str]) -> Path:
    """Return where *path* leads, as `Path.resolve` does, which raises where a user has a link lead to itself, or many
    one to the next."""
    return Path(settle(Path(path)).file)


def refuse_behind_link(folder: Path) -> None:
    """Raise OSError if this is root, and *folder* lies behind another user's link: it would be made wherever that
    leads."""
    if os.geteuid() == 0 and settle(folder).links - {0}:
        raise PermissionError(errno.EPERM, _LINK_ABOVE, os.fspath(folder))


class _Step(NamedTuple):
    """A part of a path: what it is, where it really lies, and what is left to pass, the next part last."""

    descriptor: int
    found: os.stat_result
    place: list[str]
    left: list[str]


def _steps(path: str, passed: ExitStack) -> Iterator[_Step]:
    """Pass through an absolute *path*, and yield each folder and link on the way, and its end; *passed* closes them."""
    left, links, place = path.split("/")[::-1], 0, list[str]()
    here = os.open("/", _PASSAGE)
    passed.callback(os.close, here)
    while left:
        step = os.open(left[-1] or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        passed.callback(os.close, step)
        found = os.fstat(step)
        links += stat.S_ISLNK(found.st_mode)
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        part = left.pop()
        if stat.S_ISLNK(found.st_mode):
            yield _Step(step, found, place, left)
            left += os.readlink("", dir_fd=step).split("/")[::-1]
            left[-1] = left[-1] or "/"
            continue
        here = step
        if part == "/":
            place = []
        elif part not in ("", "."):
            place = place[:-1] if part == ".." else [*place, part]
        yield _Step(step, found, place, left)


def set_umask(umask: object) -> int:
    """Set and return the umask of [circus]; 0 without one, of which none is set."""
    if not isinstance(umask, int):
        return 0
    os.umask(umask)
    return umask


def narrow(descriptor: int, umask: int) -> None:
    """Withdraw what *umask* forbids from an open file that was made before it was set, if it is a regular one."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and mode & umask:
        os.fchmod(descriptor, stat.S_IMODE(mode) & ~umask)


def plain_opener(path: str | os.PathLike[str], flags: int) -> int:
    """Open *path*, perhaps of another user, without waiting; OSError if it is no regular file, which is not opened.

    A pipe would wait for its writer; a file on which its owner has a lease (F_SETLEASE), for 45 s. A device may act
    when it is opened: /dev/watchdog resets the host.
    """
    with ExitStack() as opened:
        place: str | os.PathLike[str] = path
        if hasattr(os, "O_PATH") and os.path.exists(_DESCRIPTORS):
            found = os.open(path, os.O_PATH | os.O_CLOEXEC | flags & os.O_NOFOLLOW)
            opened.callback(os.close, found)
            _refuse_odd(os.fstat(found).st_mode, path)
            place, flags = f"{_DESCRIPTORS}/{found}", flags & ~os.O_NOFOLLOW
        try:
            descriptor = os.open(place, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except BlockingIOError:
            raise OSError(errno.EBUSY, LEASED, os.fspath(path)) from None
        except OSError as error:
            error.filename = os.fspath(path)
            raise
    try:
        _refuse_odd(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_odd(mode: int, path: str | os.PathLike[str]) -> None:
    """Raise OSError with the reason if *mode* is not that of a regular file."""
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL
        raise OSError(number, NO_PLAIN_FILE if number == errno.EINVAL else os.strerror(number), os.fspath(path))


def read_whole(path: str | os.PathLike[str], most: int = LARGEST, look: Callable[[int], object] = bool) -> bytes:
    """Return the content of the regular file at *path*, after a *look* at its descriptor; OSError if that is more than
    *most* bytes, such as 8 TB."""
    with open(path, "rb", opener=plain_opener) as file:
        look(file.fileno())
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 10} KiB", os.fspath(path))
    return content


@contextmanager
def opened(folder: Path, *, make: bool = False) -> Iterator[int]:
    """Open *folder*, an absolute path, without following a link in any part of it; with *make* make what is missing."""
    current = os.open("/", _PASSAGE)
    try:
        for position, part in enumerate(folder.parts[1:], start=2):
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
            following = _open(Path(*folder.parts[:position]), _PASSAGE, current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


@contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    with opened(path.parent) as folder:
        descriptor = _open(path, flags, folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int, folder: int) -> int:
    """Open *path* by its name in *folder*; XboardError if it is a link, or no folder and should be one."""
    try:
        return os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "it is a link, and what it leads to could be anybody's" if os.path.islink(path) else error.strerror
        raise XboardError(f"{path}: not a folder that root writes in: {why}. Put a folder in its place.") from None


def read(path: Path) -> str | None:
    """Return the text of the regular file at *path*; None if it is missing, a link, or larger than 1 MiB."""
    with suppress(OSError, XboardError), _descriptor(path, _FILE) as descriptor:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, encoding="utf-8", errors="replace", closefd=False) as file:
                text = file.read(LARGEST + 1)
                return text if len(text) <= LARGEST else None
    return None


def write(path: Path, text: str, mode: int) -> None:
    """Replace whatever has the name *path* by a file with *text*; its folder is made if it is missing.

    A folder of that name, which a service's user may make there to hold up root, gets another one.
    """
    try:
        with opened(path.parent, make=True) as folder:
            new = f".{path.name}.{os.urandom(8).hex()}"
            descriptor = os.open(new, _NEW, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    os.fchmod(descriptor, mode)
                try:
                    os.replace(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                except IsADirectoryError:
                    os.rename(path.name, f"{new}.before", src_dir_fd=folder, dst_dir_fd=folder)
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
        with suppress(FileNotFoundError), opened(path.parent) as folder:
            os.unlink(path.name, dir_fd=folder)
    except OSError as error:
        raise XboardError(f"{path}: cannot be deleted: {error.strerror}") from None


def make_folder(path: Path, mode: int, owner: Owner | None, trusted: Collection[int]) -> None:
    """Make the folder *path* if it is missing, and give it to *owner*; XboardError where there is something in it, and
    a user who is not *trusted* may have moved another's folder there."""
    if owner is None:
        path.mkdir(mode, parents=True, exist_ok=True)
        return
    with opened(path.parent) as parent, suppress(FileExistsError):
        os.mkdir(path.name, mode, dir_fd=parent)
    with _descriptor(path, _FOLDER) as folder:
        if os.listdir(folder):
            _refuse_moved(folder, path, owner, trusted, ", and is not empty: move it away")
        os.fchown(folder, owner.uid, owner.gid)


def _refuse_moved(folder: int, path: Path, owner: Owner, trusted: Collection[int], cure: str) -> None:
    """Raise XboardError if the open *folder* is not the *owner*'s, but lies where that user, or another who is not
    *trusted*, may have moved one of root's: he may write a folder above it.

    Where the sticky bit is set, as in /tmp, nobody moves what is another's.
    """
    here = os.fstat(folder)
    if here.st_uid == owner.uid:
        return
    with ExitStack() as passed:
        while True:
            folder = os.open("..", _PASSAGE, dir_fd=folder)
            passed.callback(os.close, folder)
            above = os.fstat(folder)
            if os.path.samestat(above, here):
                return
            is_kept = above.st_mode & stat.S_ISVTX and here.st_uid in trusted
            if above.st_uid not in trusted or (above.st_mode & 0o022 and not is_kept):
                break
            here = above
    cure += f", or, where it is meant, `chown -R {owner.name} {shlex.quote(os.fspath(path))}`"
    raise XboardError(f"{path} is not {owner.name}'s, who may have put it there{cure}")


def share(path: Path, owner: Owner, trusted: Collection[int]) -> bool:
    """Let *owner* make files in the folder *path*, and protect others' files there; return whether it was new.
    XboardError where a user who is not *trusted* may have moved another's folder there.

    With the sticky bit only its owner renames or deletes a file, so the user of the service cannot put another
    .venv or another script there for root to run. That takes a group of the user's own and a folder that is not the
    user's.
    """
    with _descriptor(path, _FOLDER) as folder:
        if any(name.startswith("system.posix_acl") for name in getattr(os, "listxattr", lambda _: ())(folder)):
            # Its mask has the bits of the group, and each of its users would get what the group gets.
            raise XboardError(f"{path} has an access list: `setfacl -R -b {shlex.quote(os.fspath(path))}` removes it")
        found = os.fstat(folder)
        mode = stat.S_IMODE(found.st_mode) | stat.S_ISVTX | stat.S_IRWXG
        uid = 0 if found.st_uid == owner.uid else found.st_uid
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (uid, owner.gid, mode):
            return False
        _refuse_moved(folder, path, owner, trusted, ": put the service into a folder below root's")
        os.fchown(folder, uid, owner.gid)
        os.fchmod(folder, mode)
    return True


def belongs_to(path: Path, uid: int) -> bool:
    """Return whether *path* exists, perhaps as a link, and belongs to *uid*."""
    with suppress(OSError):
        return path.lstat().st_uid == uid
    return False


def walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk like `os.walk`, which before Python 3.12 calls itself: a deep folder of another user ends it by an error.

    A link to a folder is among the files.
    """
    left = [os.fspath(path)]
    while left:
        place = left.pop()
        folders, files = list[str](), list[str]()
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        yield place, folders, files
        left += [os.path.join(place, name) for name in folders]


def give(path: Path, owner: Owner) -> bool:
    """Give the file or folder at *path* to *owner*, and return whether that was done.

    A link, or a file with a second name, which may lie anywhere, stays as it is.
    """
    with suppress(OSError, XboardError), _descriptor(path, _FILE) as descriptor:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            os.fchown(descriptor, owner.uid, owner.gid)
            return True
    return False
