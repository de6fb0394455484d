"""Circus's Watcher: the methods of one armed watcher, and of a plugin's, that pass through us."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from circus import logger
from psutil import NoSuchProcess

from xboard_circus.options.reading import is_ours
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.patches.hooks import ArmedHooks
from xboard_circus.supervisor.patches.patch import Original, Patch


class Ours(Protocol):
    """What an armed watcher does in the place of Circus's own methods."""

    hooks: ArmedHooks

    def spawn(self, original: Original, recovery_wid: int | None) -> Any: ...
    def reap(self, original: Original, pid: int, status: int | None) -> None: ...
    async def manage(self) -> None: ...
    async def until_killed(self, killed: Awaitable[None]) -> None: ...
    def stop_begins(self) -> None: ...
    def busy_with(self, what: str) -> Any: ...
    def begin_reload(self) -> bool: ...
    def environment_replaced(self) -> None: ...


class _OfWatcher(Patch):
    of = "Watcher"

    def __init__(self, watcher: Any, ours: Ours) -> None:
        super().__init__(watcher)
        self.watcher = watcher
        self.ours = ours


class Hooks(_OfWatcher):
    """The user's hooks, with ours behind them."""

    name = "hooks"
    without = "We would not see a stop or a signal before it happens, or would replace the user's own hook."
    fact = "call_hook looks each name up in this dict at each call."

    def replacement(self, original: Any) -> Any:
        return self.ours.hooks


class Processes(_OfWatcher):
    """A watcher's processes, which may be taken out twice."""

    name = "processes"
    without = "`reload` and `decr` end in a KeyError and never answer."
    fact = "Circus pops what it has killed without a look; with prompt reaping it often is gone by then."

    def replacement(self, original: Any) -> Any:
        return _Tolerant(original)

    def undo(self) -> None:
        """Take it off. What was spawned meanwhile stays known to Circus, and what ended is not there again."""
        known = dict(self._target.processes)
        was_installed = self._own is not None
        super().undo()
        if was_installed:
            self._target.processes.clear()
            self._target.processes.update(known)


class _Tolerant(dict[int, Any]):
    def pop(self, pid: int, default: Any = None) -> Any:
        return super().pop(pid, default)


class SpawnProcess(_OfWatcher):
    """Spawn behind the launcher and the gate; no exception leaves it."""

    name = "spawn_process"
    without = "A program that is missing for a moment stops the whole watcher, healthy workers too."
    fact = "After max_retry failed forks Circus stops the watcher; a failing preexec ends start_watchers."

    def replacement(self, original: Original) -> Original:
        return lambda recovery_wid=None: self.ours.spawn(original, recovery_wid)


class ReapProcess(_OfWatcher):
    """Leave a live process alone, and count each end."""

    name = "reap_process"
    without = "circusd freezes for good when `stop` meets a process that is being killed; ends go uncounted."
    fact = "reap_process waits for a live pid in a busy loop; after_reap misses up to a third of the ends."

    def replacement(self, original: Original) -> Original:
        return lambda pid, status=None: self.ours.reap(original, pid, status)


class ManageProcesses(_OfWatcher):
    """Keep up the number of serving workers, and end those that serve least when there are too many."""

    name = "manage_processes"
    without = "Fewer workers wanted: the healthy one is killed and the one that waits is kept."
    fact = "Circus kills the oldest, counts spares and retiring workers as serving, and drops dead ones unseen."

    def replacement(self, original: Original) -> Original:
        def manage_processes() -> Any:
            return asyncio.ensure_future(self.ours.manage())

        return manage_processes


class KillProcesses(_OfWatcher):
    """Answer a stop when what got SIGKILL is really dead."""

    name = "kill_processes"
    without = "`stop` answers while processes that it has killed are still listed and hold the port."
    fact = "Circus sends SIGKILL and does not wait."

    def replacement(self, original: Original) -> Original:
        return lambda *args, **kwargs: self.ours.until_killed(original(*args, **kwargs))


class SendSignalProcess(_OfWatcher):
    """Send Circus's last SIGKILL to a worker and its session, not to what the app has detached."""

    name = "send_signal_process"
    without = "A stop that has to kill ends the jobs that the app has given a session of their own."
    fact = "At graceful_timeout Circus sends SIGKILL to all processes below the worker."

    def replacement(self, original: Original) -> Original:
        def send_signal_process(process: Any, signum: int, recursive: bool = False) -> None:
            if not recursive:
                original(process, signum, recursive)
                return
            below = circus_process.children(process)
            self.watcher.send_signal(process.pid, signum)
            notify(self.watcher, "kill", {"process_pid": process.pid, "time": time.time()})
            for child in below:
                with suppress(NoSuchProcess):
                    child.send_signal(signum)

        return send_signal_process


class WatcherStop(_OfWatcher):
    """Know of each stop, that of a stopped watcher too."""

    name = "_stop"
    without = "A spawn of ours in the middle of a stop is one too many; a stop of a watcher that waits goes unseen."
    fact = "Circus calls no hook and publishes nothing for a watcher that is stopped already."

    def replacement(self, original: Original) -> Original:
        def stop(close_output_streams: bool = False) -> Any:
            self.ours.stop_begins()
            return original(close_output_streams)

        return _busy(self.ours, "stop", stop)


class WatcherStart(_OfWatcher):
    """Know while Circus starts this watcher."""

    name = "_start"
    without = "A spawn of ours in the middle of a start is one worker too many."
    fact = "_start spawns one by one with pauses in between."

    def replacement(self, original: Original) -> Original:
        return _busy(self.ours, "start", original)


class WatcherReload(_OfWatcher):
    """Begin a rolling reload, and let Circus go on meanwhile."""

    name = "_reload"
    without = "`circusctl reload`, or `set` of a command, with broken code ends every healthy worker and answers ok."
    fact = "_reload spawns numprocesses more and lets manage_processes end the oldest, ready or not."

    def replacement(self, original: Original) -> Original:
        def reload(graceful: bool = True, sequential: bool = False) -> Any:
            if not (graceful and self.ours.begin_reload()):
                return original(graceful=graceful, sequential=sequential)
            begun = asyncio.get_running_loop().create_future()
            begun.set_result(None)
            return begun

        return reload


class SetOpt(_OfWatcher):
    """Keep our part of the environment when an operator sets another one."""

    name = "set_opt"
    without = "`circusctl set NAME env ...`: program not found, all workers cooling down."
    fact = "set_opt replaces the whole environment; only before_start would add our part again."

    def replacement(self, original: Original) -> Original:
        def set_opt(key: str, value: Any) -> Any:
            answer = original(key, value)
            if key == "env":
                self.ours.environment_replaced()
            return answer

        return set_opt


def patches_of(watcher: Any, ours: Ours) -> list[Patch]:
    """Return the patches of one armed watcher."""
    kinds: list[type[_OfWatcher]] = [
        Hooks,
        Processes,
        SpawnProcess,
        ReapProcess,
        ManageProcesses,
        KillProcesses,
        SendSignalProcess,
        WatcherStop,
        WatcherStart,
        WatcherReload,
        SetOpt,
    ]
    return [kind(watcher, ours) for kind in kinds]


def _busy(ours: Ours, what: str, coroutine: Callable[..., Any]) -> Callable[..., Any]:
    """Note that Circus is at work on this watcher until *coroutine* is done."""

    def run(*args: Any, **kwargs: Any) -> Any:
        done = ours.busy_with(what)
        try:
            future = coroutine(*args, **kwargs)
        except BaseException:
            done()
            raise
        future.add_done_callback(lambda _: done())
        return future

    return run


class StopLast(Patch):
    """Stop a plugin of ours when all workers are gone, so that the last ends are recorded."""

    of = "Watcher"
    name = "_stop"
    without = "The ends of workers that drain at a stop are never recorded."
    fact = "Circus stops everything at once; a recorder would be gone long before a worker that drains."

    def __init__(self, watcher: Any, until_workers_are_gone: Callable[[], Awaitable[None]]) -> None:
        super().__init__(watcher)
        self._until_gone = until_workers_are_gone

    def replacement(self, original: Original) -> Original:
        async def later(close_output_streams: bool) -> None:
            await self._until_gone()
            await original(close_output_streams)

        return lambda close_output_streams=False: asyncio.ensure_future(later(close_output_streams))


# What we read and write of a watcher beside its methods


def options_of(watcher: Any) -> Mapping[str, Any]:
    """Return the options of a watcher that Circus does not know, ours among them."""
    options: Mapping[str, Any] = watcher._options
    return options


def take_over_options(watcher: Any, config: dict[str, Any]) -> None:
    """Make a running watcher's options of ours those of *config*, so that Circus finds no difference in them."""
    fresh = {key: value for key, value in config.items() if is_ours(key)}
    for holder in (watcher._options, watcher._cfg):
        for key in [key for key in holder if is_ours(key)]:
            del holder[key]
        holder.update(fresh)
    others = tuple(name for name in watcher.optnames if not is_ours(name))
    watcher.optnames = others + tuple(fresh)


def take_over_number(watcher: Any, config: dict[str, Any]) -> None:
    """Remember the number of workers that a reloaded file asks for.

    Circus sets it and compares the next file with the one of its boot again: back to the old number changes nothing.
    """
    if "numprocesses" in config:
        watcher._cfg["numprocesses"] = config["numprocesses"]


def stop(watcher: Any) -> Any:
    """Stop *watcher* as Circus itself does where it has nothing to run."""
    return watcher._stop()


def start_of(process: Any) -> float:
    """Return what Circus takes for the start of *process*, by the wall clock."""
    return float(process.started)


@contextmanager
def spawning_with(watcher: Any, *, command: Callable[[int], str], recovery_wid: int | None) -> Iterator[int]:
    """Let the watcher spawn *command* (made with the wid) once, as circusd's user; everything is put back after it.

    Circus reads all this in the call that follows, with no turn of the loop in between.
    """
    changed = ("cmd", "working_dir", "uid", "gid", "rlimits", "max_retry", "numprocesses")
    saved = {name: getattr(watcher, name) for name in changed}
    try:
        # Circus has wids for twice `numprocesses`; with a spare and a successor one worker needs three.
        watcher.numprocesses = max(watcher.numprocesses, len(watcher.processes) + 1)
        wid = recovery_wid or watcher._nextwid
        watcher.cmd = command(wid)
        watcher.working_dir = watcher.working_dir if os.path.isdir(watcher.working_dir) else "/"
        watcher.uid = watcher.gid = None
        watcher.rlimits = {}
        # With -1 Circus would try a fork that fails again and again without a pause, and never answer anybody.
        watcher.max_retry = 1
        watcher.xboard_spawn_error = None
        yield wid
    finally:
        for name, value in saved.items():
            setattr(watcher, name, value)


def spawn_error(watcher: Any) -> OSError | None:
    """Return why the last spawn of *watcher* failed in circusd itself."""
    found: OSError | None = getattr(watcher, "xboard_spawn_error", None)
    return found


def take_pipes(watcher: Any, process: Any, drain: Callable[[Any, Any], None]) -> None:
    """Read what is left in the pipes of a dead process with *drain*, and take them from the loop.

    Circus closes them without that. The loop then still knows their numbers, and the next spawn that gets one of
    these, in whichever watcher, fails after its fork: a worker that nobody knows of.
    """
    try:
        if watcher.stream_redirector is not None:
            drain(watcher.stream_redirector, process)
            watcher.stream_redirector.remove_redirections(process)
    except Exception:
        logger.exception("xboard: the last output of %s is lost", process.pid)


def kill(watcher: Any, process: Any, graceful_timeout: float | None) -> Any:
    """Have Circus kill *process*: its stop signal, then SIGKILL after *graceful_timeout* seconds."""
    process.stopping = False
    return watcher.kill_process(process, graceful_timeout=graceful_timeout)


def notify(watcher: Any, event: str, message: dict[str, Any]) -> None:
    """Send an event of *watcher* on Circus's bus."""
    watcher.notify_event(event, message)
