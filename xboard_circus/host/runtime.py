"""Manage the runtime folder, in which circusd, its workers, the plugins and the command line find each other.

::

    <root>/<instance>/circusd.json            the circusd that supervises this instance, and its endpoint
    <root>/<instance>/gate-<n>                the same of the next circusd, which waits while it is there
    <state>/<instance>/life.json              its sign of life, and whether it got a stop request
    <state>/<instance>/life.lock              locked at the byte of its start time while it runs
    <state>/<instance>/<plugin>-left.json     events that the ledger's disk did not take before the end
    <root>/<instance>/<watcher>/<token>.sock  the private socket of a worker
    <root>/<instance>/<watcher>/<token>.up    its start is complete: it serves
    <root>/<instance>/<watcher>/<token>.ready its ready path, if it has one, succeeded once
    <root>/<instance>/<watcher>/<token>.beat  a number that grows while its event loop is late and works
    <root>/<instance>/<watcher>/<token>.cut   how many requests it has cut off at the end of its drain
    <root>/<instance>/<watcher>/gate-<n>      while it is there, a launcher waits

circusd makes a token for each spawn. A pid is not enough: in a container that starts again the same pids come again,
and the files of a dead worker would stand for a new one; and behind a wrapper (``uv run``) circusd does not know the
pid of the worker.

*state* is *root*, or $XBOARD_STATE_DIR: systemd deletes the runtime folder of a service at each of its ends, and a
start of the host deletes all of them; the record of such an end has to outlive it.

A user who can write here can stop our processes and redirect requests, so every folder must be ours, and no other user
may write there. Only the folder of a watcher that runs as another user is that user's.
"""

import errno
import json
import os
import pwd
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xboard_circus.errors import XboardError
from xboard_circus.host import procs, worker_files
from xboard_circus.host.users import group_of, groups_of, members
from xboard_circus.host.written_files import plain_opener, settle

# Python's own digest, as random.py imports it: hashlib has OpenSSL load all of its own, 0.2 MiB in circusd and in the
# plugin. The name is that of Python 3.12, then that of earlier ones; a Python for FIPS may lack both.
try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from hashlib import sha256

VARIABLE, STATE_VARIABLE = "XBOARD_RUNTIME_DIR", "XBOARD_STATE_DIR"
TEMPORARY, SESSIONS = Path("/tmp"), Path("/run/user")
RECORD, LIFE = "circusd.json", "life.json"

# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, with the closing NUL.
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_LONGEST_NAME = 32

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GATE = re.compile(r"gate-[0-9]+")


def root() -> Path:
    """Return the runtime folder above all instances of this user, made if it is missing.

    $XBOARD_RUNTIME_DIR, else /run/xboard-circus for root, else /tmp/xboard-circus-<uid>; where another user has made
    that, /run/user/<uid>/xboard-circus, or .xboard-circus in the user's home, also once that other user has removed his
    again. $TMPDIR, $XDG_RUNTIME_DIR and $HOME do not count: circusd and the command line may be started with different
    ones and must find the same place.
    /run/user/<uid> is not the first choice, because it is removed when its user logs out, and circusd runs on.
    """
    return _made_root(root_path())


def root_path() -> Path:
    """Return the path of `root`, and make nothing."""
    if named := _named(VARIABLE):
        return named
    uid = os.geteuid()
    if uid == 0 and os.access("/run", os.W_OK):
        return Path("/run/xboard-circus")
    usual, homes = TEMPORARY / f"xboard-circus-{uid}", {SESSIONS / str(uid): "xboard-circus"}
    with suppress(KeyError):
        homes[Path(pwd.getpwuid(uid).pw_dir)] = ".xboard-circus"
    others = [home / name for home, name in homes.items() if _is_only_ours(home, uid)]
    # Who has made the usual one can remove it as well: by then circusd and its workers have their files in another.
    ours = [path for path in (usual, *others) if _owner(path) == uid]
    return (ours or (others if os.path.lexists(usual) else []) or [usual])[0]


def _owner(path: Path) -> int | None:
    with suppress(OSError):
        return path.lstat().st_uid
    return None


def _is_only_ours(folder: Path, uid: int) -> bool:
    with suppress(OSError):
        found = folder.lstat()
        return found.st_uid == uid and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return False


def state_root_path() -> Path:
    """Return the folder for what outlives a service and a start of the host, and make nothing."""
    return _named(STATE_VARIABLE) or root_path()


def places() -> dict[str, str]:
    """Return the environment that leads another process to these folders; empty without them."""
    with suppress(XboardError):
        return {VARIABLE: str(root_path()), STATE_VARIABLE: str(state_root_path())}
    return {}


def _named(variable: str) -> Path | None:
    named = os.environ.get(variable)
    if named and not os.path.isabs(named):
        raise XboardError(f"{variable} is {named!r}: write an absolute path, it must mean one place from any folder")
    return Path(os.path.normpath(named)) if named else None


def digest(text: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a path or another text, as hex."""
    return str(sha256(os.fsencode(text)).hexdigest())


def instance_id(config_file: str | os.PathLike[str]) -> str:
    """Return the name of the instance that *config_file* describes: the same before and after a restart of circusd."""
    return instance_at(os.path.realpath(config_file), os.path.abspath(config_file))


def instance_at(file: str, path: str) -> str:
    """Return the name of the instance of the ini at *file*, a path without links, to which *path* leads.

    A circusd that was started through a link, which leads to the next release by now, is that of the file there; but
    the one that was started by this *path*, if it is gone too, comes before one that was started through another link.
    One that its operator stopped stays that too: its monitor must not start it, and its alerts wait under its name.
    """
    name, known = digest(file)[:12], supervisors()
    inis = {each: (read_record(known[each]) or {}).get("config_file") for each in known}

    def rank(circusd: procs.Identity) -> tuple[bool, ...]:
        ini, is_gone = inis[circusd], not procs.is_running(*circusd)
        return is_gone or ini not in (path, file), ini != path, is_gone, known[circusd] != name

    for each in sorted(known, key=rank):  # the ini of one that is gone may be on a mount that is gone too
        if _is_led_to(known[each], inis[each], file):
            return known[each]
    while name in known.values():  # that of a circusd that was started by a link, which leads elsewhere by now
        name = digest(name)[:12]
    return name


def _is_led_to(instance: str, ini: str | None, file: str) -> bool:
    """Return whether the *ini* of *instance* is *file* by now, through links that its owner, root or this user made."""
    is_named = instance == digest(file)[:12]
    ini = ini or (file if is_named else "/")
    if ini == file or (instance == digest(ini)[:12] and supervisor_of(instance) is None):
        return bool(ini == file)  # no look at the ini of a circusd that is gone and was started through no link
    led = settle(Path(ini))
    is_led = led.file == file and (is_named or led.links <= {0, os.geteuid(), led.owner})
    return is_led or (is_named and led.owner is None)  # the link was removed


def instance_dir(instance: str) -> Path:
    """Return the folder of *instance*, made if it is missing."""
    return _made(root() / _valid(instance))


def state_dir(instance: str) -> Path:
    """Return the folder for what *instance* leaves to its next circusd, made if it is missing."""
    return _made(_made_root(state_root_path()) / _valid(instance))


def _made_root(folder: Path) -> Path:
    with _errors_of(f"can't make {folder.parent}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    return _made(folder)


def watcher_dir(instance: str, watcher: str, uid: int | None = None, gid: int | None = None) -> Path:
    """Return the folder of *watcher*, made if it is missing and given to *uid* and *gid* (None: ours)."""
    owner = os.geteuid() if uid is None else uid
    group = group_of(owner, os.getegid()) if gid is None else gid
    if owner != os.geteuid():
        _check_way(root() / instance, owner, group)  # first, or its user could lead us elsewhere between two steps
    folder = instance_dir(instance) / safe_name(watcher)
    with _errors_of(f"can't make {folder}, or give it to user {owner}"):
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise XboardError(f"{folder} is no folder; remove it")
        if (found.st_uid, found.st_gid) != (owner, group) and (uid is not None or found.st_uid != owner):
            os.chown(folder, owner, group)
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    return folder


def is_ours(folder: Path) -> bool:
    """Return whether *folder*, of a watcher, is there, below what is `root` now, and those above it are ours."""
    with suppress(OSError, XboardError):
        for step in (folder.parent.parent, folder.parent):
            _check(step)
        return folder.parent.parent == root_path() and os.path.isdir(folder)
    return False


def was_started(instance: str) -> bool:
    """Return whether this user has started *instance*, and so trusts the owner of its ini.

    Not every record proves that: a `stop` records the circusd that it has found, which another user may have named.
    """
    with suppress(XboardError):
        return bool((read_record(instance) or {}).get("was_started"))
    return False


def safe_name(watcher: str) -> str:
    """Return *watcher* as the name of a folder: short, plain and unique.

    >>> safe_name("xboard"), safe_name("../web")
    ('xboard', '.._web-fd68c370')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", watcher)
    if name == watcher and len(name) <= _LONGEST_NAME and name not in ("", ".", "..", RECORD, LIFE):
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{digest(watcher)[:8]}"


def check_socket_path(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is too long for a unix socket."""
    length, cure = len(os.fsencode(path)), f"set {VARIABLE} to a shorter folder"
    if length > LONGEST_SOCKET_PATH:
        what = f"{os.fspath(path)} is {length} bytes long and a unix socket may have {LONGEST_SOCKET_PATH}"
        raise XboardError(f"{what}: {cure}")


def make_gate(folder: Path, number: int) -> Path:
    """Make the file ``gate-<number>``, which holds a launcher until it is removed, and return its path.

    The folder may belong to the watcher's user while circusd is root: a link that lies there is replaced, not followed.
    """
    gate = folder / f"gate-{number}"
    with _errors_of(f"can't make {gate}"):
        gate.unlink(missing_ok=True)
        os.close(os.open(gate, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return gate


def write_record(instance: str, **fields: object) -> None:
    """Record the circusd of *instance*; a reader finds the old record or the new one, whole."""
    write_file(instance, RECORD, fields)


def name_successor(instance: str, gate: int) -> None:
    """Replace this circusd's record by that of the one that waits at *gate*: it goes on when this ends.

    XboardError, with nothing changed, where none waits there.
    """
    file = f"gate-{int(gate)}"
    successor = _identity_in(read_file(instance, file) or {})
    if successor is None or not procs.is_running(successor.pid, successor.started):
        raise XboardError("the next circusd, which was to take over, is gone")
    path = root_path() / instance / file
    with _errors_of(f"can't rename {path}"):
        path.replace(path.with_name(RECORD))


def write_file(instance: str, file_name: str, fields: Mapping[str, object]) -> None:
    """Write *fields* as JSON into a file of *instance*, of mode 0600, whole or not at all."""
    path = (state_dir(instance) if file_name == LIFE else instance_dir(instance)) / file_name
    with _errors_of(f"can't write {path}"):
        write_whole(path, json.dumps(fields))


def write_whole(path: Path, text: str, *, place: Callable[[str, Path], object] = os.replace) -> None:
    """Replace the file at *path*, of mode 0600: a reader finds the old text or the new one, whole.

    With `os.link` to *place* it, a file that is there already stays: FileExistsError.
    """
    name = f"{path}.{os.urandom(8).hex()}"  # by hand: a plugin would import tempfile, 0.1 MiB, for this line alone
    number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
        place(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_private(path: Path, most: int, *, flags: int = 0) -> str:
    """Return the first *most* characters of a text; OSError where others can read it or it is not ours or root's."""
    with open(path, encoding="utf-8", opener=lambda name, mode: plain_opener(name, mode | flags)) as file:
        found = os.fstat(file.fileno())
        if found.st_uid not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, f"it belongs to another user (uid {found.st_uid}); give it to this one")
        if found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "others can read it; chmod 600 it")
        return file.read(most)


def read_record(instance: str) -> dict[str, Any] | None:
    """Return the circusd that supervises, or last supervised, *instance*; None without a readable record.

    Makes nothing. XboardError where the folder is not ours, because its writer is not to be trusted.
    """
    record = read_file(instance, RECORD)
    return record if _identity_in(record or {}) else None


def read_file(instance: str, file_name: str) -> dict[str, Any] | None:
    """Return what `write_file` wrote; None for a missing or partial file. XboardError as `read_record`."""
    folder = state_root_path() if file_name == LIFE else root_path()
    try:
        for step in (folder, folder / _valid(instance)):
            _check(step)
        found = json.loads((folder / instance / file_name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def supervisor_of(instance: str) -> procs.Identity | None:
    """Return the circusd that supervises *instance*, if it runs."""
    identity = _identity_in(read_record(instance) or {})
    return identity if identity is not None and procs.is_running(identity.pid, identity.started) else None


def supervisors() -> dict[procs.Identity, str]:
    """Return the recorded circusds of this user, running or not, with the instance that each supervises.

    None where the folder cannot be trusted: all else says so.
    """
    found = {}
    with suppress(XboardError):
        for folder in filter(lambda each: _INSTANCE.fullmatch(each.name), _folders(root_path())):
            if (circusd := _identity_in(read_record(folder.name) or {})) is not None:
                found[circusd] = folder.name
    return found


def remove_stale(instance: str) -> list[Path]:
    """Remove the sockets and marks of workers that are gone, and return what was removed.

    In a folder with very many names, not all at once: see `worker_files.names_in`. Also gates, while no circusd
    supervises the instance: call it before `write_record`. Nothing else is touched: a name must match whole. What a
    worker has put in the place of a file, such as a FIFO or a link, is removed too, neither opened nor followed.
    """
    if found := stale(instance):
        instance_dir(instance)  # nothing is removed in a folder that is not ours
    removed = []
    for path in found:
        with suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def stale(instance: str) -> list[Path]:
    """Return what `remove_stale` would remove, without removing it."""
    has_supervisor = supervisor_of(instance) is not None
    watchers = sorted(_folders(root_path() / _valid(instance)))
    return [path for each in watchers for path in sorted(_entries(each)) if _is_stale(path, has_supervisor)]


def _is_stale(path: Path, has_supervisor: bool) -> bool:
    with suppress(OSError):
        mode = path.lstat().st_mode
        is_odd = stat.S_ISFIFO(mode) or stat.S_ISLNK(mode)  # of a worker that was taken over
        if _GATE.fullmatch(path.name):
            return (is_odd or stat.S_ISREG(mode)) and not has_supervisor
        found = worker_files.NAME.fullmatch(path.name)
        if found is None or not (is_odd or (stat.S_ISSOCK if found[2] in ("sock", "new") else stat.S_ISREG)(mode)):
            return False
        if found[2] == "new":  # bound and, for a moment, not listening yet: a connection proves nothing
            return not has_supervisor
        private = path.with_name(f"{found[1]}.sock")
        return not (worker_files.is_socket(private) and worker_files.takes_connections(private))
    return False


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _entries(folder) if os.path.isdir(path) and not os.path.islink(path))


def _entries(folder: Path) -> list[Path]:
    return [folder / name for name in worker_files.names_in(folder)]


def _valid(instance: str) -> str:
    if not _INSTANCE.fullmatch(instance):
        raise XboardError(f"{instance[:80]!r} is no instance id")
    return instance


def _made(folder: Path) -> Path:
    # The user of a watcher must get through root's folders to its own, and see nothing on the way.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    with _errors_of(f"can't make {folder}"):
        with suppress(FileExistsError):
            folder.mkdir(mode)
            _check(folder)  # first, or root would follow the link that another user puts there
            folder.chmod(mode)  # the umask may have removed more
        _check(folder)
    return folder


def _check(folder: Path) -> None:
    found, above = folder.lstat(), next(filter(_is_anothers, folder.parents), None)
    if above is not None:
        wrong = f"below {above}, which is user {above.stat().st_uid}'s, or open to a group"
    elif stat.S_ISLNK(found.st_mode):
        wrong = "a symbolic link"
    elif not stat.S_ISDIR(found.st_mode):
        wrong = "no folder"
    elif found.st_uid != os.geteuid():
        wrong = f"user {found.st_uid}'s and not ours ({os.geteuid()})"
    elif found.st_mode & 0o022:
        wrong = "open to the writing of others (chmod go-w)"
    else:
        return
    is_state = (state := _named(STATE_VARIABLE)) and state in (folder, *folder.parents)
    what, variable = ("state", STATE_VARIABLE) if is_state else ("runtime", VARIABLE)
    cure = f"put it right, or set {variable} to another folder, for circusd and every command"
    raise XboardError(f"the {what} folder {folder} can't be trusted, it is {wrong}: {cure}")


def _is_anothers(folder: Path) -> bool:
    """Return whether this is root, and *folder* another user's, or one that a group with others in it may write, who
    may put another one, or a link, in the place of what is below it at any time: also between a check of ours and what
    it is for.

    An owner that this system has no user for does not count: a folder of the host in a container. Nor does the host's
    root, whom a user namespace may show as another user.
    """
    found, trusted = folder.stat(), {0, os.stat("/").st_uid}
    is_groups = found.st_mode & (stat.S_IWGRP | stat.S_ISVTX) == stat.S_IWGRP and members(found.st_gid) - trusted
    is_users = found.st_uid not in trusted and group_of(found.st_uid, None) is not None
    return os.geteuid() == 0 and bool(is_users or is_groups)


def _check_way(folder: Path, uid: int, gid: int) -> None:
    """Refuse a place that *uid* cannot reach: otherwise its workers would fail one by one, each with a vaguer error.

    And one that it could exchange, as the owner of a folder above, whether or not this system knows its name, or as one
    of the group that may write there. A folder that all may write to, as Kubernetes makes them, counts as of one user.
    """
    groups = groups_of(uid, gid)
    for step in (*reversed(folder.parents), *reversed((folder.parent.resolve() / folder.name).parents)):
        found = step.stat()
        is_groups = found.st_mode & (stat.S_IWGRP | stat.S_ISVTX) == stat.S_IWGRP and found.st_gid in groups
        if found.st_uid == uid or (is_groups and not found.st_mode & stat.S_IWOTH):
            raise XboardError(f"user {uid} may write in {step}: set {VARIABLE} to a folder below root's alone")
        needed = stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH  # it owns none of these
        if not found.st_mode & needed:
            raise XboardError(f"user {uid} can't enter {step}: chmod o+x it, or set {VARIABLE} to another folder")


def _identity_in(record: dict[str, Any]) -> procs.Identity | None:
    with suppress(KeyError, ValueError):
        return procs.Identity.parse(f"{record['pid']}:{record['started']}")
    return None


@contextmanager
def _errors_of(what: str) -> Iterator[None]:
    """Turn an OSError into a one-line XboardError."""
    try:
        yield
    except OSError as error:
        raise XboardError(f"{what}: {error.strerror or error}; {VARIABLE} can name another place") from error
