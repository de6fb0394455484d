"""Patch Circus's Arbiter: how it stops, reads its file again, and starts plugins."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from circus import logger
from circus.config import get_config
from circus.exc import ConflictError
from circus.watcher import Watcher

from xboard_circus.core.sentences import Say
from xboard_circus.supervisor.patches.patch import Original, Patch, replaces, wraps

REAP_WITHIN = 0.05
BACKLOG = 2048  # Circus's own default
KEPT_STOPPED = "xboard_kept_stopped"
"""The attribute of an arbiter with the names of watchers that its boot, or its restart of all, leaves stopped."""


@wraps("Arbiter.stop")
def stop(original: Original, arbiter: Any, *args: Any, ordered: Any, beside: Any, **kwargs: Any) -> Any:
    """Note a stop request to circusd, and end circusd although another command runs.

    Without it: A SIGTERM that meets a `restart` is dropped: circusd serves on until its service manager kills it.
    Fact: Every exclusive command refuses `stop` with a ConflictError, and a signal is not repeated.
    """
    try:
        answer = original(*args, **kwargs)
    except ConflictError:
        if is_stopping(arbiter):
            raise
        answer = beside()
    ordered()
    return answer


@wraps("Arbiter.start_watcher")
def start_watcher(original: Original, _: object, prepare: Callable[[Any], None], watcher: Any) -> Any:
    """Prepare plugins and Circus's own helpers that `reloadconfig` makes again.

    Without it: A plugin that `reloadconfig` starts carries no marks, and cannot run below a path with a blank.
    Fact: Circus starts it right after it makes it.
    """
    prepare(watcher)
    return original(watcher)


@wraps("Arbiter.reload_from_config")
def reload_from_config(
    original: Original, arbiter: Any, config_file: str | None = None, inside_circusd: bool = False, *, ours: Any
) -> Any:
    """Judge a changed file before anything is touched.

    Without it: A changed [circus] stops and starts every worker, a changed option those of its watcher; a changed
    [socket:...] listens, but no process accepts.
    Fact: Circus deletes and adds what differs from the file of its boot, whatever the new file contains.
    """
    if running_command(arbiter) is not None:
        return original(config_file, inside_circusd)  # it raises ConflictError
    return ours(config_file, lambda: original(config_file, inside_circusd))


@replaces("Arbiter.reap_processes")
def reap_for_a_while(
    _: Original, arbiter: Any, *, clock: Callable[[], float] = time.monotonic, wait: Callable[..., Any] = os.waitpid
) -> Original:
    """Reap children that have ended for 50 ms at most, and go on after as long a pause.

    Without it: A worker that makes children of circusd's (CLONE_PARENT), which end at once, holds circusd up.
    Fact: Circus reaps as long as another child has ended.
    """
    timer: asyncio.TimerHandle | None = None

    def go_on() -> None:
        nonlocal timer
        timer = None
        reap_processes()

    def reap_processes() -> None:
        nonlocal timer
        if timer is not None:  # one for each look of Circus's would hold circusd up all the time
            return
        watchers = {pid: each for each in arbiter.watchers if not each.is_stopped() for pid in each.processes}
        ends_at = clock() + REAP_WITHIN
        with suppress(ChildProcessError):
            while clock() < ends_at:
                pid, status = wait(-1, os.WNOHANG)
                if not pid:
                    return
                if pid in watchers:
                    watchers[pid].reap_process(pid, status)
            timer = event_loop(arbiter).call_later(REAP_WITHIN, go_on)

    return reap_processes


@wraps("PeriodicCallback.callback", at=lambda arbiter: arbiter.ctrl.caller)
async def manage_quietly(original: Original, arbiter: Any) -> None:
    """Skip Circus's periodic look while another command runs.

    Without it: A ConflictError with its traceback for nearly every operator command buries our own lines in the log.
    Fact: The periodic call runs into the lock of every exclusive command that takes longer than check_delay.
    """
    if running_command(arbiter) is None:
        await original()


class _OnSignals(Patch):
    """Handlers of signals in the arbiter's loop, by their numbers.

    Not signal.signal, because a Python-level handler runs in the middle of anything, and an exception in it would count
    as a failed hook of the running code.

    A signal that finds the buffer of the loop full is no loss, as one is as good as many. asyncio has each reported:
    that prints a traceback, and takes a lock within the C handler. Where that interrupts the lock's holder, circusd
    hangs for good.
    """

    _handlers: Mapping[int, Callable[[], None]] = {}

    def install(self) -> None:
        self._handlers = self.make(None)
        for signum, handle in self._handlers.items():
            event_loop(self._target).add_signal_handler(signum, handle)
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)

    def undo(self) -> None:
        for signum in self._handlers:
            event_loop(self._target).remove_signal_handler(signum)


@replaces("Arbiter.loop", by=_OnSignals)
def child_ended(_: object, arbiter: Any, ended: Callable[[], None]) -> dict[int, Callable[[], None]]:
    """Notice the end of a child in the tick in which it happens.

    Without it: A dead worker is noticed at the next check_delay, 5 s by default.
    Fact: Circus has no SIGCHLD handler.
    """
    return {signal.SIGCHLD: ended}


@replaces("Arbiter.loop", by=_OnSignals)
def log_user_signals(_: object, arbiter: Any) -> dict[int, Callable[[], None]]:
    """Log SIGUSR1 and SIGUSR2, on which other servers open their logs anew or restart, and do nothing else.

    Without it: Each of them, such as of a line of logrotate's, ends circusd, and leaves its workers without one.
    Fact: Circus handles HUP, QUIT, INT, TERM and WINCH; the default of both is to end.
    """
    text = "xboard: %s does nothing: logs are opened anew once they are renamed, `xboard-circus reload` is for new code"
    return {each: partial(logger.warning, text, each.name) for each in (signal.SIGUSR1, signal.SIGUSR2)}


# What we read of an arbiter beside its methods


def event_loop(arbiter: Any) -> asyncio.AbstractEventLoop:
    """Return circusd's event loop."""
    loop: asyncio.AbstractEventLoop = arbiter.loop.asyncio_loop
    return loop


def is_stopping(arbiter: Any) -> bool:
    """Return whether circusd ends."""
    return bool(arbiter._stopping)


def begin_to_stop(arbiter: Any) -> None:
    """Mark *arbiter* as stopping while another command still runs: armed watchers spawn nothing from now on."""
    arbiter._stopping = True


def take_out(arbiter: Any, names: Iterable[str]) -> list[Any]:
    """Remove the sockets of these *names* from Circus, which would close them and remove the path of a unix socket."""
    return [arbiter.sockets.pop(name) for name in list(names) if name in arbiter.sockets]


def running_command(arbiter: Any) -> str | None:
    """Return the exclusive command that runs, or None."""
    found: str | None = arbiter._exclusive_running_command
    return found


def stops_for_good(arbiter: Any) -> bool:
    """Return whether a watcher that stops now is not started again at once, as by a restart."""
    stops = ("watcher_stop", "arbiter_stop", "arbiter_stop_watchers", "arbiter_rm_watcher")
    return is_stopping(arbiter) or running_command(arbiter) in stops


def keep_stopped(arbiter: Any, names: Iterable[str]) -> None:
    """Note which watchers the boot, or a restart of all, leaves stopped, as an operator has stopped them."""
    vars(arbiter)[KEPT_STOPPED] = frozenset(names)


def is_yet_to_start(arbiter: Any, watcher: Any) -> bool:
    """Return whether circusd is starting its watchers, and has not reached this one yet."""
    is_starting = running_command(arbiter) in ("arbiter_start_watchers", "arbiter_restart")
    kept = vars(arbiter).get(KEPT_STOPPED, ())
    return is_starting and watcher.autostart and watcher.is_stopped() and watcher.name not in kept


def restart_watchers(arbiter: Any, watchers: list[Any]) -> Any:
    """Stop *watchers* and start them again, in the order of their priority. Raises ConflictError as Circus does."""

    def chosen(reverse: bool = True) -> list[Any]:
        return sorted(watchers, key=lambda watcher: watcher.priority, reverse=reverse)

    future = arbiter.restart(watcher_iter_func=chosen)
    keep_stopped(arbiter, [each.name for each in arbiter.watchers if each not in watchers])
    return future


def commands(arbiter: Any) -> dict[str, Any]:
    """Return circusd's commands, by name."""
    found: dict[str, Any] = arbiter.ctrl.commands
    return found


def registered(arbiter: Any, name: str) -> Any:
    """Return the watcher that Circus knows by *name*, or None."""
    return arbiter._watchers_names.get(name.lower())


def publish(arbiter: Any, topic: str, message: dict[str, Any]) -> None:
    """Send *message* on Circus's bus, if it is open."""
    bus = arbiter.evpub_socket
    if bus is not None and not bus.closed:
        bus.send_multipart([topic.encode(errors="replace"), json.dumps(message).encode()])


def changed_circus_options(arbiter: Any, config: dict[str, Any]) -> list[str]:
    """Return which options of [circus] differ between *config* and what circusd was started with."""
    fresh, old = arbiter.get_arbiter_config(config), arbiter._cfg
    return sorted(key for key in {*fresh, *old} if fresh.get(key) != old.get(key))


def changed_socket_options(arbiter: Any, name: str, config: dict[str, Any]) -> set[str]:
    """Return which options of [socket:NAME] differ between *config* and what circusd was started with."""
    fresh: dict[str, Any] = next((each for each in config.get("sockets", []) if each["name"] == name), {})
    old = getattr(arbiter.sockets.get(name), "_cfg", None) or {}
    return {key for key in {*fresh, *old} if fresh.get(key) != old.get(key)}


def take_over_backlog(arbiter: Any, name: str, config: dict[str, Any]) -> None:
    """Apply a changed `backlog` of [socket:NAME] to the socket that listens."""
    shared = arbiter.sockets[name]
    shared._cfg = next(each for each in config["sockets"] if each["name"] == name).copy()
    shared.backlog = int(shared._cfg.get("backlog", BACKLOG))
    if shared.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        shared.listen(shared.backlog)


def read_config(config_file: str) -> dict[str, Any]:
    """Return Circus's parse of *config_file*; it raises anything for a broken one."""
    config: dict[str, Any] = get_config(config_file)
    return config


def uncreated(arbiter: Any) -> dict[str, tuple[int, str]]:
    """Return the watchers of the file that Circus could not create, with their numbers of workers and the cause.

    Circus logs it, and runs without them. Why is found by trying again.
    """
    created = {watcher.name.lower() for watcher in arbiter.watchers}
    found = {}
    for given in read_config(arbiter.config_file)["watchers"]:
        if given["name"].lower() not in created:
            try:
                Watcher.load_from_config(dict(given))
                why: str = Say.CREATED_WHEN_TRIED_AGAIN()
            except Exception as error:  # whatever Circus raises for a value
                why = str(error) or type(error).__name__
            found[given["name"]] = int(given.get("numprocesses", 1)), why
    return found
