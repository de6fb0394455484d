"""Remove old rotated logs: those that a writer of ours or of Circus has numbered, and no other file."""

from __future__ import annotations

import asyncio
import logging
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xboard_circus import config
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.old_logs import LogFolderEntry, expired
from xboard_circus.logs import LogFile, log_files
from xboard_circus.plugins._base import BusEvent, Commands, XboardPlugin

log = logging.getLogger("xboard_circus.plugins")

EVERY = 3600.0
AGAIN_AFTER = 30.0


class LogPruner:
    """Once an hour removes the rotated logs of circusd's ini that nobody has written to for *keep_days*.

    Which logs there are it asks circusd's ini file, and of that circusd. A log that is written to is never removed.
    """

    name = "log_pruner"
    period = EVERY

    def __init__(
        self, commands: Commands, *, keep_days: float, wall_clock: Callable[[], float] = time.time, every: float = EVERY
    ) -> None:
        self._commands = commands
        self._keep_days = keep_days
        self._wall_clock = wall_clock
        self._every = every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")

    def handle_event(self, event: BusEvent) -> None:
        """Nothing that happens matters here."""

    async def tick(self) -> float:
        """Remove what is too old."""
        try:
            state = await self._commands.call("xboard_state")
        except (CircusdGone, CommandRefused):
            return AGAIN_AFTER  # it is busy, or no watcher is armed yet
        file = str(state["circusd"]["config_file"])
        for path in await asyncio.get_running_loop().run_in_executor(self._thread, self._prune, file):
            log.info("removed %s: not written to for %g days", path, self._keep_days)
        return self._every

    async def close(self) -> None:
        """Nothing is lost by an end."""

    def _prune(self, config_file: str) -> list[Path]:
        files = log_files(config.load(config_file))
        return [path for each in files for path in removed(each, keep_days=self._keep_days, now=self._wall_clock())]


def pruner_of(plugin: XboardPlugin) -> LogPruner:
    """Return a pruner with the options of *plugin*."""
    return LogPruner(plugin.commands, keep_days=plugin.options.logs.keep_days)


def removed(log_file: LogFile, *, keep_days: float, now: float) -> list[Path]:
    """Remove the rotated files of *log_file* that are too old, and return them."""
    folder, gone = log_file.path.parent, []
    found = list(_found(log_file.old()))
    for name in expired(log_file.path.name, found, highest=log_file.old_files, keep_days=keep_days, now=now):
        path = folder / name
        # Its writer may have rotated meanwhile, so that a new file has the old one's name.
        if [each for each in _found([path]) if each in found]:
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
