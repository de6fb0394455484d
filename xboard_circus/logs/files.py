"""List the log files of an ini file: an allow-list, so that a name from outside is never used as a path."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from xboard_circus.config import Config, is_file, is_our_plugin
from xboard_circus.core.names import plugin_log_name
from xboard_circus.core.sentences import Say
from xboard_circus.rotating_log import CIRCUSD_OLD_FILES, PLUGIN_OLD_FILES

# The default of `xboard-circus start` for a circusd without a log in the ini.
CIRCUSD_LOG = Path("logs", "circusd.log")
CIRCUSD_OUT = Path("logs", "circusd.out")
MONITOR_LOG, MONITOR_OLD_FILES = Path("logs", "monitor.log"), 5


class LogFile(NamedTuple):
    """One log file.

    Attributes:
        id: Short and safe in a URL, such as ``xboard``, ``xboard.out``, ``circusd``, ``plugin-xboard``.
        title: Its description, for a person.
        watcher: The watcher that writes it; None for circusd's and the plugins' own.
        old_files: How many files ``PATH.1`` and so on its writer, ours or Circus's, keeps; 0 where another program
            rotates it or none does.
    """

    id: str
    title: str
    path: Path
    watcher: str | None
    old_files: int = 0

    def old(self) -> list[Path]:
        """Return the existing rotated files, newest first."""
        try:
            names = os.listdir(self.path.parent)
        except OSError:
            return []
        number = re.compile(re.escape(self.path.name) + r"\.([1-9][0-9]{0,4})")
        numbered = [(int(match[1]), name) for name in names if (match := number.fullmatch(name))]
        return [self.path.parent / name for count, name in sorted(numbered) if count <= self.old_files]


Streams = Mapping[str, Mapping[str, str]]


def log_files(config: Config, streams: Mapping[str, Streams] | None = None) -> list[LogFile]:
    """Return the logs of *config*, the watchers' first; two names of one file are one log.

    *streams* are those of the watchers by name where the file is gone, and does not name them.
    """
    found: dict[Path, LogFile] = {}
    taken: set[str] = set()
    for each in _named(config, {watcher.name: watcher.streams for watcher in config.watchers} | {**(streams or {})}):
        path = Path(os.path.normpath(each.path))
        if path in found:
            title = Say.LOGS(titles=[found[path].title, each.title])
            found[path] = found[path]._replace(title=title, old_files=max(found[path].old_files, each.old_files))
            continue
        found[path] = each._replace(id=_unique(each.id, taken), path=path)
    return list(found.values())


def _named(config: Config, streams: Mapping[str, Streams]) -> Iterator[LogFile]:
    """Yield each log by its writer: watchers, circusd, plugins, and the monitor."""
    for watcher, of_watcher in streams.items():
        for stream in ("stderr", "stdout"):
            options = of_watcher.get(stream)
            if options and options.get("filename"):
                name = watcher if stream == "stderr" else f"{watcher}.out"
                path = config.folder / options["filename"]
                title = Say.LOG_OF_WATCHER(watcher=watcher, stream=stream)
                yield LogFile(name, title, path, watcher, _old_files(options))
    given = config.given.get("logoutput", str(CIRCUSD_LOG))
    if is_file(given):
        yield LogFile("circusd", Say.LOG_OF_CIRCUSD(), config.folder / given, None, CIRCUSD_OLD_FILES)
    yield LogFile("circusd.out", Say.LOG_OF_PRINTED(), config.folder / CIRCUSD_OUT, None, 1)
    for plugin in filter(is_our_plugin, config.plugins):
        path = config.folder / plugin.options.log_dir / plugin_log_name(plugin.name)
        yield LogFile(path.stem, Say.LOG_OF_PLUGIN(plugin=plugin.name), path, None, PLUGIN_OLD_FILES)
    found = LogFile("monitor", Say.LOG_OF_MONITOR(), config.folder / MONITOR_LOG, None, MONITOR_OLD_FILES)
    if os.path.exists(found.path) or found.old():  # most circusds run without a monitor, under systemd or Docker
        yield found


def _old_files(options: Mapping[str, str]) -> int:
    """Return how many files Circus's FileStream keeps beside its current one; other classes rotate otherwise."""
    if options.get("class", "FileStream") != "FileStream":
        return 0
    try:
        most, count = int(options.get("max_bytes", 0)), int(options.get("backup_count", 0))
    except ValueError:
        return 0
    return max(0, count) if most > 0 else 0


def _unique(name: str, taken: set[str]) -> str:
    """Return *name* as an id that no other log has, and add it to *taken*."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "log"
    unique, number = plain, 2
    while unique.lower() in taken:
        unique, number = f"{plain}-{number}", number + 1
    taken.add(unique.lower())
    return unique
