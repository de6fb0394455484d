"""Reload a watcher: its workers are replaced one by one, the new one ready before the old one is told to go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from circus.exc import MessageError

from xboard_circus.core.reason import data_of, with_say
from xboard_circus.core.sentences import Say, state_named
from xboard_circus.core.state_schema import ReloadEntry
from xboard_circus.core.worker import Gone, Leaving, Order, Released
from xboard_circus.supervisor.replace import spares
from xboard_circus.supervisor.replace.swap import Swap, until_ready

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

WAIT = 0.1
LEAVES_WITHIN = 5.0


class RollingReload:
    """One reload, running or done. The first new worker that does not get ready ends it.

    A held worker serves nobody and is started at once, with the new code. The first worker that gets ready proves that
    the code works, and what was failed before is forgiven.

    Attributes:
        state: "running", "done", "failed" or "stopped".
        reason: Why it failed, with the last lines of the new worker's log in *log*.
        cut: How many requests of old workers were cut off at their drain limit.
    """

    def __init__(self, armed: ArmedWatcher, *, by: str) -> None:
        self.armed = armed
        self.by = by
        self.state = "running"
        self.reason = ""
        self.log = ""
        self.todo = armed.fleet.counted()
        self.before = list(self.todo)
        self._old_spares = armed.fleet.spares()
        self._spares = list(self._old_spares)
        self.total = len(self.todo)
        self.began_at = armed.clock()
        self.replaced: list[tuple[int, int]] = []

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def cut(self) -> int:
        return sum(worker.phase.cut for worker in self.before if isinstance(worker.phase, Gone))

    def view(self) -> ReloadEntry:
        """Return what `xboard_state` answers of it."""
        return {
            "state": self.state,
            "done": self.total - len(self.todo),
            "total": self.total,
            "age": round(self.armed.clock() - self.began_at, 3),
            "replaced": [list(pair) for pair in self.replaced],
            "cut": self.cut,
            "serving": len(self.armed.fleet.up()),
            "reason": self.reason,
            "say": data_of(self.reason),
            "log": self.log,
        }

    async def run(self) -> None:
        """Replace the workers that ran when the reload began, one after the other."""
        armed = self.armed
        while self.todo and self.is_running:
            old = self.todo[0]
            if not armed.is_running():
                self.state, self.reason = "stopped", Say.WATCHER_STOPPED()
            elif armed.swaps_in_the_making() or armed.busy or self._is_about_to_leave(old):
                await asyncio.sleep(WAIT)
            else:
                await self._renew(old)
        if self.is_running:
            self._conclude()
        if self.is_running:
            self.state = "done"
            await spares.renew(armed, self._old_spares, by="reload")
        self._report()

    def _is_about_to_leave(self, old: Worker) -> bool:
        """Say whether somebody else has ordered it to leave a moment ago; one that does not leave is replaced."""
        phase = old.phase
        return isinstance(phase, Leaving) and self.armed.clock() - phase.since < LEAVES_WITHIN

    async def _renew(self, old: Worker) -> None:
        armed, new, failure = self.armed, old, None
        runs_new_code = old.released_at > self.began_at and old not in self._spares
        if old.pid in armed.fleet and not runs_new_code:
            if old.is_held:
                failure = await self._release(old)
            else:
                swap = Swap(armed, old, Order(by="reload", why=Say.RELOAD_ASKED_FOR(by=self.by)))
                failure = await swap.run()
                new = swap.new or old
            if failure is not None:
                self._failed(failure, new.phase.log if isinstance(new.phase, Gone) else "")
                return
            self.replaced.append((old.pid, new.pid))
            armed.budget.clear()
        del self.todo[0]
        if not self.todo:
            # A spare with the old code may have taken the place of a worker that died meanwhile.
            self.todo = [each for each in self._old_spares if each.pid in armed.fleet and each.life.counts]
            self._old_spares = [each for each in self._old_spares if each not in self.todo]
            self.total += len(self.todo)

    async def _release(self, held: Worker) -> str | None:
        """Start a held worker now and wait until it is ready; return the reason why it is not."""
        armed = self.armed
        deadline = armed.clock() + armed.options.health.startup_timeout
        while armed.is_running() and not armed.port.is_ready:
            if armed.clock() > deadline:
                return Say.WAITS_FOR_PORT(why=armed.port.reason)
            await asyncio.sleep(WAIT)
        if held.is_held:
            armed.happen(held, Released(armed.clock()))
        return await until_ready(armed, held)

    def _failed(self, failure: str, log: str) -> None:
        if self.armed.is_running():
            self.state, self.reason, self.log = "failed", failure, log
        else:
            self.state, self.reason = "stopped", failure

    def _conclude(self) -> None:
        old = [worker for worker in self.before if worker.released_at < self.began_at]
        stayed = [worker for worker in old if worker.pid in self.armed.fleet and not worker.drains]
        if stayed:
            self.state, self.reason = "failed", Say.NOT_REPLACED(pid=stayed[0].pid)

    def _report(self) -> None:
        if self.state != "done":
            self.armed.note_reason(Say.RELOAD_BROKEN_OFF(state=state_named(self.state), why=self.reason))
        elif self.cut:
            self.reason = Say.CUT_IN_ALL(n=self.cut)
        say = Say.RELOAD_ENDED_SAYING if self.reason else Say.RELOAD_ENDED
        told = say(state=state_named(self.state), n=len(self.replaced), total=self.total, why=self.reason)
        more = {"state": self.state, "replaced": self.replaced, "cut": self.cut, "log": self.log}
        self.armed.publish("reload_end", reason=told, **more, **with_say(self.by, "by"))


def begin(armed: ArmedWatcher, *, by: str) -> RollingReload:
    """Begin one; raises MessageError while one runs, or where there is nothing that could be replaced."""
    if armed.reload is not None and armed.reload.is_running:
        raise MessageError(Say.RELOAD_RUNS(watcher=armed.name, done=armed.reload.view()["done"]))
    if not armed.is_running():
        raise MessageError(Say.WATCHER_IS(watcher=armed.name, state=state_named(armed.watcher.status())))
    if alone := armed.why_alone():
        raise MessageError(alone)
    armed.reload = RollingReload(armed, by=by)
    reason = Say.RELOAD_BEGUN(total=armed.reload.total, by=by)
    armed.publish("reload_begin", reason=reason, total=armed.reload.total, **with_say(by, "by"))
    armed.supervisor.run(armed.reload.run(), f"the reload of {armed.name}")
    return armed.reload
