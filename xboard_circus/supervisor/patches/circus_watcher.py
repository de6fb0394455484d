"""Patch Circus's Watcher: the methods of one armed watcher, and of a plugin's, call ours."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from circus import logger
from circus.arbiter import _ENV_EXCEPTIONS
from circus.util import parse_env_dict, replace_gnu_args
from psutil import NoSuchProcess

from xboard_circus.host import procs
from xboard_circus.options.circus import misset
from xboard_circus.options.reading import Problem, is_ours
from xboard_circus.supervisor.patches import circus_process
from xboard_circus.supervisor.patches.hooks import ArmedHooks
from xboard_circus.supervisor.patches.patch import Original, Patch, replaces, wraps


class Ours(Protocol):
    """Methods of an armed watcher in place of Circus's own."""

    hooks: ArmedHooks
    supervisor: Any
    fleet: Any

    def spawn(self, original: Original) -> Any: ...
    def reap(self, original: Original, pid: int, status: int | None) -> None: ...
    async def manage(self) -> None: ...
    async def until_killed(self, killed: Awaitable[None]) -> None: ...
    def stop_begins(self) -> bool: ...
    def busy_by(self, change: int) -> None: ...
    def waits_for_workers(self) -> bool: ...
    def begin_reload(self) -> bool: ...
    async def spawn_all(self, original: Original) -> None: ...
    def give_environment(self) -> None: ...
    def keep_output(self) -> None: ...
    def look_after_folder(self, *, is_anothers: bool = False) -> None: ...


@replaces("Watcher.hooks")
def hooks(_: object, watcher: Any, ours: Ours) -> ArmedHooks:
    """Run the user's hooks, with ours behind them.

    Without it: A stop or a signal is noticed too late, or the user's own hook is replaced.
    Fact: call_hook looks each name up in this dict at each call.
    """
    return ours.hooks


@replaces("Watcher.working_dir")
def working_dir(original: str, _: object, ours: Ours) -> str:
    """Enter the folder of the ini as its path names it, through a link to a release too.

    Without it: A deployment swaps the link, `reload` says that all is well, and the new workers have the old code.
    Fact: Circus takes its own folder, in which the kernel has no links; of PWD it reads `ino`, which no stat has.
    """
    folder, real = ours.supervisor.folder
    return folder if original == real else original


class _KeepsKnown(Patch):
    def undo(self) -> None:
        """Remove the patch. Processes spawned meanwhile stay known to Circus, and ended ones do not return."""
        known = dict(self._target.processes)
        was_installed = self._own is not None
        super().undo()
        if was_installed:
            self._target.processes.clear()
            self._target.processes.update(known)


class _Tolerant(dict[int, Any]):
    def __init__(self, known: dict[int, Any], waits_for_more: Callable[[], bool]) -> None:
        super().__init__(known)
        self._waits_for_more = waits_for_more

    def __bool__(self) -> bool:
        return len(self) > 0 or self._waits_for_more()

    def pop(self, pid: int, default: Any = None) -> Any:
        return super().pop(pid, default)


@replaces("Watcher.processes", by=_KeepsKnown)
def processes(original: dict[int, Any], watcher: Any, ours: Ours) -> dict[int, Any]:
    """Let a watcher's processes be taken out twice, and a watcher run though all its workers have to wait.

    Without it: `reload` and `decr` end in a KeyError and never answer; a start stops a watcher whose port is taken.
    Fact: Circus pops what it has killed without a look; with prompt reaping it often is gone by then. _start stops a
    watcher that has no process right after its spawns.
    """
    return _Tolerant(original, ours.waits_for_workers)


@replaces("Watcher.spawn_process")
def spawn_process(original: Original, watcher: Any, ours: Ours) -> Original:
    """Spawn behind the launcher, where the slot need not wait; no exception leaves it.

    Without it: A program that is missing for a moment stops the whole watcher, healthy workers too.
    Fact: After max_retry failed forks Circus stops the watcher; a failing preexec ends start_watchers.
    """
    return lambda recovery_wid=None: ours.spawn(original)


@replaces("Watcher.spawn_processes")
def spawn_processes(original: Original, watcher: Any, ours: Ours) -> Original:
    """Begin a start when the forkserver has imported the server, beside everything else that circusd does.

    Without it: The workers of a start are not forked: each imports the server, all at the same time.
    Fact: _start spawns in the tick in which it begins.
    """
    return lambda: asyncio.ensure_future(ours.spawn_all(original))


@replaces("Watcher.reap_process")
def reap_process(original: Original, watcher: Any, ours: Ours) -> Original:
    """Leave a live process alone, and count each end.

    Without it: circusd freezes for good when `stop` meets a process that is being killed; ends go uncounted.
    Fact: reap_process waits for a live pid in a busy loop; after_reap misses up to a third of the ends.
    """
    return lambda pid, status=None: ours.reap(original, pid, status)


@replaces("Watcher.manage_processes")
def manage_processes(original: Original, watcher: Any, ours: Ours) -> Original:
    """Keep up the number of serving workers, and end those that serve least when there are too many.

    Without it: Fewer workers wanted: the healthy one is killed and the one that waits is kept.
    Fact: Circus kills the oldest, counts retiring workers as serving, and drops dead ones unseen.
    """
    return lambda: asyncio.ensure_future(ours.manage())


@replaces("Watcher.kill_process")
def kill_process(original: Original, watcher: Any, ours: Ours) -> Original:
    """Let the end of a worker go on where it cannot be signalled.

    Without it: A stop never ends, and a worker that a reload replaces is leaving for ever.
    Fact: Circus takes the error of the system for its own, and breaks off the stop of all workers.
    """

    async def outcome(process: Any, killed: Awaitable[bool]) -> bool:
        try:
            return await killed
        except OSError as error:
            logger.error("xboard: %s: worker %s cannot be ended: %s", watcher.name, process.pid, error)
            process.stopping = False
            return False

    # The signal is sent in this very tick, as by Circus itself.
    return lambda process, *args, **kwargs: asyncio.ensure_future(outcome(process, original(process, *args, **kwargs)))


@replaces("Watcher.kill_processes")
def kill_processes(original: Original, watcher: Any, ours: Ours) -> Original:
    """Answer a stop when what got SIGKILL is really dead.

    Without it: `stop` answers while processes that it has killed are still listed and hold the port.
    Fact: Circus sends SIGKILL and does not wait.
    """
    return lambda *args, **kwargs: ours.until_killed(original(*args, **kwargs))


@wraps("Watcher.send_signal_process")
def send_signal_process(original: Original, watcher: Any, ours: Ours, process: Any, signum: int, **how: Any) -> None:
    """Send a signal to a worker, and with `stop_children`, or as Circus's last SIGKILL, to what its user has in its
    session, not to what the app has detached.

    Without it: A stop that has to kill ends jobs of the app in sessions of their own, and what is root's by sudo; each
    stop does with `stop_children`.
    Fact: At graceful_timeout Circus sends SIGKILL to all processes below the worker, and with `stop_children` each
    signal to its children.
    """
    worker, recursive = ours.fleet.workers.get(process.pid), bool(how.get("recursive"))
    below = {} if worker is None else circus_process.children(worker, recursive=recursive)
    # Reaped already, because two kills ran at once. Raised, it would stop the current stop for good.
    with suppress(NoSuchProcess):
        watcher.send_signal(process.pid, signum)
        watcher.notify_event("kill", {"process_pid": process.pid, "time": time.time()})
    procs.signal_all(below, signum, 0.0)


@replaces("Watcher._stop")
def watcher_stop(original: Original, watcher: Any, ours: Ours) -> Original:
    """Note each stop, and let the workers serve on when only circusd ends.

    Without it: Our own spawn in the middle of a stop is one too many; a restart of circusd loses requests.
    Fact: Circus stops all watchers when it ends.
    """
    return _busy(ours, lambda *args, **kwargs: original(*args, **kwargs) if ours.stop_begins() else _nothing_to_do())


@replaces("Watcher._start")
def watcher_start(original: Original, watcher: Any, ours: Ours) -> Original:
    """Mark the watcher as busy while Circus starts it.

    Without it: Our own spawn in the middle of a start is one worker too many.
    Fact: _start spawns one by one with pauses in between.
    """
    return _busy(ours, original)


@wraps("Watcher._reload")
def watcher_reload(original: Original, _: object, ours: Ours, graceful: bool = True, sequential: bool = False) -> Any:
    """Begin a rolling reload, and let Circus go on meanwhile.

    Without it: `circusctl reload`, or `set` of a command, with broken code ends every healthy worker and answers ok.
    Fact: _reload spawns numprocesses more and lets manage_processes end the oldest, ready or not.
    """
    if not (graceful and ours.begin_reload()):
        return original(graceful=graceful, sequential=sequential)
    return _nothing_to_do()


@wraps("Watcher.set_opt")
def set_opt(original: Original, _: object, ours: Ours, key: str, value: Any) -> Any:
    """Keep our part of the environment when an operator sets another one, and prepare for another user.

    Without it: `circusctl set NAME env ...`: program not found, all workers cooling down. `set NAME uid ...`: workers
    without a stream have circusd's own output, its terminal or `circusd.out`, and none can make its private socket.
    Fact: set_opt replaces the whole environment; only before_start would add our part again.
    """
    answer = original(key, value)
    if key == "env":
        ours.give_environment()
    elif key in ("uid", "gid"):
        ours.keep_output()
        ours.look_after_folder(is_anothers=True)
    return answer


OF_WATCHER = (
    hooks,
    processes,
    spawn_process,
    spawn_processes,
    reap_process,
    manage_processes,
    kill_process,
    kill_processes,
    send_signal_process,
    watcher_stop,
    watcher_start,
    watcher_reload,
    set_opt,
    working_dir,
)


def patches_of(watcher: Any, ours: Ours) -> list[Patch]:
    """Return the patches of one armed watcher."""
    return [kind(watcher, ours) for kind in OF_WATCHER]


def _nothing_to_do() -> asyncio.Future[None]:
    """Return a finished future for Circus, which has nothing left to do."""
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _busy(ours: Ours, coroutine: Callable[..., Any]) -> Callable[..., Any]:
    """Mark this watcher as busy until *coroutine* is done."""

    def run(*args: Any, **kwargs: Any) -> Any:
        ours.busy_by(1)
        try:
            future = coroutine(*args, **kwargs)
        except BaseException:
            ours.busy_by(-1)
            raise
        future.add_done_callback(lambda _: ours.busy_by(-1))
        return future

    return run


@replaces("Watcher._stop")
def stop_last(original: Original, _: object, until_workers_are_gone: Callable[[], Awaitable[None]]) -> Original:
    """Stop a plugin of ours when all workers are gone, so that the last ends are recorded.

    Without it: The ends of workers that drain at a stop are never recorded.
    Fact: Circus stops everything at once; a recorder would be gone long before a worker that drains.
    """

    async def later(close_output_streams: bool) -> None:
        await until_workers_are_gone()
        await original(close_output_streams)

    return lambda close_output_streams=False: asyncio.ensure_future(later(close_output_streams))


@replaces("Watcher.spawn_process")
def try_helper_again(original: Original, _: object) -> Original:
    """Start a plugin at the next periodic look where the system can start no process now.

    Without it: A plugin that dies while processes are used up, or `.venv` is made anew, is stopped for good: nothing is
    probed, recorded or alerted.
    Fact: After max_retry failed forks, all in one moment, Circus stops the watcher.
    """
    return lambda recovery_wid=None: original(recovery_wid) or True


@replaces("Watcher.processes", by=_KeepsKnown)
def start_helper_without_process(original: dict[int, Any], watcher: Any) -> dict[int, Any]:
    """Let the start of a plugin go on although its process could not be started.

    Without it: As above, where that is so in the moment of the start.
    Fact: _start stops a watcher that has no process right after its spawns.
    """
    return _Tolerant(original, lambda: watcher.status() == "starting")


# What we read and write of a watcher beside its methods


def options_of(watcher: Any) -> Mapping[str, Any]:
    """Return the options of a watcher that Circus does not know, also ours."""
    options: Mapping[str, Any] = watcher._options
    return options


def correct(watcher: Any) -> Iterator[Problem]:
    """Yield the options of *watcher* with which no stop would end, and put Circus's defaults in their place.

    `check` refuses them; circusd may have been started without it.
    """
    for name, default in (("graceful_timeout", 30.0), ("numprocesses", 1), ("stop_signal", int(signal.SIGTERM))):
        value = getattr(watcher, name)
        if wrong := misset(name, value):
            setattr(watcher, name, default)
            yield Problem(name, str(value), wrong.what, f"{default} applies; {wrong.hint}")


def take_over_options(watcher: Any, config: dict[str, Any]) -> None:
    """Copy our options from *config* to a running watcher, so that Circus finds no difference in them."""
    fresh = {key: value for key, value in config.items() if is_ours(key)}
    for holder in (watcher._options, watcher._cfg):
        for key in [key for key in holder if is_ours(key)]:
            del holder[key]
        holder.update(fresh)
    watcher.optnames = (*(name for name in watcher.optnames if not is_ours(name)), *fresh)


STREAMS = frozenset({"stdout_stream", "stderr_stream"})
IN_PLACE = STREAMS | {
    *("autostart", "graceful_timeout", "max_age", "max_age_variance", "max_retry", "priority", "respawn"),
    *("stop_children", "stop_signal", "warmup_delay"),
}
"""Options of Circus's that circusd alone uses: they apply to workers that run."""
BY_RELOAD = {
    *("args", "close_child_stderr", "close_child_stdin", "close_child_stdout", "cmd", "copy_env", "copy_path"),
    *("env", "rlimits", "shell", "shell_args", "virtualenv", "virtualenv_py_ver", "working_dir"),
}
"""Options of Circus's that a worker gets at its start."""


def parsed(config: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a watcher, as Circus has read it, as it keeps the one of a running watcher."""
    return {**config, "env": parse_env_dict(config.get("env") or {})}


def changed_options(watcher: Any, config: dict[str, Any]) -> set[str]:
    """Return which of Circus's options differ from the file that *watcher* was made from, but for the number."""
    fresh, old = _compared(config), _compared(watcher._cfg)
    return {key for key in {*fresh, *old} if fresh.get(key) != old.get(key)}


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    env = {name: value for name, value in (config.get("env") or {}).items() if name not in _ENV_EXCEPTIONS}
    return {**{key: value for key, value in config.items() if key != "numprocesses" and not is_ours(key)}, "env": env}


def made_from(watcher: Any, config: dict[str, Any], names: set[str]) -> Any:
    """Make a watcher that never runs, because Circus's constructor alone converts options; it raises for a wrong one.

    It opens its logs and imports its hooks, so it gets them only where they are among the changed *names*.
    """
    left_out = {"hooks"} | (STREAMS - names)
    return type(watcher)(**{key: value for key, value in config.items() if key not in left_out and not is_ours(key)})


def take_over(watcher: Any, made: Any, config: dict[str, Any], names: set[str]) -> Callable[[], None]:
    """Copy the options *names* from the watcher *made* of *config*; return a function that puts the old ones back."""
    attributes = {f"{name}_conf" if name in STREAMS else name for name in names}
    before = {name: getattr(watcher, name) for name in attributes}
    old, cfg = dict(watcher._cfg), watcher._cfg

    def put_back() -> None:
        _copy(old, cfg, names)
        for name, value in before.items():
            setattr(watcher, name, value)

    _copy(config, cfg, names)
    for name in attributes:
        setattr(watcher, name, getattr(made, name))
    return put_back


def _copy(source: dict[str, Any], target: dict[str, Any], names: set[str]) -> None:
    for name in names:
        target.pop(name, None)
    target.update({name: source[name] for name in names if name in source})


def take_over_number(watcher: Any, config: dict[str, Any]) -> None:
    """Remember the number of workers in a reloaded file.

    Circus sets it and compares the next file with the one of its boot again: a change back to the old number does
    nothing.
    """
    if "numprocesses" in config:
        watcher._cfg["numprocesses"] = config["numprocesses"]


def stop(watcher: Any) -> Any:
    """Stop *watcher* as Circus itself does without anything to run."""
    return watcher._stop()


@contextmanager
def spawning_with(
    watcher: Any, *, command: str, env: dict[str, str], wid: int, inherits: bool = False
) -> Iterator[None]:
    """Let the watcher spawn *command* once, as circusd's user and with this *wid*; everything is restored after it.

    Circus reads all this in the call that follows, with no turn of the loop in between. A process that *inherits* gets
    the inheritable descriptors; Circus closes them all for a watcher without `use_sockets`.
    """
    changed = ("cmd", "args", "env", "working_dir", "uid", "gid", "rlimits", "max_retry", "use_sockets")
    saved = {name: getattr(watcher, name) for name in changed}
    of_circus = type(watcher)._nextwid
    try:
        # Circus would take the lowest free one, also that of a held slot, and has just twice `numprocesses`.
        type(watcher)._nextwid = wid
        watcher.cmd = command
        watcher.env = env
        watcher.use_sockets = watcher.use_sockets or inherits
        folder = watcher.working_dir
        if watcher.uid is not None:
            # The launcher enters it as that user, because Circus would as root, and follow a link of that user's.
            watcher.working_dir = "/"
            watcher.cmd, watcher.args = (_with_folder(text, folder) for text in (watcher.cmd, watcher.args))
        elif not os.path.isdir(folder):
            watcher.working_dir = "/"
        watcher.uid = watcher.gid = None
        watcher.rlimits = {}
        # With -1 Circus would retry a failing fork again and again without a pause, and never answer any client.
        watcher.max_retry = 1
        watcher.xboard_spawn_error = None
        yield
    finally:
        type(watcher)._nextwid = of_circus
        for name, value in saved.items():
            setattr(watcher, name, value)


def _with_folder(text: Any, folder: str) -> Any:
    """Replace ``$(circus.working_dir)`` by *folder* in a command, or in its arguments, as Circus would."""
    if isinstance(text, str):
        return replace_gnu_args(text, working_dir=folder)
    return [_with_folder(each, folder) for each in text] if isinstance(text, list | tuple) else text


def spawn_error(watcher: Any) -> OSError | None:
    """Return why the last spawn of *watcher* failed in circusd itself."""
    found: OSError | None = getattr(watcher, "xboard_spawn_error", None)
    return found


def take_pipes(watcher: Any, process: Any, drain: Callable[[Any, Any], None]) -> None:
    """Read the rest from the pipes of a dead process with *drain*, and remove them from the loop.

    Circus closes them without that. The loop then still knows their numbers, and the next spawn that gets one of these,
    in any watcher, fails after its fork: a worker without a watcher.
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
