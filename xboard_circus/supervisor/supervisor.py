"""What circusd knows and does for all armed watchers together: one clockwork, one state, prompt reaping."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
from circus import logger

from xboard_circus import __version__
from xboard_circus.core.ports import Holder
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
from xboard_circus.host import listeners, procs, runtime
from xboard_circus.host.oom import OomKills
from xboard_circus.plugins.port_guard import named
from xboard_circus.supervisor import commands, evidence, helpers, in_process_restart, inheritance, own_log, reconfigure
from xboard_circus.supervisor.armed import ArmedWatcher
from xboard_circus.supervisor.boundary import contained, contained_task
from xboard_circus.supervisor.journal import Journal
from xboard_circus.supervisor.lifetime import Lifetime
from xboard_circus.supervisor.requests import Requests

TICK_FAST = 0.2
TICK_SLOW = 2.5
TICK_WITH_REPORT = 1.0
REAP_EVERY = 0.2
HELPER_GRACE = 2.0


class Supervisor:
    """Everything of ours in one circusd. Kept on the arbiter: a hook that is set again reloads its module.

    Ticks are a chain of timers on the loop's monotonic clock: Circus's own periodic check sleeps for an hour when the
    clock is set back by one.
    """

    tick_slow = TICK_SLOW

    def __init__(self, arbiter: Any) -> None:
        self.arbiter = arbiter
        self.loop: asyncio.AbstractEventLoop = arbiter.loop.asyncio_loop
        self.clock = time.monotonic
        self.config_file = os.path.abspath(getattr(arbiter, "config_file", None) or "circus.ini")
        self.instance = runtime.instance_id(self.config_file)
        self.folder = runtime.instance_dir(self.instance)
        self.identity = procs.Identity(os.getpid(), procs.start_time(os.getpid()) or 0)
        self.started_at = self.clock()
        self.armed: dict[str, ArmedWatcher] = {}
        self.probers: dict[str, tuple[procs.Identity, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.journal = Journal()
        self.oom = OomKills()  # one for all: a kill explains one death, whosever it is
        self.looked_at = float("-inf")
        self._reaped_at = self._ticked_at = float("-inf")
        self._sweeps: dict[str | None, asyncio.Future[list[str]]] = {}
        runtime.write_record(
            self.instance,
            pid=self.identity.pid,
            started=self.identity.started,
            endpoint=arbiter.endpoint,
            config_file=self.config_file,
            version=__version__,
        )
        commands.register(arbiter, self)
        reconfigure.install(arbiter, self)
        helpers.install(arbiter, self)
        in_process_restart.install(arbiter)
        inheritance.install()
        own_log.rotate_log()
        self._output = own_log.Output(Path(self.config_file).parent)
        self.requests = Requests(self)
        self.lifetime = Lifetime(self)
        self._reap_promptly()
        self.soon(0)

    @classmethod
    def of(cls, arbiter: Any) -> Supervisor:
        """Return the one of this arbiter; `circusctl restart` without a name makes a new arbiter in the process."""
        if not hasattr(arbiter, "xboard"):
            arbiter.xboard = cls(arbiter)
        found: Supervisor = arbiter.xboard
        return found

    def arm(self, watcher: Any) -> None:
        """Arm a watcher that starts, or prepare one that is armed for its next start."""
        armed = self.armed.get(watcher.name)
        if armed is None or armed.watcher is not watcher:
            armed = self.armed[watcher.name] = ArmedWatcher(self, watcher)
        for each in self.arbiter.watchers:
            helpers.prepare(self, each)
        self.sweep(None, HELPER_GRACE)
        armed.before_start()
        self.soon(TICK_FAST)

    def marks(self) -> dict[str, str]:
        """Return the environment by which a process is known as one of this instance."""
        return {
            "XBOARD_INSTANCE": self.instance,
            "XBOARD_CIRCUSD": str(self.identity),
            "XBOARD_HOME": os.path.dirname(self.config_file),
            "XBOARD_CONFIG": self.config_file,
            "XBOARD_RUNTIME_DIR": str(runtime.root()),
        }

    # The clockwork

    def run(self, work: Coroutine[Any, Any, None], what: str, on_failure: Callable[[], None] | None = None) -> None:
        """Run a coroutine beside circusd's own; where it fails, log it and call *on_failure*."""

        async def watched() -> None:
            failed = True

            async def body() -> None:
                nonlocal failed
                await work
                failed = False

            await contained_task(body(), what)
            if failed and on_failure is not None:
                on_failure()

        task = self.loop.create_task(watched())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def soon(self, delay: float) -> None:
        """See to it that the next tick comes within *delay* seconds."""
        due = self.loop.time() + delay
        if self._timer is not None and not self._timer.cancelled():
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_later(delay, self._tick)

    def is_over(self) -> bool:
        """Say whether this arbiter stops or makes room for its successor in the process."""
        return bool(self.arbiter._stopping or self.arbiter._restarting)

    def _tick(self) -> None:
        self._timer = None
        if self.is_over():
            return
        self._ticked_at = self.clock()
        self._drop_removed()
        for armed in list(self.armed.values()):
            armed.tick()
        evidence.look(self)
        self.lifetime.tick()
        self._end_stuck_probers()
        self._output.keep_small(self.clock())
        unsettled = any(armed.is_unsettled() for armed in self.armed.values())
        self.soon(TICK_FAST if unsettled else TICK_SLOW)

    @contained(None)
    def _drop_removed(self) -> None:
        for name, armed in list(self.armed.items()):
            if armed.is_removed():
                del self.armed[name]

    # Prompt reaping

    @contained(None)
    def _reap_promptly(self) -> None:
        # Not signal.signal: a Python-level handler runs in the middle of anything, and an exception in it would count
        # as a failed hook of whatever runs.
        self.loop.add_signal_handler(signal.SIGCHLD, self._child_ended)

    def _child_ended(self) -> None:
        wait = self._reaped_at + REAP_EVERY - self.clock()
        if wait > 0:
            self.soon(wait)
        elif not self.is_over():
            self._reaped_at = self.clock()
            for armed in list(self.armed.values()):
                armed.reap_and_respawn()
            self.soon(TICK_FAST)

    # Leftovers of an earlier circusd

    def sweep(self, watcher: str | None, grace: float) -> asyncio.Future[list[str]]:
        """End, once, what an earlier circusd left of a watcher; the future names whom.

        None stands for all that belongs to no watcher of ours: plugins, Circus's helpers, watchers that are no more.
        """
        found = self._sweeps.get(watcher)
        if found is None:
            found = self._sweeps[watcher] = self.loop.create_future()
            self.run(self._end_orphans(watcher, grace, found), "the sweep of leftovers", lambda: _answer(found, []))
        return found

    async def _end_orphans(self, watcher: str | None, grace: float, found: asyncio.Future[list[str]]) -> None:
        left = await self.loop.run_in_executor(None, self._orphans, watcher)
        if left:
            logger.warning("xboard: ending what an earlier circusd left behind: %s", ", ".join(named(left)))
            await self.loop.run_in_executor(None, lambda: listeners.stop(left, grace=grace))
        _answer(found, named(left))

    def _orphans(self, watcher: str | None) -> list[Holder]:
        known = {each.name for each in self.arbiter.watchers if not helpers.is_helper(each.name)}

        def owner(holder: Holder) -> str | None:
            name = (procs.environ(holder.pid or 0) or {}).get("XBOARD_WATCHER")
            return name if name in known else None

        return [holder for holder in listeners.orphans(self.instance) if owner(holder) == watcher]

    def holders(self, host: str, port: int) -> list[Holder]:
        """Return who holds a port, for a thread. What a dead worker of ours left behind counts as an orphan.

        It names a circusd that lives, this one, but is not below it any more: the workers of a `uvicorn --workers`
        whose parent was killed are such.
        """
        family = self.family()
        ours = self.identity.pid, self.identity.started
        return [
            dataclasses.replace(holder, circusd_alive=False)
            if holder.circusd == ours and holder.pid not in family
            else holder
            for holder in listeners.holders(host, port)
        ]

    def family(self) -> set[int]:
        """Return the pids of circusd and of all that it has below it, for a thread."""
        return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}

    # The prober

    def report(self, plugin: str, sender: procs.Identity) -> None:
        """Note that a prober finished a round. circusd is awake, so this is the time for what is due each second."""
        self.probers[plugin] = sender, self.clock()
        if self.clock() - self._ticked_at >= TICK_WITH_REPORT:
            self.soon(0)

    @contained(None)
    def _end_stuck_probers(self) -> None:
        """End a prober that stopped reporting; Circus starts it again. A dead one it notices by itself."""
        periods = [armed.options.health.period + armed.options.health.timeout for armed in self.armed.values()]
        limit = max(10.0, 5 * max(periods, default=0.0))
        for plugin, (sender, at) in list(self.probers.items()):
            if self.clock() - at <= limit:
                continue
            del self.probers[plugin]
            if any(sender.pid in watcher.processes for watcher in self.arbiter.watchers):
                logger.warning("xboard: plugin %s (pid %s) has not reported for %.0f s", plugin, sender.pid, limit)
                procs.send_signal(sender.pid, sender.started, signal.SIGKILL)

    def shared_sockets(self) -> set[str]:
        """Return the names of the Circus sockets that armed watchers serve on."""
        found = (armed.port.socket() for armed in self.armed.values())
        return {shared.name for shared in found if shared is not None}

    # Telling

    def publish(self, watcher: Any, event: str, *, reason: str, **more: object) -> None:
        """Send one event of ours on Circus's bus."""
        message = {"time": time.time(), "reason": reason, **more}
        watcher.notify_event(event, self.journal.note(watcher.res_name, event, message))

    def view(self) -> dict[str, Any]:
        """Return what the command `xboard_state` answers."""
        return {
            "circusd": {
                "pid": self.identity.pid,
                "started": self.identity.started,
                "version": __version__,
                "endpoint": self.arbiter.endpoint,
                "uptime": round(self.clock() - self.started_at, 3),
                "stopping": bool(self.arbiter._stopping and not self.arbiter._restarting),
                "config_file": self.config_file,
                "instance": self.instance,
                "runtime_dir": str(self.folder),
                "lost": self.lifetime.view(),
            },
            "probers": [
                {"plugin": plugin, "pid": sender.pid, "round_age": round(self.clock() - at, 3)}
                for plugin, (sender, at) in self.probers.items()
            ],
            "watchers": [self._view_of(watcher) for watcher in self.arbiter.watchers],
        }

    def _view_of(self, watcher: Any) -> dict[str, Any]:
        armed = self.armed.get(watcher.name)
        if armed is not None and armed.watcher is watcher:
            return armed.view()
        return unarmed_watcher(
            name=watcher.name,
            status=watcher.status(),
            numprocesses=watcher.numprocesses,
            options=watcher._options,
            workers=[
                unarmed_worker(
                    pid=process.pid,
                    started=procs.start_time(process.pid),
                    wid=process.wid,
                    state="stopping" if process.stopping else "ready",
                    age=round(process.age(), 3),
                )
                for process in watcher.processes.values()
            ],
        )


def _answer(found: asyncio.Future[list[str]], ended: list[str]) -> None:
    if not found.done():
        found.set_result(ended)
