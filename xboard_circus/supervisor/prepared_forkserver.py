"""Fork the first forkserver from circusd as our hook is loaded, so that it imports the server while circusd starts.

Circus has imported a third of what the server needs by then, and is about to import our hook, to bind and to arm, while
a second core idles. The child leaves all that is circusd's, its stack too, imports, and waits for the name of its
watcher. Where a program would find other modules, or has a user or limits of its own, it becomes that program, under
the same pid. A later forkserver is a program.

This imports little, because circusd forks here before its hook has imported anything.
"""

import gc
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

TAKEN_WITHIN = 0.2  # circusd does nothing else meanwhile
WAITS = 10.0
"""Seconds until it ends without an order: by then other code may lie on the disk."""


class _Left(BaseException):
    """Raised in the child alone, through all frames of circusd's."""


class _Prepared(NamedTuple):
    pid: int
    orders: socket.socket
    began_at: float


_WORKER = "-m xboard_circus.worker "  # to import the room of that name would take time here
_prepared: list[_Prepared] = []


def prepare() -> None:
    """Fork the child where circusd reads its file; do nothing in another process, or beside a thread or a debugger."""
    if not sys.platform.startswith("linux") or sys.gettrace() is not None:
        return
    path = _path_of_watcher(sys._getframe())
    if not path or None in (sys.stdin, sys.stdout, sys.stderr) or len(os.listdir("/proc/self/task")) != 1:
        return
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            pid = fork()
        except OSError:  # no process is left for this user: it is started as ever
            ours.close()
            return
        if pid == 0:
            ours.detach()  # closed below with all that is circusd's
            number, former = theirs.detach(), sys.excepthook
            sys.excepthook = lambda kind, error, trace: _live(number, path, former, kind, trace)
            raise _Left
    ours.settimeout(TAKEN_WITHIN)
    _prepared[:] = [_Prepared(pid, ours, time.monotonic())]


def fork() -> int:
    """Fork a child of circusd that shares its memory, and holds signals back until it leaves circusd; return its pid, 0
    in it. OSError."""
    gc.freeze()  # a collection would write into each page that both share
    sys._clear_type_cache()  # so would a name that another one replaces there
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()  # or the child would write it as well
    # A signal would reach circusd's loop from its handler in the child.
    blocked, pid = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), -1
    try:
        pid = os.fork()
    finally:  # also where no process is left for this user
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


def _path_of_watcher(frame: FrameType | None) -> list[str]:
    """Return where Python looks first for modules in the watcher whose making *frame* is below.

    Empty without one, and for one that is not forked, or not started with circusd; and where anything but Circus's
    `main` is around it, in a Python without options.
    """
    names: list[tuple[str, str]] = []
    watcher: Mapping[str, Any] = {}
    while frame is not None:
        names.append((str(frame.f_globals.get("__name__")), frame.f_code.co_name))
        if names[-1] == ("circus.watcher", "__init__"):
            watcher = frame.f_locals
        frame = frame.f_back
    names.reverse()
    if names[:2] == [("runpy", "_run_module_as_main"), ("runpy", "_run_code")]:
        names = names[2:]
    is_circusd = names[0] == ("__main__", "<module>") and names[1] in (("circus.circusd", "main"), ("__main__", "main"))
    has_options = sys.orig_argv[1].startswith("-") and sys.orig_argv[1] != "-m"
    if not watcher or not is_circusd or has_options:
        return []
    is_like_circusd = not any(watcher[name] for name in ("uid", "gid", "rlimits", "shell", "executable"))
    runs_worker = watcher["autostart"] and _WORKER in f"{watcher['cmd']} {watcher['args']}"
    if not is_like_circusd or not runs_worker or watcher["options"].get("worker.preload") == "off":
        return []
    made = watcher["self"]
    folder, own = os.path.abspath(made.working_dir), (made.env or {}).get("PYTHONPATH", "")
    return [folder, *(os.path.normpath(os.path.join(folder, path)) for path in own.split(os.pathsep) if own)]


def take(
    arguments: list[str], env: Mapping[str, str], paths: Iterable[str], umask: Any, given: list[int]
) -> int | None:
    """Have the child become the forkserver that *arguments* and *env* would start; return its pid, or None.

    Once: the first forkserver takes it, or none does.

    Args:
        paths: PYTHONPATH of each watcher; Circus has added it to circusd's own.
        umask: That of circusd's file, if it is a number.
        given: Descriptors of the output and of the channel for orders; the last one keeps its number there.
    """
    if not _prepared:
        return None
    prepared = _prepared.pop()
    order = {"arguments": arguments, "given_env": dict(env), "paths": [*paths], "umask": umask, "channel": given[-1]}
    text = json.dumps(order).encode()
    with prepared.orders as orders:
        if time.monotonic() - prepared.began_at > WAITS / 2:
            return None
        try:
            sent = socket.send_fds(orders, [text], given)
            orders.sendall(text[sent:])
        except OSError:  # it has ended, or has not read for too long: it ends without all of the order
            return None
    return prepared.pid


# In the child


def _live(number: int, path: list[str], former: Callable[..., Any], kind: type[BaseException], trace: Any) -> None:
    """Live as the child. Python calls this below all other frames, and then ends with the SystemExit that leaves it."""
    sys.excepthook = former
    if kind is not _Left:
        os._exit(1)
    traceback.clear_frames(trace)
    try:
        leave_circusd(number)
        from xboard_circus.host import shown_command  # not in circusd

        shown_command.show([sys.executable, "-c", "waits to become a forkserver"], os.environ)
        sys.path[:1] = path  # in place of the folder of circusd's script, or its own
        gc.disable()  # as where a worker begins
        from xboard_circus.worker import prepared
    except Exception:  # without /proc it would look like a second circusd; an import that fails, workers report
        os._exit(0)
    prepared.run(number, WAITS, path)


def leave_circusd(number: int) -> None:
    """Leave, in a child, all of circusd's but its output and the descriptor *number*: signals, session, loggers."""
    signal.set_wakeup_fd(-1)
    for each in signal.valid_signals():
        if callable(signal.getsignal(each)):
            signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.setLevel(logging.WARNING if logger is logging.root else logging.NOTSET)
            logger.propagate, logger.disabled = True, False
    logging.shutdown()
    last = max(int(name) for name in os.listdir("/dev/fd"))
    os.closerange(3, number)
    os.closerange(number + 1, last + 1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
