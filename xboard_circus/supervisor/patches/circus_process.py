"""Patch Circus's Process: its inherited sockets, its exit code, its children."""

import contextlib
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import circus.process
import psutil
from circus import logger
from circus.process import Process

from xboard_circus.host import procs
from xboard_circus.host.users import user_of
from xboard_circus.supervisor.forkable import command_text
from xboard_circus.supervisor.listener_check import is_listening
from xboard_circus.supervisor.patches.patch import Original, wraps

LONGEST_NAME = 200
OUR_PLUGINS = "xboard_circus.plugins."
_PLUGIN = "-c", "from circus import plugins;plugins.main()"
_NAMED = re.compile(r"circus\.sockets\.([\w.-]+)", re.IGNORECASE)


def exit_code(process: Any) -> int | None:
    """Return the exit code of *process* (negative: by that signal), or None if it is not known any more.

    Reads the status without taking it away from Circus, which waits for its children in three places.
    """
    code = process._worker.returncode
    return exit_status(process.pid) if code is None else int(code)


def exit_status(pid: int) -> int | None:
    """Return the exit code of a child that has ended, which stays to be reaped; None if it runs, or was reaped."""
    with contextlib.suppress(ChildProcessError):
        if status := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
    return None


def has_ended(process: Any) -> bool:
    """Return whether *process* is dead, reaped or not."""
    if process._worker.returncode is not None:
        return True
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def children(worker: Any, *, recursive: bool = True) -> dict[procs.Identity, procs.Users]:
    """Return what the user of *worker* has below it in its session, for `procs.signal_all`; what has a session of its
    own is meant to outlive it."""
    below, its = procs.below(procs.Identity(worker.pid, worker.started), recursive=recursive), {worker.user}
    return {each: its for each in below if procs.session_of(each.pid) == worker.pid and procs.is_of(each.pid, its)}


def resident(pid: int) -> int | None:
    """Return the resident memory of a child of circusd in bytes."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return None


def send(process: Any, signum: int) -> None:
    """Signal a child of circusd. It is not reaped yet, so its pid is not reused."""
    try:
        os.kill(process.pid, signum)
    except ProcessLookupError:
        logger.debug("xboard: %s was gone before signal %s", process.pid, signum)


def wake(process: Any) -> None:
    """Continue a process under SIGSTOP, so that it acts on the signal that ends it.

    The signal would stay pending, and Circus wait for all of `graceful_timeout` with everything else locked.
    """
    if not has_ended(process):
        send(process, signal.SIGCONT)


def expect_to_be_killed(process: Any) -> None:
    """Let Circus's `kill_process` act on *process*, which is being killed already.

    Otherwise it would return at once, and Circus then wait for the process in a busy loop that freezes circusd for
    good.
    """
    process.stopping = False


def is_stopping(process: Any) -> bool:
    """Return whether Circus is killing *process*."""
    return bool(process.stopping)


def sockets_named(watcher: Any) -> list[str]:
    """Return the names of the Circus sockets in a watcher's command, in lower case and in their order."""
    return [name.lower() for name in _NAMED.findall(command_text(watcher.cmd, watcher.args))]


@wraps("Process.spawn", at=lambda _: Process)
def inherit_what_is_its_own(original: Original, _: object, process: Any) -> Any:
    """Let each process inherit the sockets that are its own, no listener of another watcher, and no secret of alerts.

    Without it: A worker holds the listener of another watcher: after that one's stop, connections to it hang. And a
    program of another user gets sockets of root's making, with which it is root at a port, what was open in the shell
    in which root typed `circusd`, and the keys of its session.
    Fact: With use_sockets, Circus passes every socket of circusd's to every process, bound or not. Watchers without our
    hook may start before all others, so the class is patched, at the boot.
    """
    watcher = process.watcher
    supervisor = getattr(getattr(watcher, "arbiter", None), "xboard", None)
    if supervisor is not None:
        process.env = supervisor.environ_of(process)
    withheld = withheld_sockets(watcher, {} if supervisor is None else supervisor.armed)
    stdin = (watcher.sockets or {}).get(getattr(watcher, "stdin_socket", None))
    try:
        withhold_files(watcher)
        if stdin in withheld and _is_yet_to_listen(stdin):  # Circus would hand it on all the same
            raise OSError(f"nothing has bound {watcher.stdin_socket} yet, its stdin: raise the priority of who does")
        with withheld_meanwhile(withheld):
            return original(process)
    except OSError as error:
        watcher.xboard_spawn_error = error
        raise


@wraps("Process.children", at=lambda _: Process)
def children_of_its_user(original: Original, _: object, process: Any, recursive: bool = False) -> list[int]:
    """Name no child that is not of the watcher's own user, such as root's by sudo, to Circus, which signals each.

    Without it: At graceful_timeout root's circusd kills what is root's below an unarmed worker of another user.
    Fact: Circus sends its last SIGKILL to all processes below; only that of an armed watcher is ours.
    """
    user, found = user_of(process.watcher)[0], original(process, recursive)
    return found if user is None else [each for each in found if procs.is_of(each, {user})]


def withhold_files(watcher: Any) -> None:
    """Hand on no file that was open when root started circusd, and no key, to a process of another user.

    With use_sockets, Circus closes nothing in the processes that it starts. At each start, not at the boot: the user
    may come by `reloadconfig`, `add` or `set`.
    """
    if os.geteuid() != 0 or user_of(watcher)[0] in (None, 0):
        return
    from xboard_circus.launch import leave_session_keyring  # imported only for watchers with a user of their own

    leave_session_keyring()
    own = {shared.fileno() for shared in (watcher.sockets or {}).values()}
    for descriptor in {int(name) for name in os.listdir("/dev/fd")} - own - {0, 1, 2}:
        with contextlib.suppress(OSError):  # that of the listing
            os.set_inheritable(descriptor, False)


def withheld_sockets(watcher: Any, armed: Mapping[str, Any]) -> list[Any]:
    """Return the Circus sockets that a process of *watcher* must not inherit.

    An armed one gets what its command names. From another one those of watchers that are armed, or will be, are
    withheld; the rest is not, because it may know its way to that without naming it. But one of another user gets none
    that a port guard, or Circus, has yet to bind: with that it could bind any port in the name of circusd's user.
    """
    own, sockets = sockets_named(watcher), watcher.sockets or {}
    if watcher.name in armed or not sockets:
        return [each for name, each in sockets.items() if name.lower() not in own]
    to_arm = [each for each in watcher.arbiter.watchers if OUR_PLUGINS in str(getattr(each, "_cfg", {}).get("hooks"))]
    guarded = {name for each in (*to_arm, *(each.watcher for each in armed.values())) for name in sockets_named(each)}
    foreign = user_of(watcher)[0] not in (None, os.geteuid())
    theirs = guarded.difference(own)
    return [each for name, each in sockets.items() if name.lower() in theirs or (foreign and _is_yet_to_listen(each))]


def _is_yet_to_listen(shared: Any) -> bool:
    """Return whether a socket of connections is not bound yet, or by `reloadconfig` before its port guard did that."""
    is_one_of_connections = shared.fileno() >= 0 and shared.type != socket.SOCK_DGRAM
    return is_one_of_connections and (shared.so_reuseport or not is_listening(shared))


class Forked(psutil.Process):
    """A child of circusd that another process has forked, in place of Circus's `psutil.Popen`."""

    stdin = None

    def __init__(self, pid: int, stdout: Any, stderr: Any) -> None:
        super().__init__(pid)
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code; None while it runs, 0 if another process has reaped it, as `Popen` does."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code; psutil.TimeoutExpired after *timeout* seconds."""
        if self.returncode is None:
            self.returncode = super().wait(timeout) or 0
        return self.returncode


def arguments_of(process: Any) -> list[str]:
    """Return the command line with which Circus would start *process*, as words."""
    words: list[str] = process.format_args(sockets_fds=process._get_sockets_fds())
    return words


def arguments(watcher: Any, command: str, env: dict[str, str]) -> list[str]:
    """Return the words of a *command* of *watcher* as Circus splits it, without a start."""
    like = Process(watcher.name, 0, command, args=watcher.args, working_dir="/", env=env, watcher=watcher, spawn=False)
    return arguments_of(like)


def own_sockets(watcher: Any) -> dict[int, int]:
    """Return the descriptors of the Circus sockets in the command of *watcher*, each with itself."""
    named = sockets_named(watcher) if watcher.use_sockets else []
    return {each.fileno(): each.fileno() for name, each in (watcher.sockets or {}).items() if name.lower() in named}


def runs_plugin(process: Any) -> bool:
    """Return whether *process* runs a plugin of ours as Circus starts it, by the Python of this circusd."""
    words = arguments_of(process)
    return (*words[:3],) == (sys.executable, *_PLUGIN) and words[-1].startswith(OUR_PLUGINS)


def is_like_circusd(process: Any) -> bool:
    """Return whether *process* has circusd's user and limits, no pipe, and no socket of Circus's."""
    own = "uid", "gid", "rlimits", "shell", "executable", "use_fds", "pipe_stdout", "pipe_stderr"
    return not any(getattr(process, name) for name in own) and process._get_stdin_socket_fd() is None


def closed_streams(process: Any) -> list[int]:
    """Return the standard streams that lead to /dev/null in *process*."""
    closed = process.close_child_stdin, process.close_child_stdout, process.close_child_stderr
    return [number for number, is_closed in enumerate(closed) if is_closed]


@wraps("Process.spawn", at=lambda _: Process)
def fork_where_imported(original: Original, _: object, forked: Callable[[Any], Forked | None], process: Any) -> Any:
    """Have a worker forked where a forkserver has imported the server, and the plugin from circusd at its start.

    Without it: Each imports all anew, which takes a quarter of a second, and 20 MiB for a worker or 7 for the plugin.
    Fact: Circus starts each process by Popen.
    """
    worker = forked(process)
    if worker is None:
        return original(process)
    process.started, process._worker = time.time(), worker
    return None


@wraps("process.get_cmdline", at=lambda _: circus.process)
def bound_command_lines(original: Original, _: object, process: Any) -> list[str]:
    """Read no more than the name of a program out of what a process shows as its command line.

    Without it: `circusctl stats` reads GiBs into circusd, or fails for all watchers where one worker shows a lone `"`.
    Fact: Circus has psutil read it without a bound, and splits the first word as a shell would.
    """
    words = procs.command_line(process.pid)
    return [shlex.quote(words[0][:LONGEST_NAME])] if words else []


@contextlib.contextmanager
def withheld_meanwhile(sockets: list[Any]) -> Iterator[None]:
    """Let the process that is started in the block inherit none of *sockets*.

    The kernel closes them in the child, before its program runs. `Popen` returns only then, so no other process is
    started meanwhile.
    """
    withheld = [shared for shared in sockets if shared.fileno() >= 0 and shared.get_inheritable()]
    for shared in withheld:
        shared.set_inheritable(False)
    try:
        yield
    finally:
        for shared in withheld:
            shared.set_inheritable(True)
