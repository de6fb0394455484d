"""Fork workers on circusd's orders, from a process that has imported the server, or the app as well.

circusd starts it as it would a worker, behind the same launcher: with the same user, folder, limits and environment.
So a forked worker has all of these, and its command line, from its birth. It is forked twice, and the process in
between ends at once: the kernel then gives the worker to circusd, the subreaper above (prctl(2)).

It holds no listener and no loop, and has one thread. A worker gets its own descriptors with the order.
"""

import fcntl
import gc
import importlib
import inspect
import json
import os
import re
import signal
import socket
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import uvicorn.config

from xboard_circus.core.reason import raised
from xboard_circus.host.own_memory import give_back_libraries
from xboard_circus.host.request_slots import VARIABLE
from xboard_circus.launch import be_killed_first, own_identity
from xboard_circus.worker import NOT_FOR_THE_APP, OF_CIRCUSD
from xboard_circus.worker.app_code import AppCode, file_of
from xboard_circus.worker.fork_orders import ANYWHERE, GO, HERE, LEVEL, MODULES, ORDERS, OUTDATED, READY, SPACE, UNSAFE

TITLE = b"xboard-circus forkserver"
MOST_BYTES, MOST_DESCRIPTORS = 1 << 16, 32
ADOPTED_POLL = 0.0002
LATELY = 0.1  # seconds in which a change counts as one after the fork: a look at all files takes as long as a fork
QUIET = 1.0  # seconds without an order: the workers of a start are forked
LISTED_FOR = 0.1  # seconds: the kernel lists a thread for a moment longer than others wait for its end
ARGUMENTS, ENVIRONMENT = slice(45, 47), slice(47, 49)
"""Fields of /proc/PID/stat after the name: arg_start and arg_end, env_start and env_end (proc_pid_stat(5))."""
IMPORTED_LATE = "uvicorn.loops.uvloop", "anyio._core._sockets", "anyio._backends._asyncio", "fastapi.telemetry._runtime"
TABLES_OF_UVICORN = {"HTTP_PROTOCOLS": "http", "WS_PROTOCOLS": "ws", "LIFESPAN": "lifespan", "LOOP_FACTORIES": "loop"}
"""Tables from which uvicorn imports by name when the server begins, each with the option of the entry; which of them
exist depends on its version."""

_OF_LAUNCHER = re.compile(rb"(?<![^\0])(XBOARD_LAUNCHER|%b)=[^\0]*" % SPACE.encode())


class CannotFork(Exception):
    """Why no worker can be forked from here: leftovers of the import."""


class Imported(NamedTuple):
    """What a worker has of the import before the fork.

    Attributes:
        config: The configuration with which the app was imported: a second one would set up logging over the app's own.
            None: the app is not imported yet.
        code: The code of the app.
    """

    config: uvicorn.Config | None
    code: AppCode


def serve(options: Mapping[str, Any], configure: Callable[[], uvicorn.Config]) -> Imported:
    """Import what workers need, and fork one for each order; return in each of them alone. Ends with circusd.

    Returns what was imported of the app.
    """
    orders = socket.socket(fileno=int(os.environ.pop(ORDERS)))
    orders.set_inheritable(False)  # a process that the app starts would hide our end from circusd
    os.register_at_fork(after_in_child=orders.close)  # and so would one that it forks
    level, modules = os.environ.pop(LEVEL), os.environ.pop(MODULES, "").split()
    del os.environ[SPACE]
    command = retitle(TITLE)
    before = descriptors()
    import_server(options)
    before_app = shared_memory()
    try:
        import_modules(modules, before, before_app)
        gc.freeze()  # a collection would otherwise write into each page that the workers share
        gc.enable()
        of_server = imported_files()
        files, home = Files(of_server), os.stat(".")
        code = AppCode(options["app"], options["app_dir"])
        config = import_app(options, configure) if level == "app" else None
        code.look()  # here, where it writes into no page that is shared
        files_of_app = Files(imported_files() - of_server)
        del of_server  # here, not in each worker
        refuse_what_a_fork_would_share(before, before_app)
    except CannotFork as error:
        orders.send(str(error).encode())
        os._exit(0)
    seed = seeding() if "numpy" in sys.modules else lambda: None
    in_use = set(descriptors()) - {1, 2, orders.fileno()}
    gc.collect()  # after the app alone: in what is frozen there is nothing to find
    gc.freeze()
    # Each page that a worker writes into is there once more for it. It would write into the app's names that Python's
    # cache of attributes lets go of, and into all mappings: logging asks whether the only argument of a line is one.
    sys._clear_type_cache()
    any(isinstance(argument, Mapping) for argument in (0, "", ()))
    orders.send(READY)
    orders.settimeout(QUIET)
    while True:
        try:
            message, given, _, _ = socket.recv_fds(orders, MOST_BYTES, MOST_DESCRIPTORS)
        except TimeoutError:
            orders.settimeout(None)
            give_back_libraries()
            continue
        if not message:
            os._exit(0)  # the app's exit handlers are for the workers, which live on
        order = json.loads(message)
        # While siblings serve, all are of one version, and a reload brings the next; a backend that is down has none.
        is_mended = order["is_down"] and files_of_app.have_changed()
        if is_mended or files.have_changed() or not leads_to(home, order["folder"]):
            socket.socket(fileno=given[0]).send(OUTDATED)
            os._exit(0)
        if left := threads() - 1:  # a hook of the app's may start one at each fork
            orders.send(f"it has started {left} thread(s) after its import".encode())
            socket.socket(fileno=given[0]).send(UNSAFE)
            os._exit(0)
        if in_use.isdisjoint(order["numbers"]):
            # Before the fork: in it a hook of the app's may open files, which get the lowest numbers that are free.
            given = place(given, [ANYWHERE, *(number if number > 2 else ANYWHERE for number in order["numbers"])])
            if fork_worker():
                begin(order, given, command, seed)
                if config is None:
                    code.begin()
                return Imported(config, code)
        for descriptor in given:
            os.close(descriptor)


def import_server(options: Mapping[str, Any]) -> None:
    """Import what a worker imports after its start, without the app: parts of uvicorn, and FastAPI if it is installed.

    FastAPI imports some of its own parts with its first route. No lifespan and no request of it is run here: where the
    environment says so, they start what no fork can have, such as an exporter of telemetry with its threads.
    """
    late = [getattr(uvicorn.config, table, {}).get(options[option]) for table, option in TABLES_OF_UVICORN.items()]
    for entry in (*late, *IMPORTED_LATE):
        with suppress(Exception):  # uvicorn reports it itself, in the worker
            importlib.import_module(str(entry).partition(":")[0])
    with suppress(Exception):
        from fastapi import FastAPI

        FastAPI(openapi_url=None).get("/{item}")(lambda item: item)
        inspect.getsourcelines(own_identity)  # as FastAPI of an endpoint at its first request: it compiles a pattern


def import_app(options: Mapping[str, Any], configure: Callable[[], uvicorn.Config]) -> uvicorn.Config:
    """Import the app in the environment of a worker, and return the configuration with which it was."""
    for name in NOT_FOR_THE_APP:
        os.environ.pop(name, None)
    os.environ["XBOARD_SESSION"] = ""  # the app may keep a copy, and this is not the session of its worker
    values = {name: os.environ.get(name) for name in OF_CIRCUSD}
    config = configure()  # first, as in uvicorn: the app reads its --env-file, and may change its loggers
    importlib.import_module(options["app"].partition(":")[0])
    for name, value in values.items():  # a file never sets these for a worker
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    return config


def import_modules(names: Iterable[str], before: Mapping[int, str], before_app: set[str]) -> None:
    """Import what `worker.preload_modules` names; raise CannotFork with the one that cannot be, or be shared."""
    for name in names:
        try:
            importlib.import_module(name)
            refuse_what_a_fork_would_share(before, before_app)
        except (Exception, SystemExit) as error:
            why = error if isinstance(error, CannotFork) else raised(error)
            raise CannotFork(f"worker.preload_modules: {name}: {why}"[:1000]) from None


def imported_files() -> set[str]:
    """Return the files of all imported modules, and the interpreter's."""
    return {sys.executable, *filter(None, map(file_of, list(sys.modules.values())))}


class Files:
    """Files, and how they are now.

    Two strings: to look at a thousand names of modules, or to free them, would write into a megabyte of pages that the
    workers share.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = "\0".join(names)
        self._marks = self._look()

    def have_changed(self) -> bool:
        """Return whether one was written or replaced, but for the last moment."""
        return time.monotonic() > self._looked_at + LATELY and self._look() != self._marks

    def _look(self) -> str:
        self._looked_at = time.monotonic()
        return "\n".join(map(mark_of, self._names.split("\0")))


def mark_of(file: str) -> str:
    """Return what changes when a file is written or replaced; "" without one."""
    try:
        facts = os.stat(file)
    except OSError:
        return ""
    return f"{facts.st_mtime_ns} {facts.st_size} {facts.st_ino}"


def leads_to(home: os.stat_result, folder: str) -> bool:
    """Return whether *folder* is still the one that we began in: a deployment may replace a link in its path."""
    with suppress(OSError):
        return os.path.samestat(os.stat(folder), home)
    return False


def descriptors() -> dict[int, str]:
    """Return the open files of this process, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def refuse_what_a_fork_would_share(before: Mapping[int, str], before_app: set[str]) -> None:
    """Raise CannotFork if the import has left threads, or memory or an open file that two processes cannot share, or
    what a worker would not have after the fork: a timer (setitimer(2)), a signal at the end of its parent, a stdout of
    its own, or its own memory to write its name into.

    A log that is appended to does no harm, unless it is locked: each worker would take that lock for its own. So it
    would share a lock of `multiprocessing`, which a worker that is killed while it has it never gives back. Sockets,
    event loops, pipes and devices do: two workers would read each other's answers
    (https://docs.sqlalchemy.org/en/20/core/pooling.html#using-connection-pools-with-multiprocessing-or-os-fork). So do
    other files: they would have one position for all, and a database of SQLite's gets corrupt
    (https://www.sqlite.org/howtocorrupt.html).
    """
    if threads() > 1:
        end_threads_that_a_fork_ends()
    if left := threads() - 1:
        raise CannotFork(f"importing it has started {left} thread(s)")
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        raise CannotFork("importing it has started a process")  # the workers could not wait for it
    if any(signal.getitimer(timer)[0] for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)):
        raise CannotFork("importing it has set a timer")
    if ctypes := sys.modules.get("ctypes"):  # by which an app calls prctl(2)
        ctypes.CDLL(None).prctl(2, ctypes.byref(number := ctypes.c_int()), 0, 0, 0)  # PR_GET_PDEATHSIG
        if number.value:
            raise CannotFork("importing it has set a signal at the end of its parent")
    now = descriptors()
    for number, name in ((1, "stdout"), (2, "stderr")):
        if now.get(number) != before.get(number) or getattr(getattr(sys, name), "closed", False):
            raise CannotFork(f"importing it has closed or redirected {name}")
    others = {what for number, what in now.items() if before.get(number) != what and not is_log(number)}
    if shared := others - {"/dev/null", "/dev/urandom", "/dev/random"}:
        raise CannotFork(f"importing it has left open: {', '.join(sorted(shared))}")
    try:
        rewrite(ARGUMENTS, lambda text: text)  # as each worker does
    except OSError as error:
        raise CannotFork(f"importing it has closed {error.filename}") from None  # PR_SET_DUMPABLE (prctl(2))
    if memory := shared_memory() - before_app:
        raise CannotFork(f"importing it has made memory that all workers would share: {', '.join(sorted(memory))}")


def shared_memory() -> set[str]:
    """Return the memory that a fork would share for writing and that no path leads to, such as a lock's of
    `multiprocessing`, by inode and name. A mapped file has its name, as the metrics of Prometheus's client do."""
    found = set()
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            _, rights, _, _, inode, *name = line.decode(errors="replace").split(None, 5)
            if rights[1:2] + rights[3:4] == "ws" and name and name[0].endswith(" (deleted)\n"):
                found.add(f"{name[0].removesuffix(' (deleted)' + chr(10))} ({inode})")
    return found


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def end_threads_that_a_fork_ends() -> None:
    """Fork once for nothing: some libraries end their threads before a fork, and start them anew when they are used.

    So does OpenBLAS, and with it numpy, by pthread_atfork(3); an app may, by os.register_at_fork.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, of a fork that leaves threads behind
        child = os.fork()
    if not child:
        os._exit(0)
    wait_for(child)
    until = time.monotonic() + LISTED_FOR
    while threads() > 1 and time.monotonic() < until:
        time.sleep(ADOPTED_POLL)


def wait_for(child: int) -> None:
    """Wait for the end of a child, also where the app has SIGCHLD ignored, or reaps each child in a handler."""
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def is_log(number: int) -> bool:
    """Return whether a descriptor is a file on disk that is only appended to, and not locked."""
    try:
        is_file = stat.S_ISREG(os.fstat(number).st_mode)
        if not is_file or not fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND:
            return False
        with open(f"/proc/self/fdinfo/{number}", "rb") as facts:
            return b"\nlock:" not in facts.read()
    except OSError:
        return True  # closed meanwhile: the list was read through it


def fork_worker() -> bool:
    """Fork a child of circusd; return True in it."""
    try:
        between = os.fork()
    except OSError:  # circusd sees that its order fails
        return False
    if between:
        wait_for(between)
        return False
    parent = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == parent:
        time.sleep(ADOPTED_POLL)
    return True


def seeding() -> Callable[[], object]:
    """Return what gives each worker random numbers of its own from numpy's global generator, the only well-known one
    that a fork does not seed.

    `numpy.random.seed` would write into half a MiB of what the workers share, so its words are written alone where they
    lie as we know them.
    """
    import ctypes  # as numpy has

    with suppress(Exception):  # no numpy, one of the app's own generators, or an older numpy
        random: Any = sys.modules["numpy"].random
        random.seed()  # which also forgets a normal number that is left of a pair
        words = random.get_state()[1].tobytes()
        where = random.get_bit_generator().ctypes.state_address
        place = memoryview((ctypes.c_ubyte * len(words)).from_address(where)).cast("B")
        if words and place == words:
            return lambda: place.__setitem__(slice(None), os.urandom(len(place)))
    return lambda: sys.modules["numpy"].random.seed()


def begin(order: dict[str, Any], given: list[int], command: bytes, seed: Callable[[], object]) -> None:
    """Become the worker of *order*: circusd has recorded us when this returns.

    A step that fails here would fail in each worker. Then circusd gets no answer, and starts a worker instead.
    """
    try:
        os.setsid()
        be_killed_first()
        placed = place(given[1:], order["numbers"])
        os.environ.update(order["env"], XBOARD_LAUNCHER=own_identity())
        if ANYWHERE in order["numbers"]:
            os.environ[VARIABLE] = str(placed[order["numbers"].index(ANYWHERE)])
        seed()
        retitle(command)
        show_launcher(own_identity())
    except Exception as error:
        os.write(2, f"xboard-circus forkserver: {raised(error)}\n".encode())
        os._exit(1)
    with socket.socket(fileno=given[0]) as taken:
        said = b""
        with suppress(OSError):
            taken.send(HERE)
            said = taken.recv(len(GO))
        if said != GO:
            os._exit(0)  # too late: another one was started


def place(given: list[int], numbers: list[int]) -> list[int]:
    """Give the descriptors *given* these *numbers*, as in a worker that was started; return them.

    One that may be `ANYWHERE` gets a number that no other has, nor a file that the app has open.
    """
    free = max(*given, *numbers) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, free) for descriptor in given]
    for descriptor in given:
        os.close(descriptor)
    for at, number in enumerate(numbers):
        if number != ANYWHERE:
            os.dup2(moved[at], number)
            os.close(moved[at])
            moved[at] = number
    return moved


def retitle(command: bytes) -> bytes:
    """Write *command* into the command line that /proc and ps show of this process; return the former one."""
    return rewrite(ARGUMENTS, lambda old: command[: len(old) - 1].ljust(len(old), b"\0"))


def show_launcher(identity: str) -> None:
    """Write XBOARD_LAUNCHER into the environment that /proc shows of this worker: it has its parent's from the fork.

    By it, `clean` and the next circusd know a worker, and the processes in its session. `SPACE` holds the room for it.
    """

    def entry(found: re.Match[bytes]) -> bytes:
        ours = f"XBOARD_LAUNCHER={identity}" if found[1] == SPACE.encode() else ""
        return ours.encode().ljust(len(found[0]), b"\0")

    rewrite(ENVIRONMENT, lambda old: _OF_LAUNCHER.sub(entry, old))


def rewrite(fields: slice, change: Callable[[bytes], bytes]) -> bytes:
    """Change in our own memory what /proc shows of this process, and return what it was; the length has to stay."""
    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, file.read().rpartition(b")")[2].split()[fields])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        old: bytes = memory.read(end - start)
        memory.seek(start)
        memory.write(change(old))
    return old
