"""Put a new worker in the place of one that still runs: the new one ready first, or a wedged one's stack first."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from circus import logger
from psutil import NoSuchProcess

from xboard_circus.core.causes import Cause
from xboard_circus.core.sentences import Say
from xboard_circus.supervisor import starting
from xboard_circus.supervisor.spawning import Wanted

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.slot import Spawned

STEP = 0.05
STACK_SECONDS = 1.5
KILL_SECONDS = 5.0


class Replacement:
    """One worker that takes another's place, new one first. One at a time in a watcher, whatever the reason.

    `numprocesses` is left alone. The old worker's Process is made to look the oldest and already stopping, so that
    Circus takes it, and nothing else, for the surplus, and cannot kill it before the new one is ready.

    Attributes:
        cause: What the end of the old one is counted as; None where somebody asked for it and it costs nothing.
        by: Who asked, for the record.
        failure: Why the new one did not take over; the old one serves on then.
    """

    def __init__(self, armed: ArmedWatcher, old: Spawned, *, cause: Cause | None, by: str, reason: str) -> None:
        self.armed = armed
        self.old = old
        self.cause = cause
        self.by = by
        self.reason = reason
        self.new: Spawned | None = None
        self.failure: str | None = None
        self.log = ""
        self._handed_over = False

    async def run(self) -> str | None:
        """Replace it; return None when the new worker has taken over, else why it has not."""
        armed = self.armed
        if armed.replacement is not None:
            return Say.ANOTHER_RIGHT_NOW()
        armed.replacement = self
        decided(armed, self.old, self.cause, by=self.by, reason=self.reason)
        try:
            self._set_aside()
            self._spawn()
            await self._until_ready()
            if self.failure is None:
                self._handed_over = True
                await self._let_go()
            elif self.new is not None and self.new.pid in armed.live:
                if not self.new.commanded_by:  # by whom the watcher was stopped meanwhile
                    self.new.our_kill, self.new.our_reason = Cause.FAILED_START, self.failure
                await self._kill(self.new, min(KILL_SECONDS, armed.watcher.graceful_timeout))
                await self._until_gone(self.new)
        finally:
            self._put_back()
            # Before it is over: the end of a new one that had to be killed is counted now, and it costs no restart.
            armed.reap_and_respawn()
            armed.replacement = None
        if self.failure is not None:
            kept = Say.KEPT(why=self.reason, failure=self.failure)
            armed.publish("kept", reason=kept, by=self.by, pid=self.old.pid, wid=self.old.wid)
        return self.failure

    def is_trying(self, spawned: Spawned) -> bool:
        """Say whether this is the new worker of a replacement that was asked for: its failure costs no restart."""
        return spawned is self.new and self.cause is None and not self._handed_over

    def ended(self, spawned: Spawned, reason: str, log: str) -> None:
        """Hear that a process of the watcher ended, in the tick in which that is counted."""
        if spawned is self.new and not self._handed_over:
            self.failure = self.failure or Say.NEW_FAILED(why=reason)
            self.log = log
            self._put_back()

    def _set_aside(self) -> None:
        self.old.retiring = True
        self.old.set_aside()

    def _put_back(self) -> None:
        if self._handed_over or not self.old.retiring:
            return
        self.old.retiring = False
        self.old.put_back()

    def _spawn(self) -> None:
        armed = self.armed
        known = set(armed.live)
        armed.spawn_for(Wanted(successor_of=self.old, at_once=self.cause is None))
        self.new = next((spawned for pid, spawned in armed.live.items() if pid not in known), None)
        if self.new is None:
            self.failure = Say.NOT_SPAWNED(why=armed.last_reason)

    async def _until_ready(self) -> None:
        armed, new = self.armed, self.new
        limit = armed.options.health.startup_timeout
        end = armed.clock() + limit
        while self.failure is None and new is not None and new.ready_at is None:
            if not armed.is_running():
                self.failure = Say.WATCHER_STOPPED_MEANWHILE()
            elif armed.clock() > end:
                self.failure = Say.NEW_NOT_READY(timeout=f"{limit:g} s")
            elif self.old.pid not in armed.live:
                return  # it died by itself; the new one is its successor already
            else:
                await asyncio.sleep(STEP)
                starting.see_ready(armed)

    async def _let_go(self) -> None:
        """End the old worker, which drains; its place is taken."""
        old = self.old
        if old.pid not in self.armed.live or not self.armed.is_running():
            return
        if self.cause is None:
            old.commanded_by, old.our_reason = self.by, self.reason
        else:
            old.our_kill, old.our_reason = self.cause, self.reason
        old.draining = True
        await self._kill(old, None)

    async def _until_gone(self, spawned: Spawned) -> None:
        """Wait for the end that a SIGKILL brings: Circus sends it and does not look whether it is dead."""
        end = self.armed.clock() + KILL_SECONDS
        while self.armed.clock() < end and not spawned.has_ended():
            await asyncio.sleep(STEP)

    async def _kill(self, spawned: Spawned, graceful_timeout: float | None) -> None:
        spawned.process.stopping = False
        await self.armed.watcher.kill_process(spawned.process, graceful_timeout=graceful_timeout)


def decided(armed: ArmedWatcher, spawned: Spawned, cause: Cause | None, *, by: str, reason: str) -> None:
    """Tell that a worker is going to be replaced, and why."""
    name = (cause or Cause.COMMANDED).value
    armed.publish("replace", reason=reason, by=by, pid=spawned.pid, wid=spawned.wid, cause=name)


async def kill_wedged(armed: ArmedWatcher, spawned: Spawned, reason: str) -> None:
    """End a worker whose event loop does not answer, with the stack of every thread in its log.

    SIGABRT makes faulthandler write the stacks; a process under SIGSTOP only does so after SIGCONT. A worker that
    survives that gets SIGKILL: it cannot drain, since it cannot do anything.
    """
    decided(armed, spawned, Cause.UNHEALTHY, by="probe", reason=reason)
    spawned.our_kill, spawned.our_reason = Cause.UNHEALTHY, reason
    process = spawned.process
    children = _children(process)
    for signum in (signal.SIGABRT, signal.SIGCONT):
        _signal(process, signum)
    end = armed.clock() + STACK_SECONDS
    while armed.clock() < end and not spawned.has_ended():
        await asyncio.sleep(STEP)
    if not spawned.has_ended():
        _signal(process, signal.SIGKILL)
    for child in children:
        try:
            child.kill()
        except NoSuchProcess:
            continue
    while not spawned.has_ended():
        await asyncio.sleep(STEP)
    armed.reap_and_respawn()


def _children(process: Any) -> list[Any]:
    try:
        return list(process._worker.children(recursive=True))
    except NoSuchProcess:
        return []


def _signal(process: Any, signum: int) -> None:
    """Signal a child of circusd. It is not reaped yet, so its pid is nobody else's."""
    try:
        os.kill(process.pid, signum)
    except ProcessLookupError:
        logger.debug("xboard: %s was gone before signal %s", process.pid, signum)
