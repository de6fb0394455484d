"""Prepare a start: its workers wait at their gates until the env files can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xboard_circus.core.sentences import Say
from xboard_circus.core.verdict import Preparation
from xboard_circus.env_files import EnvFileError

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

LOOK_EVERY = 5.0


class BeforeStart:
    """What has to be done before a worker of this start may run.

    Attributes:
        pending: What is in the way; None when the start is prepared.
    """

    def __init__(self, armed: ArmedWatcher) -> None:
        self.armed = armed
        self.pending: Preparation | None = None
        self._look_at = 0.0

    @property
    def is_done(self) -> bool:
        """Return whether workers may run."""
        return self.pending is None

    def begin(self) -> None:
        """Begin with the preparation of a start."""
        self.pending = None  # those that an earlier start left are being ended
        self._read_env_files()

    def look_again(self) -> None:
        """Read env files again that could not be used at the start."""
        if self.pending is not None and self.armed.clock() >= self._look_at and self.armed.is_running():
            self._read_env_files()

    def view(self) -> Preparation | None:
        """Return what is in the way, for the verdict."""
        return self.pending

    def _read_env_files(self) -> None:
        armed = self.armed
        try:
            armed.read_env_files()
        except EnvFileError as error:
            self._look_at = armed.clock() + LOOK_EVERY
            found = Preparation(reason=Say.ENV_FILE_UNUSABLE(why=str(error)), cure=Say.CURE_ENV_FILE())
            if self.pending != found:
                armed.note_reason(found.reason)
            self.pending = found
            armed.supervisor.soon(LOOK_EVERY)
        else:
            if self.pending is not None:
                armed.end_waiting(Say.ENV_FILE_READ(), by=Say.ENV_FILE_READ())
            self.pending = None
