"""Supervise one armed watcher: Circus's own methods call ours, and the number of serving workers is kept up."""

import asyncio
import io
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger
from circus.exc import MessageError

from xboard_circus import env_files
from xboard_circus.core import recycling, worker_phases
from xboard_circus.core.durations import exactly
from xboard_circus.core.poison import Poisons
from xboard_circus.core.ports import Policy
from xboard_circus.core.reason import data_of, with_say
from xboard_circus.core.restart_limits import OF_WORKER, RestartBudget, RestartLimits
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import OutputEntry
from xboard_circus.core.verdict import IncidentKeeper
from xboard_circus.env_files import EnvFileError
from xboard_circus.errors import XboardError
from xboard_circus.host import free_memory, oom, request_slots, runtime, users, worker_files
from xboard_circus.masking import secrets_of, without
from xboard_circus.options.fields import WatcherOptions
from xboard_circus.options.reading import parse_watcher
from xboard_circus.supervisor.before_start import BeforeStart
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.circusd_out import own_output
from xboard_circus.supervisor.fleet import Fleet, Worker
from xboard_circus.supervisor.forks import Forks
from xboard_circus.supervisor.life import command_line, count_end, evidence, spawn, start
from xboard_circus.supervisor.life.output import LastWords, Tail
from xboard_circus.supervisor.life.spawn import SpawnRequest
from xboard_circus.supervisor.patches import circus_arbiter, circus_process, circus_stream, circus_watcher, patch
from xboard_circus.supervisor.patches.hooks import ArmedHooks
from xboard_circus.supervisor.port import PortGuard
from xboard_circus.supervisor.replace import rolling, terminate
from xboard_circus.supervisor.replace.swap import Swap
from xboard_circus.worker import limits_requests, refusal, runs_worker

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor

SPAWNS_AT_ONCE = 4
SLACK = 5.0
"""Seconds beyond `graceful_timeout` after which an order to leave expires."""


class ArmedWatcher:
    """A watcher with our methods for its spawns, reaps and stops.

    Circus's own methods are replaced on this one Watcher object (see `patches.circus_watcher`). So the decisions are
    race-free: they are made in circusd's thread, in the tick of the event.

    Attributes:
        spawns_again_at: When a failed spawn is tried again; None while spawns work.
        left_to_spawn: How many workers of this start have not been spawned yet: without respawn it ends with them.
        stays: circusd ends without the workers, which serve on for the next one; see `leave`.
        swaps: The current replacements of workers, whatever their reason.
        ahead_not_before: When a blocked worker gets a successor again, after one that came back.
        wanted: The request that the running spawn serves.
        last_reason: The last reason why something was done, or not done; *last_reason_at* is when.
        last_failure: Why a worker failed last, or could not be started.
        stopped_by: The sender of the last stop; "" for circusd itself.
        env_values: Values of the env files when all of them could last be read; *secrets*: those of these and of the
            rest of the environment that are never shown.
    """

    slack = SLACK

    def __init__(self, supervisor: "Supervisor", watcher: Any) -> None:
        self.supervisor = supervisor
        self.watcher = watcher
        self.name: str = watcher.name
        self.clock = time.monotonic
        self.tails: dict[int, LastWords] = {}
        self.last_reason = self.last_failure = self.requests_not_kept = self.stopped_by = ""
        self.last_reason_at = self.clock()
        self.incident = IncidentKeeper()
        self.spawns_again_at: float | None = None
        self.left_to_spawn = self._busy = self._drains = 0
        self.stays = self._was_registered = False
        self.swaps: list[Swap] = []
        self.reload: rolling.RollingReload | None = None
        self._recycle_not_before = self.ahead_not_before = float("-inf")
        self.wanted = SpawnRequest()
        self.before = BeforeStart(self)
        self.forks = Forks(self)
        self.env_values: dict[str, str] = {}
        self.secrets: frozenset[str] = frozenset()
        self.folder: Path | None = None
        self.options = WatcherOptions()
        self.read_options()
        self.budget = RestartBudget(self.limits(), slots=max(1, watcher.numprocesses), words=OF_WORKER)
        self.fleet = Fleet(self.budget, self.clock)
        self.poisons = Poisons()
        self.port = PortGuard(self)
        ours: dict[str, Any] = {"before_stop": self.before_stop, "before_signal": self.before_signal}
        self.hooks = ArmedHooks(dict(watcher.hooks), ours)
        self._patches = circus_watcher.patches_of(watcher, self)

    def install(self) -> None:
        """Install our methods. Raises PatchFailed, with everything as it was."""
        patch.install(self._patches)

    def disarm(self) -> None:
        """Remove our methods: from now on this is a watcher of stock Circus's."""
        self.forks.end()
        patch.undo(self._patches)
        for name in circus_stream.STREAMS:
            if isinstance((stream := getattr(self.watcher, name)), Tail):
                setattr(self.watcher, name, stream.inner)

    # Options

    def read_options(self) -> None:
        """Parse our options of the watcher's; a wrong one counts as its default and is reported."""
        self.options, problems = parse_watcher(circus_watcher.options_of(self.watcher))
        for problem in (*problems, *circus_watcher.correct(self.watcher)):
            self.note_reason(str(problem))

    def limits(self) -> RestartLimits:
        """Return the restart.* options for the budget."""
        return RestartLimits(**self.options.restart._asdict())

    def options_changed(self) -> None:
        """Apply options that were read again."""
        self.read_options()
        self.budget.limits = self.limits()
        self.watcher.env = command_line.with_options(self.watcher.env or {}, self.options)

    @property
    def has_private_socket(self) -> bool:
        """Return whether the command is our worker, which reports by itself when it is up."""
        return self.folder is not None and runs_worker(self.watcher.cmd, self.watcher.args)

    @property
    def limits_requests(self) -> bool:
        """Return whether its workers, which are ours, exit by themselves after a number of requests."""
        env = {**self.env_values, **(self.watcher.env or {})}
        return self.has_private_socket and limits_requests(self.watcher.cmd, self.watcher.args, env)

    def why_alone(self) -> str:
        """Return why no second worker can start beside the first; "" if one can."""
        if self.watcher.singleton:
            return Say.SINGLETON(watcher=self.name)
        if self.port.is_bound_by_the_server:
            return Say.BINDS_BY_ITSELF(watcher=self.name, port=self.options.port.port)
        return ""

    def has_room(self) -> bool:
        """Return whether memory permits one more worker: twice the largest; of unknown sizes (0) nothing is assumed."""
        sizes = [circus_process.resident(worker.pid) or worker.rss or 0 for worker in self.fleet]
        return 0 < 2 * max(sizes, default=0) <= free_memory.available()

    @property
    def policy(self) -> Policy:
        return Policy(self.options.port.policy)

    @property
    def late_grace(self) -> float:
        """Return how long a late starter may take to leave, in seconds; more would only delay the next."""
        return float(min(worker_phases.LATE_START_GRACE, self.watcher.graceful_timeout))

    # Whether it should run

    def is_current(self) -> bool:
        """Return whether this is still the watcher that Circus knows by this name."""
        return not self.supervisor.is_over() and not self.is_removed()

    def is_removed(self) -> bool:
        """Return whether Circus has dropped this watcher. A new one starts before Circus knows its name."""
        registered = circus_arbiter.registered(self.supervisor.arbiter, self.name)
        self._was_registered = self._was_registered or registered is self.watcher
        return registered is not self.watcher and (registered is not None or self._was_registered)

    def is_running(self) -> bool:
        return self.is_current() and not (self.watcher.is_stopped() or self.watcher.is_stopping())

    @property
    def busy(self) -> bool:
        """Return whether a coroutine of Circus's spawns for this watcher; one that waits for a drain does not."""
        return self._busy > 0 and not self._drains

    def busy_by(self, change: int) -> None:
        """Note that a coroutine of Circus's begins (1) or is over (-1); a slot may have become due meanwhile."""
        self._busy += change
        if change < 0:
            self.supervisor.soon(0)

    def swaps_in_the_making(self) -> list[Swap]:
        """Return the replacements with a new worker that has not taken over yet; a drain delays nothing."""
        return [swap for swap in self.swaps if not swap.has_handed_over]

    def swap_of(self, worker: Worker) -> Swap | None:
        """Return the replacement that *worker* takes part in."""
        return next((swap for swap in self.swaps if worker in (swap.old, swap.new)), None)

    # Preparing a start

    def prepare(self) -> None:
        """Make the folder and the environment for a start. Raises XboardError without a usable folder."""
        watcher = self.watcher
        self.spawns_again_at = None
        self.left_to_spawn = watcher.numprocesses
        self.folder = None
        self.folder = self._made_folder()
        self.give_environment()

    def give_environment(self) -> None:
        """Add our part to the environment of the watcher's processes."""
        self.supervisor.give_environment(self.watcher, self.folder, self.options)

    def read_env_files(self) -> None:
        """Read the env files anew. Raises EnvFileError, and keeps the former values."""
        watcher, folder = self.watcher, Path(self.supervisor.config_file).parent
        files = env_files.of_watcher(
            self.options, watcher.cmd, watcher.args, folder=folder, working_dir=folder / watcher.working_dir
        )
        given = watcher.env or {}  # of [env:...], and with copy_env of circusd itself
        self.env_values = env_files.values(files, given)
        self.secrets |= secrets_of({**self.env_values, **given})

    def environment_of_spawn(self) -> dict[str, str]:
        """Return the environment of the next process. If an env file cannot be read it is that of its siblings.

        Only a spawn sees these values: `circusctl options` shows the environment that Circus holds.
        """
        try:
            if not self.before.lacks_env:
                self.read_env_files()
        except EnvFileError as error:
            if self.before.is_done and (kept := Say.ENV_FILE_KEPT(why=str(error))) != self.last_reason:
                self.note_reason(kept)
        env = {**self.env_values, **(self.watcher.env or {})}
        if (status := self.options.request.refuse_poison) and (routes := self.poisons.routes(self.clock())):
            env[refusal.VARIABLE] = refusal.encoded(status, routes)
        return command_line.of_launcher(env, self.watcher.cmd, self.watcher.args)

    def memory_for_requests(self) -> io.FileIO | None:
        """Return memory in which the next worker notes its requests; None where it is to note none, or cannot."""
        if not self.options.request.record or not self.has_private_socket:
            return None
        try:
            return request_slots.make()
        except OSError as error:
            why = Say.REQUESTS_NOT_KEPT(why=error.strerror or str(error))
            if why != self.requests_not_kept:
                self.requests_not_kept = why
                logger.warning("xboard: %s: %s", self.name, why)
            return None

    def hide(self, output: bytes) -> bytes:
        """Return a worker's output without the secrets of its environment."""
        if not self.secrets:
            return output
        return without(output.decode("utf-8", "surrogateescape"), self.secrets).encode("utf-8", "surrogateescape")

    def before_start(self) -> None:
        """Keep the last lines of the workers, and clean and bind the port in our own time."""
        self.keep_output()
        self.before.begin()
        self.port.prepare()

    def keep_output(self) -> None:
        """Keep the last lines of the workers, and of those of another user all that would be circusd's own output."""
        watcher = self.watcher
        for name in circus_stream.STREAMS:
            inner = getattr(watcher, name) or own_output(name, users.user_of(watcher)[0])
            if inner is not None and not isinstance(inner, Tail):
                with suppress(OSError):  # reported with the first line that is lost
                    circus_stream.open_again(inner)  # Circus opened the first watcher's log before we were loaded
                circus_stream.give(watcher, name, Tail(inner, self.tails, hide=self.hide, report=self.publish))

    def _tails(self) -> list[Tail]:
        return [each for name in circus_stream.STREAMS if isinstance(each := getattr(self.watcher, name), Tail)]

    def output(self) -> OutputEntry:
        """Return the state of the workers' output."""
        tails = self._tails()
        loss = next((each.loss for each in tails if each.loss is not None), None)
        reason = "" if loss is None else loss.reason
        first = circus_stream.name_of(tails[0].inner) if tails else None
        return {
            "lost": sum(each.lost for each in tails),
            "file": first if loss is None else loss.file,
            "reason": reason,
            "say": data_of(reason),
        }

    # Hooks

    @contained(True)
    def before_stop(self, **_: object) -> bool:
        """Let Circus's stop wait for every process, also those that are being killed already."""
        for process in self.watcher.processes.values():
            circus_process.expect_to_be_killed(process)
        self.stopped_by = self.supervisor.requests.asker_of(self.name) or ""
        self.spawns_again_at = None
        self.budget.clear()
        self.poisons.clear()
        for worker in self.fleet:
            self.happen(worker, self._operators_order())
        return True

    def _operators_order(self) -> worker_phases.Ordered:
        """Return the order of the Circus command that runs on this watcher."""
        asker = self.supervisor.requests.asker_of(self.name)
        order = worker_phases.Order(by=Say.OPERATOR_BY(by=asker) if asker else Say.OPERATOR(), by_operator=True)
        return self._order(order)

    @contained(True)
    def before_signal(self, pid: int = 0, signum: int = 0, allowed: bool = True, **_: object) -> bool:
        """Note that Circus signals a process, so that the end that follows uses no restart budget.

        Circus sends only SIGKILL if the user's own hook refuses.
        """
        worker = self.fleet.workers.get(int(pid))
        if worker is None or not (allowed or signum == signal.SIGKILL):
            return True
        self.happen(worker, worker_phases.Signalled(int(signum)))
        if signum in worker_phases.ORDERS or signum == self.watcher.stop_signal:
            self.happen(worker, self._operators_order())
        return True

    def stop_begins(self) -> bool:
        """Note a stop, and return whether Circus is to carry it out."""
        self.before.stop()
        self.forks.end()
        if not self.stays and circus_arbiter.stops_for_good(self.supervisor.arbiter):
            self.port.close()
        return not self.stays

    def reloads_rolling(self) -> bool:
        """Return whether a reload replaces the workers; Circus starts a stopped watcher, and may send SIGHUP."""
        return self.is_running() and not self.watcher.send_hup

    def begin_reload(self) -> bool:
        """Begin a rolling reload in place of Circus's own; return whether Circus has nothing left to do."""
        if not self.reloads_rolling():
            return False
        try:
            rolling.begin(self, by=self.supervisor.requests.asker_of(self.name) or Say.OPERATOR())
        except MessageError as error:
            self.note_reason(str(error))
        return True

    def _order(self, order: worker_phases.Order) -> worker_phases.Ordered:
        return worker_phases.Ordered(self.clock(), order, float(self.watcher.graceful_timeout) + SLACK)

    # Events of workers

    def happen(self, worker: Worker, event: worker_phases.LifeEvent) -> None:
        """Apply *event* to *worker*: the core decides, and the effects are carried out here."""
        worker.life, effects = worker_phases.step(worker.life, event)
        for effect in effects:
            EFFECTS[effect](self, worker)

    def see_progress(self) -> None:
        """Note which workers are up, or ready; report those with forgiven failures after a long time up."""
        folder = self.folder if self.has_private_socket and worker_files.is_usable(self.folder) else None
        has_url = bool(self.options.health.url) and self.watcher.numprocesses == 1
        for worker, event in start.progress([*self.fleet], folder, self.clock(), has_url=has_url):
            self.happen(worker, event)
        for worker in self.fleet.forgive():
            self.publish("recovered", reason=Say.FORGIVEN(held=exactly(self.budget.limits.reset_after)), **worker.ids)

    def pass_time(self) -> None:
        """Terminate late starts, and let orders to leave expire."""
        if not self.is_running():
            return
        limit = self.options.health.startup_timeout
        why = Say.NOT_UP_IN_TIME(timeout=exactly(limit))
        tick = worker_phases.Ticked(self.clock(), limit, grace=self.late_grace + self.slack, why_late=why)
        for worker in self.fleet:
            late = worker_phases.is_late(worker.life, tick.at, limit)
            self.happen(worker, tick._replace(why_late=start.found_late(why, worker.pid, limit)) if late else tick)

    def report_expired(self, worker: Worker) -> None:
        """Report that a worker was ordered to leave and did not: from now on it is probed and replaced as any other."""
        reason = Say.DID_NOT_LEAVE(pid=worker.pid)
        circus_process.expect_to_be_killed(worker.process)
        self.note_reason(reason)
        self.publish("stayed", reason=reason, **worker.ids)

    # Ending workers

    async def end(self, worker: Worker, order: worker_phases.Order, *, within: float | None = None) -> None:
        """Order a worker to leave, kill it after *within* seconds (default: `graceful_timeout`), and fill its place."""
        self.happen(worker, self._order(order))
        await self.kill(worker, within)

    async def kill(self, worker: Worker, within: float | None) -> None:
        """Have Circus end a worker that leaves already, and fill its place."""
        await circus_watcher.kill(self.watcher, worker.process, within)
        self.keep_up()

    async def kill_hung(self, worker: Worker, order: worker_phases.Order) -> None:
        """Kill a worker whose event loop does not answer, and fill its place."""
        self.happen(worker, worker_phases.Ordered(self.clock(), order, terminate.STACK_SECONDS + terminate.DIES_WITHIN))
        self.publish("replace", **terminate.announcement(worker, order))
        await terminate.kill_with_stacks(worker, worker_files.path_of(self.folder, worker.token, "sock"))
        self.keep_up()

    # Processes

    def spawn(self, original: Callable[[], Any]) -> Any:
        return spawn.spawn(self, original)

    def reap(self, original: Callable[..., Any], pid: int, status: int | None) -> None:
        count_end.reap(self, original, pid, status)

    async def until_killed(self, killed: Awaitable[None]) -> None:
        await killed
        await self.before.until_ended()
        await count_end.until_dead(self.fleet, self.clock)

    async def spawn_all(self, original: Callable[[], Awaitable[None]]) -> None:
        """Carry out Circus's own spawns of a start when the forkserver has imported the server, and the port is bound.

        Slots with a longer wait get their workers later, from `keep_up`.
        """
        await self.forks.for_start()
        await self.port.until_looked_at()
        await original()

    def spawn_for(self, wanted: SpawnRequest) -> None:
        """Spawn one process that does not simply replace a dead one."""
        self.wanted = wanted
        try:
            self.watcher.spawn_process()
        finally:
            self.wanted = SpawnRequest()

    def may_run(self, slot: int) -> bool:
        """Return whether a worker of *slot* may run now: the start is prepared, the port bound, and its wait over."""
        return self.before.is_done and self.port.is_ready and self.budget.may_start(slot, self.clock())

    def held_slots(self) -> list[int]:
        """Return the slots that hold their next worker; such a slot has no process. A start spawns first."""
        is_active = self.is_current() and self.watcher.is_active()
        return [slot for slot in self.slots_to_fill() if not self.may_run(slot)] if is_active else []

    def slots_to_fill(self) -> list[int]:
        """Return the free slots to fill, the one that may be tried soonest first."""
        return self.fleet.free_slots(int(self.watcher.numprocesses))[: max(self.missing(), 0)]

    def note_number(self) -> None:
        """Apply a changed `numprocesses`. The failures of a held slot that it removes are forgotten.

        An operator has ended its wait, and a worker beside it that dies may get its number.
        """
        before, self.budget.slots = self.budget.slots, max(1, int(self.watcher.numprocesses))
        if self.budget.slots < before:
            for slot in {*range(1, before + 1)} - self.fleet.used_slots() - {*self.slots_to_fill()}:
                self.budget.forget(slot)

    # Files in the runtime folder

    def lacks_socket(self, worker: Worker) -> bool:
        """Return whether a worker that is up has lost its private socket, if each has one."""
        return worker.is_up and not worker_files.has(self.folder, worker.token, "sock")

    @contained(None)
    def look_after_folder(self, *, is_anothers: bool = False) -> None:
        """Make a removed runtime folder again, elsewhere where another user has made it meanwhile, and report the
        workers that lost their private socket with it. One that is to be another user's from now on is given to it."""
        if self.folder is None or not self.has_private_socket:
            return
        try:
            if is_anothers or not runtime.is_ours(self.folder):
                self.folder = self._made_folder()
                self.give_environment()
        except XboardError as error:  # what lies in its place is not ours, and there is no other place
            if str(error) != self.last_reason:
                self.note_reason(str(error))
        for worker in self.fleet:
            was_lost, worker.is_lost = worker.is_lost, self.lacks_socket(worker)
            if worker.is_lost and not was_lost:
                self.happen(worker, worker_phases.Lost(Say.SOCKET_GONE()))
                self.publish("unprobed", reason=Say.SOCKET_GONE(), **worker.ids)

    def _made_folder(self) -> Path:
        return runtime.watcher_dir(self.supervisor.instance, self.name, *users.user_of(self.watcher))

    # Keeping up the number of serving workers

    def reap_dead(self) -> None:
        """Reap the dead, in this very tick; Circus itself looks once in `check_delay` seconds."""
        for worker in self.fleet:
            if worker.pid in self.watcher.processes and worker.has_ended():
                self.watcher.reap_process(worker.pid)
        count_end.settle(self)

    @contained(None)
    def keep_up(self) -> None:
        """Reap the dead and start others in their place.

        Circus itself does not look at all while any watcher drains.
        """
        watcher = self.watcher
        self.reap_dead()
        if not self.is_running() or not watcher.is_active() or self.busy or watcher.on_demand:
            return
        added = 0
        while added < SPAWNS_AT_ONCE and self.missing() > 0 and self._add_one():
            added += 1
        if added == SPAWNS_AT_ONCE:
            self.supervisor.soon(0)

    def _add_one(self) -> bool:
        """Have one more worker serve; return whether one does: perhaps no slot is due, or the spawn fails."""
        before = self.missing()
        self.watcher.spawn_process()
        return self.missing() < before

    def missing(self) -> int:
        """Return how many workers are missing; negative: how many there are too many."""
        others = sum(1 for pid in self.watcher.processes if pid not in self.fleet)
        missing = int(self.watcher.numprocesses) - others - len(self.fleet.counted())
        return missing if self.watcher.respawn else min(missing, max(self.left_to_spawn, 0))

    def waits_for_workers(self) -> bool:
        """Return whether workers come later without a command: their slots are held, or they could not be spawned."""
        return self.is_running() and self.missing() > 0

    async def manage(self) -> None:
        """Do what Circus's `manage_processes` does: end the expired, spawn what is missing, end what is too many."""
        watcher = self.watcher
        if watcher.is_stopped():
            return
        self.reap_dead()
        self.note_number()
        # Counted anew after each pause: `keep_up` answers a death meanwhile at once.
        while self.missing() > 0 and not watcher.is_stopping() and self._add_one():
            await asyncio.sleep(watcher.warmup_delay)
        has_ended = not (watcher.respawn or watcher.on_demand or len(watcher.processes) or self.missing() > 0)
        if has_ended and not watcher.is_stopping():
            await circus_watcher.stop(watcher)
        await self._end_surplus()

    async def _end_surplus(self) -> None:
        watcher = self.watcher
        chosen = self.fleet.least_serving(-self.missing())
        # A blocked worker goes with its successor: kept, it would be one too many, and a healthy one ended for it.
        chosen += [swap.old for swap in self.swaps_in_the_making() if swap.blocked and swap.new in chosen]
        todo = [worker for worker in chosen if not worker.is_leaving]
        for worker in todo:
            # It does not count for `numprocesses` while it drains: a worker that dies meanwhile is replaced at once.
            self.happen(worker, worker_phases.Retired())
        if todo:
            self._drains += 1
            try:
                await asyncio.gather(*(watcher.kill_process(worker.process) for worker in todo))
            finally:
                self._drains -= 1
            self.reap_dead()

    # Recycling

    def recycle(self) -> None:
        """Begin the replacement of one worker that is due, unless another one is being replaced."""
        is_reloading = self.reload is not None and self.reload.is_running
        if self.swaps or self.busy or is_reloading or not self.is_running() or self.clock() < self._recycle_not_before:
            return
        can_use_folder = self.has_private_socket and worker_files.is_usable(self.folder)
        for worker in self.fleet.up():
            why = Say.SOCKET_GONE() if can_use_folder and self.lacks_socket(worker) else self._why_due(worker)
            if why is not None and worker.life.counts:
                self.supervisor.run(self._recycle(worker, Say.RECYCLED(why=why)), f"the recycling of {worker.pid}")
                return

    def _why_due(self, worker: Worker) -> str | None:
        """Return why to recycle a worker now; None without a reason."""
        options, up_for = self.options.worker, self.clock() - (worker.up_since or self.clock())
        # Circus's own max_age would end all due workers at once, by the wall clock.
        max_age = options.max_age or float(self.watcher.max_age or 0)
        limits = recycling.RecycleLimits(options.max_rss, options.max_requests, max_age)
        rss = circus_process.resident(worker.pid) if limits.rss else None
        served = worker.probe.get("requests_served")
        return recycling.due(limits, rss=rss, requests=served, age=up_for, spread=worker.spread)

    async def _recycle(self, worker: Worker, reason: str) -> None:
        if await Swap(self, worker, worker_phases.Order(by="recycle", why=reason)).run() is not None:
            # A new worker that does not get ready would otherwise be tried again each second.
            self._recycle_not_before = self.clock() + self.options.restart.cooldown

    # The clockwork

    def is_unsettled(self) -> bool:
        """Return whether something is under way, so that the next tick must come soon."""
        return any(worker.is_starting for worker in self.fleet) or bool(self.swaps or self.held_slots())

    @contained(None)
    def tick(self) -> None:
        self.fleet.note_up()
        self.keep_up()
        self.see_progress()
        self.before.look_again()
        self.forks.keep_up()
        self.pass_time()
        self.recycle()
        self.port.check()
        for tail in self._tails():
            tail.try_again()

    # Reporting

    def report_up(self, worker: Worker) -> None:
        """Report that a worker serves; for the OOM killer it is a process like any other from now on."""
        oom.kill_like_others(worker.pid)
        self.publish("ready", **evidence.of_start(worker))
        self._report_versions(worker)

    @contained(None)
    def _report_versions(self, worker: Worker) -> None:
        """Report a worker of another version than its siblings: with `worker.preload = app` only a reload brings one,
        unless the forkserver had to import anew, such as for a link as working_dir that leads to the next release."""
        is_reloading = self.reload is not None and self.reload.is_running
        other = next((each for each in self.fleet.counted() if each.is_up and each is not worker), None)
        if self.options.worker.preload != "app" or self.folder is None or is_reloading or other is None:
            return
        if file := rolling.differing_file(self.folder, [worker, other], surely=True):
            self.note_reason(Say.WORKERS_DIFFER(pid=worker.pid, other=other.pid, file=file, watcher=self.name))

    def note_reason(self, reason: str) -> None:
        """Keep a reason for `status`, with its time, and log it."""
        self.last_reason, self.last_reason_at = reason, self.clock()
        logger.warning("xboard: %s: %s", self.name, reason)

    def publish(self, event: str, *, reason: str, **more: object) -> None:
        """Publish one of our events on Circus's bus."""
        self.supervisor.publish(self.watcher.res_name, event, **with_say(reason), **more)


EFFECTS: dict[worker_phases.Effect, Callable[[ArmedWatcher, Worker], object]] = {
    worker_phases.Effect.COUNT_UP: lambda armed, worker: armed.fleet.count_up(worker),
    worker_phases.Effect.REPORT_UP: ArmedWatcher.report_up,
    worker_phases.Effect.WAKE: lambda _, worker: circus_process.wake(worker.process),
    worker_phases.Effect.TERMINATE: lambda armed, worker: armed.supervisor.run(
        armed.kill(worker, armed.late_grace), f"the end of {worker.pid}"
    ),
    worker_phases.Effect.REPORT_EXPIRED: ArmedWatcher.report_expired,
}
"""How each effect is carried out."""
