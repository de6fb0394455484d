"""Put a new worker in the place of one that still runs: the new one ready first, then the old one drains."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import exactly
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker import Kept, Order, Ordered, Proven, Retired
from xboard_circus.supervisor.life import start
from xboard_circus.supervisor.life.spawn import SpawnRequest
from xboard_circus.supervisor.patches import circus_watcher

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

STEP = 0.05
KILL_SECONDS = 5.0
SETTLE = 5.0
"""Seconds that a new process has to run where nobody reports that it is ready."""


class Swap:
    """One worker that takes another's place, new one first.

    `numprocesses` is left alone: while the new one is made, the old one retires, and is none of that number.

    Attributes:
        cause: What the end of the old one is counted as; None where somebody asked for it and it costs nothing.
        by: Who asked, for the record.
        failure: Why the new one did not take over; the old one serves on then.
        has_handed_over: The new one is ready, and the old one is told to go.
    """

    def __init__(
        self, armed: ArmedWatcher, old: Worker, *, cause: Cause | None, by: str, reason: str, by_operator: bool = False
    ) -> None:
        self.armed = armed
        self.old = old
        self.cause = cause
        self.by = by
        self.reason = reason
        self.new: Worker | None = None
        self.failure: str | None = None
        self.log = ""
        self.has_handed_over = False
        self._order = Order(by=by, why=reason, cause=cause, by_operator=by_operator)

    async def run(self) -> str | None:
        """Replace it; return None when the new worker has taken over, else why it has not."""
        armed = self.armed
        armed.swaps.append(self)
        try:
            armed.happen(self.old, Retired(armed.clock()))
            announce(armed, self.old, self.cause, by=self.by, reason=self.reason)
            self._spawn()
            await self._until_ready()
            if self.failure is None:
                await self._hand_over()
            elif self.new is not None and self.new.pid in armed.fleet:
                await self._end_new(self.new, self.failure)
        finally:
            self._keep_old()
            # Before it is over: the end of a new one that had to be killed is counted now, and it costs no restart.
            armed.keep_up()
            armed.swaps.remove(self)
        if self.failure is not None:
            kept = Say.KEPT(why=self.reason, failure=self.failure)
            more = {"pid": self.old.pid, "wid": self.old.wid, "slot": self.old.slot, **with_say(self.by, "by")}
            armed.publish("kept", reason=kept, **more)
        return self.failure

    def is_trying(self, worker: Worker) -> bool:
        """Say whether this is the new worker of a replacement that was asked for: its failure costs no restart."""
        return worker is self.new and self.cause is None and not self.has_handed_over

    def ended(self, worker: Worker, reason: str, log: str) -> None:
        """Note that a worker of the swap ended, in the tick in which that is counted."""
        if worker is self.new and not self.has_handed_over:
            self.failure = self.failure or Say.NEW_FAILED(why=reason)
            self.log = log
            self._keep_old()

    def _keep_old(self) -> None:
        if not self.has_handed_over:
            self.armed.happen(self.old, Kept(self.armed.clock()))

    def _spawn(self) -> None:
        armed = self.armed
        known = {worker.pid for worker in armed.fleet}
        armed.spawn_for(SpawnRequest(successor_of=self.old, at_once=self.cause is None))
        self.new = next((worker for worker in armed.fleet if worker.pid not in known), None)
        if self.new is None:
            self.failure = Say.NOT_SPAWNED(why=armed.last_reason)

    async def _until_ready(self) -> None:
        armed, new = self.armed, self.new
        limit = armed.options.health.startup_timeout
        began_at, paused_before = armed.clock(), armed.supervisor.paused_for
        while self.failure is None and new is not None and not self._is_ready(new):
            took = armed.clock() - began_at - (armed.supervisor.paused_for - paused_before)
            if not armed.is_running():
                self.failure = Say.WATCHER_STOPPED_MEANWHILE()
            elif took > limit:
                self.failure = Say.NEW_NOT_READY(timeout=exactly(limit))
            elif self.old.pid not in armed.fleet:
                return  # it died by itself; the new one is its successor already
            else:
                await asyncio.sleep(STEP)
                start.see_progress(armed)

    def _is_ready(self, new: Worker) -> bool:
        """Say whether the new worker can take over.

        A server that is not our worker does not report: it has to run for a while, so that an app that cannot be
        imported ends before the old worker is told to go.
        """
        armed = self.armed
        if not (new.is_up and new.life.was_ready):
            return False
        settled_at = new.released_at + min(SETTLE, armed.options.health.startup_timeout)
        return armed.has_private_socket or armed.clock() >= settled_at

    async def _hand_over(self) -> None:
        """End the old worker, which drains; its place is taken."""
        armed, old = self.armed, self.old
        self.has_handed_over = True
        if self.new is not None:
            armed.happen(self.new, Proven(armed.clock()))
        if old.pid not in armed.fleet or not armed.is_running():
            return
        armed.happen(old, Ordered(armed.clock(), self._order, armed.patience))
        await circus_watcher.kill(armed.watcher, old.process, None)

    async def _end_new(self, new: Worker, failure: str) -> None:
        armed = self.armed
        order = Order(by=self.by, why=failure, cause=Cause.FAILED_START)
        armed.happen(new, Ordered(armed.clock(), order, armed.patience))
        await circus_watcher.kill(armed.watcher, new.process, min(KILL_SECONDS, armed.watcher.graceful_timeout))
        # Circus sends SIGKILL and does not look whether it is dead.
        end = armed.clock() + KILL_SECONDS
        while armed.clock() < end and not new.has_ended():
            await asyncio.sleep(STEP)


def announce(armed: ArmedWatcher, worker: Worker, cause: Cause | None, *, by: str, reason: str) -> None:
    """Publish that a worker is going to be replaced, and why."""
    name = (cause or Cause.COMMANDED).value
    more = {"pid": worker.pid, "wid": worker.wid, "slot": worker.slot, "cause": name, **with_say(by, "by")}
    armed.publish("replace", reason=reason, **more)
