"""Check a [watcher:...] section against this host: folders, users, limits, programs.

The rules change nothing. They run with the rights of the user of the check, and derive the rights of other users from
mode bits and access lists.
"""

import glob
import grp
import os
import pwd
import re
import resource
import shlex
import shutil
import site
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, product
from pathlib import Path

from circus.util import parse_env_dict

import xboard_circus
from xboard_circus import launch as launcher
from xboard_circus.checks import dry_run, endpoint_rules, env_file_rules
from xboard_circus.checks.authorship import other_author, other_writer
from xboard_circus.checks.findings import ERROR, WARNING, Finding, Level, no_folder
from xboard_circus.checks.watcher_environ import as_circusd_sees_it
from xboard_circus.checks.watcher_rules import argument, words
from xboard_circus.config import ARM, Config, WatcherConfig, is_armed, is_dashboard, is_file, is_our_plugin
from xboard_circus.core.names import some_of
from xboard_circus.errors import Command
from xboard_circus.host import servers, writers
from xboard_circus.host.programs import run_captured
from xboard_circus.host.users import members
from xboard_circus.host.writers import ANYBODY, User, once
from xboard_circus.host.written_files import plain_opener
from xboard_circus.service.layout import NAME, OVERLAY

_FIND_MODULES = "import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, sys.argv[1:]))"
_FIND_TIMEOUT = 30.0
_CAP_SYS_RESOURCE = 24
_NAMED = 3
_OBEYED_BY_NONE = "write it into a worker.env_file, which circusd does not obey"
_OF_PROGRAMS = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "PYTHONHOME")
"""Variables with files, or folders of files, that a program runs."""
_LONGEST_FIRST_LINE = 256
"""Of a script, as far as Linux reads it: BINPRM_BUF_SIZE."""
_OF_MODULES = ("", ".py", ".pyc", ".*so")
# Behind a NUL, as between words: `-m job.main`, `--app=shop`, `shop.main:app`, `--http=shop.http:Protocol`.
_NAMED_MODULE = re.compile(r"\0(?:(?:-\w*?m|-A|--app)[\0=]?|(?:--[\w-]+=)?(?=[\w.]+[.:][^\W\d]))([^\W\d]\w*)")
_NEEDED = ("as", "cpu", "data", "nofile", "stack")


def findings(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Yield the findings of every rule on one watcher on this host."""
    for rule in RULES:
        yield from rule(config, watcher)


def modules(config: Config, watcher: WatcherConfig, *, starts: bool = False) -> Iterator[Finding]:
    """Yield the module of the command that its Python cannot find; that Python is run for it.

    With *starts*, circusd starts next, with the environment of this process.
    """
    command = words(watcher)
    program = None if watcher.shell else _program_of(watcher, command)
    if program is not None and os.access(program, os.X_OK):
        yield from _modules(config, watcher, command, program, starts=starts)


def user_of(watcher: WatcherConfig) -> User:
    """Return the user of the watcher's workers; KeyError or LaunchError for an unknown user or group."""
    if watcher.uid is None:
        uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    else:
        try:
            entry = pwd.getpwuid(int(watcher.uid)) if watcher.uid.isdecimal() else pwd.getpwnam(watcher.uid)
            uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
        except KeyError:
            # The launcher takes a bare number, as containers have it; Circus itself refuses it.
            if not (watcher.uid.isdecimal() and is_armed(watcher)):
                raise
            uid, groups = int(watcher.uid), []
            gid = -1 if watcher.gid else launcher.group_of(uid)
    if watcher.gid is not None:
        gid = int(watcher.gid) if watcher.gid.isdecimal() else grp.getgrnam(watcher.gid).gr_gid
    return User(uid, frozenset({gid, *groups}), watcher.uid or "the user of this check")


def search_path(watcher: WatcherConfig) -> str:
    """Return the PATH in which the watcher's program is searched."""
    path = watcher.env.get("PATH") or (os.environ.get("PATH", os.defpath) if is_armed(watcher) else os.defpath)
    front = [os.path.dirname(sys.executable)] if is_armed(watcher) else []
    return os.pathsep.join([*front, *map(str, _programs_of_virtualenv(watcher)), path])


def _programs_of_virtualenv(watcher: WatcherConfig) -> list[Path]:
    """Return the folder, if any, that Circus puts into the watcher's PATH; a relative one is looked for as that is."""
    return [watcher.working_dir / folder / "bin"] if (folder := watcher.given.get("virtualenv")) else []


def _user(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    try:
        user = user_of(watcher)
    except KeyError as error:
        option = "gid" if watcher.gid and watcher.gid in str(error) else "uid"
        yield Finding(ERROR, option, "not known on this host", "create it, or name one that `getent` knows")
        return
    except launcher.LaunchError as error:
        yield Finding(ERROR, "uid", str(error), "")
        return
    if user.uid != os.geteuid() != 0:
        yield Finding(ERROR, "uid", "only root may become another user", "start circusd as root, or take it out")
    elif watcher.gid is not None and os.geteuid() and not user.groups <= {os.getegid(), *os.getgroups()}:
        yield Finding(ERROR, "gid", "only root may take on another group", "start circusd as root, or take it out")


def writable(config: Config, watcher: WatcherConfig | None) -> Iterator[Finding]:
    """Refuse files of root's circusd that the watcher's user may write: that user could become root.

    Plugins and `check` run in the folder of the ini, so root imports a `json.py` put there. `check` runs this rule
    first, and runs nothing there after a finding; circusd itself starts no worker of such a watcher.
    """
    user = _known_user(watcher)
    if watcher is None or os.geteuid() != 0 or user is None or user.uid == 0:
        return
    paths = {"uid": [*config.places, *_of_root(config, watcher), *_log(config)]}
    for each in config.watchers:
        for name, log in _streams(config, each):
            option = f"{name}_stream.filename" if each is watcher else ""
            paths[option] = [*paths.get(option, []), log.parent]
    for file in env_file_rules.of_watcher(config, watcher):
        # Through a link in its place, root would read another file to that user.
        paths[file.option] = [*paths.get(file.option, []), file.path.parent, file.path]
    for option, found in paths.items():
        if writable := [place for place in dict.fromkeys(map(user.writable, found)) if place is not None]:
            used = f"{' and '.join(map(str, writable))}, which circusd uses as root"
            what = f"{user.name} may write {used}: who has {user.name} has root"
            cures = [*_taking(config, writable, "`chown root {}` and `chmod go-w` it"), f"start circusd as {user.name}"]
            yield Finding(ERROR, option, what, ", or ".join(cures))


def advice(config: Config | None, cure: str) -> str:
    """Return *cure*, or in place of a `Command` for root whom to ask, where another user may write the ini.

    That user could have named /etc/passwd, or put a link in the place of his own file while root types.
    """
    is_roots = isinstance(cure, Command) and (os.geteuid() == 0 or "sudo " in cure)
    writer = other_author(config) if config is not None and is_roots else None
    return f"ask who wrote the ini: {writer[0]} may write {writer[1]}, and so name anything" if writer else cure


def refusal(folder: Path, *, others: Collection[str] = ()) -> str | None:
    """Return why this user runs nothing in *folder*, which another user may write, or what is made in it, with the
    cure; None where it may.

    As root, with *others* on this host, also where everybody may write. Any other operator knows who is in the team.
    """
    is_root = os.geteuid() == 0
    found = other_writer(folder) if is_root else _group_of_a_service(folder)
    if found is None or (found[0] == ANYBODY.name and not others):
        heirs = (_heirs([folder], anybody=all_count) for all_count in {False, bool(others)} if is_root)
        return next((f"{heir.what}; {heir.hint}" for heir in chain(*heirs)), None)
    writer, place = found
    who = "the user who runs it" if writer in ("its group", ANYBODY.name) else writer
    me = servers.name_of(os.geteuid())
    # A descriptor that is open for writing outlives both.
    cure = f"run this as {who}, or end their processes, look at what lies there, `chown -R {me}` and `chmod -R go-w` it"
    if os.path.exists(folder / OVERLAY):
        cure = f"a service runs there: `systemctl restart {NAME}` (start, reload), `{NAME} status`, or its own --name"
    return f"{writer} may write {place}, and {me} would run what is there; {cure}"


def _group_of_a_service(folder: Path) -> tuple[str, Path] | None:
    """Return that the group of *folder* may write it, where that is neither ours nor a team's, as our scripts do.

    A team's has us in it; a folder of `service install` has the sticky bit, whoever is in the group of its user.
    """
    mode, gid = (found := folder.stat()).st_mode, found.st_gid
    is_a_teams = gid in os.getgroups() and not mode & stat.S_ISVTX
    if mode & (stat.S_IWGRP | stat.S_IWOTH) != stat.S_IWGRP or gid == os.getegid() or is_a_teams:
        return None
    return ("its group", folder) if members(gid) - {0, os.geteuid()} else None


def open_to_all(config: Config, watcher: WatcherConfig | None, *, others: Collection[str]) -> Iterator[Finding]:
    """Find what every user of this host may write of what circusd and the worker run, and so take their rights.

    With no *others* it is a warning: a container of root alone often has its folders so, but www-data can write there.
    """
    paths = [*(used := _used(config, watcher)), *_logs(config, watcher), *([watcher.working_dir] if watcher else [])]
    if found := [(path, place) for path in paths if (place := ANYBODY.writable(path)) is not None]:
        what = f"{ANYBODY.name} may {_doings(found)}, and so run programs as circusd's user or the worker's"
        level = ERROR if others and os.geteuid() == 0 else WARNING
        yield Finding(level, "", what, _cure(config, found, "`chmod o-w {}`"))
    yield from _heirs(_of_modules(config, used) if others else (), anybody=True)


def open_to_others(config: Config, watcher: WatcherConfig | None) -> Iterator[Finding]:
    """Find what a user other than root and circusd's may write of what circusd runs, and so take its rights.

    The watcher's own user is left to `writable`. Of logs, which Circus opens before `written_files.opener` is in its
    place, only people count: on many hosts a user of the system may write /var/log. Without a *watcher*, what an ini
    file that has none names: plugins are imported all the same.
    """
    user = _known_user(watcher)
    trusted = {0, os.geteuid(), *([] if user is None else [user.uid])}
    used = _used(config, watcher)
    found = [(who.name, path, at) for path in used for who, at in writers.besides(path, trusted) if who != ANYBODY]
    # Those without a name on this host, which are in no list of its users.
    nameless = [each for each in map(_known_user, config.watchers) if each and writers.User.of(each.uid) is None]
    ways = ((who, path, who.writable(path)) for who in nameless if who.uid not in trusted for path in used)
    found += [(who.name, path, place) for who, path, place in ways if place is not None]
    by_log = ((who, log, place) for log in _logs(config, watcher) for who, place in writers.besides(log, trusted))
    found += [(who.name, log, place) for who, log, place in by_log if who.uid in endpoint_rules.PEOPLE]
    if found:
        names, me = [*dict.fromkeys(name for name, _, _ in found)], servers.name_of(os.geteuid())
        places = [(path, place) for _, path, place in found]
        who = f"who has {names[0]} has {me}"
        what = f"{some_of(names, _NAMED)} may {_doings(places)}, which circusd uses as {me}: {who}"
        hint = _cure(config, places, f"`chown {me} {{}}` and `chmod go-w` it")
        if watcher is not None and "PYTHONPATH" in watcher.env:
            hint += f"; where only the app needs PYTHONPATH, {_OBEYED_BY_NONE}"
        yield Finding(ERROR if os.geteuid() == 0 else WARNING, "", what, hint)
    if watcher is not None and user is not None and os.geteuid() == 0 != user.uid:
        yield from _app_of_others(config, watcher, user)
    yield from _heirs(_of_modules(config, used), anybody=False)


def _app_of_others(config: Config, watcher: WatcherConfig, user: User) -> Iterator[Finding]:
    """Find who else may write what a watcher runs as *user*, and so take that user's rights.

    A warning, for it may be who deploys.
    """
    ways = ((who, path, at) for path in _run_by(config, watcher) for who, at in writers.besides(path, {0, user.uid}))
    if found := [each for each in ways if each[0] != ANYBODY]:
        name, places = found[0][0].name, [(path, place) for _, path, place in found]
        what = f"{name} may {_doings(places)}, from which it runs as {user.name}: who has {name} has {user.name}"
        hint = _cure(config, places, f"`chown {user.name} {{}}` and `chmod go-w` it")
        yield Finding(WARNING, "cmd", what, hint)


def _folders_of_app(watcher: WatcherConfig) -> list[Path]:
    return [watcher.working_dir, watcher.working_dir / (argument(words(watcher), "--app-dir") or "")]


def _heirs(folders: Iterable[Path], *, anybody: bool) -> Iterator[Finding]:
    """Find another user, or with *anybody* whether all may, who may write what circusd makes in *folders*.

    Such as a __pycache__, of which Python runs what is in it.
    """
    me = servers.name_of(os.geteuid())
    for folder in folders:
        for user in writers.heirs(folder, {0, os.geteuid()}):
            if (user == ANYBODY) == anybody:
                what = f"{user.name} may write what {me} makes in {folder}, by its default access list"
                cure = Command("look at what lies there, and `setfacl -R -b {}`", folder)
                yield Finding(ERROR if os.geteuid() == 0 else WARNING, "", f"{what}, and {me} would run it", cure)


def _of_modules(config: Config, used: Iterable[Path]) -> Iterator[Path]:
    """Yield the folders in which Python makes something: beside modules, of which a folder of a socket has none."""
    folders = dict.fromkeys(path if os.path.isdir(path) else path.parent for path in used)
    yield from (each for each in folders if each == config.folder or _has_modules(each))


@once
def _has_modules(folder: Path) -> bool:
    return bool(glob.glob(f"{glob.escape(str(folder))}/*.py"))


def _used(config: Config, watcher: WatcherConfig | None) -> list[Path]:
    env_files = [file.path for file in env_file_rules.of_watcher(config, watcher)] if watcher else []
    return [*dict.fromkeys([*config.places, *_of_root(config, watcher), *env_files])]


def _doings(found: list[tuple[Path, Path]]) -> str:
    """Return what a user may do, from each path and the place on the way to it that is open."""
    doings = (f"make {path}" if _is_to_be_made(path, place) else f"write {place}" for path, place in found)
    return " and ".join(dict.fromkeys(doings))


def _cure(config: Config, found: list[tuple[Path, Path]], cure: str) -> str:
    homes = {Path(each.pw_dir) for each in pwd.getpwall()}  # each belongs to the right user
    shared = dict.fromkeys(str(place) for path, place in found if _is_to_be_made(path, place) or place in homes)
    places = dict.fromkeys(place for _, place in found if str(place) not in shared)
    return ", and ".join([*_taking(config, places, cure), *(f"name what lies outside {place}" for place in shared)])


def _taking(config: Config, places: Collection[Path], cure: str) -> Iterator[str]:
    """Yield *cure* of the places that lead to the ini, or to a part of it, and the `advice` on any others."""
    leads = {step for place in config.places for step in (place, *place.parents)}
    asked = advice(config, Command(""))
    cured = [place for place in places if not asked or place in leads]
    yield from [cure.format(shlex.join(map(str, cured)))] if cured else []
    yield from [asked] if len(cured) < len(places) else []


def _is_to_be_made(path: Path, place: Path) -> bool:
    """Return whether *path* is missing, and *place* a folder such as /tmp, where no user can replace another's file."""
    return _is_shared(place) and not os.path.lexists(path)


def _is_shared(folder: Path) -> bool:
    """Return whether *folder* is one such as /tmp, where no user can replace another's file."""
    return os.path.isdir(folder) and bool(folder.stat().st_mode & stat.S_ISVTX)


def _streams(config: Config, watcher: WatcherConfig) -> Iterator[tuple[str, Path]]:
    """Yield stdout or stderr, and the file that it goes to."""
    files = {name: each["filename"] for name, each in watcher.streams.items() if "filename" in each}
    yield from ((name, config.folder / file) for name, file in files.items())


def _logs(config: Config, watcher: WatcherConfig | None) -> Iterator[Path]:
    """Yield the logs of circusd and of *watcher*."""
    yield from _log(config)
    for _, log in () if watcher is None else _streams(config, watcher):
        yield from _unless_to_be_made(log)


def _log(config: Config) -> Iterator[Path]:
    """Yield circusd's log."""
    if is_file(config.circus["logoutput"]):
        yield from _unless_to_be_made(config.folder / str(config.circus["logoutput"]))


def _unless_to_be_made(log: Path) -> Iterator[Path]:
    """Yield *log*, except a missing one in a folder such as /tmp, because no link is followed there."""
    if os.path.exists(log) or not _is_shared(log.parent):
        yield log


def _of_root(config: Config, watcher: WatcherConfig | None) -> Iterator[Path]:
    """Yield what root's circusd and its plugins are run by, import from, read and write, besides logs and env files."""
    yield from map(Path, (sys.executable, sys.prefix, *xboard_circus.__path__))
    yield from (*_of_sites(site.getsitepackages()), *writers.libraries(Path(sys.executable)))
    if is_file(config.circus["loggerconfig"]):
        yield config.folder / str(config.circus["loggerconfig"])
    if is_file(config.circus["pidfile"]):
        file = config.folder / str(config.circus["pidfile"])
        yield from (file, file.parent)  # it is made anew at each start, also through a link
    yield from alert_programs(config)
    yield from (config.folder / each.options.ca_file for each in config.alerts if each.options.ca_file)
    for path in filter(None, (socket.path for socket in config.sockets)):
        # root removes and binds the target of a link in place of this folder; within one such as /tmp, none.
        folder = (config.folder / path).parent
        yield folder.parent if _is_shared(folder) else folder
    folders = [config.folder / plugin.given.get("working_dir", "") for plugin in config.plugins]
    folders += [(config.folder / each.options.ledger.file).parent for each in config.plugins if is_our_plugin(each)]
    if watcher is not None:
        yield from _run_as_circusd(config, watcher)
        # Circus runs the .pth files there, in its own process.
        folders += _pythonpath(watcher.env, config.folder)
        if virtualenv := watcher.given.get("virtualenv"):
            yield config.folder / virtualenv
            folders += _of_sites(glob.glob(f"{glob.escape(str(config.folder / virtualenv))}/lib/*/site-packages"))
    yield from folders
    names = [plugin.use for plugin in config.plugins]
    for each in config.watchers:  # which have one process to import into
        names += [*each.hooks.values(), *(stream.get("class", "") for stream in each.streams.values())]
    yield from _modules_in([config.folder, *map(Path, sys.path), *folders], names)


def _pythonpath(environ: Mapping[str, str], folder: Path) -> list[Path]:
    places = environ.get("PYTHONPATH", "").split(os.pathsep)
    return _of_sites(folder / dry_run.expanded(place) for place in places if place)


def _of_sites(sites: Iterable[str | Path]) -> list[Path]:
    """Return folders of modules, their .pth files, and the folders that these name."""
    return [place for site in sites for place in _of_site(Path(site))]


@once
def _of_site(site: Path) -> list[Path]:
    # Not Path.glob, which raises where we may not read.
    return [site, *map(Path, glob.glob(f"{glob.escape(str(site))}/*.pth")), *writers.named_by_pth(site)]


def _modules_in(folders: Iterable[Path], words: Iterable[str]) -> Iterator[Path]:
    """Yield the packages in *folders* that *words* name, and places in them that another user may write.

    Nothing is imported: already the search for `shop.main` would run shop/__init__.py.
    """
    tops = dict.fromkeys(_NAMED_MODULE.findall("\0".join(["", *words])))
    for folder, top in product(dict.fromkeys(folders), tops):
        yield from _module_at(folder / top)


@once
def _module_at(path: Path) -> list[Path]:
    places = (Path(each) for ending in _OF_MODULES for each in glob.glob(f"{glob.escape(str(path))}{ending}"))
    packages = (each for each in places if each != path or not os.path.isfile(each))
    return [place for each in packages for place in (each, *_open_places(each))]


@once
def _open_places(path: Path) -> list[Path]:
    """Return places at or below *path* that another user may write, or what is made there, up to the first for certain.

    What lies in such a place is not walked through: a link there leads wherever he likes.
    """
    found = []
    with suppress(PermissionError):  # what we may not read, no circusd of ours imports
        for who, place in writers.below(path, {0, os.geteuid()}):
            found.append(place)
            if who != writers.INHERITED and writers.is_open(place):
                break
    return found


def alert_programs(config: Config) -> Iterator[Path]:
    """Yield the programs, scripts and packages of alerts, which circusd's user runs."""
    for alert in config.alerts:
        yield from _files_of([*alert.options.command], config.folder, os.environ.get("PATH", os.defpath))
        yield from _modules_in([config.folder], alert.options.command)


def _run_as_circusd(config: Config, watcher: WatcherConfig) -> Iterator[Path]:
    """Yield what a watcher runs that has no user besides circusd's.

    So too the folder with the tokens of a page: who may write it puts back those that were deleted.
    """
    if (user := _known_user(watcher)) is not None and user.uid == os.geteuid():
        yield from [config.folder / (watcher.options.dashboard.folder or "")] if is_dashboard(watcher) else ()
        yield from _run_by(config, watcher)


def _run_by(config: Config, watcher: WatcherConfig) -> Iterator[Path]:
    """Yield what the commands of a watcher run: programs, scripts, libraries, and folders of modules."""
    command, before = words(watcher), shlex.split(watcher.options.run.before or "")
    environ = {**env_file_rules.added_by(config, watcher), **watcher.env}
    folders = [*_folders_of_app(watcher), *_packages_of(_program_of(watcher, command) or os.sep)]
    # What is missing in one of these is told as that one.
    named = _pythonpath(environ, watcher.working_dir)
    folders += [each for each in named if os.path.exists(each) or each.parent not in folders]
    yield from folders
    modules = (f"-m{module}" for module in watcher.options.worker.preload_modules or ())
    yield from _modules_in(folders, [*command, *before, *modules])
    for places in map(environ.get, _OF_PROGRAMS):
        yield from (watcher.working_dir / place for place in re.split("[: ]", places or "") if place)
    if (home := environ.get("HOME")) and home != os.environ.get("HOME"):
        yield Path(
            home
        )  # Python runs what .pth files below it name, and most programs have a file there that they obey
    yield from (each for folder in _programs_of_virtualenv(watcher) for each in (folder, *_open_places(folder)))
    for each in (command, [watcher.given.get("executable", "")], before):
        yield from _files_of(each, watcher.working_dir, search_path(watcher))


def _packages_of(python: str | Path) -> list[Path]:
    """Return the folders from which an interpreter imports; none for a program that has none beside it."""
    prefix = glob.escape(str(Path(python).parent.parent))
    return _of_sites(glob.glob(f"{prefix}/lib*/python3*/*-packages"))


def _files_of(command: list[str], folder: Path, path: str) -> Iterator[Path]:
    """Yield the program of *command*, and each file among its words, such as what `nice` runs, or --log-config=FILE,
    with what runs a script; and a folder that Python runs.

    Each that is missing, too: who has moved a script away while a check looks puts it back.
    """
    if not command or "\0" in "".join(command):
        return
    program = shutil.which(command[0], path=path) if os.sep not in command[0] else command[0]
    words = (word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in command[1:])
    for each in (folder / word for word in (program or command[0], *words)):
        if os.path.isfile(each) or _is_to_be_put(each, folder):
            yield from (each, *_run_with(each, path))
        elif os.path.isfile(each / "__main__.py"):
            yield from (each, *_open_places(each))


@once
def _run_with(file: Path, path: str) -> list[Path]:
    """Return what runs the script *file*, by its first line; of Python also its library, and the folder of the script,
    in which it looks for modules first."""
    first = b""
    with suppress(OSError), open(file, "rb", opener=plain_opener) as script:
        first = script.readline(_LONGEST_FIRST_LINE)
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    found = list(map(Path, words[:1]))
    if words and found[0].name == "env":
        named = (shutil.which(word, path=path) for word in words[1:] if word[0] != "-" and "=" not in word)
        found += map(Path, filter(None, named))
    pythons = [each for each in (file, *found) if each.name.startswith("python")]
    of_python = [place for each in pythons for place in (*writers.libraries(each), *_packages_of(each))]
    is_pythons = file.suffix == ".py" or (pythons and file not in pythons)
    return [*found, *of_python, *([file.parent] if is_pythons else [])]


def _is_to_be_put(path: Path, folder: Path) -> bool:
    """Return whether *path* is missing, and may be a script; who may write *folder* is told as that.

    No script is what a server makes itself, or what is named in a folder such as /tmp: a cache, or an output.
    """
    if os.path.exists(path) or path.suffix in (".log", ".pid", ".sock"):
        return False
    is_open = _is_shared(path.parent) and path.parent.stat().st_mode & stat.S_IWOTH  # not that of a service
    return os.path.islink(path) or (path.parent != folder and not is_open)


def _working_dir(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    folder, option = watcher.working_dir, "working_dir" if "working_dir" in watcher.given else ""
    if not os.path.isdir(folder):
        yield no_folder(_weight(watcher), option, folder)
    elif (user := _known_user(watcher)) and not user.may(folder, os.X_OK):
        cure = "chmod o+x {} and what is above it, or choose another folder: it is entered as that user"
        yield Finding(_weight(watcher), option, f"{user.name} may not enter {folder}", Command(cure, folder))


def _weight(watcher: WatcherConfig) -> Level:
    """Return how bad it is that a watcher's folder or app is missing: its own user must not stop others' watchers."""
    user = _known_user(watcher)
    return WARNING if user and user.uid not in (0, os.geteuid()) and user.writable(watcher.working_dir) else ERROR


def _entered_as_root(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Find a working_dir that the user of an unarmed watcher may replace: no launcher enters it as that user."""
    user, folder = _known_user(watcher), watcher.working_dir
    if os.geteuid() != 0 or is_armed(watcher) or user is None or user.uid == 0:
        return
    if (above := user.writable(folder.parent)) is not None:
        what = f"{user.name} may put a link in the place of {folder}, and Circus enters it as root, wherever that leads"
        cure = f"arm the watcher with hooks.before_start = {ARM}, or `chown root {{}}` and `chmod go-w` it"
        yield Finding(ERROR, "working_dir" if "working_dir" in watcher.given else "", what, Command(cure, above))


def _log_files(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for name, file in _streams(config, watcher):
        yield from not_writable(f"{name}_stream.filename", file, "Circus drops the watcher")


def not_writable(option: str, file: Path, consequence: str) -> Iterator[Finding]:
    """Yield what keeps circusd from writing *file*; our `start` makes a missing folder."""
    folder = file.parent
    if not os.path.exists(folder):
        above = next(parent for parent in folder.parents if os.path.exists(parent))
        if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK):
            what = f"there is no folder {folder}; `xboard-circus start` makes it, but under bare circusd {consequence}"
            yield Finding(WARNING, option, what, Command("mkdir -p {}", folder))
            return
    target = file if os.path.exists(file) else folder
    # Not what /dev/stdout leads to: circusd has another one.
    is_pipe = os.path.exists(real := os.path.realpath(file)) and stat.S_ISFIFO(os.stat(real).st_mode)
    if not os.path.isdir(folder) or os.path.isdir(file) or is_pipe or not os.access(target, os.W_OK):
        hint = "it is a pipe: delete it, or name another file" if is_pipe else "name another file"
        if os.path.exists(target) and (owner := target.stat().st_uid) != os.geteuid():
            give = f"sudo chown {os.geteuid()} {shlex.quote(str(target))}"
            hint = f"it is {servers.name_of(owner)}'s: `{give}`, or {hint}"
        yield Finding(ERROR, option, f"{file} cannot be written, and {consequence}", Command(hint))


def _limits(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    for name, limit in watcher.rlimits.items():
        if (number := getattr(resource, f"RLIMIT_{name.upper()}", None)) is None:
            known = sorted(word[7:].lower() for word in dir(resource) if word.startswith("RLIMIT_"))
            yield Finding(ERROR, f"rlimit_{name}", "no such limit on this system", f"known are {', '.join(known)}")
            continue
        if limit == 0 and name.lower() in _NEEDED:
            yield Finding(ERROR, f"rlimit_{name}", "no worker can run without any", "write more, or take it out")
        hard = resource.getrlimit(number)[1]
        # For open files, Circus and the launcher read "no limit" as the hard limit.
        most = hard if number == resource.RLIMIT_NOFILE and limit == resource.RLIM_INFINITY else limit
        exceeds = hard != resource.RLIM_INFINITY and (most == resource.RLIM_INFINITY or most > hard)
        if exceeds and not _may_raise(number, most):
            hint = f"write rlimit_{name} = {hard} or less, or raise the hard limit for circusd"
            yield Finding(ERROR, f"rlimit_{name}", f"above the hard limit of {hard}, and no worker would start", hint)


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
    """Return the path of the program of *command*, None if it is not in PATH."""
    if not command or os.sep in command[0]:
        return str(watcher.working_dir / command[0]) if command else None
    return shutil.which(command[0], path=search_path(watcher))


def _not_runnable(watcher: WatcherConfig, option: str, command: list[str]) -> Iterator[Finding]:
    if not command or "$(" in command[0] or "((" in command[0]:
        return
    if (program := _program_of(watcher, command)) is None or not os.access(program, os.X_OK) or os.path.isdir(program):
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
    is_module = os.path.basename(program).startswith("python") and command[1:2] == ["-m"] and len(command) > 2
    if not is_module or not os.path.isdir(watcher.working_dir):
        return
    needed, wanted = [command[2]], watcher.options.worker.preload_modules or ()
    if command[2] in ("uvicorn", "xboard_circus.worker") and argument(command, "--app-dir") is None:
        needed += [word.partition(":")[0] for word in command[3:4] if not word.startswith("-")]
    given = as_circusd_sees_it(config, watcher, starts=starts or watcher.uid is None)
    environment = {**env_file_rules.added_by(config, watcher), **parse_env_dict(given)}
    environment.pop("XBOARD_CIRCUSD", None)  # the mark of an outer circusd
    if _missing([*needed, *wanted], program, watcher, environment) is None:  # one run for all: each takes 70 ms
        return
    for module in (*needed, *wanted):
        if (error := _missing([module], program, watcher, environment)) is None:
            continue
        what = f"{program} finds no module {module} in {watcher.working_dir}{error}"
        if module in needed:
            app = "write the module:app that uvicorn is to serve"
            hint = "install it for that Python" if module == needed[0] else app
            yield Finding(_weight(watcher), "cmd", what, hint)
            return
        hint = "install it for that Python, or take it out"
        yield Finding(WARNING, "worker.preload_modules", f"{what}; no worker is forked", hint)


def _missing(modules: list[str], program: str, watcher: WatcherConfig, environment: Mapping[str, str]) -> str | None:
    """Return the error of the program's Python for modules that it cannot all find; None where it finds them."""
    command, folder = [program, "-c", _FIND_MODULES, *modules], watcher.working_dir
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
        return None  # another rule reports a program that the user may not run
    except OSError as error:
        return f" ({error.strerror})"
    if run is None or run.returncode in (0, launcher.NOT_RUNNABLE, launcher.NO_DIRECTORY, launcher.NO_USER):
        return None
    lines = run.stderr.strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def _known_user(watcher: WatcherConfig | None) -> User | None:
    try:
        return None if watcher is None else user_of(watcher)
    except (KeyError, launcher.LaunchError):
        return None


RULES = (_user, _working_dir, _entered_as_root, _log_files, _limits, _program)
