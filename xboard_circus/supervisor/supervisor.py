"""Supervise all armed watchers of one circusd: one clock, one state, prompt reaping."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from circus import logger

from xboard_circus import __version__
from xboard_circus.core.durations import stale_after
from xboard_circus.core.lost import grace_of
from xboard_circus.core.names import is_helper
from xboard_circus.core.ports import Holder
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import State, WatcherEntry
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker, uncreated_watcher
from xboard_circus.core.worker_phases import Paused
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, listeners, own_memory, procs, runtime, service_manager, sockets
from xboard_circus.host.oom import OomKills
from xboard_circus.options.fields import HealthOptions, WatcherOptions
from xboard_circus.supervisor import arming, circusctl_reload, helpers, reconfigure
from xboard_circus.supervisor.boundary import contained, contained_task, in_daemon_thread
from xboard_circus.supervisor.bus import commands, state
from xboard_circus.supervisor.bus.journal import Journal
from xboard_circus.supervisor.bus.requests import Requests
from xboard_circus.supervisor.circusd_lifetime import Lifetime
from xboard_circus.supervisor.circusd_out import Output
from xboard_circus.supervisor.life import command_line, evidence
from xboard_circus.supervisor.patches import boot, circus_arbiter, circus_process, circus_watcher, patch
from xboard_circus.supervisor.port import named

if TYPE_CHECKING:
    from xboard_circus.supervisor.watcher import ArmedWatcher

TICK_FAST = 0.2
TICK_SLOW = 2.5
TICK_WITH_REPORT = 1.0
REAP_EVERY = 0.2
HELPER_GRACE = 2.0
PAUSE = 1.0
"""A tick this much late means that circusd, or the machine, stood still."""
END_AGAIN = 0.1
FAILED = object()


class Supervisor:
    """Everything of ours in one circusd. Kept on the arbiter, because a hook that is set again reloads its module.

    Ticks are a chain of timers on the loop's monotonic clock: Circus's own periodic check sleeps for an hour when the
    clock is set back by one.
    """

    tick_slow = TICK_SLOW

    def __init__(self, arbiter: Any) -> None:
        self.arbiter = arbiter
        self.loop = circus_arbiter.event_loop(arbiter)
        self.clock = time.monotonic
        self.config_file = os.path.abspath(getattr(arbiter, "config_file", None) or "circus.ini")
        self.instance = runtime.instance_id(self.config_file)
        folder = os.path.dirname(self.config_file)
        self.folder = folder, os.path.realpath(folder)
        self.identity = procs.Identity(os.getpid(), procs.start_time(os.getpid()) or 0)
        self.started_at = self.clock()
        self.armed: dict[str, ArmedWatcher] = {}
        # By the object, because Circus lists a watcher that a changed file adds only once it has started.
        self.plain: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self.probers: dict[str, tuple[procs.Identity, float]] = {}
        self.paused_for = 0.0
        self.unfit = ""
        self._uncreated: dict[str, tuple[int, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.journal = Journal()
        self.oom = OomKills()  # one for all, because a kill explains one death of any watcher
        self.looked_at = self._reaped_at = self._ticked_at = float("-inf")
        self._due_at: float | None = None
        self._sweeps: dict[str | None, asyncio.Future[list[Holder]]] = {}
        self._withheld: dict[str, frozenset[str]] = {}
        self._output = Output(Path(self.config_file).parent)
        self.requests = Requests(self)
        self._is_recorded = False
        self._unrecorded = ""  # why not
        self._record()
        self.lifetime = Lifetime(self)
        own_memory.keep_large_blocks_apart()  # when the first forkserver is forked: what an app does is its own
        # A thread for `asyncio.to_thread`, which then needs no room for one: what a dead worker left may have used it.
        self.loop.run_in_executor(None, int)
        self._find_uncreated()
        self._install()
        self.soon(0)
        self.loop.call_later(own_memory.SETTLED, own_memory.give_back_libraries)

    @classmethod
    def of(cls, arbiter: Any) -> "Supervisor":
        """Return the supervisor of this arbiter."""
        if not hasattr(arbiter, "xboard"):
            arbiter.xboard = cls(arbiter)
        found: Supervisor = arbiter.xboard
        return found

    @contained(None)
    def _record(self) -> None:
        """Record which circusd supervises this instance. If that fails, circusd serves on and tries again; so where the
        record was removed."""
        try:
            if self._is_recorded and runtime.read_record(self.instance):
                return
            if not self._is_recorded:
                runtime.remove_stale(self.instance)
            more = {**self.identity._asdict(), "config_file": self.config_file, "version": __version__}
            runtime.write_record(self.instance, endpoint=self.arbiter.endpoint, was_started=True, **more)
            if self._unrecorded:
                logger.info("xboard: the command line finds this circusd again")
            self._is_recorded, self._unrecorded = True, ""
        except (OSError, XboardError) as error:
            if str(error) != self._unrecorded:  # once: it is tried every 2 s
                logger.error("xboard: the command line will not find this circusd: %s", error)
            self._unrecorded = str(error)

    @contained(None)
    def _find_uncreated(self) -> None:
        self._uncreated = circus_arbiter.uncreated(self.arbiter)

    def _install(self) -> None:
        """Install the patches of the arbiter. The commands go in first, so that the state answers in any case."""
        arbiter = self.arbiter
        patch.install([commands.patch(self)])
        patches: list[patch.Patch] = [
            circus_arbiter.stop(arbiter, ordered=self.lifetime.end_ordered, beside=self._end_beside),
            circus_arbiter.start_watcher(arbiter, partial(helpers.prepare, self)),
            circus_arbiter.reload_from_config(arbiter, ours=partial(reconfigure.reconfigure, self)),
            circus_arbiter.manage_quietly(arbiter),
            circus_arbiter.reap_for_a_while(arbiter),
            circus_process.fork_where_imported(arbiter, self._forked),
            circus_process.bound_command_lines(arbiter),
            *circusctl_reload.patches(self),
            *self.requests.patches(),
            circus_arbiter.child_ended(arbiter, self._child_ended),
            circus_arbiter.log_user_signals(arbiter),
        ]
        try:
            if boot.missing:
                raise patch.PatchFailed(", ".join(boot.missing))
            patch.install(patches)
        except patch.PatchFailed as error:
            self.unfit = str(error)
            logger.error("xboard: nothing is armed: %s", Say.CIRCUS_LACKS(what=self.unfit))

    def _forked(self, process: Any) -> circus_process.Forked | None:
        """Return the worker that a forkserver forked for Circus's *process*; None if it has to be started."""
        armed = self.armed.get(process.watcher.name)
        return armed.forks.fork(process) if armed is not None and armed.watcher is process.watcher else None

    def arm(self, watcher: Any) -> None:
        """Arm a watcher that starts, or prepare an armed one for its next start."""
        for each in self.arbiter.watchers:
            helpers.prepare(self, each)
        arming.arm(self, watcher)
        self.sweep(None, HELPER_GRACE)
        self.soon(TICK_FAST)

    def stays_stopped(self, watcher: Any) -> bool:
        """Return whether an operator has stopped *watcher*, a backend."""
        return watcher.is_stopped() and not is_helper(watcher.name)

    # The end of circusd

    def _end_beside(self) -> asyncio.Future[None]:
        """End circusd while another command runs: armed watchers drain at once, the others when the command is over.

        Circus refuses a stop until then. A signal is not repeated, and a second drain after that of a `decr` would take
        longer than the service manager waits.
        """
        circus_arbiter.begin_to_stop(self.arbiter)
        for armed in self.armed.values():
            self.run(circus_watcher.stop(armed.watcher), f"the stop of {armed.name}")
        return self.run(self._end_in_turn(), "the end of circusd")

    async def _end_in_turn(self) -> None:
        while circus_arbiter.running_command(self.arbiter) is not None:
            await asyncio.sleep(END_AGAIN)
        await self.arbiter.stop()

    def withheld_from(self, watcher: Any) -> frozenset[str]:
        """Return the variables with secrets of alerts if *watcher* runs as another user than circusd."""
        if watcher.uid is None:
            return frozenset()
        from xboard_circus import config  # imported only for watchers with a user of their own
        from xboard_circus.alerts.withheld import withheld_from
        from xboard_circus.checks.authorship import load_own

        load = load_own if watcher.name in self._withheld else config.load
        with suppress(XboardError, OSError):  # an unreadable file, or another user's by now, names what it named before
            self._withheld[watcher.name] = withheld_from(load(self.config_file), watcher)
        return self._withheld.get(watcher.name, frozenset())

    def environ_of(self, process: Any) -> dict[str, str]:
        """Return the environment of a process of Circus's without what is withheld from an unarmed watcher."""
        env: dict[str, str] = process.env
        if process.watcher.name in self.armed or not (names := self.withheld_from(process.watcher)):
            return env  # an armed one's has been filtered already
        from xboard_circus.alerts.withheld import without

        return without(env, names, os.environ)

    def give_environment(self, watcher: Any, folder: Path | None, options: WatcherOptions) -> None:
        """Add our part to the environment of a watcher's processes."""
        withheld = self.withheld_from(watcher)
        watcher.env = command_line.environment(watcher, folder, options, self.marks(), withheld)

    def marks(self) -> dict[str, str]:
        """Return the environment that marks a process as one of this instance."""
        return {
            "XBOARD_INSTANCE": self.instance,
            "XBOARD_CIRCUSD": str(self.identity),
            "XBOARD_HOME": os.path.dirname(self.config_file),
            "XBOARD_CONFIG": self.config_file,
            **runtime.places(),
        }

    # The clockwork

    def run(
        self, work: Awaitable[object], what: str, on_failure: Callable[[], object] | None = None
    ) -> asyncio.Task[None]:
        """Run a coroutine beside circusd's own; if it fails, log it and call *on_failure*."""

        async def watched() -> None:
            if await contained_task(work, what, FAILED) is FAILED and on_failure is not None:
                on_failure()

        task = self.loop.create_task(watched())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def soon(self, delay: float) -> None:
        """Schedule the next tick within *delay* seconds."""
        due = self.loop.time() + delay
        if self._timer is not None and not self._timer.cancelled():
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._due_at = self.clock() + delay
        self._timer = self.loop.call_later(delay, self._tick)

    def is_over(self) -> bool:
        """Return whether circusd ends."""
        return circus_arbiter.is_stopping(self.arbiter)

    def _tick(self) -> None:
        self._timer = None
        if self.is_over():
            return
        self.soon(TICK_FAST if self._work() else TICK_SLOW)

    @contained(True)
    def _work(self) -> bool:
        """Do what is due; return whether something is under way."""
        self._ticked_at = self.clock()
        self._note_pause()
        self._drop_removed()
        for armed in list(self.armed.values()):
            armed.tick()
        if evidence.look(self):
            self._record()
            for armed in self.armed.values():
                armed.look_after_folder()
        self.lifetime.tick()
        self._end_stuck_probers()
        self._output.keep_small(self.clock())
        return any(armed.is_unsettled() for armed in self.armed.values())

    def _note_pause(self) -> None:
        """Exclude from every limit the time in which circusd, or the whole machine, stood still."""
        late = self._ticked_at - (self._due_at or self._ticked_at)
        if late < PAUSE:
            return
        logger.warning("xboard: circusd stood still for %.1f s, which count for no limit", late)
        self.paused_for += late
        # A report that came before this look is not moved into the future.
        self.probers = {name: (by, min(at + late, self._ticked_at)) for name, (by, at) in self.probers.items()}
        for armed in self.armed.values():
            for worker in armed.fleet:
                armed.happen(worker, Paused(late))

    @contained(None)
    def _drop_removed(self) -> None:
        for name, armed in list(self.armed.items()):
            if armed.is_removed():
                del self.armed[name]
                armed.forks.end()
                armed.port.give_back()

    def _child_ended(self) -> None:
        if (wait := self._reaped_at + REAP_EVERY - self.clock()) > 0:
            self.soon(wait)
        elif not self.is_over():
            self._reaped_at = self.clock()
            for armed in list(self.armed.values()):
                armed.keep_up()
            self.soon(TICK_FAST)

    # Leftovers of an earlier circusd

    def sweep(self, watcher: str | None, grace: float) -> asyncio.Future[list[Holder]]:
        """End, once, the leftovers of a watcher from an earlier circusd; the future is what was ended.

        None stands for all leftovers that this circusd does not replace: plugins, Circus's helpers, workers of watchers
        that the file has no more, or does not start. Workers answer what they have in flight. A signal may end circusd
        before its first hook knows the reason; then the unit decides, see `service.unit_stop`.
        """
        if watcher not in self._sweeps:
            work = contained_task(self._end_orphans(watcher, grace), "the sweep of leftovers", list[Holder]())
            self._sweeps[watcher] = self.loop.create_task(work)
        return self._sweeps[watcher]

    async def _end_orphans(self, watcher: str | None, grace: float) -> list[Holder]:
        if self.is_over() and service_manager.own_unit():
            return []
        left = await in_daemon_thread(partial(self._orphans, watcher))
        if left:
            logger.warning("xboard: ending what an earlier circusd left behind: %s", ", ".join(named(left)))
            by_grace: dict[float, list[Holder]] = {}
            for each in left:
                own = grace if watcher is not None else grace_of(left[each], self.lifetime.graces, least=grace)
                by_grace.setdefault(own, []).append(each)
            stops = (partial(listeners.stop, group, grace=own) for own, group in by_grace.items())
            # These may take minutes. A circusd that ends before leaves the rest to the next one, or to the stop.
            await asyncio.gather(*(in_daemon_thread(each) for each in stops))
        return list(left)

    def _orphans(self, watcher: str | None) -> dict[Holder, str | None]:
        """Return the leftovers of *watcher*, each with the watcher that it names, or that its circusd has recorded."""
        known = {
            each.name
            for each in self.arbiter.watchers
            if not is_helper(each.name) and (each.autostart or each.name in self.armed or not each.is_stopped())
        } | set(self._uncreated)  # their workers serve on until Circus can create them
        recorded = circusd_record.workers(self.instance)

        def owner(holder: Holder) -> str | None:
            name = (procs.marks(holder.pid or 0) or {}).get("XBOARD_WATCHER")
            return name or recorded.get(procs.Identity(holder.pid or 0, holder.started or 0), (None,))[0]

        found = {each: owner(each) for each in listeners.orphans(self.instance)}
        return {each: name for each, name in found.items() if (name if name in known else None) == watcher}

    def holders(self, host: str, port: int) -> list[Holder]:
        """Return the holders of a port, for a thread. Leftovers of a dead worker of ours count as orphans.

        Such a process names a live circusd, this one, but is not below it any more: for example the workers of a
        `uvicorn --workers` with a killed parent.
        """
        family = self.family()
        ours = self.identity.pid, self.identity.started
        return [
            holder._replace(circusd_alive=False) if holder.circusd == ours and holder.pid not in family else holder
            for holder in listeners.holders(host, port)
        ]

    def heirs(self, listener: int, address: tuple[str, int] | None, user: int) -> list[Holder]:
        """Return the processes that have the socket of inode *listener*, or one that listens beside it on *address*,
        and are neither ours nor above us.

        For a thread. Nothing that a process says of itself makes it ours here. The workers, *user*'s, may have handed
        the listener on. Beside it only circusd's own user can listen.
        """
        ours = self.family(by_marks=False) | set(procs.ancestors())
        found = sockets.pids_of_sockets({listener, *(sockets.beside(*address) if address else ())}, ours)
        users = {inode: user if inode == listener else os.geteuid() for inode in found}
        return [each for inode, pids in found.items() for each in listeners.holders_of(pids, users[inode])]

    def family(self, *, by_marks: bool = True) -> set[int]:
        """Return the pids of circusd and of all that it has started or forked, for a thread.

        Leftovers of a dead worker are below circusd too if that adopts orphans. Without *by_marks* a child counts only
        if circusd remembers it.
        """
        known = {pid for watcher in self.arbiter.watchers for pid in list(watcher.processes)}
        forkservers = [pid for armed in list(self.armed.values()) for pid in armed.forks.pids()]
        own, known, processes = os.getpid(), known | set(forkservers), procs.snapshot()
        children = [pid for pid, stat in processes.items() if stat.parent == own]
        ours = [pid for pid in children if pid in known or (by_marks and procs.was_started(pid, forkservers))]
        return {own} | procs.with_descendants(ours, processes)

    # The prober

    def report(self, plugin: str, sender: procs.Identity) -> None:
        """Note that a prober finished a round. circusd is awake, so this is the time for what is due each second."""
        self.probers[plugin] = sender, self.clock()
        if self.clock() - self._ticked_at >= TICK_WITH_REPORT:
            self.soon(0)

    @contained(None)
    def _end_stuck_probers(self) -> None:
        """End a prober that stopped reporting; Circus starts it again, and notices a dead one by itself."""
        options = [HealthOptions(period=0, timeout=0), *(armed.options.health for armed in self.armed.values())]
        limit = max(stale_after(period=each.period, timeout=each.timeout) for each in options)
        silent = {plugin: sender for plugin, (sender, at) in self.probers.items() if self.clock() - at > limit}
        for plugin, sender in silent.items():
            del self.probers[plugin]
            if any(sender.pid in watcher.processes for watcher in self.arbiter.watchers):
                logger.warning("xboard: plugin %s (pid %s) has not reported for %.0f s", plugin, sender.pid, limit)
                procs.send_signal(*sender, signal.SIGKILL, {os.geteuid()})

    # Reporting

    def publish(self, name: str, event: str, **message: object) -> None:
        """Send one event of ours, of the watcher *name* or of circusd, on Circus's bus; it is in the journal first."""
        numbered = self.journal.note(name, event, {"time": time.time(), **message})
        circus_arbiter.publish(self.arbiter, f"watcher.{name}.{event}", numbered)

    def view(self) -> State:
        """Return the answer to the command `xboard_state`."""
        state_dir = runtime.places().get(runtime.STATE_VARIABLE)
        return {
            "circusd": {
                "pid": self.identity.pid,
                "started": self.identity.started,
                "version": __version__,
                "python": sys.version.split()[0],
                "endpoint": self.arbiter.endpoint,
                "uptime": round(self.clock() - self.started_at, 3),
                "stopping": self.is_over(),
                "config_file": self.config_file,
                "instance": self.instance,
                "state_dir": os.path.join(state_dir, self.instance) if state_dir else "",
                "lost": self.lifetime.view(),
            },
            "probers": [
                {"plugin": plugin, "pid": sender.pid, "round_age": round(self.clock() - at, 3)}
                for plugin, (sender, at) in self.probers.items()
            ],
            "watchers": [*(self._view_of(watcher) for watcher in self.arbiter.watchers), *self._views_of_uncreated()],
        }

    def _views_of_uncreated(self) -> list[WatcherEntry]:
        created = {watcher.name for watcher in self.arbiter.watchers}
        recorded = circusd_record.workers(self.instance) if set(self._uncreated) - created else {}
        serving = Counter(owner for each, (owner, _) in recorded.items() if procs.is_running(*each))
        since = round(self.clock() - self.started_at, 3)
        return [
            uncreated_watcher(name=name, numprocesses=number, why=why, predecessors=serving[name], since=since)
            for name, (number, why) in self._uncreated.items()
            if name not in created
        ]

    def _view_of(self, watcher: Any) -> WatcherEntry:
        if (armed := self.armed.get(watcher.name)) is not None and armed.watcher is watcher:
            try:
                return state.watcher_entry(armed)
            except Exception:
                # One watcher with an error must not spoil the answer for the others.
                logger.exception("xboard: the state of %s cannot be shown", watcher.name)
        workers = []
        for process in watcher.processes.values():
            started, leaves = procs.start_time(process.pid), circus_process.is_stopping(process)
            age = round(process.age() if started is None else procs.age(started), 3)  # its own by the wall clock
            workers.append(unarmed_worker(pid=process.pid, started=started, wid=process.wid, leaves=leaves, age=age))
        status = "starting" if circus_arbiter.is_yet_to_start(self.arbiter, watcher) else watcher.status()
        known = {"name": watcher.name, "status": status, "numprocesses": watcher.numprocesses, "workers": workers}
        options, reason = circus_watcher.options_of(watcher), self.plain.get(watcher, "")
        return unarmed_watcher(options=options, last_reason=reason, **known)
