"""Find the users of this host who may write a file or folder, or replace it.

Mode bits and POSIX access lists are read. A user who may write a folder above can replace what is below, and an owner
may always write.
"""

import errno
import glob
import os
import pwd
import re
import stat
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, wraps
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from xboard_circus.host.users import members
from xboard_circus.host.written_files import MOST_LINKS, belongs_to, read_whole, resolved, walk

UV_LOCK = ".lock"
"""Of uv's, open to all, in the .venv that it has made: it locks that file, and no program runs or reads it."""
SUBORDINATE = Path("/etc/subuid")
"""Of each user the numbers of whose files and processes he is master, as of those in a container of his own."""
INHERITED = "who is in its default access list"
_ACL = "system.posix_acl_{}"
_ACL_HEADER = 4
_ACL_ENTRY = struct.Struct("<HHI")
_NAMED_USER, _GROUP, _NAMED_GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")
_found = ContextVar[dict[tuple[Any, ...], Any]]("_found")


@contextmanager
def looking_once() -> Iterator[None]:
    """Keep what each function that is `once` finds at a place, within: many watchers share most of their places."""
    token = _found.set({})
    try:
        yield
    finally:
        _found.reset(token)


def once(look: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Make *look* answer from what it found before, within `looking_once`; else it looks anew at each call."""

    @wraps(look)
    def looked(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        found, key = _found.get({}), (look, *(frozenset(it) if isinstance(it, set | list) else it for it in args))
        if key not in found:
            found[key] = look(*args, **kwargs)
        answer: _Found = found[key]
        return answer

    return looked


class User(NamedTuple):
    """A user of the host, such as that of a watcher's workers."""

    uid: int
    groups: frozenset[int]
    name: str

    @classmethod
    def of(cls, uid: int) -> "User | None":
        """Return the user with that number; None where the host has none, so that no person can be it."""
        with suppress(KeyError, OverflowError):
            entry = pwd.getpwuid(uid)
            return cls(uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)), entry.pw_name)
        with suppress(OSError):
            for name, first, number in re.findall(r"(?m)^(.+):(\d+):(\d+)$", SUBORDINATE.read_text(errors="replace")):
                if 0 <= uid - int(first) < int(number):
                    return cls(uid, frozenset(), name)
        return None

    def may(self, path: Path, mode: int) -> bool:
        """Return whether the user has the right *mode* (os.R_OK, W_OK, X_OK) on *path* and can get there."""
        with suppress(OSError):
            return all(self.has(parent, os.X_OK) for parent in resolved(path).parents) and self.has(path, mode)
        return False

    def may_read(self, descriptor: int, path: Path) -> bool:
        """Return whether the user may read a file that is open, where it really lies: the name at *path* that it was
        opened by may lead elsewhere by now."""
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}")) if sys.platform == "linux" else resolved(path)
        return self.may(place, os.R_OK) and os.path.samestat(os.stat(place), os.fstat(descriptor))

    def has(self, path: Path, mode: int) -> bool:
        found = path.stat()
        if self.uid == 0:
            return mode != os.X_OK or os.path.isdir(path) or bool(found.st_mode & 0o111)
        if found.st_uid == self.uid:
            return found.st_mode >> 6 & mode == mode
        return _Rights.of(path, found).give(self, mode)

    @once
    def writable(self, path: Path) -> Path | None:
        """Return *path*, or the folder on the way to it, that the user may write; None if neither.

        The user can make a missing one in any folder that he may write, also in one such as /tmp.
        """
        with suppress(PermissionError):  # what we may not read, no circusd of ours uses
            if os.path.exists(path) and self.may(path, os.W_OK):
                return path
            for folder, step in _way(path):
                if not self.has(folder, os.X_OK):
                    return None
                if os.path.lexists(step) and step.lstat().st_uid == self.uid:
                    return step
                is_kept = folder.stat().st_mode & stat.S_ISVTX and os.path.lexists(step)
                if self.has(folder, os.W_OK) and not is_kept:
                    return folder
        return None


ANYBODY = User(-1, frozenset(), "every user of this host")


class _Rights(NamedTuple):
    """Rights of those who do not own a file: users and groups by number, a group perhaps twice, and all others."""

    users: dict[int, int]
    groups: list[tuple[int, int]]
    others: int

    @classmethod
    def of(cls, path: Path | int, found: os.stat_result, kind: str = "access") -> "_Rights":
        entries = list(_ACL_ENTRY.iter_unpack(_access_list(path, kind)))
        if not entries:
            return cls({}, [(found.st_gid, found.st_mode >> 3 & 7)], found.st_mode & 7)
        # What is made in a folder has its group by the setgid bit alone.
        gid = found.st_gid if kind == "access" or found.st_mode & stat.S_ISGID else os.getegid()
        mask = next((right for tag, right, _ in entries if tag == _MASK), 7)
        users = {uid: right & mask for tag, right, uid in entries if tag == _NAMED_USER}
        groups = [(gid, right & mask) for tag, right, _ in entries if tag == _GROUP]
        groups += [(gid, right & mask) for tag, right, gid in entries if tag == _NAMED_GROUP]
        return cls(users, groups, entries[-1][1])  # the kernel keeps them sorted, all others last

    def give(self, user: User, mode: int) -> bool:
        if user.uid in self.users:
            return self.users[user.uid] & mode == mode
        of_groups = [right for group, right in self.groups if group in user.groups]
        return any(right & mode == mode for right in of_groups or [self.others])

    def writers(self, find: Callable[[int], set[int]] = members) -> set[int]:
        users = {uid for uid, right in self.users.items() if right & os.W_OK}
        return users.union(*(find(gid) for gid, right in self.groups if right & os.W_OK))


def _access_list(path: str | Path | int, kind: str = "access") -> bytes:
    """Return the entries of the access list; b"" without one, or where the system has no such lists."""
    if hasattr(os, "getxattr"):
        try:
            return os.getxattr(path, _ACL.format(kind))[_ACL_HEADER:]
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
    return b""


def _way(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder that leads to *path*, with what is looked up in it; a link is followed step by step.

    Only behind more links than the kernel follows it ends early, for nothing is opened there.
    """
    folder, left, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    while left and links <= MOST_LINKS:
        step = folder / left.pop()
        yield folder, step
        if os.path.islink(step):
            target, links = step.readlink(), links + 1
            folder = Path("/") if target.is_absolute() else folder
            left += reversed(target.parts[target.is_absolute() :])
        elif step.name == "..":
            folder = folder.parent
        elif os.path.isdir(step):
            folder = step
        else:
            return


def authors(file: Path | int) -> set[int]:
    """Return the users who own a file, or may write it by its own rights; the number of `ANYBODY` where all may."""
    found = os.stat(file)
    return _authors(file, found) | ({ANYBODY.uid} if found.st_mode & stat.S_IWOTH else set())


def others_of(found: Collection[int], looks: bool) -> list[User]:
    """Return those of the `authors` *found* who are other users, if this is root or a command that *looks*.

    What such a user writes gets no variable of ours, and includes nothing that he may not read: a name of a host there,
    such as an endpoint's, is looked up by all commands, and whoever answers for it reads it.
    """
    others = sorted(set(found) - {0, os.geteuid()}) if looks or os.geteuid() == 0 else ()
    users = (ANYBODY if uid == ANYBODY.uid else User.of(uid) for uid in others)
    return [user for user in users if user is not None]  # None: a container's, such as 1001


@once
def besides(path: Path, trusted: Collection[int]) -> list[tuple[User, Path]]:
    """Return each known user, none of *trusted*, who may write *path* or a folder on the way, with that place.

    At the end `ANYBODY`, where it is open to all.
    """
    found = []
    with suppress(PermissionError):
        named = map(_named_at, {Path("/"), *(step for _, step in _way(path) if os.path.lexists(step))})
        for uid in sorted(set[int]().union(*named) - {*trusted}):
            user = User.of(uid)
            if user is not None and (place := user.writable(path)) is not None:
                found.append((user, place))
    if (place := ANYBODY.writable(path)) is not None:
        found.append((ANYBODY, place))
    return found


@once
def heirs(folder: Path, trusted: Collection[int]) -> list[User]:
    """Return the known users, none of *trusted*, and `ANYBODY`, who may write what we make in *folder*.

    Linux gives its default access list to all that is made there, whatever the umask; `chmod -R` leaves it as it is.
    """
    if not os.path.isdir(folder) or not _access_list(folder, "default"):
        return []
    rights = _Rights.of(folder, folder.stat(), "default")
    users = [ANYBODY, *filter(None, map(User.of, sorted(rights.writers() - {*trusted})))]
    return [user for user in users if rights.give(user, os.W_OK) and user.may(folder, os.X_OK)]


def is_open(path: Path) -> bool:
    """Return whether any user besides root and ours may write *path*, or lead it elsewhere."""
    return bool(besides(path, {0, os.geteuid()}))


def named(path: Path, trusted: Collection[int]) -> Iterator[tuple[str, Path]]:
    """Yield what `besides` does, with the names of the users."""
    yield from ((user.name, place) for user, place in besides(path, trusted))


def named_by_pth(site: Path) -> Iterator[Path]:
    """Yield what the .pth files in *site* add to Python's search path, as an editable install of an app does.

    A ``sitecustomize.py`` there runs at each start of that Python, also an isolated one. A missing folder may be made.
    """
    # Not Path.glob, which raises where we may not read.
    for file in sorted(glob.glob(f"{glob.escape(str(site))}/*.pth")):
        with suppress(OSError):
            for line in read_whole(file).decode(errors="replace").splitlines():
                if line.strip() and "\0" not in line and not line.startswith(("#", "import ", "import\t")):
                    yield site / line.strip()


@once
def libraries(python: Path) -> list[Path]:
    """Return what the interpreter *python*, perhaps that of a .venv, imports its own modules from, also with -I and -S.

    It looks for them beside the folder of what its link leads to, or of `home` in pyvenv.cfg, and above that.
    """
    homes = {resolved(python).parent}
    with suppress(OSError):
        text = read_whole(python.parents[1] / "pyvenv.cfg").decode(errors="replace")
        homes |= {Path(os.path.abspath(home)) for home in re.findall(r"(?im)^\s*home\s*=\s*(.*?)\s*$", text)}
    places = [[f"{glob.escape(str(above))}/lib*/python3*" for above in home.parents] for home in sorted(homes)]
    found = (next((each for each in of_home if glob.glob(f"{each}/os.py*")), "") for of_home in places)
    return [Path(each) for place in found for each in sorted(glob.glob(place))]


def below(path: Path, trusted: Collection[int], seen: frozenset[Path] = frozenset()) -> Iterator[tuple[str, Path]]:
    """Yield each user, none of *trusted*, who owns or may write *path* or anything below it, with each such place.

    So too where a link in there leads: a chown of all leaves that as it is; and `INHERITED` with a folder whose list
    Linux gives to all that is made in it, whatever the umask. *seen* are the folders of a search above.
    """
    find, seen = cache(members), seen | {path}
    names = (os.path.join(folder, name) for folder, *both in walk(path) for name in chain(*both))
    for each in chain([os.fspath(path)], names):
        with suppress(FileNotFoundError, NotADirectoryError):  # it has gone meanwhile
            found = os.lstat(each)
            if stat.S_ISDIR(found.st_mode) and _access_list(each, "default"):
                yield INHERITED, Path(each)
            # No access list grants more than the bits of the group. Most of a .venv passes here, at one look each.
            if found.st_uid in trusted and not found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode):
                continue
            place = Path(each)
            for uid in sorted(_named_at(place, find) - {*trusted}):
                yield (str(uid) if (user := User.of(uid)) is None else user.name), place
            if not os.path.islink(place):
                if ANYBODY.has(place, os.W_OK) and not (place == path / UV_LOCK and os.path.isfile(place)):
                    yield ANYBODY.name, place
                continue
            yield from named(place, trusted)
            if seen.isdisjoint((target := resolved(place), *target.parents)) and os.path.exists(target):
                yield from below(target, trusted, seen)


def foreign(path: Path, uid: int) -> list[Path]:
    """Return what is at or below *path* and not the user's with that *uid*, what is in a folder before it.

    Nothing in a folder that the user may write: he may have moved a file of another's there, which he may not read.
    """
    user, found = User.of(uid), [path]
    if user is None or os.path.islink(path) or not os.path.exists(path) or user.writable(path.parent):
        return []
    for folder, folders, files in walk(path):
        if belongs_to(Path(folder), uid) or user.has(Path(folder), os.W_OK):
            folders.clear()
        else:
            found += [Path(folder, each) for each in (*folders, *files)]
    return [each for each in reversed(found) if not belongs_to(each, uid)]


@once
def _named_at(place: Path, find: Callable[[int], set[int]] | None = None) -> set[int]:
    """Return the users who own *place*, or may write it by an access list or a group; empty if it is missing."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return set()
    return {found.st_uid} if stat.S_ISLNK(found.st_mode) else _authors(place, found, find or members)


def _authors(file: Path | int, found: os.stat_result, find: Callable[[int], set[int]] = members) -> set[int]:
    return {found.st_uid} | _Rights.of(file, found).writers(find)
