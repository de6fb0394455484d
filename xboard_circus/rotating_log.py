"""Write the log of circusd or a plugin: rotated by its writer, and never a reason to stop working."""

import logging
import os
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from xboard_circus.host.written_files import opener, refuse_behind_link, rotate_held

CIRCUSD_OLD_FILES, PLUGIN_OLD_FILES = 5, 3


class RotatingLog(RotatingFileHandler):
    """Write to *path* and keep *old_files* of *max_bytes*; a failed write loses the line, and nothing else.

    The file is opened at the first line, and again after every failure, so that a folder may be made or a disk cleared
    at any time. A file that was moved away is left alone, and a new one begun.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int, old_files: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=old_files, encoding="utf-8", delay=True)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=opener)

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream
        if stream is not None and self._is_moved(stream):
            self._drop_stream()
        if self.stream is None:
            with suppress(OSError):
                refuse_behind_link(folder := Path(self.baseFilename).parent)
                folder.mkdir(parents=True, exist_ok=True)
        super().emit(record)

    def doRollover(self) -> None:  # noqa: N802 - the name is logging's
        rotate_held(self, "baseFilename", super().doRollover)  # with `delay` it opens nothing

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        # A rotation that failed half way leaves a closed file, which could never be written to again.
        self._drop_stream()

    def _is_moved(self, stream: IO[str]) -> bool:
        with suppress(OSError, ValueError):
            return not os.path.samestat(os.stat(self.baseFilename), os.fstat(stream.fileno()))
        return True

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()
