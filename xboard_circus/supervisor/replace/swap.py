"""Replace a worker that still runs: its successor is ready first, then the old one drains."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import exactly
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.worker_phases import Gone, Kept, Order, Proven, Retired
from xboard_circus.supervisor.life.spawn import SpawnRequest
from xboard_circus.supervisor.life.start import found_late
from xboard_circus.supervisor.replace.terminate import announcement, until_ended

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

KILL_SECONDS = 5.0
LOOK = 0.02
SETTLE = 5.0
"""Seconds that a new process has to run where none reports that it is ready."""
ANSWERS, DECIDED_WITHIN, UNASKED_WITHIN = 2, 600.0, 10.0
"""So many probes in a row show that a blocked worker is back, and has done what it left; if nothing is known of it in
so many seconds, or in so many without its private socket, it is ended as in a reload."""


class Swap:
    """Replacement of one worker by another, new one first.

    `numprocesses` does not change: while the new one is made, the old one retires and does not count.

    Attributes:
        blocked: Why the old one is blocked, and perhaps hung, "" if it is not: it is ordered to leave when it answers
            again, and not when the new one is ready. Until then it may be killed as hung, see `admission.replace`. Like
            *order* it is why this replacement was begun: set once, and over with it. It is no data of a phase, because
            it outlasts the old worker's phases and is about both workers; what each of them is now, such as hung or
            leaving, is in its life alone.
        order: The old worker's order to leave. Without a cause it was requested, and uses no restart budget.
        handed_over: Done when the new one is ready, and the old one is ordered to leave.
    """

    def __init__(self, armed: ArmedWatcher, old: Worker, order: Order, *, blocked: str = "") -> None:
        self.armed = armed
        self.old = old
        self.order = order
        self.blocked = blocked
        self.new: Worker | None = None
        self.handed_over = armed.supervisor.loop.create_future()

    @property
    def has_handed_over(self) -> bool:
        return self.handed_over.done()

    async def run(self) -> str | None:
        """Replace the worker; return None when the new one has taken over, otherwise why the old one is kept.

        If the successor cannot start beside the old one, the old one has to go first.
        """
        armed, old, order = self.armed, self.old, self.order
        armed.publish("replace", **announcement(old, order))
        if armed.why_alone():
            await armed.end(old, order)
            return None
        armed.swaps.append(self)
        try:
            armed.happen(old, Retired())
            failure = await self._try()
        finally:
            self._keep_old()
            # Before it is over, so that the end of a new one that had to be killed is counted now, without the restart
            # budget.
            armed.keep_up()
            armed.swaps.remove(self)
        if failure is not None and old.pid in armed.fleet and not old.is_leaving:
            if self.blocked:
                self._pause()
            kept = Say.KEPT(why=order.why, failure=failure)
            armed.note_reason(kept)
            armed.publish("kept", reason=kept, **old.ids, **with_say(order.by, "by"))
        return failure

    def ended(self, worker: Worker) -> bool:
        """Keep the old worker in the tick in which the end of the new one is counted; return whether it was on trial.

        The failure of the new worker of a requested replacement uses no restart budget.
        """
        on_trial = self.order.cause is None and not self.has_handed_over
        if worker is self.new:
            self._keep_old()
        return worker is self.new and on_trial

    def _keep_old(self) -> None:
        # A blocked one that was ended with its successor has no place to keep.
        if not (self.has_handed_over or (self.blocked and self.old.is_leaving)):
            self.armed.happen(self.old, Kept())

    async def _try(self) -> str | None:
        armed, old = self.armed, self.old
        known = {worker.pid for worker in armed.fleet}
        armed.spawn_for(SpawnRequest(slot=old.slot, successor_of=old, at_once=self.order.cause is None))
        new = self.new = next((worker for worker in armed.fleet if worker.pid not in known), None)
        if new is None:
            return Say.NOT_SPAWNED(why=armed.last_reason)
        failure = await until_ready(armed, new, instead_of=old)
        if failure is None:
            self.handed_over.set_result(None)
            armed.happen(new, Proven())
            if self.blocked and not await self._comes_back():
                return None
            if old.pid in armed.fleet and armed.is_running():
                await armed.end(old, self.order)
        elif new.pid in armed.fleet:
            order = Order(by=self.order.by, why=failure, cause=Cause.FAILED_START)
            await armed.end(new, order, within=min(KILL_SECONDS, armed.watcher.graceful_timeout))
            # Circus sends SIGKILL without a look whether it is dead.
            await until_ended(new, KILL_SECONDS)
        return failure

    def _pause(self) -> None:
        """Have no blocked worker get a successor for a while, after one that was of no use.

        An app that has blocked its event loop for so long does it again, and each time costs a fork and a drain, in
        which WebSockets end. There is none after a worker that hung: its slot has its restart budget.
        """
        self.armed.ahead_not_before = self.armed.clock() + self.armed.options.restart.cooldown

    async def _comes_back(self) -> bool:
        """Wait until it is known of the old worker whether it hangs; return whether it is to drain.

        It serves on until as many others do as are wanted: its successor may hang, or have died.
        """
        armed, old, began_at = self.armed, self.old, self.armed.clock()

        def answers(worker: Worker, times: int) -> bool:
            last = list(worker.probes)[-times:]
            return len(last) == times and all(each["at"] > began_at and each["latency"] is not None for each in last)

        while old.pid in armed.fleet and not old.is_leaving and armed.is_running():
            is_late = armed.clock() - began_at > (UNASKED_WITHIN if armed.lacks_socket(old) else DECIDED_WITHIN)
            if is_late or answers(old, ANSWERS):
                others = [each for each in armed.fleet.counted() if each.is_up and each.life.was_ready]
                if sum(is_late or answers(each, 1) for each in others) >= armed.watcher.numprocesses:
                    self._pause()
                    if answers(old, ANSWERS):
                        self.order = self.order._replace(why=Say.CAME_BACK(why=self.blocked))
                    return True
            await asyncio.sleep(LOOK)
        return False


async def until_ready(armed: ArmedWatcher, new: Worker, *, instead_of: Worker | None = None) -> str | None:
    """Wait until a worker can take over; return the reason why it cannot, or None.

    One that has lost its predecessor meanwhile has its place already. Time in which circusd stood still does not count.
    """
    limit = armed.options.health.startup_timeout
    began_at, paused_before = armed.clock(), armed.supervisor.paused_for

    def is_ready() -> bool:
        # A server that is not our worker does not report. It has to run for a while, so that an app that cannot be
        # imported ends before the old worker is ordered to leave.
        has_settled = armed.has_private_socket or armed.clock() >= new.spawned_at + min(SETTLE, limit)
        return new.is_up and new.life.was_ready and has_settled

    while not is_ready():
        took = armed.clock() - began_at - (armed.supervisor.paused_for - paused_before)
        if isinstance(new.life.phase, Gone):
            return Say.NEW_FAILED(slot=new.slot, why=new.life.phase.reason)
        if not armed.is_running():
            return Say.WATCHER_STOPPED_MEANWHILE()
        if took > limit:
            late = found_late(Say.NEW_NOT_READY(slot=new.slot, timeout=exactly(limit)), new.pid, limit)
            return Say.FOUND(found=late, why=new.life.reason) if new.life.reason else late
        if instead_of is not None and instead_of.pid not in armed.fleet:
            return None
        await asyncio.sleep(LOOK)
        armed.see_progress()
    return None
