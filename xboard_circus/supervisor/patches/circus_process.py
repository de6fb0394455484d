"""Circus's Process: which sockets it inherits, how it ended, what it has below it."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from circus import logger
from circus.process import Process

from xboard_circus.host.procs import session_of
from xboard_circus.supervisor.patches.patch import Original, replaces

_NAMED = re.compile(r"circus\.sockets\.([\w.-]+)", re.IGNORECASE)


def exit_code(process: Any) -> int | None:
    """Return how *process* ended (negative: by that signal), or None where that is not known any more.

    Reads the status without taking it away from Circus, which waits for its children in three places.
    """
    code = process._worker.returncode
    if code is not None:
        return int(code)
    try:
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def has_ended(process: Any) -> bool:
    """Return whether *process* is dead, reaped or not."""
    if process._worker.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def children(process: Any) -> list[Any]:
    """Return all processes below *process* in its session; what has made one of its own is meant to outlive it."""
    try:
        return [child for child in process._worker.children(recursive=True) if session_of(child.pid) == process.pid]
    except psutil.NoSuchProcess:
        return []


def resident(process: Any) -> int | None:
    """Return the resident memory of *process* in bytes."""
    try:
        return int(process._worker.memory_info().rss)
    except psutil.Error:
        return None


def send(process: Any, signum: int) -> None:
    """Signal a child of circusd. It is not reaped yet, so its pid is not used again."""
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

    It would return at once, and Circus then wait for the process in a busy loop that freezes circusd for good.
    """
    process.stopping = False


def is_stopping(process: Any) -> bool:
    """Return whether Circus is killing *process*."""
    return bool(process.stopping)


def sockets_named(watcher: Any) -> list[str]:
    """Return the names of the Circus sockets in a watcher's command, in lower case and in their order.

    Circus hands the arguments over as a string or as a list.
    """
    args = watcher.args or ""
    words = [watcher.cmd, *([args] if isinstance(args, str) else args)]
    return [name.lower() for name in _NAMED.findall(" ".join(map(str, words)))]


@replaces("Process.spawn", at=lambda _: Process)
def inherit_own_sockets(original: Original, _: object, withheld: Callable[[Any], list[Any]]) -> Original:
    """Let each process inherit the sockets that are its own, and no listener of another watcher.

    Without it: A worker holds the listener of another watcher: after that one's stop, connections to it hang.
    Fact: With use_sockets, Circus passes every socket of circusd's to every process. A watcher that `circusctl add`
    brings has no hook of ours, so the class is patched.
    """

    def spawn(process: Any) -> Any:
        try:
            with withheld_meanwhile(withheld(process.watcher)):
                return original(process)
        except OSError as error:
            process.watcher.xboard_spawn_error = error
            raise

    return spawn


@contextlib.contextmanager
def withheld_meanwhile(sockets: list[Any]) -> Iterator[None]:
    """Let the process that is started meanwhile inherit none of *sockets*.

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
