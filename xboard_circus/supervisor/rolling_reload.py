"""Roll the workers of a watcher over to new code, one at a time: the new one ready before the old one is told to go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from xboard_circus.core.sentences import Say
from xboard_circus.supervisor import spares
from xboard_circus.supervisor.replacement import Replacement

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher

WAIT = 0.1


class RollingReload:
    """One rolling reload, running or done. The first new worker that does not get ready ends it.

    Attributes:
        state: "running", "done", "failed" or "stopped".
        reason: Why it failed, with the last lines of the new worker's log in *log*.
    """

    def __init__(self, armed: ArmedWatcher, *, by: str) -> None:
        self.armed = armed
        self.by = by
        self.state = "running"
        self.reason = ""
        self.log = ""
        self.todo = [spawned for spawned in armed.live.values() if spawned.counts and spawned.released_at is not None]
        self._old_spares = [spawned for spawned in armed.live.values() if spawned.spare]
        self.total = len(self.todo)
        self.began_at = armed.clock()
        self.replaced: list[tuple[int, int]] = []

    def view(self) -> dict[str, Any]:
        """Return what `xboard_state` tells of it."""
        return {
            "state": self.state,
            "done": self.total - len(self.todo),
            "total": self.total,
            "age": round(self.armed.clock() - self.began_at, 3),
            "replaced": self.replaced,
            "reason": self.reason,
            "log": self.log,
        }

    async def run(self) -> None:
        """Replace the workers that ran when the reload began, one after the other."""
        armed = self.armed
        reason = Say.RELOAD_ASKED_FOR(by=self.by)
        while self.todo and self.state == "running":
            if not armed.is_running():
                self.state, self.reason = "stopped", Say.WATCHER_STOPPED()
                break
            if armed.replacement is not None or armed.busy:
                await asyncio.sleep(WAIT)
                continue
            old = self.todo[0]
            if old.pid in armed.live and not old.commanded_by and not old.our_kill:
                await self._replace(Replacement(armed, old, cause=None, by="reload", reason=reason))
            if self.state == "running":
                del self.todo[0]
        if self.state == "running":
            self.state = "done"
            await spares.renew(armed, self._old_spares, by="reload")
        if self.state != "done":
            armed.tell(Say.RELOAD_BROKEN_OFF(state=self.state, why=self.reason))
        say = Say.RELOAD_ENDED_SAYING if self.reason else Say.RELOAD_ENDED
        told = say(state=self.state, n=len(self.replaced), total=self.total, why=self.reason)
        armed.publish("reload_end", reason=told, by=self.by, state=self.state, replaced=self.replaced, log=self.log)

    async def _replace(self, work: Replacement) -> None:
        failure = await work.run()
        if failure is None and work.new is not None:
            self.replaced.append((work.old.pid, work.new.pid))
        elif self.armed.is_running():
            self.state, self.reason, self.log = "failed", failure or "", work.log
        else:
            self.state, self.reason = "stopped", failure or Say.WATCHER_STOPPED()


def begin(armed: ArmedWatcher, *, by: str) -> RollingReload:
    """Begin one; raises MessageError while one runs, or where there is nothing that could be rolled."""
    if armed.reload is not None and armed.reload.state == "running":
        raise MessageError(Say.RELOAD_RUNS(watcher=armed.name, done=armed.reload.view()["done"]))
    if not armed.is_running():
        raise MessageError(Say.WATCHER_IS(watcher=armed.name, state=armed.watcher.status()))
    if armed.port.socket() is None and armed.options.port.port:
        raise MessageError(Say.BINDS_BY_ITSELF_NO_RELOAD(watcher=armed.name, port=armed.options.port.port))
    armed.reload = RollingReload(armed, by=by)
    reason = Say.RELOAD_BEGUN(total=armed.reload.total, by=by)
    armed.publish("reload_begin", reason=reason, by=by, total=armed.reload.total)
    armed.supervisor.run(armed.reload.run(), f"the reload of {armed.name}")
    return armed.reload
