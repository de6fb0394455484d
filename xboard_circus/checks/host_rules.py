"""Check a [watcher:...] section against this host: folders, users, limits, programs.

The rules change nothing. They run with the rights of the user of the check, and derive from the mode bits what the
watcher's own user may do; access lists beyond those are not read.
"""

import os
import resource
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from circus.util import parse_env_dict

from xboard_circus import launch as launcher
from xboard_circus.checks import env_file_rules
from xboard_circus.checks.findings import ERROR, WARNING, Finding
from xboard_circus.checks.programs import run_captured
from xboard_circus.checks.watcher_environ import as_circusd_sees_it
from xboard_circus.checks.watcher_rules import argument, words
from xboard_circus.config import ARM, Config, WatcherConfig, is_armed, is_file, is_our_plugin
from xboard_circus.host import servers
from xboard_circus.service.layout import NAME, OVERLAY

_FIND_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
_FIND_TIMEOUT = 30.0
_CAP_SYS_RESOURCE = 24
_LONGEST_WAY = 255


@dataclass(frozen=True)
class User:
    """User of a watcher's workers."""

    uid: int
    groups: frozenset[int]
    name: str

    def may(self, path: Path, mode: int) -> bool:
        """Return whether the user has the right *mode* (os.R_OK, W_OK, X_OK) on *path* and can get there."""
        try:
            return all(self.has(parent, os.X_OK) for parent in path.resolve().parents) and self.has(path, mode)
        except OSError:
            return False

    def has(self, path: Path, mode: int) -> bool:
        found = path.stat()
        if self.uid == 0:
            return mode != os.X_OK or path.is_dir() or bool(found.st_mode & 0o111)
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return (found.st_mode >> shift) & mode == mode

    def writable(self, path: Path) -> Path | None:
        """Return *path*, or the folder on the way to it, that the user may write; None where there is none.

        Who may write a folder above puts another one in the place of what is below, and who owns anything may write it.
        """
        if path.exists() and self.may(path, os.W_OK):
            return path
        for folder, step in _way(path):
            if not self.has(folder, os.X_OK):
                return None
            if self._owns(step):
                return step
            if self.has(folder, os.W_OK) and not folder.stat().st_mode & stat.S_ISVTX:
                return folder
        return None

    def _owns(self, path: Path) -> bool:
        return os.path.lexists(path) and path.lstat().st_uid == self.uid


def _way(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder that leads to *path*, with what is looked up in it; a link is followed step by step."""
    folder, left = Path("/"), [*reversed(path.absolute().parts[1:])]
    for _ in range(_LONGEST_WAY):
        if not left:
            return
        step = folder / left.pop()
        yield folder, step
        if step.is_symlink():
            target = step.readlink()
            folder = Path("/") if target.is_absolute() else folder
            left += reversed(target.parts[target.is_absolute() :])
        elif step.name == "..":
            folder = folder.parent
        elif step.is_dir():
            folder = step
        else:
            return


def findings(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Yield the findings of every rule on one watcher on this host."""
    for rule in RULES:
        yield from rule(config, watcher)


def modules(config: Config, watcher: WatcherConfig, *, starts: bool = False) -> Iterator[Finding]:
    """Yield the module of the command that its Python does not find; that Python is run for it.

    With *starts*, circusd starts next, with the environment of this process.
    """
    command = words(watcher)
    program = None if watcher.shell else _program_of(watcher, command)
    if program is not None and os.access(program, os.X_OK):
        yield from _modules(config, watcher, command, program, starts=starts)


def user_of(watcher: WatcherConfig) -> User:
    """Return the user of the watcher's workers; KeyError for a user or group that is not known."""
    import grp
    import pwd

    if watcher.uid is None:
        uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    elif watcher.uid.isdigit() and is_armed(watcher):
        # The launcher takes a bare number, as containers have it; Circus itself refuses it.
        uid, gid, groups = int(watcher.uid), os.getegid(), []
    else:
        entry = pwd.getpwuid(int(watcher.uid)) if watcher.uid.isdigit() else pwd.getpwnam(watcher.uid)
        uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    if watcher.gid is not None:
        gid = int(watcher.gid) if watcher.gid.isdigit() else grp.getgrnam(watcher.gid).gr_gid
    return User(uid, frozenset({gid, *groups}), watcher.uid or "the user of this check")


def search_path(watcher: WatcherConfig) -> str:
    """Return the PATH in which the watcher's program is looked for."""
    path = watcher.env.get("PATH") or (os.environ.get("PATH", os.defpath) if is_armed(watcher) else os.defpath)
    return os.pathsep.join([os.path.dirname(sys.executable), path]) if is_armed(watcher) else path


def _user(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    try:
        user = user_of(watcher)
    except KeyError as error:
        option = "gid" if watcher.gid and watcher.gid in str(error) else "uid"
        yield Finding(ERROR, option, "not known on this host", "create it, or name one that `getent` knows")
        return
    if os.geteuid() == 0:
        return
    if user.uid != os.geteuid():
        yield Finding(ERROR, "uid", "only root may become another user", "start circusd as root, or take it out")
    elif watcher.gid is not None and not user.groups <= {os.getegid(), *os.getgroups()}:
        yield Finding(ERROR, "gid", "only root may take on another group", "start circusd as root, or take it out")


def writable(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Refuse files of root's circusd that the watcher's user may write: that user could become root.

    Plugins and `check` run in the folder of the ini, so a `json.py` put there is imported by root. `check` looks at
    this first, and runs nothing there where it finds anything; circusd itself starts no worker of such a watcher.
    """
    user = _known_user(watcher)
    if os.geteuid() != 0 or user is None or user.uid == 0:
        return
    paths = {"uid": [config.folder, *(scan.file for scan in config.scans), *_of_root(config, watcher)]}
    for name, stream in watcher.streams.items():
        if "filename" in stream:
            paths[f"{name}_stream.filename"] = [(config.folder / stream["filename"]).parent]
    for file in env_file_rules.of_watcher(config, watcher):
        # A link in its place would have root read another file to that user.
        paths[file.option] = [*paths.get(file.option, []), file.path.parent, file.path]
    for option, found in paths.items():
        writable = [str(place) for place in dict.fromkeys(map(user.writable, found)) if place is not None]
        if writable:
            used = f"{' and '.join(writable)}, which circusd uses as root"
            what = f"{user.name} may write {used}: who has {user.name} has root"
            hint = f"`chown root {' '.join(writable)}` and `chmod go-w` it, or start circusd as {user.name}"
            yield Finding(ERROR, option, what, hint)


def writer_besides_root(folder: Path) -> str | None:
    """Return who may write *folder* although this process is root's, its owner or its group; None if nobody else."""
    found = folder.stat()
    if os.geteuid() == 0 and found.st_uid != 0:
        return servers.name_of(found.st_uid)
    return "its group" if os.geteuid() == 0 and found.st_mode & stat.S_IWGRP and found.st_gid != 0 else None


def refusal(folder: Path) -> str | None:
    """Return why root runs nothing in *folder*, which somebody else may write, with the cure; None where it may."""
    writer = writer_besides_root(folder)
    if writer is None:
        return None
    if (folder / OVERLAY).exists():
        cure = (
            f"a service runs there: `systemctl restart {NAME}` (start, reload), `{NAME} status`, or by its own --name"
        )
    else:
        who = "the user who runs it" if writer == "its group" else writer
        cure = f"run this as {who}, or, when you have looked at what lies there, `chown -R root` and `chmod -R go-w` it"
    return f"{writer} may write {folder}, and root would run what is there; {cure}"


def open_to_all(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Find what every user of this host may write of what circusd and the worker run: that user has theirs."""
    paths = [config.folder, *(scan.file for scan in config.scans), *_of_root(config, watcher), watcher.working_dir]
    paths += [file.path for file in env_file_rules.of_watcher(config, watcher)]
    anybody = User(-1, frozenset(), "every user of this host")
    places = [str(place) for place in dict.fromkeys(map(anybody.writable, paths)) if place is not None]
    if places:
        what = f"{anybody.name} may write {' and '.join(places)}, and so run programs as circusd's user or the worker's"
        yield Finding(ERROR if os.geteuid() == 0 else WARNING, "", what, f"chmod o-w {' '.join(places)}")


def _of_root(config: Config, watcher: WatcherConfig) -> Iterator[Path]:
    """Yield what root's circusd and its plugins import from, read and write, beside logs of watchers and env files."""
    files = (config.circus.get(key) for key in ("logoutput", "pidfile", "loggerconfig"))
    yield from (config.folder / str(file) for file in files if is_file(file))
    # Circus runs the .pth files in there, in its own process.
    found = [*watcher.env.get("PYTHONPATH", "").split(os.pathsep), watcher.given.get("virtualenv", "")]
    yield from (config.folder / folder for folder in found if folder)
    for plugin in config.plugins:
        yield config.folder / plugin.given.get("working_dir", "")
        if is_our_plugin(plugin):
            yield (config.folder / plugin.options.ledger.file).parent


def _working_dir(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    folder, option = watcher.working_dir, "working_dir" if "working_dir" in watcher.given else ""
    if not folder.is_dir():
        yield Finding(ERROR, option, f"there is no folder {folder}", f"mkdir -p {folder}")
    elif (user := _known_user(watcher)) and not user.may(folder, os.X_OK):
        hint = f"chmod o+x {folder} and what is above it, or choose another folder: it is entered as that user"
        yield Finding(ERROR, option, f"{user.name} may not enter {folder}", hint)


def _entered_as_root(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Find a working_dir that the user of an unarmed watcher may exchange: no launcher enters it as that user."""
    user, folder = _known_user(watcher), watcher.working_dir
    if os.geteuid() != 0 or is_armed(watcher) or user is None or user.uid == 0:
        return
    if (above := user.writable(folder.parent)) is not None:
        what = f"{user.name} may put a link in the place of {folder}, and Circus enters it as root, wherever that leads"
        hint = f"arm the watcher with hooks.before_start = {ARM}, or `chown root {above}` and `chmod go-w` it"
        yield Finding(ERROR, "working_dir" if "working_dir" in watcher.given else "", what, hint)


def _log_files(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for name, stream in watcher.streams.items():
        if "filename" in stream:
            file = config.folder / stream["filename"]
            yield from not_writable(f"{name}_stream.filename", file, "Circus drops the watcher")


def not_writable(option: str, file: Path, consequence: str) -> Iterator[Finding]:
    """Yield what keeps circusd from writing *file*; our `start` makes a folder that is only missing."""
    folder = file.parent
    if not folder.exists():
        above = next(parent for parent in folder.parents if parent.exists())
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            what = f"there is no folder {folder}; `xboard-circus start` makes it, but under bare circusd {consequence}"
            yield Finding(WARNING, option, what, f"mkdir -p {folder}")
            return
    target = file if file.exists() else folder
    if not folder.is_dir() or file.is_dir() or not os.access(target, os.W_OK):
        yield Finding(ERROR, option, f"{file} cannot be written, and {consequence}", "name another file")


def _limits(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for name, wanted in watcher.rlimits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            known = sorted(word[7:].lower() for word in dir(resource) if word.startswith("RLIMIT_"))
            yield Finding(ERROR, f"rlimit_{name}", "no such limit on this system", f"known are {', '.join(known)}")
            continue
        hard = resource.getrlimit(number)[1]
        # For open files, Circus and the launcher read "no limit" as the hard limit.
        most = hard if number == resource.RLIMIT_NOFILE and wanted == resource.RLIM_INFINITY else wanted
        if _exceeds(most, hard) and not _may_raise(number, most):
            hint = f"write rlimit_{name} = {hard} or less, or raise the hard limit for circusd"
            yield Finding(ERROR, f"rlimit_{name}", f"above the hard limit of {hard}, and no worker would start", hint)


def _exceeds(value: int, hard: int) -> bool:
    return hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard)


def _may_raise(number: int, value: int) -> bool:
    """Return whether this process may set *value* above its hard limit."""
    try:
        status = Path("/proc/self/status").read_text()
        capable = int(status.partition("CapEff:")[2].split()[0], 16) >> _CAP_SYS_RESOURCE & 1
        most_files = int(Path("/proc/sys/fs/nr_open").read_text())
    except (OSError, ValueError, IndexError):
        return os.geteuid() == 0
    return bool(capable) and (number != resource.RLIMIT_NOFILE or value <= most_files)


def _program(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    if not watcher.shell:
        yield from _not_runnable(watcher, "cmd", words(watcher))
    if watcher.options.run.before and is_armed(watcher):
        yield from _not_runnable(watcher, "run.before", shlex.split(watcher.options.run.before))


def _program_of(watcher: WatcherConfig, command: list[str]) -> str | None:
    """Return the path of the program of *command*, None where there is none in PATH."""
    if not command or os.sep in command[0]:
        return str(watcher.working_dir / command[0]) if command else None
    return shutil.which(command[0], path=search_path(watcher))


def _not_runnable(watcher: WatcherConfig, option: str, command: list[str]) -> Iterator[Finding]:
    if not command or "$(" in command[0] or "((" in command[0]:
        return
    program = _program_of(watcher, command)
    if program is None or not os.access(program, os.X_OK) or os.path.isdir(program):
        where = "" if os.sep in command[0] else f" in PATH={search_path(watcher)}"
        yield Finding(ERROR, option, f"there is no program {command[0]}{where}", "install it, or write its whole path")
        return
    user = _known_user(watcher)
    if user and watcher.uid and not user.may(Path(program), os.X_OK):
        what = f"{user.name} may not run {program}"
        yield Finding(ERROR, option, what, "put the environment into a folder that this user can enter, such as /opt")


def _modules(
    config: Config, watcher: WatcherConfig, command: list[str], program: str, *, starts: bool
) -> Iterator[Finding]:
    """Look for the module of ``python -m MODULE`` and, where that serves an app, for the app's."""
    if not os.path.basename(program).startswith("python") or command[1:2] != ["-m"] or len(command) < 3:
        return
    if not watcher.working_dir.is_dir():
        return
    wanted = [command[2]]
    if command[2] in ("uvicorn", "xboard_circus.worker") and argument(command, "--app-dir") is None:
        wanted += [word.partition(":")[0] for word in command[3:4] if not word.startswith("-")]
    given = as_circusd_sees_it(config, watcher, starts=starts or watcher.uid is None)
    environment = {**env_file_rules.added_by(config, watcher), **parse_env_dict(given)}
    environment.pop("XBOARD_CIRCUSD", None)  # of whoever started circusd
    for module in wanted:
        error = _missing(module, program, watcher, environment)
        if error is not None:
            app = "write the module:app that uvicorn is to serve"
            hint = "install it for that Python" if module == wanted[0] else app
            yield Finding(ERROR, "cmd", f"{program} finds no module {module} in {watcher.working_dir}{error}", hint)
            return


def _missing(module: str, program: str, watcher: WatcherConfig, environment: Mapping[str, str]) -> str | None:
    """Return the error of the program's Python for a module that it does not find; None where it finds it."""
    command, folder = [program, "-c", _FIND_MODULE, module], watcher.working_dir
    user, env = _known_user(watcher), {**environment, "PATH": search_path(watcher)}
    if user is None:
        return None
    if os.geteuid() == 0 and user.uid != 0:
        # In that user's folder `import xboard_circus` may run what the user has put there; only that user enters it.
        names = [word for name in ("uid", "gid") if (value := getattr(watcher, name)) for word in (f"--{name}", value)]
        launch = [sys.executable, "-I", "-S", os.path.abspath(launcher.__file__), "--chdir", str(folder), *names, "--"]
        command, folder = [*launch, *command], Path("/")
        env = {name if os.environ.get(name) == value else launcher.LATER + name: value for name, value in env.items()}
    try:
        run = run_captured(command, cwd=folder, env=env, timeout=_FIND_TIMEOUT)
    except PermissionError:
        return None  # that the user may not run it is a finding of its own
    except OSError as error:
        return f" ({error.strerror})"
    if run is None or run.returncode in (0, launcher.NOT_RUNNABLE, launcher.NO_DIRECTORY, launcher.NO_USER):
        return None
    lines = run.stderr.strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def _known_user(watcher: WatcherConfig) -> User | None:
    try:
        return user_of(watcher)
    except KeyError:
        return None


RULES = (_user, writable, _working_dir, _entered_as_root, _log_files, _limits, _program)
