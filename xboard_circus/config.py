"""Parse an ini file as circusd does, into records.

Circus's own parser does the work, so that substitution, includes and defaults are its own. `ini_scan` finds what it
hides or reports without a place (an invalid number, an unreadable line).
"""

import io
import os
import re
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import circus.config

from xboard_circus import config_files
from xboard_circus.core.names import runs_dashboard
from xboard_circus.core.reason import raised
from xboard_circus.errors import XboardError
from xboard_circus.host.writers import User, authors, others_of
from xboard_circus.host.written_files import settle
from xboard_circus.options.alert_fields import AlertOptions, parse_alert
from xboard_circus.options.fields import PluginOptions, WatcherOptions
from xboard_circus.options.ini_scan import Scan
from xboard_circus.options.reading import Problem, parse_plugin, parse_watcher

ARM = "xboard_circus.plugins.guard.arm"
ALERT = "alert:"

# As circus.util.replace_gnu_args: both ways of writing, in any case.
_SOCKET = re.compile(r"\$\(circus\.sockets\.([\w.\-]+)\)|\(\(circus\.sockets\.([\w.\-]+)\)\)", re.IGNORECASE)


class WatcherConfig(NamedTuple):
    """A ``[watcher:NAME]`` section.

    Attributes:
        given: Every option in the file, ours and Circus's.
        hooks: The target of each hook line, without the ``, True`` after it.
        sockets_used: Names in the command's ``$(circus.sockets.NAME)``, spelled as there.
        working_dir: Absolute; circusd's folder is taken to be the file's.
    """

    name: str
    section: str
    given: Mapping[str, str]
    cmd: str
    args: str
    options: WatcherOptions
    problems: tuple[Problem, ...]
    hooks: Mapping[str, str]
    numprocesses: int
    working_dir: Path
    uid: str | None
    gid: str | None
    env: Mapping[str, str]
    copy_env: bool
    copy_path: bool
    shell: bool
    singleton: bool
    respawn: bool
    autostart: bool
    on_demand: bool
    use_sockets: bool
    sockets_used: tuple[str, ...]
    priority: int
    max_age: int
    max_retry: int
    graceful_timeout: float
    rlimits: Mapping[str, int]
    streams: Mapping[str, Mapping[str, str]]


class SocketConfig(NamedTuple):
    """A ``[socket:NAME]`` section; *path* is set for a unix socket, and *port* is None then."""

    name: str
    section: str
    given: Mapping[str, str]
    host: str
    port: int | None
    path: str | None
    so_reuseport: bool


class PluginConfig(NamedTuple):
    """A ``[plugin:NAME]`` section; its *name* is the whole of it, as Circus shows it."""

    name: str
    given: Mapping[str, str]
    use: str
    options: PluginOptions
    problems: tuple[Problem, ...]


class AlertConfig(NamedTuple):
    """An ``[alert:NAME]`` section, which Circus ignores."""

    name: str
    section: str
    options: AlertOptions
    problems: tuple[Problem, ...]


class Config(NamedTuple):
    """An ini file, and what it includes.

    Attributes:
        path: Absolute path of the file.
        folder: Its folder, the working directory of circusd; relative paths in the file start there.
        shown: The file as the user named it, for messages.
        circus: The [circus] section as Circus parses it, with defaults.
        given: The options of the [circus] section in the file.
        scans: Each file that was read, line by line.
        places: What it was read from: its folder, each file, and where an include would find more.
    """

    path: Path
    folder: Path
    shown: str
    endpoint: str
    pubsub_endpoint: str
    circus: Mapping[str, Any]
    given: Mapping[str, str]
    watchers: tuple[WatcherConfig, ...]
    sockets: tuple[SocketConfig, ...]
    plugins: tuple[PluginConfig, ...]
    alerts: tuple[AlertConfig, ...]
    scans: tuple[Scan, ...]
    places: tuple[Path, ...]

    def find(self, name: str) -> WatcherConfig | None:
        """Return the watcher of that name, or None; names have no case in Circus."""
        return next((each for each in self.watchers if each.name.lower() == name.lower()), None)

    def watcher(self, name: str) -> WatcherConfig:
        """Return the watcher of that name; XboardError without it."""
        if (found := self.find(name)) is not None:
            return found
        known = ", ".join(watcher.name for watcher in self.watchers) or "none"
        raise XboardError(f"{self.shown}: there is no watcher {name}; known are: {known}")

    def socket(self, name: str) -> SocketConfig | None:
        """Return the socket of that name, or None; names have no case in Circus."""
        return next((socket for socket in self.sockets if socket.name == name.lower()), None)

    def sections(self) -> list[str]:
        """Return the names of all sections, in the order in which they were read."""
        return [name for each in self.scans for name, _ in each.sections]


def load(config_file: str | Path, *, looks: bool = False) -> Config:
    """Parse *config_file*; raise XboardError with file, place and what to write if that is not possible.

    A command that *looks*, and runs nothing that the file names, puts no variable of ours into another user's file.
    """
    path, shown = path_of(config_file), str(config_file)
    scans = config_files.read_scans(path, shown, looks=looks)
    lines = [*config_files.unreadable(scans)]
    lines += (f"[{section}] {problem}" for section, problem in config_files.misreadings(scans))
    if lines:
        raise XboardError("\n".join(f"{shown}: {line}" for line in lines))
    try:
        return _load(path, shown, scans, looks=looks)
    except Exception as error:
        cure = "; set that variable; another user's file gets none of yours" if "circus.env." in str(error) else ""
        raise XboardError(f"{shown}: Circus cannot read it: {raised(error)}{cure}") from error


def path_of(config_file: str | Path) -> Path:
    """Return the path of an ini in the folder of the shell: a link that leads there stays, as it may lead elsewhere."""
    folder = os.environ.get("PWD", "")
    with suppress(OSError):
        if os.path.isabs(folder) and os.path.samefile(folder, ".") and settle(Path(folder)).links <= {0, os.geteuid()}:
            return Path(folder, config_file)
    try:
        return Path(config_file).absolute()
    except FileNotFoundError:
        cure = "`cd` into one that is there, or name the file by its whole path"
        raise XboardError(f"{config_file}: the current folder was removed; {cure}") from None


def load_readable(config_file: str | Path, *, looks: bool = False) -> Config:
    """Parse what Circus can read of *config_file* and its included files, and leave out the rest."""
    path, shown = path_of(config_file), str(config_file)
    scans: list[Scan] = []
    with suppress(XboardError):
        scans = config_files.read_scans(path, shown, looks=looks)
    wrong = {(section, problem.option) for section, problem in config_files.misreadings(scans)}
    wrong |= {("circus", "include"), ("circus", "include_dir")}  # they are among the scans
    entries = (each for scan in scans for each in scan.entries if (each.section, each.option) not in wrong)
    lines = [f"[{each.section}]\n{each.option} = " + each.value.replace("\n", "\n\t") for each in entries]
    for text in ("\n".join(lines), ""):
        with suppress(Exception):  # whatever Circus raises for a value, such as one that we do not know
            return _load(path, shown, scans, text, looks=looks)
    raise XboardError(f"{shown}: Circus cannot read it")


def _load(path: Path, shown: str, scans: list[Scan], readable: str | None = None, *, looks: bool) -> Config:
    """Parse the file at *path*, or the text *readable* in its place: no temporary file, because a disk may be full."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a stats_endpoint alone; `check` reports it
        read = (str(path), readable, looks)
        raw, found = _read_config(*read)[0], get_config(*read)
    given = {name: {key: value for key, value in raw.items(name) if key != "__name__"} for name in raw.sections()}
    more = (place for main in scans[:1] for *_, places in config_files.included(main) for place in places)
    return Config(
        *(path, path.parent, shown, found["endpoint"], found["pubsub_endpoint"]),
        circus={key: value for key, value in found.items() if key not in ("watchers", "sockets", "plugins")},
        given=given.get("circus", {}),
        watchers=tuple(_watcher(each, given, path.parent) for each in found["watchers"]),
        sockets=tuple(_socket(each, given) for each in found["sockets"]),
        plugins=tuple(_plugin(each, given) for each in found["plugins"]),
        alerts=tuple(_alert(name, options) for name, options in given.items() if name.startswith(ALERT)),
        scans=tuple(scans),
        places=(path.parent, *(each.file for each in scans), *more),
    )


def _read_config(config_path: str, text: str | None, looks: bool) -> tuple[Any, list[str], Mapping[str, str]]:
    """Parse a file and what it includes, as Circus does, which would wait for a pipe, and read a file without end.

    Who may write the file may put either in its place after our own look at it. The environment is for what it quotes.
    """
    parser, main, found = circus.config.DefaultConfigParser(), Path(config_path), set[int]()
    if text is None:
        text = config_files.text_of(main, found)
    else:
        with suppress(FileNotFoundError):
            found = authors(main)
    parser.read_file(io.StringIO(text), config_path)
    parser.set_env({} if others_of(found, looks) else os.environ)
    words = parser.dget("circus", "include", "").split()
    words += [f"{word}/*.ini" for word in parser.dget("circus", "include_dir", "").split()]
    files = [file for word in words for file in config_files.matching(os.path.join(main.parent, word))[0]]
    del files[config_files.MOST_FILES :]

    def read(file: Path, others: Collection[User]) -> str:
        with suppress(OSError):
            return config_files.text_of(file, found, others)
        return ""

    texts = config_files.texts_of([*map(Path, files)], config_path, found, looks, read)
    for file, part in zip(files, texts, strict=True):
        parser.read_file(io.StringIO(part), file)
    defaults = len(parser.defaults())
    sections = {name: len(parser.options(name)) - defaults for name in parser.sections()}
    if why := config_files.too_much({**sections, "DEFAULT": defaults}):
        raise XboardError(why)
    environ = {} if others_of(found, looks) else os.environ
    parser.set_env(environ)
    return parser, [config_path, *files], environ


def get_config(config_path: str, text: str | None = None, looks: bool = False) -> Any:
    """Return what Circus's own function does, with our way of reading; that of circusd stays as it is."""
    parser, files, environ = _read_config(config_path, text, looks)
    seams = {"read_config": lambda _: (parser, files), "os": SimpleNamespace(path=os.path, environ=environ)}
    function = FunctionType(circus.config.get_config.__code__, {**vars(circus.config), **seams})
    return function(config_path if text is None else os.devnull)


def is_armed(watcher: WatcherConfig) -> bool:
    """Return whether the watcher's start goes through our guard."""
    return watcher.hooks.get("before_start", "").replace(":", ".") == ARM


def is_dashboard(watcher: WatcherConfig) -> bool:
    """Return whether a watcher runs our page."""
    return runs_dashboard(f"{watcher.cmd} {watcher.args}")


def is_backend(watcher: WatcherConfig) -> bool:
    """Return whether a start waits for the workers of an armed watcher: readiness never waits for our page."""
    return is_armed(watcher) and not is_dashboard(watcher)


def log_folders(config: Config) -> list[Path]:
    """Return the folders that must exist before circusd starts, because it drops a watcher that cannot open its log."""
    streams = (stream for watcher in config.watchers for stream in watcher.streams.values())
    files = [stream["filename"] for stream in streams if "filename" in stream]
    files += [str(config.circus[key]) for key in ("logoutput", "pidfile") if is_file(config.circus[key])]
    folders = [config.folder / file for file in files]
    plugins = [config.folder / plugin.options.log_dir for plugin in config.plugins if is_our_plugin(plugin)]
    return list(dict.fromkeys([*(file.parent for file in folders), *plugins]))


def is_our_plugin(plugin: PluginConfig) -> bool:
    """Return whether a plugin is of this package."""
    return plugin.use.startswith("xboard_circus.")


def _watcher(found: Mapping[str, Any], sections: Mapping[str, Mapping[str, str]], folder: Path) -> WatcherConfig:
    given = sections[found["__name__"]]
    options, problems = parse_watcher(given)
    cmd, args = str(found["cmd"] or ""), str(found["args"] or "")
    made = {name: found[name] for name in WatcherConfig._fields if name in found}
    made |= {"section": found["__name__"], "given": given, "cmd": cmd, "args": args}
    made |= {"options": options, "problems": tuple(problems), "max_age": int(found.get("max_age", 0))}
    made |= {"uid": found["uid"] or None, "gid": found["gid"] or None}
    made["hooks"] = {name: str(hook[0]) for name, hook in found["hooks"].items()}
    made["working_dir"] = folder / (found["working_dir"] or ".")
    made["sockets_used"] = tuple(dict.fromkeys(one or other for one, other in _SOCKET.findall(f"{cmd} {args}")))
    made["streams"] = {name: found[f"{name}_stream"] for name in ("stdout", "stderr") if found[f"{name}_stream"]}
    return WatcherConfig(**made)


def _socket(found: Mapping[str, Any], sections: Mapping[str, Mapping[str, str]]) -> SocketConfig:
    section, host, path = found["__name__"], found.get("host", "localhost"), found.get("path")
    port = None if path is not None else int(found.get("port", 8080))
    return SocketConfig(found["name"], section, sections[section], host, port, path, found["so_reuseport"])


def _plugin(found: Mapping[str, Any], sections: Mapping[str, Mapping[str, str]]) -> PluginConfig:
    given = sections[found["__name__"]]
    options, problems = parse_plugin(given)
    return PluginConfig(found["name"], given, found.get("use", ""), options, tuple(problems))


def _alert(section: str, given: Mapping[str, str]) -> AlertConfig:
    options, problems = parse_alert(given)
    return AlertConfig(section.removeprefix(ALERT).strip(), section, options, tuple(problems))


def absolute(endpoint: str, folder: Path) -> str:
    """Return an endpoint that means the same in any folder: a relative ipc:// starts in circusd's."""
    if endpoint.startswith("ipc://") and not endpoint.startswith(("ipc:///", "ipc://@")):
        # Without "..", because a unix path may have 107 bytes.
        return f"ipc://{os.path.abspath(folder / endpoint.removeprefix('ipc://'))}"
    return endpoint


def is_file(value: object) -> bool:
    """Return whether circusd's own output goes to a file, and not to its stdout or to syslog."""
    return bool(value) and value not in ("-", "stdout") and not str(value).startswith("syslog://")
