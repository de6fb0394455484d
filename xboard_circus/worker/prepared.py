"""Become the forkserver of a watcher in a process that was forked from circusd, and has imported the server already.

What the launcher and the start of Python make of a command line and an environment is done here; where a program would
not be the same, it is started, under the same pid. See `xboard_circus.supervisor.prepared_forkserver`.
"""

import gc
import io
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import Any, NamedTuple, NoReturn, TextIO

import xboard_circus.worker.__main__  # noqa: F401
from xboard_circus.host import shown_command
from xboard_circus.launch import LATER, be_killed_first, own_identity
from xboard_circus.worker import MODULE, forkserver

MOST_BYTES = 1 << 16
UNDERSTOOD = [f"--{name}" for name in ("wid", "worker", "chdir")]
OF_INTERPRETER = "python", "ld_", "lc_", "lang", "malloc", "glibc", "tz", "home", "openssl"
"""How the names of variables begin that the interpreter, the loader or the C library reads once, in lower case."""
READ_HERE = {"PYTHONPATH", "PYTHONUNBUFFERED"}
RUN_AT_START = {"sitecustomize", "usercustomize"}


class StartOrder(NamedTuple):
    """How circusd would start the forkserver.

    Attributes:
        arguments: The launcher's command line.
        given_env: The launcher's environment.
        paths: PYTHONPATH of each watcher, which Circus has added to circusd's own path.
        umask: That of circusd's file, if it is a number.
        channel: The number that the channel for a forkserver's orders has to have.
    """

    arguments: list[str]
    given_env: dict[str, str]
    paths: list[str]
    umask: int | None
    channel: int


def run(number: int, limit: float, path: list[str]) -> NoReturn:
    """Import what workers need, wait for *limit* seconds for an order on the socket *number*, and carry it out.

    *path* is that of the first watcher, with which `sys.path` begins.
    """
    with suppress(Exception):  # a worker says the same, and why
        forkserver.import_server(dict.fromkeys(forkserver.TABLES_OF_UVICORN.values(), "auto"))
    gc.enable()
    gc.freeze()
    del sys.path[: len(path)]
    order, (output, channel) = wait_for_order(number, limit)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    if channel != order.channel:
        os.dup2(channel, order.channel)
        os.close(channel)
    os.set_inheritable(order.channel, True)
    if order.umask is not None:
        os.umask(order.umask)
    try:
        become(*read(order), order.paths)
    except (OSError, ValueError):
        os.chdir("/")
        os.execve(order.arguments[0], order.arguments, order.given_env)
    run_module()


def wait_for_order(number: int, limit: float) -> tuple[StartOrder, list[int]]:
    """Return the order, which ends where circusd closes its end, and its two descriptors; end without one."""
    with socket.socket(fileno=number) as channel:
        channel.settimeout(limit)
        with suppress(OSError, ValueError):
            text, given, _, _ = socket.recv_fds(channel, MOST_BYTES, 2)
            while more := channel.recv(MOST_BYTES) if text else b"":
                text += more
            if text:
                return StartOrder(**json.loads(text)), given
    os._exit(0)


def read(order: StartOrder) -> tuple[dict[str, str], str, list[str]]:
    """Return environment, folder and command of an order; ValueError for one that takes the launcher."""
    split = order.arguments.index("--")
    command, options = order.arguments[split + 1 :], order.arguments[4:split]
    if options[::2] != UNDERSTOOD or command[1:3] != ["-m", MODULE]:
        raise ValueError(order.arguments)
    slot, mark, folder = options[1::2]
    env = {name.removeprefix(LATER): value for name, value in order.given_env.items()}
    return {**env, "XBOARD_WID": slot, "XBOARD_WORKER": mark, "XBOARD_LAUNCHER": own_identity()}, folder, command


def become(env: Mapping[str, str], folder: str, command: list[str], paths: Iterable[str]) -> None:
    """Take on the environment, path and streams of *command* in *folder*; raise ValueError, with nothing changed, where
    a program would have another interpreter, or find other modules."""
    own = python_path(env.get("PYTHONPATH", ""), folder)
    added = {path for value in paths for path in python_path(value, folder)}
    before = {*python_path(os.environ.get("PYTHONPATH", ""), folder)}
    program = shutil.which(command[0], path=env.get("PATH"))
    if program is None or os.path.dirname(program) != os.path.dirname(sys.executable):
        raise ValueError(command)
    if not os.path.samefile(program, sys.executable) or not added <= {*own}:
        raise ValueError(command)
    changed = {name for name in {*env, *os.environ} if env.get(name) != os.environ.get(name)} - READ_HERE
    if any(map(matters, changed)) or any(hides(folder) for folder in (folder, *own)):
        raise ValueError(command)
    os.chdir(folder)
    be_killed_first()
    shown_command.show(command, env)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [folder, *own, *(path for path in sys.path if path not in {*own, *before})]
    sys.executable, sys.argv, sys.orig_argv = program, ["-m", *command[3:]], [*command]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = opened(number, getattr(sys, name), is_unbuffered=bool(env.get("PYTHONUNBUFFERED")))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def python_path(value: str, folder: str) -> list[str]:
    """Return what Python makes of PYTHONPATH for a program in *folder*."""
    paths = value.split(os.pathsep) if value else []
    return [*dict.fromkeys(os.path.normpath(os.path.join(folder, path)) for path in paths)]


def matters(variable: str) -> bool:
    """Return whether what is imported already may have read a *variable*: libraries begin theirs with their name."""
    name = variable.lower()
    return name.startswith(OF_INTERPRETER) or name.partition("_")[0] in loaded() - sys.stdlib_module_names


def loaded() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


def hides(folder: str) -> bool:
    """Return whether Python would find a module in *folder* in place of one that is imported, or run code of it."""
    try:
        names = {name.partition(".")[0] for name in os.listdir(folder)}
    except OSError:
        return False
    for name in names & (loaded() | RUN_AT_START):
        found = PathFinder.find_spec(name, [folder])
        own = getattr(sys.modules.get(name), "__spec__", None)
        if found is not None and found.loader is not None and found.origin != getattr(own, "origin", None):
            return True
    return False


def opened(number: int, like: TextIO, *, is_unbuffered: bool) -> TextIO:
    """Open a standard stream as Python does at its start, with the encoding of *like*."""
    is_input, is_error = number == 0, number == 2
    raw: Any = io.FileIO(number, "r" if is_input else "w", closefd=False)
    raw.name = like.name
    buffer = io.BufferedReader(raw) if is_input else raw if is_unbuffered else io.BufferedWriter(raw)
    errors = "backslashreplace" if is_error else like.errors
    is_lined = is_error and not is_unbuffered
    stream = io.TextIOWrapper(buffer, like.encoding, errors, None, is_lined, write_through=is_unbuffered)
    stream.mode = "r" if is_input else "w"  # type: ignore[misc]
    return stream


def run_module() -> NoReturn:
    """Run the worker's module as `python -m` does, also in what it forks; end with the SystemExit that this raises."""
    del sys.modules[f"{MODULE}.__main__"]  # runpy runs it anew
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)
