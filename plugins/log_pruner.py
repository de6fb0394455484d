"""Remove old rotated logs: files numbered by our log writer or by Circus, and no other file."""

import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from xboard_circus import config
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.old_logs import LogFolderEntry, expired
from xboard_circus.logs import LogFile, log_files
from xboard_circus.plugins._base import Commands, Part, XboardPlugin, ask_state

log = logging.getLogger("xboard_circus.plugins")

EVERY = 3600.0
AGAIN_AFTER = 30.0


class LogPruner(Part):
    """Remove, once an hour, rotated logs that were not written to for *keep_days*.

    The logs are those of circusd's ini file. A log that is still written to is never removed.
    """

    name = "log_pruner"
    period = EVERY

    def __init__(self, commands: Commands, *, keep_days: float) -> None:
        super().__init__(commands)
        self._keep_days = keep_days

    async def tick(self) -> float:
        """Remove the logs that are too old."""
        try:
            file = (await ask_state(self._commands))["circusd"]["config_file"]
        except (CircusdGone, CommandRefused):
            return AGAIN_AFTER  # it is busy, or no watcher is armed yet
        await self.in_thread(self._prune, str(file))
        return EVERY

    def _prune(self, config_file: str) -> None:
        for each in log_files(config.load(config_file)):
            for path in removed(each, keep_days=self._keep_days, now=time.time()):
                log.info("removed %s: not written to for %g days", path, self._keep_days)


def pruner_of(plugin: XboardPlugin) -> list[Part]:
    """Return the pruner of a plugin process."""
    return [LogPruner(plugin.commands, keep_days=plugin.options.logs.keep_days)]


def removed(log_file: LogFile, *, keep_days: float, now: float) -> list[Path]:
    """Remove the rotated files of *log_file* that are too old, and return them."""
    gone = []
    found = list(_found(log_file.old()))
    for name in expired(log_file.path.name, found, highest=log_file.old_files, keep_days=keep_days, now=now):
        path = log_file.path.with_name(name)
        # Its writer may have rotated meanwhile, so that a new file has the old one's name.
        if any(each in found for each in _found([path])):
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def _found(paths: list[Path]) -> Iterator[LogFolderEntry]:
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        yield LogFolderEntry(path.name, status.st_mtime, stat.S_ISREG(status.st_mode))
