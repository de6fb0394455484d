"""Reload a watcher: replace its workers one by one, each new one ready before the old one drains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from circus import logger
from circus.commands.errors import MESSAGE_ERROR
from circus.exc import MessageError

from xboard_circus.core import code_versions
from xboard_circus.core.causes import Cause
from xboard_circus.core.reason import data_of, raised, with_say
from xboard_circus.core.sentences import Say, state_named
from xboard_circus.core.state_schema import ReloadEntry
from xboard_circus.core.worker_phases import Gone, Leaving, Order
from xboard_circus.env_files import EnvFileError
from xboard_circus.host import worker_files
from xboard_circus.masking import safe_text
from xboard_circus.supervisor.boundary import contained_task
from xboard_circus.supervisor.life.spawn import SpawnRequest
from xboard_circus.supervisor.replace.swap import Swap, until_ready

if TYPE_CHECKING:
    from pathlib import Path

    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.watcher import ArmedWatcher

WAIT = 0.1
POLL = 0.05
LEAVES_WITHIN = 5.0
LOOK_FOR_ROOM = 1.0
LONGEST_FILE = 300


class RollingReload:
    """One reload, running or done. The first new worker that does not get ready ends it.

    A held slot gets a worker at once, with the new code. The first worker that gets ready proves that the code works,
    so the restart budget is cleared.

    Attributes:
        state: "running", "done", "failed" or "stopped".
        step: What it does, or did last: "before", "import" or "workers".
        slot: Of the worker that it replaces, or replaced last; None before the first.
        reason: Why it failed, with the last lines of the new worker, or of `run.before`, in *log*; while it runs, its
            first step.
        cut: How many requests of old workers were cut off at their drain limit.
        put_back: Puts the former options back where it fails; None if it has the same options.
    """

    put_back: Callable[[], Awaitable[None]] | None = None

    def __init__(self, armed: ArmedWatcher, *, by: str) -> None:
        self.armed = armed
        self.by = by
        self.state, self.step = "running", "before"
        self.reason = self.log = ""
        self.slot: int | None = None
        self._is_compared = True
        self.before = armed.fleet.counted()
        self._held = armed.held_slots()
        self.total, self.done = len(self.before) + len(self._held), 0
        self.began_at = self._imported_at = armed.clock()
        self.replaced: list[tuple[int, int]] = []
        self._drains: list[asyncio.Future[str | None]] = []

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def cut(self) -> int:
        return sum(worker.life.phase.cut for worker in self.before if isinstance(worker.life.phase, Gone))

    def view(self) -> ReloadEntry:
        """Return its entry in `xboard_state`."""
        return {
            "state": self.state,
            "step": self.step,
            "slot": self.slot,
            "done": self.done,
            "total": self.total,
            "age": round(self.armed.clock() - self.began_at, 3),
            "replaced": [list(pair) for pair in self.replaced],
            "cut": self.cut,
            "old": sum(worker.is_up for worker in self.before),
            "reason": self.reason,
            "say": data_of(self.reason),
            "log": self.log,
        }

    async def run(self) -> None:
        """Replace the workers that ran when the reload began, one after the other.

        The old ones drain side by side, as memory permits: that takes longer than all the rest.
        """
        try:
            failure = await self._run_before() or await self._import_new_code() or await self._replace_all()
        except Exception as error:  # else it would be running for ever, and no other could begin
            logger.exception("xboard: the reload of %s failed", self.armed.name)
            failure = Say.RELOAD_RAISED(error=raised(error))
        if failure is not None and self.put_back is not None and self.armed.is_running():
            work = self._take_back(failure, self.put_back)
            failure = await contained_task(work, f"putting the options of {self.armed.name} back", failure)
        if failure is None:
            self.state = "done"
            self.armed.port.look_for_heirs()
            unsure = "" if self._is_compared else Say.CODE_NOT_COMPARED()
            self.reason = Say.CUT_IN_ALL(n=self.cut) if self.cut else unsure
        else:
            self.state, self.reason = "failed" if self.armed.is_running() else "stopped", failure
            self.armed.note_reason(Say.RELOAD_BROKEN_OFF(state=state_named(self.state), why=failure))
        self._report()

    async def _run_before(self) -> str | None:
        self.reason = self.armed.before.doing()
        failure = await self.armed.before.for_reload()
        self.reason, self.log = "", self.armed.before.log if failure else ""
        return failure

    async def _import_new_code(self) -> str | None:
        """Have the workers of this reload forked from one import of the new code; return why the import failed."""
        self.step = "import"
        failure, self.log = await self.armed.forks.renew()
        self._imported_at = self.armed.clock()
        return failure or None

    async def _replace_all(self) -> str | None:
        self.step = "workers"
        failure = await self._replace(self.before, self._held)
        for surely in (False, True):  # an app may write a file of its own while it is imported, each time
            if failure is not None or not (file := self._mixed(surely=surely)):
                break
            failure = await self._replace_again(file)
        if failure is not None:
            return failure
        if file := self._mixed(surely=True):
            return Say.CODE_CHANGES(file=file)
        await asyncio.gather(*self._drains)
        stayed = next((each for each in self.before if each.pid in self.armed.fleet and not each.drains), None)
        return None if stayed is None else Say.NOT_REPLACED(pid=stayed.pid)

    def _mixed(self, *, surely: bool) -> str:
        """Return a file of the app of which the workers have imported different versions; "" without one."""
        if (folder := self.armed.folder) is None:
            return ""
        file = differing_file(folder, [each for each in self.armed.fleet.counted() if each.is_up], surely=surely)
        self._is_compared = file is not None
        return file or ""

    async def _replace_again(self, file: str) -> str | None:
        """Replace all workers once more, because files of the app, such as *file*, changed in the middle."""
        self.reason = Say.CODE_CHANGED(file=file)
        self.armed.note_reason(self.reason)
        if (failure := await self._import_new_code()) is not None:
            return failure
        self.step, workers = "workers", self.armed.fleet.counted()
        self.before, self.total = [*self.before, *workers], self.total + len(workers)
        failure, self.reason = await self._replace(workers, ()), ""
        return failure

    async def _replace(self, workers: Iterable[Worker], held: Iterable[int]) -> str | None:
        armed = self.armed
        for old in workers:
            while armed.is_running() and (armed.swaps_in_the_making() or armed.busy or self._is_about_to_leave(old)):
                await asyncio.sleep(WAIT)
            await self._until_room()
            self.slot = old.slot
            failure = await self._renew(old) if armed.is_running() else Say.WATCHER_STOPPED()
            if failure is not None:
                return failure
            self.done += 1
        for slot in held:
            self.slot = slot
            if (failure := await self._fill(slot)) is not None:
                return failure
            self.done += 1
        return None

    async def _take_back(self, failure: str, put_back: Callable[[], Awaitable[None]]) -> str:
        """Put the former options back, also under the workers that have started since; return the failure, with that.

        Each death in the time of the reload was answered by a worker with the changed options.
        """
        armed, total, log, slot, replaced = self.armed, self.total, self.log, self.slot, self.replaced
        await put_back()
        armed.budget.clear()  # what failed had options that hold no more
        since = [each for each in armed.fleet if each.spawned_at >= self.began_at and not each.is_leaving]
        workers, held = [each for each in since if each.life.counts], armed.held_slots()
        self.reason, self.replaced = Say.TAKING_BACK(why=failure), []
        self.total, self.done = len(workers) + len(held), 0
        why = await self._replace(workers, held)
        if why is None:
            await asyncio.gather(*self._drains)
        self.total, self.done, self.log, self.slot = total, 0, log, slot
        if why is not None:
            self.replaced = replaced
            return Say.NOT_TAKEN_BACK(why=failure, failure=why, watcher=armed.name)
        self.replaced = []
        return Say.TAKEN_BACK(why=failure, n=len(workers)) if workers else failure

    async def _until_room(self) -> None:
        """Wait for old workers that drain while memory is short for one more worker."""
        while (draining := [each for each in self._drains if not each.done()]) and not self.armed.has_room():
            await asyncio.wait(draining, timeout=LOOK_FOR_ROOM, return_when=asyncio.FIRST_COMPLETED)

    def _is_about_to_leave(self, old: Worker) -> bool:
        """Return whether it was ordered to leave a moment ago; one that does not leave is replaced."""
        phase = old.life.phase
        return isinstance(phase, Leaving) and self.armed.clock() - phase.since < LEAVES_WITHIN

    async def _renew(self, old: Worker) -> str | None:
        armed = self.armed
        if old.drains:
            return None  # its successor has taken over, and counts among the workers
        if old.pid not in armed.fleet:
            return await self._fill(old.slot, old.pid)
        swap = Swap(armed, old, Order(by="reload", why=Say.RELOAD_ASKED_FOR(by=self.by)))
        swapping = asyncio.ensure_future(swap.run())
        self._drains.append(swapping)
        await asyncio.wait({swapping, swap.handed_over}, return_when=asyncio.FIRST_COMPLETED)
        failure = swapping.result() if swapping.done() else None
        new = swap.new or old
        if failure is None and swap.new is not None and not new.life.was_ready:
            failure = await until_ready(armed, new)  # the old one ended by itself meanwhile, which proves nothing
        if failure and new is not old and _is_commanded(new) and armed.is_running():
            return await self._renew(old)
        return self._note(old.pid, new, failure)

    async def _fill(self, slot: int, old: int | None = None) -> str | None:
        """Wait until the worker of a slot without an old one is ready, and start it now where the slot waits for one;
        return why it is not.

        A replacement of one that died meanwhile proves nothing before it is ready: an import takes seconds.
        """
        armed = self.armed
        deadline = armed.clock() + armed.options.health.startup_timeout
        while armed.is_running() and not armed.port.is_ready:
            if armed.clock() > deadline:
                return Say.WAITS_FOR_PORT(why=armed.port.reason)
            await asyncio.sleep(WAIT)
        is_wanted = slot in armed.slots_to_fill()
        if is_wanted:
            armed.spawn_for(SpawnRequest(slot=slot, at_once=True))
        new = next((each for each in armed.fleet if each.slot == slot and each.life.counts), None)
        if not armed.is_running():
            return Say.WATCHER_STOPPED()
        if new is None:
            return Say.NOT_SPAWNED(why=armed.last_reason) if is_wanted else None  # fewer are wanted by now
        if new.spawned_at < self._imported_at:  # of the old code, or kept since its own successor has died
            return await self._renew(new)
        failure = await until_ready(armed, new)
        if failure is not None and _is_commanded(new) and armed.is_running():
            return await self._fill(slot, old)
        return self._note(old or new.pid, new, failure)

    def _note(self, old: int, new: Worker, failure: str | None) -> str | None:
        if failure is None:
            self.replaced.append((old, new.pid))
            self.armed.budget.clear()
            self.armed.poisons.clear()
        elif isinstance(new.life.phase, Gone) and self.armed.is_running():
            self.log = new.life.phase.log
        return failure

    def _report(self) -> None:
        say = Say.RELOAD_ENDED_SAYING if self.reason else Say.RELOAD_ENDED
        reason = say(state=state_named(self.state), n=len(self.replaced), total=self.total, why=self.reason)
        took = round(self.armed.clock() - self.began_at, 3)
        more = {"state": self.state, "took": took, "replaced": self.replaced, "cut": self.cut, "log": self.log}
        self.armed.publish("reload_end", reason=reason, **more, **with_say(self.by, "by"))


def differing_file(folder: Path, workers: Iterable[Worker], *, surely: bool) -> str | None:
    """Return a file of the app of which *workers* have imported different versions; "" without one, None where they
    have noted too much to compare."""
    texts = {worker_files.code_of(folder, each.token) for each in workers}  # forked ones have noted the same
    if None in texts:
        return None
    file = code_versions.mixed([code_versions.parsed(text or "") for text in texts], surely=surely)
    return safe_text(file)[:LONGEST_FILE]


def _is_commanded(worker: Worker) -> bool:
    """Return whether a command has ended it, such as a `decr`, which ends those that do not serve yet."""
    return isinstance(worker.life.phase, Gone) and worker.life.phase.cause is Cause.COMMANDED


def begin(armed: ArmedWatcher, *, by: str) -> RollingReload:
    """Begin a reload. Raises MessageError while one runs, or if no worker can be replaced."""
    if armed.reload is not None and armed.reload.is_running:
        raise MessageError(Say.RELOAD_RUNS(watcher=armed.name, done=armed.reload.done))
    if armed.supervisor.is_over():
        raise MessageError(Say.CIRCUSD_ENDS_ALREADY())
    if not armed.is_running():
        raise MessageError(Say.WATCHER_IS(watcher=armed.name, state=state_named(armed.watcher.status())))
    if alone := armed.why_alone():
        raise MessageError(alone)
    try:
        armed.read_env_files()
    except EnvFileError as error:
        raise MessageError(Say.NOTHING_REPLACED(why=str(error))) from error
    armed.reload = RollingReload(armed, by=by)
    reason = Say.RELOAD_BEGUN(total=armed.reload.total, by=by)
    armed.publish("reload_begin", reason=reason, total=armed.reload.total, **with_say(by, "by"))
    armed.supervisor.run(armed.reload.run(), f"the reload of {armed.name}")
    return armed.reload


async def outcome(
    before: Mapping[ArmedWatcher, RollingReload | None], begun: Awaitable[Any] | None = None
) -> dict[str, Any]:
    """Wait for the reloads that followed those *before*, and return the answer of Circus's command that began them."""
    if begun is not None:
        await begun
    failures, replaced = [], []
    for armed, earlier in before.items():
        reload = armed.reload
        if reload is None or reload is earlier:
            failures.append(armed.last_reason)  # it was refused
            continue
        while reload.is_running:
            await asyncio.sleep(POLL)
        replaced += reload.replaced
        if reload.state != "done":
            failures.append(f"{armed.name}: {reload.reason}")
    if failures:
        return {"status": "error", "errno": MESSAGE_ERROR, **with_say("; ".join(failures))}
    return {"info": {"stopped": [old for old, _ in replaced], "started": [new for _, new in replaced], "kept": []}}
