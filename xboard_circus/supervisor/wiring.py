"""Circus's own methods of one Watcher object, each replaced by a function of ours that calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xboard_circus.supervisor import ends, spawning

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher


def wrap(armed: ArmedWatcher) -> None:
    """Put ours in front of the methods of this one Watcher object."""
    watcher = armed.watcher
    watcher.hooks = armed.hooks
    watcher.processes = ends.Processes(watcher.processes)
    spawn, reap, stop, kill = (
        watcher.spawn_process,
        watcher.reap_process,
        watcher._stop,
        watcher.kill_processes,
    )
    watcher.spawn_process = lambda recovery_wid=None: spawning.spawn(armed, spawn, recovery_wid)
    watcher.reap_process = lambda pid, status=None: ends.reap(armed, reap, pid, status)
    watcher.kill_processes = lambda *args, **kwargs: ends.kill_all(armed, kill(*args, **kwargs))

    def stop_watcher(close_output_streams: bool = False) -> Any:
        if watcher.is_stopped():
            # Circus tells nobody of a stop of what is stopped already; for us it ends the wish to start it again.
            armed.start_failed_until = None
        return stop(close_output_streams)

    watcher._stop = _counted(armed, stop_watcher)
    for name in ("_start", "_reload", "manage_processes"):
        setattr(watcher, name, _counted(armed, getattr(watcher, name)))


def _counted(armed: ArmedWatcher, coroutine: Callable[..., Any]) -> Callable[..., Any]:
    """Know while Circus is at work on this watcher: a spawn of ours in between would be one too many."""

    def run(*args: Any, **kwargs: Any) -> Any:
        armed.busy += 1
        future = coroutine(*args, **kwargs)

        def done(_: object) -> None:
            armed.busy -= 1

        future.add_done_callback(done)
        return future

    return run
