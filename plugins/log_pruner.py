"""Remove old rotated logs: files numbered by our log writer or by Circus, and no other file."""

import logging
import stat
import time
from contextlib import suppress
from pathlib import Path

from xboard_circus.checks.authorship import load_own
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.incidents import DAY
from xboard_circus.host.written_files import held
from xboard_circus.logs import LogFile, log_files
from xboard_circus.plugins._base import Commands, Part, XboardPlugin, ask_state

log = logging.getLogger("xboard_circus.plugins")

EVERY, AGAIN_AFTER = 3600.0, 30.0


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
        for each in log_files(load_own(config_file)):
            try:
                for path in removed(each, keep_days=self._keep_days, now=time.time()):
                    log.info("removed %s: not written to for %g days", path, self._keep_days)
            except OSError as error:
                log.warning("%s: its old files are not removed: %s", each.path, error.strerror)


def pruner_of(plugin: XboardPlugin) -> list[Part]:
    """Return the pruner of a plugin process."""
    return [LogPruner(plugin.commands, keep_days=plugin.options.logs.keep_days)]


def removed(log_file: LogFile, *, keep_days: float, now: float) -> list[Path]:
    """Remove the rotated files of *log_file* that are too old, and return them; no link or folder with such a name."""
    gone = []
    with suppress(FileNotFoundError), held(log_file.path) as held_path:
        for path in log_file._replace(path=held_path).old():
            with suppress(FileNotFoundError):  # its writer has rotated meanwhile
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and now - status.st_mtime > keep_days * DAY:
                    path.unlink()
                    gone.append(log_file.path.with_name(path.name))
    return gone
