"""Patch classes of Circus before it binds anything, when the hook of a watcher is imported.

Circus imports hooks while it reads its file, and binds sockets and endpoints after that; `before_start` comes later
still. All change a class, so they apply to all sockets and every arbiter of this process.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import circus.arbiter
import zmq
from circus import logger
from circus.arbiter import Arbiter
from circus.controller import Controller
from circus.pidfile import Pidfile
from circus.process import Process
from circus.sockets import CircusSocket
from circus.stream.file_stream import FileStream, TimedRotatingFileStream, _FileStreamBase
from circus.stream.redirector import Redirector
from circus.util import to_uid
from circus.watcher import Watcher

from xboard_circus.core.names import is_helper
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, inbox, procs, runtime, service_manager, unix_sockets
from xboard_circus.host.worker_files import is_socket, takes_connections
from xboard_circus.host.written_files import narrow
from xboard_circus.supervisor.boundary import contained
from xboard_circus.supervisor.guarded_endpoint import GuardedEndpoint, address_of, is_guarded
from xboard_circus.supervisor.handover import listens_on
from xboard_circus.supervisor.listener_check import is_listening, unreachable_because
from xboard_circus.supervisor.patches import circus_arbiter, circus_stream, patch, plugin_process
from xboard_circus.supervisor.patches.circus_arbiter import event_loop
from xboard_circus.supervisor.patches.circus_process import (
    OUR_PLUGINS,
    children_of_its_user,
    fork_where_imported,
    inherit_what_is_its_own,
)
from xboard_circus.supervisor.patches.patch import Original, wraps
from xboard_circus.worker.limits import raise_limits
from xboard_circus.worker.unread_output import outlast_reader

GUARDS, PASSED = "xboard_guards", "xboard_passed"
OTHER_ENDS_WITHIN, LOOK_EVERY = 10.0, 0.1
STATS = "circusd-stats"


@wraps("CircusSocket.bind_and_listen")
def bind_unix_socket(original: Original, _: object, shared: Any) -> None:
    """Remove the file of a unix socket without a listener; leave one with a listener to the port guard.

    Without it: After a kill of circusd a backend on a unix socket does not come back: its file already exists.
    Fact: Circus refuses a path that exists, and ends with exit code 0.
    """
    if shared.is_unix and not shared.replace and is_socket(shared.path):
        if takes_connections(Path(shared.path)):
            logger.warning("xboard: %s is in use; it is bound when it is free", shared.path)
            return
        os.unlink(shared.path)
    original(shared)


@wraps("CircusSocket.close")
def close_without_lingering(original: Original, _: object, shared: Any) -> None:
    """Close a socket that workers share without waiting for what it has to send.

    Without it: A worker that has shut the listener down and connected it keeps circusd in close() for ever.
    Fact: With SO_LINGER, the last close of a TCP socket waits until its unsent data is gone.

    Circus would remove the path of a unix socket that it has not bound, which is that of an earlier circusd's workers.
    """
    if shared.is_unix and shared.fileno() != -1 and not is_listening(shared):
        socket.socket.close(shared)
        return
    with suppress(OSError):
        unix_sockets.do_not_linger(shared.fileno())
    original(shared)


@wraps("Pidfile.validate")
def pass_reused_pids(original: Original, _: object, pidfile: Any) -> int | None:
    """Pass over a pid file of a circusd that is gone, although another process has its pid by now.

    Without it: After a kill of circusd, or a reset of the host, circusd does not start while any process has that pid.
    Fact: Circus takes each process with the pid in `pidfile` for a circusd.
    """
    with suppress(PermissionError):  # another user's process
        pid: int | None = original(pidfile)
        return pid if pid and procs.user_of(pid) == os.geteuid() and procs.config_file_of(pid) else None
    return None


@wraps("Arbiter.initialize")
def boot(original: Original, _: object, arbiter: Any) -> None:
    """End circusd with an exit code other than 0 beside another one of its file, mark its plugins, guard its events.

    Without it: A second circusd on the same file ends with exit code 0, so its service manager believes that all is
    well; or, where the endpoints are files, takes them, and both run. Where setproctitle is installed, a restart loses
    the variables of circusd, over which Circus has a title written.
    Fact: Circus logs the exception of its start and calls sys.exit(0). ZeroMQ removes the file of an ipc:// endpoint.

    It also opens the logs of all watchers before it sets `umask`, so every user could read them. And ZeroMQ aborts the
    process that has no descriptor left for a connection, so a client that leaks 1,000 to an ipc:// endpoint would end
    circusd at the usual limit. Where the program that starts circusd blocks SIGTERM, all processes below would inherit
    that: no worker would drain, and a restart would lose what is in flight when they are killed.
    """
    begin_clean()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    raise_limits()  # what stays too low the workers log
    open_logs_again(arbiter)
    try:
        refuse_beside_another(arbiter)
        fork_plugin(arbiter)
        vars(arbiter)[PASSED] = passed_listeners(arbiter)
        with behind_guard(arbiter, "pubsub_endpoint", arbiter), without_title():
            original(arbiter)
    except Exception as error:
        logger.error("xboard: circusd cannot start: %s", error)
        raise SystemExit(1) from error
    mark_helpers(arbiter)
    withhold_helpers(arbiter)
    keep_stopped(arbiter)


@wraps("Controller.initialize")
def guard_commands(original: Original, _: object, controller: Any) -> None:
    """Guard the endpoint of commands: only circusd's user and `endpoint_owner` get through to Circus.

    Without it: Every user of the host can make circusd run any command, as circusd's user.
    Fact: ZeroMQ accepts every connection to a TCP endpoint and does not name its user.
    """
    try:
        with behind_guard(controller, "endpoint", controller.arbiter):
            original(controller)
    except Exception as error:
        # Circus would log a traceback, and end with exit code 0.
        logger.error("xboard: circusd cannot start: %s", error)
        raise SystemExit(1) from error


@wraps("Controller.stop")
def close_guards(original: Original, _: object, controller: Any) -> None:
    """Close the guarded endpoints with the controller, after the last answer has gone out.

    Without it: An arbiter that makes room for its successor (`circusctl restart`) keeps the port.
    Fact: The listener is ours, not ZeroMQ's.
    """
    for guarded in vars(controller.arbiter).pop(GUARDS, {}).values():
        guarded.close()
    original(controller)


def begin_clean() -> None:
    """Begin anew, as the same process, with /dev/null in the place of each standard stream that was closed, and without
    the marks of another circusd, of which a process has started this one.

    What circusd opened has the stream's number by now, such as the socket that wakes its loop: workers would have that
    as their stdout, or none, and their next file, such as a database, would get what is printed. The marks would be in
    the environment of each unarmed watcher, which would be ended as a leftover of the other circusd. By now Circus has
    a copy of them for `reloadconfig`, which would restart all where they were only deleted.
    """
    closed = [number for number, each in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)) if each is None]
    if not closed and "XBOARD_CIRCUSD" not in os.environ:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in closed:
        os.dup2(nothing, number)
        os.set_inheritable(number, True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], procs.without_marks(os.environ))


def outlast_reader_of_log() -> None:
    """Never wait for a reader of circusd's output, if that is a pipe; its log and those of watchers may go there."""
    before = [sys.stdout, sys.stderr]
    outlast_reader()
    for handler in {*logging.root.handlers, *logger.handlers}:
        for old, patient in zip(before, (sys.stdout, sys.stderr), strict=True):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(patient)


def refuse_beside_another(arbiter: Any) -> None:
    """Raise XboardError where another circusd supervises the same file, before anything of that is bound.

    Without a terminal it waits for a while for that one's end: what starts circusd again whenever it ends, such as a
    loop of a shell, would otherwise do that without a pause once a restart has replaced its own. A signal to end ends
    the wait, and circusd: Circus leaves that to its loop, which does not run yet.
    """
    signals = vars(arbiter.ctrl.sys_hdl)
    signals["quit"] = sys.exit
    give_up_at = time.monotonic() + (0.0 if os.isatty(0) else OTHER_ENDS_WITHIN)
    while (other := _other_of(arbiter)) is not None:
        if time.monotonic() >= give_up_at:
            raise XboardError(Say.ANOTHER_CIRCUSD(pid=other.pid, file=arbiter.config_file))
        time.sleep(LOOK_EVERY)
    del signals["quit"]


def _other_of(arbiter: Any) -> procs.Identity | None:
    with suppress(XboardError):  # a runtime folder that is not ours says nothing
        other = runtime.supervisor_of(instance_of(arbiter))
        return None if other is None or other.pid == os.getpid() else other  # a restart has waited for its end
    return None


def fork_plugin(arbiter: Any) -> None:
    """Fork the process of the plugins while circusd has one thread, and before it holds a listener or a lock."""
    plugins = [watcher for watcher in arbiter.watchers if is_helper(watcher.name) and OUR_PLUGINS in watcher.cmd]
    if any(watcher.autostart for watcher in plugins):
        prepared = plugin_process.prepare()
        if prepared is not None:
            patch.install([fork_where_imported(arbiter, prepared.become)])


@contained(None)
def open_logs_again(arbiter: Any) -> None:
    """Open the logs of watchers and circusd's own again, as Circus has opened them before anything of ours ran.

    Root's would be behind links of other users, and written to from here on. What `umask` forbids is withdrawn.
    """
    umask = arbiter.umask if isinstance(arbiter.umask, int) else 0
    handlers = {*logging.root.handlers, *logger.handlers}
    logs: list[Any] = [each.stream for each in handlers if isinstance(each, logging.FileHandler)]
    for stream in (stream for each in arbiter.watchers for stream in (each.stdout_stream, each.stderr_stream)):
        try:
            if os.geteuid() == 0:
                circus_stream.open_again(stream)
        except OSError as error:
            stream._file = open(os.devnull, "a+")  # noqa: SIM115 - Circus writes to it without a look
            logger.error("xboard: %s: %s", circus_stream.name_of(stream), error.strerror)
        logs.append(getattr(stream, "_file", None))
    for log in logs:
        with suppress(AttributeError, OSError, ValueError):  # none, another user's, closed
            narrow(log.fileno(), umask)


@contextmanager
def without_title() -> Iterator[None]:
    """Let Circus write no title over the command line and the environment, which others read to know this circusd."""
    scope = vars(circus.arbiter)
    given = scope.get("_setproctitle")
    scope["_setproctitle"] = lambda _: None
    try:
        yield
    finally:
        scope["_setproctitle"] = given


def passed_listeners(arbiter: Any) -> dict[str, socket.socket]:
    """Return the listeners that the circusd before this one has passed on, by option or section of the ini file.

    One on an address that nothing there has any more is closed, so that anything else can bind it. So is one of a
    socket that Circus binds by itself.
    """
    passed = [*inbox.receive(runtime.root_path() / instance_of(arbiter)), *service_manager.take()]
    endpoints = {option: getattr(arbiter, option) for option in ("endpoint", "pubsub_endpoint") if passed}
    addresses = {option: address_of(endpoint) for option, endpoint in endpoints.items() if is_guarded(endpoint)}
    for shared in arbiter.sockets.values():
        if shared.is_unix or shared.so_reuseport:
            addresses[f"socket:{shared.name}"] = (shared.path, 0) if shared.is_unix else (shared.host, shared.port)
    wanted = {
        option: each
        for option, address in addresses.items()
        for each in passed
        if listens_on(each, address) and (option not in endpoints or _is_fit_for_orders(each))
    }
    for each in passed:
        if each not in wanted.values():
            unix_sockets.discard([each.detach()])  # without lingering: it may be a worker's
    return wanted


def _is_fit_for_orders(listener: socket.socket) -> bool:
    """Return whether root or we made a listener that was passed on, where our clients reach it.

    A worker may have stored it with the service manager, and have made it in a network of its own, where his connection
    looks like that of our plugin.
    """
    return os.fstat(listener.fileno()).st_uid in (0, os.geteuid()) and not unreachable_because(listener)


def passed_listener(arbiter: Any, name: str) -> socket.socket | None:
    """Return, once, the listener of [socket:NAME] that was passed on; it may be another's by now."""
    found: socket.socket | None = vars(arbiter).get(PASSED, {}).pop(f"socket:{name}", None)
    return found


def own_listeners(arbiter: Any) -> list[socket.socket]:
    """Return the listeners of guarded endpoints, and those passed on for watchers that have not started yet."""
    guarded = [each.listener for each in vars(arbiter).get(GUARDS, {}).values()]
    return [*guarded, *vars(arbiter).get(PASSED, {}).values()]


def instance_of(arbiter: Any) -> str:
    """Return the instance of *arbiter*."""
    return runtime.instance_id(os.path.abspath(arbiter.config_file))


@contextmanager
def behind_guard(owner: Any, option: str, arbiter: Any) -> Iterator[None]:
    """Put a guard on the endpoint in *option* of *owner*, and let Circus bind behind it within the block."""
    endpoint, endpoint_owner, context = getattr(owner, option), owner.endpoint_owner, arbiter.context
    if not is_guarded(endpoint):
        yield
        return
    users = [os.geteuid(), *([to_uid(endpoint_owner)] if endpoint_owner else [])]
    passed = vars(arbiter).get(PASSED, {}).pop(option, None)
    guarded = GuardedEndpoint(endpoint, users, event_loop(arbiter), listener=passed)
    vars(arbiter).setdefault(GUARDS, {})[option] = guarded
    # Only this process can connect to what ZeroMQ binds: such a socket has no file with a mode.
    context.setsockopt(zmq.IPC_FILTER_PID, os.getpid())
    setattr(owner, option, guarded.inner)
    owner.endpoint_owner = None  # Circus would give the file of the unix socket to it
    try:
        yield
    finally:
        setattr(owner, option, endpoint)
        owner.endpoint_owner = endpoint_owner
        del context.sockopts[zmq.IPC_FILTER_PID]


def mark_helpers(arbiter: Any) -> None:
    """Mark plugins with this circusd and its instance before a watcher is armed.

    One that starts earlier notices circusd's end by that, and `stop` and `clean` find it if it imports for long.

    Not in `os.environ`, because `reloadconfig` compares it with that of the boot, and would restart every watcher.
    circusd-stats is replaced by ours, which works without the listeners that it does not inherit.
    """
    started, instance = procs.start_time(os.getpid()), instance_of(arbiter)
    for watcher in arbiter.watchers:
        if is_helper(watcher.name) and started is not None:
            watcher.env = dict(watcher.env or {}, XBOARD_INSTANCE=instance, XBOARD_CIRCUSD=f"{os.getpid()}:{started}")
        if watcher.name == STATS:
            watcher.cmd = watcher.cmd.replace("from circus import stats;", "from xboard_circus import stats;")


@contained(None)
def withhold_helpers(arbiter: Any) -> None:
    """Start no plugin as root where a watcher's user may write, because Python imports from its folder."""
    if all(watcher.uid is None for watcher in arbiter.watchers):
        return
    from xboard_circus.checks.judgement import open_doors  # imported only for watchers with a user of their own

    doors = [str(door) for door in open_doors(arbiter.config_file) if door.option in ("", "uid")]
    helpers = [watcher for watcher in arbiter.watchers if doors and is_helper(watcher.name)]
    for watcher in helpers:
        watcher.autostart = False
        logger.error("xboard: %s is not started: %s", watcher.name, "; ".join(doors))


@contained(None)
def keep_stopped(arbiter: Any) -> None:
    """Skip, at this start, the watchers that an operator had stopped when the last circusd left."""
    life = circusd_record.read(instance_of(arbiter))
    if life is None or life.boot != circusd_record.boot():
        return
    circus_arbiter.keep_stopped(arbiter, life.stopped)
    for watcher in arbiter.watchers:
        if watcher.name in life.stopped and watcher.autostart:
            logger.warning("xboard: %s stays stopped: `xboard-circus start %s` starts it", watcher.name, watcher.name)
            skip_first_start(watcher.hooks)


def skip_first_start(hooks: dict[str, Any]) -> None:
    """Have Circus give up the first start of the watcher with these hooks, and make the next one as ever."""
    given = hooks.pop("before_start", None)

    def not_now(**_: Any) -> bool:
        del hooks["before_start"]
        if given is not None:
            hooks["before_start"] = given
        return False

    hooks["before_start"] = not_now


KINDS_AND_TARGETS: tuple[tuple[patch.PatchKind[[]], Any], ...] = (
    (bind_unix_socket, CircusSocket),
    (close_without_lingering, CircusSocket),
    (pass_reused_pids, Pidfile),
    (boot, Arbiter),
    (guard_commands, Controller),
    (close_guards, Controller),
    (inherit_what_is_its_own, Process),
    (children_of_its_user, Process),
    (circus_stream.open_no_link, _FileStreamBase),
    (circus_stream.rotate_in_place, FileStream),
    (circus_stream.rotate_in_place, TimedRotatingFileStream),
    (circus_stream.print_through_circusd, Watcher),
    (circus_stream.read_without_waiting, Redirector),
    (circus_stream.rotate_log, logging.getLogger()),
)


missing: list[str] = []
"""What this Circus lacks of all that is replaced here: no watcher is armed then."""


def install() -> None:
    """Install all, once in a process."""
    outlast_reader_of_log()
    for kind, target in KINDS_AND_TARGETS:
        if not getattr(target, f"xboard_{kind.name}", False):
            setattr(target, f"xboard_{kind.name}", True)
            try:
                patch.install([kind(target)])
            except patch.PatchFailed as error:
                # Raised into the import of a hook, it would keep circusd from starting.
                missing.append(str(error))
                logger.error("xboard: %s", Say.CIRCUS_LACKS(what=str(error)))
