"""One armed watcher: Circus's own methods pass through us, and the number of serving workers is kept up."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from xboard_circus.core.budget import OF_WORKER, RestartBudget, RestartLimits
from xboard_circus.core.ports import Policy
from xboard_circus.host import runtime
from xboard_circus.options.reading import WatcherOptions, parse_watcher
from xboard_circus.plugins.port_guard import PortGuard
from xboard_circus.supervisor import ends, recycling, spares, spawning, starting, view, wiring
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.environment import environment, user_of
from xboard_circus.supervisor.hooks import ArmedHooks
from xboard_circus.supervisor.output import LastWords, Tail
from xboard_circus.supervisor.replacement import Replacement
from xboard_circus.supervisor.rolling_reload import RollingReload
from xboard_circus.supervisor.slot import Spawned
from xboard_circus.supervisor.spawning import Wanted

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

SPAWNS_AT_ONCE = 4
ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT})
WORKER_MODULE = "xboard_circus.worker"


class ArmedWatcher:
    """A watcher whose spawns, reaps and stops pass through us.

    Circus's own methods are replaced on this one Watcher object, each by a function that calls the original. That is
    what makes the decisions race-free: they fall in circusd's thread, in the tick in which the thing happens.

    Attributes:
        ends: How many processes ended by which cause, commanded ones too.
        ended_in: By slot, the pid of the one that ended there last, until another takes its place.
        live: Every process that was spawned and whose end is not known yet, by pid.
        busy: How many of Circus's own coroutines are at work on this watcher.
        start_failed_until: Set while nothing could be spawned; when it is tried again.
        replacement: The one replacement of a worker that runs now, whatever its reason.
        wanted: What the spawn that runs now is for.
    """

    def __init__(self, supervisor: Supervisor, watcher: Any) -> None:
        self.supervisor = supervisor
        self.watcher = watcher
        self.name: str = watcher.name
        self.clock = time.monotonic
        self.live: dict[int, Spawned] = {}
        self.tails: dict[int, LastWords] = {}
        self.restarts = 0
        self.ends: Counter[str] = Counter()
        self.last_reason = ""
        self.busy = 0
        self.start_failed_until: float | None = None
        self.stopped_at: float | None = None
        self.replacement: Replacement | None = None
        self.reload: RollingReload | None = None
        self.recycle_not_before = float("-inf")
        self.ended_in: dict[int, int] = {}
        self.wanted = Wanted()
        self.options = WatcherOptions()
        self.read_options()
        self.budget = RestartBudget(self.limits(), slots=max(1, watcher.numprocesses), words=OF_WORKER)
        self.port = PortGuard(self)
        self.folder: Path | None = None
        self._gates = 0
        self._was_registered = False
        self.hooks = ArmedHooks(
            dict(watcher.hooks), {"before_stop": self.before_stop, "before_signal": self.before_signal}
        )
        wiring.wrap(self)

    # What the ini says

    def read_options(self) -> None:
        """Read our options from the watcher's; a wrong one counts as its default and is told."""
        self.options, problems = parse_watcher(self.watcher._options)
        for problem in problems:
            self.tell(str(problem))

    def limits(self) -> RestartLimits:
        """Return what the restart.* options say, for the budget."""
        restart = self.options.restart
        return RestartLimits(
            burst=restart.burst,
            window=restart.window,
            delay=restart.delay,
            delay_max=restart.delay_max,
            cooldown=restart.cooldown,
            reset_after=restart.reset_after,
        )

    def options_changed(self) -> None:
        """Put options that were read again into force."""
        self.read_options()
        self.budget.limits = self.limits()

    @property
    def has_private_socket(self) -> bool:
        """Say whether the command is our worker, which tells by itself when it is ready."""
        return WORKER_MODULE in self.watcher.cmd

    @property
    def policy(self) -> Policy:
        return Policy(self.options.port.policy)

    # Whether it is meant to run

    def is_current(self) -> bool:
        """Say whether this is still the watcher that Circus knows by this name."""
        return not self.supervisor.is_over() and not self.is_removed()

    def is_removed(self) -> bool:
        """Say whether Circus has dropped this watcher. While it is added it starts before it gets its name."""
        registered = self.supervisor.arbiter._watchers_names.get(self.name.lower())
        self._was_registered = self._was_registered or registered is self.watcher
        return registered is not self.watcher and (registered is not None or self._was_registered)

    def is_running(self) -> bool:
        return self.is_current() and not (self.watcher.is_stopped() or self.watcher.is_stopping())

    # Preparing a start

    def before_start(self) -> None:
        """Prepare the folder, the environment and the port; called by the hook each time the watcher starts."""
        watcher = self.watcher
        self.start_failed_until = self.stopped_at = None
        self.folder = runtime.watcher_dir(self.supervisor.instance, self.name, *user_of(watcher))
        watcher.env = environment(
            watcher.env, watcher=self.name, folder=self.folder, options=self.options, marks=self.supervisor.marks()
        )
        for stream in ("stdout_stream", "stderr_stream"):
            inner = getattr(watcher, stream)
            if inner is not None and not isinstance(inner, Tail):
                setattr(watcher, stream, Tail(inner, self.tails))
        self.port.prepare()

    # Hooks

    @contained(True)
    def before_stop(self, **_: object) -> bool:
        """Let Circus's stop wait for every process, those that are being killed already too.

        `kill_process` returns at once for a process that is `stopping`, and Circus then waits for it in a busy loop
        that freezes circusd for good.
        """
        for process in self.watcher.processes.values():
            process.stopping = False
        if self.start_failed_until is None:
            self.budget.clear()
        for spawned in self.live.values():
            spawned.commanded_by = spawned.commanded_by or ends.by_operator(self)
        return True

    @contained(True)
    def before_signal(self, pid: int = 0, signum: int = 0, **_: object) -> bool:
        """Note that Circus signals a process: an end that it asked for costs nothing."""
        spawned = self.live.get(int(pid))
        if spawned is not None:
            spawned.signals.append(int(signum))
            if signum in ENDING_SIGNALS or signum == self.watcher.stop_signal:
                if spawned.our_kill is None and spawned.commanded_by is None:
                    spawned.commanded_by = ends.by_operator(self)
                spawned.wake_up()
        return True

    # Processes

    def spawn_for(self, wanted: Wanted) -> None:
        """Spawn one process that is more than a plain replacement of a dead one."""
        self.wanted = wanted
        try:
            self.watcher.spawn_process()
        finally:
            self.wanted = Wanted()

    @contained(None)
    def settle(self) -> None:
        ends.settle(self)

    def open_gates(self) -> None:
        spawning.open_gates(self)

    def end_waiting(self, reason: str) -> None:
        """End the launchers that wait: the socket that they inherited is not the one that is served on any more."""
        for spawned in self.live.values():
            if spawned.released_at is None and not spawned.has_ended():
                spawned.commanded_by, spawned.our_reason = "handover", reason
                spawned.process.send_signal(signal.SIGKILL)

    def new_gate(self) -> Path:
        """Make a gate that a launcher waits for to go away."""
        assert self.folder is not None
        self._gates += 1
        return runtime.make_gate(self.folder, self._gates)

    def file_of(self, spawned: Spawned, suffix: str) -> Path:
        """Return the path of a worker's private socket ("sock") or of its ready mark ("ready")."""
        assert self.folder is not None
        return self.folder / f"{spawned.pid}.{suffix}"

    def remove_files(self, spawned: Spawned) -> None:
        """Remove what a dead worker left in the runtime folder."""
        files = [spawned.gate] if spawned.gate is not None else []
        if self.folder is not None:
            files += [self.file_of(spawned, "sock"), self.file_of(spawned, "ready")]
        for path in files:
            path.unlink(missing_ok=True)

    def is_ready_by_uptime(self, spawned: Spawned) -> bool:
        """Without the private socket nobody tells that it is ready: a second of running has to do."""
        released = spawned.released_at
        return not self.has_private_socket and released is not None and self.clock() - released > 1.0

    # Keeping up the number of serving workers

    @contained(None)
    def reap_and_respawn(self) -> None:
        """Reap the dead and put others in their place, in this very tick.

        Circus itself looks once in `check_delay` seconds, not at all while any watcher drains, and counts a worker
        that is being replaced as one that serves.
        """
        watcher = self.watcher
        for spawned in list(self.live.values()):
            if spawned.pid in watcher.processes and spawned.has_ended():
                watcher.reap_process(spawned.pid)
        self.settle()
        if not self.is_running() or not watcher.is_active() or self.busy or not watcher.respawn or watcher.on_demand:
            return
        missing = watcher.numprocesses - self._serving()
        for _ in range(min(missing, SPAWNS_AT_ONCE)):
            if not spares.promote(self):
                watcher.spawn_process()
        if missing > SPAWNS_AT_ONCE:
            self.supervisor.soon(0)
        else:
            spares.fill_up(self)

    def _serving(self) -> int:
        return sum(1 for pid in self.watcher.processes if pid not in self.live or self.live[pid].counts)

    def is_all_ready(self) -> bool:
        """Say whether as many workers are ready as there are to be."""
        ready = sum(1 for spawned in self.live.values() if spawned.counts and spawned.ready_at is not None)
        return ready >= int(self.watcher.numprocesses)

    # The clockwork

    def is_unsettled(self) -> bool:
        """Say whether something is on its way, so that the next look must come soon."""
        starting = any(spawned.ready_at is None and not spawned.spare for spawned in self.live.values())
        return starting or self.replacement is not None

    @contained(None)
    def tick(self) -> None:
        self.reap_and_respawn()
        starting.see_ready(self)
        self.open_gates()
        starting.end_late_starts(self)
        recycling.look(self)
        starting.start_again(self)
        self.port.check()

    # Telling

    def tell(self, reason: str) -> None:
        """Note a reason for `status`, and log it."""
        self.last_reason = reason
        logger.warning("xboard: %s: %s", self.name, reason)

    def publish(self, event: str, *, reason: str, **more: object) -> None:
        """Send one event of ours on Circus's bus."""
        self.supervisor.publish(self.watcher, event, reason=reason, **more)

    def view(self) -> dict[str, object]:
        return view.watcher(self)
