"""Prepare a start or a reload before a new worker runs: check for files open to root's rights, read env files, run
`run.before`.

Until then no worker of a start is spawned. circusd itself goes on, because the command runs beside it.
"""

import asyncio
import shlex
from typing import TYPE_CHECKING

from xboard_circus.core.durations import backoff, seconds
from xboard_circus.core.one_shot import failure_of
from xboard_circus.core.sentences import Say
from xboard_circus.core.verdict import Preparation
from xboard_circus.env_files import EnvFileError
from xboard_circus.masking import safe_command
from xboard_circus.supervisor.run_once import OneShot

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

LOOK_EVERY = 5.0


class BeforeStart:
    """Preparation of a start, or of a reload, before a worker may run.

    Attributes:
        pending: What keeps the workers of a start from running; None when it is prepared.
        lacks_env: The env files cannot be read, or must not be.
        log: The last lines of output of `run.before`.
    """

    def __init__(self, armed: "ArmedWatcher") -> None:
        self.armed = armed
        self.pending: Preparation | None = None
        self.log = ""
        self._look_at = 0.0
        self._start = self._failures = 0
        self.lacks_env = False
        self._runs: set[OneShot] = set()
        self._turn = asyncio.Lock()

    @property
    def is_done(self) -> bool:
        """Return whether workers may run."""
        return self.pending is None

    def begin(self) -> None:
        """Begin the preparation of a start."""
        self.stop()
        self._start += 1
        self._failures = 0
        self.pending = None
        if self._is_fit() and self.armed.options.run.before:
            self._begin_run()

    def look_again(self) -> None:
        """Retry what failed at the start, when it is time."""
        if self.pending is None or self._runs or self.armed.clock() < self._look_at:
            return
        if self.armed.is_running() and self._is_fit() and self.armed.options.run.before:
            self._begin_run()

    def view(self) -> Preparation | None:
        """Return what holds the start, for the verdict."""
        if self.pending is None or self.pending.runs:
            return self.pending
        return self.pending._replace(retry_in=max(0.0, self._look_at - self.armed.clock()))

    def stop(self) -> None:
        """End the current runs, because the watcher stops or starts anew."""
        for run in self._runs:
            run.stop()

    async def until_ended(self) -> None:
        """Wait until no run is left, after `stop`."""
        while self._runs:
            await asyncio.sleep(0.05)

    def doing(self) -> str:
        """Return what a reload does first; "" for nothing."""
        command = self.armed.options.run.before
        return Say.BEFORE_RUNS(command=safe_command(shlex.split(command))) if command else ""

    async def for_reload(self) -> str | None:
        """Run `run.before` for a reload; return why it failed. A start that it held goes on."""
        failure = await self._run()
        if failure is None and self.pending is not None:
            self._done()
        return failure

    async def _run(self) -> str | None:
        """Run `run.before` once; return why it failed. A start and a reload take turns."""
        armed, options = self.armed, self.armed.options.run
        if not options.before:
            return None
        async with self._turn:
            began_at, run = armed.clock(), OneShot(armed, options.before, timeout=options.before_timeout)
            self._runs.add(run)
            try:
                end = await run.run()
            finally:
                self._runs.discard(run)
        self.log, failure = end.output, failure_of(end)
        took = armed.clock() - began_at
        if failure is None:
            armed.publish("before_done", reason=Say.BEFORE_DONE(took=seconds(took)), log=self.log)
        else:
            armed.note_reason(failure)
            armed.publish("before_failed", reason=failure, log=self.log)
        return failure

    def _begin_run(self) -> None:
        self.pending = Preparation(reason=self.doing(), runs=True)
        what = f"run.before of {self.armed.name}"
        self.armed.supervisor.run(self._run_for(self._start), what, lambda: self._failed(Say.BEFORE_KILLED()))

    async def _run_for(self, start: int) -> None:
        failure = await self._run()
        if start != self._start or not self.armed.is_running():
            return
        if failure is None:
            self._done()
        else:
            self._failed(failure)

    def _done(self) -> None:
        self.pending = None
        self.armed.keep_up()

    def _failed(self, failure: str) -> None:
        self._failures += 1
        limits = self.armed.options.restart
        wait = backoff(self._failures, first=max(1.0, limits.delay), longest=max(1.0, limits.delay_max))
        self.pending = Preparation(Say.BEFORE_NO_START(why=failure), Say.CURE_BEFORE(watcher=self.armed.name))
        self._try_in(wait)

    def _try_in(self, wait: float) -> None:
        self._look_at = self.armed.clock() + wait
        self.armed.supervisor.soon(wait)

    def _is_fit(self) -> bool:
        """Check for open doors, and read the env files for a start; return whether both succeeded."""
        armed = self.armed
        if (found := self._open_door() or self._read_env_files()) is not None:
            if self.pending != found:
                armed.note_reason(found.reason)
            self.pending, self.lacks_env = found, True
            self._try_in(LOOK_EVERY)
            return False
        if self.lacks_env:
            self.pending, self.lacks_env = None, False
        return True

    def _open_door(self) -> Preparation | None:
        """Find what the watcher's user may write of what root's circusd uses; `check` and `start` refuse the same."""
        if self.armed.watcher.uid is None:
            return None
        from xboard_circus.checks.judgement import open_doors  # imported only for watchers with a user of their own

        doors = open_doors(self.armed.supervisor.config_file, self.armed.name)
        why, how = ("; ".join(texts) for texts in ([door.what for door in doors], [door.hint for door in doors]))
        return Preparation(Say.DOOR_OPEN(why=why), Say.CURE_DOOR(how=how)) if doors else None

    def _read_env_files(self) -> Preparation | None:
        try:
            self.armed.read_env_files()
        except EnvFileError as error:
            return Preparation(reason=Say.ENV_FILE_UNUSABLE(why=str(error)), cure=Say.CURE_ENV_FILE())
        return None
