"""A backend that misbehaves on request. Plain ASGI, so that a worker is up in a tenth of a second.

What it does is said by small text files in BACKEND_DIR, read when they matter, so a test can change its mind while the
backend runs. ``NAME.pid-4711`` goes before ``NAME.wid-2``, and that before plain ``NAME``:

boot    at import: ``die`` (an exception), ``exit 7``, ``refuse WORDS`` (sys.exit), ``sleep 5``, ``eat 200`` (MiB);
        at start: ``slow 2``, ``hang``, ``held`` (as long as that is said); ``ignore-term``
live    what ``/health/live`` answers: see `answer_health`
ready   the same for ``/health/ready``
drain   seconds that the shutdown takes, or ``held`` (as long as that is said)
held    as long as that is said, a request to ``/held`` goes on, which answers with the pid at once and again at its end
do      an order to one worker, carried out once, then removed: see `obey`

It tells: ``starts`` has a line "pid wid monotonic-seconds" for every import, ``ready-at/PID`` appears when the worker
serves, ``stopped-at/PID`` when its lifespan ends. A forkserver that imports it does nothing of this: its workers do at
their start what one does otherwise at its import.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FOLDER = Path(os.environ.get("BACKEND_DIR", "."))
IMPORTED_BY = os.getpid()
IMPORTED_WITH = sorted(os.environ)
IP_MINTTL = 21  # of Linux; Python has no name for it
MEGABYTE = b"x" * 1_000_000
leaked: list[mmap.mmap] = []


def wid() -> str:
    return os.environ.get("XBOARD_WID", "")


def is_forkserver() -> bool:
    try:
        return Path("/proc/self/cmdline").read_bytes().startswith(b"xboard-circus forkserver")
    except OSError:
        return False


def setting(name: str) -> str:
    """What the test wants of *name*; empty when it wants nothing."""
    for variant in (f"{name}.pid-{os.getpid()}", f"{name}.wid-{wid()}", name):
        with contextlib.suppress(FileNotFoundError):
            return (FOLDER / variant).read_text().strip()
    return ""


def tell(folder: str) -> None:
    (FOLDER / folder).mkdir(exist_ok=True)
    (FOLDER / folder / str(os.getpid())).write_text(f"{time.monotonic():.6f}")


def import_as_told() -> None:
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {wid() or 0} {time.monotonic():.6f}\n")
    verb, _, value = setting("boot").partition(" ")
    if verb == "die":
        raise RuntimeError("told to die at import")
    if verb == "exit":
        os._exit(int(value))
    if verb == "refuse":
        sys.exit(value)
    if verb == "sleep":
        time.sleep(float(value))
    if verb == "eat":
        leak(int(value) << 20)


def import_after_fork() -> None:
    try:
        import_as_told()
    except RuntimeError:
        traceback.print_exc()
        os._exit(1)
    except SystemExit as left:
        print(left, file=sys.stderr)
        os._exit(1)


async def start_as_told() -> None:
    if os.getpid() != IMPORTED_BY:
        import_after_fork()
    verb, _, value = setting("boot").partition(" ")
    if verb == "slow":
        await asyncio.sleep(float(value))
    if verb == "hang":
        await asyncio.sleep(3600)
    while setting("boot") == "held":
        await asyncio.sleep(0.02)
    if verb == "ignore-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if verb == "ignore-quit":
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
    tell("ready-at")


async def stop_as_told() -> None:
    tell("stopped-at")
    while setting("drain") == "held":
        await asyncio.sleep(0.02)
    await asyncio.sleep(float(setting("drain") or 0))


@contextlib.asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    await start_as_told()
    orders = asyncio.create_task(take_orders(float(os.environ.get("BACKEND_POLL", "0.05"))))
    yield
    orders.cancel()
    await stop_as_told()


async def take_orders(every: float) -> None:
    path = FOLDER / f"do.pid-{os.getpid()}"
    while True:
        await asyncio.sleep(every)
        with contextlib.suppress(FileNotFoundError):
            order = path.read_text().split()
            path.unlink()
            obey(order)


def obey(order: list[str]) -> None:
    """Obey: ``block 60``, ``busy 40 30`` (threads, seconds), ``exit 3``, ``signal 11``, ``leak 9``, ``child``, ``job``.

    A child holds the public socket; a job, in a session of its own, and a ``task`` do not. An ``heir`` surely does,
    and a ``hidden_heir`` accepts; an ``heir_beside`` on a socket of its own. A ``bare`` job has no environment of ours
    either. A ``daemon`` has lost its parent, and the leader of its session. ``shut`` shuts the public socket down for
    all workers, and ``deaf`` has the kernel drop what comes to it. ``change`` sets an option on it that its connections
    inherit. ``hand`` sends it to who takes descriptors. ``print`` prints the words behind it, and ``run`` runs them.
    ``hang spin`` and others: see `HANGS`.
    """
    verb, words = order[0], order[1:]
    if verb == "print":
        print(*words, flush=True)
        return
    if verb == "run":
        subprocess.Popen(words)
        return
    if verb == "change":
        for descriptor in public_listeners():
            change(descriptor, *words)
        return
    if verb == "hand":
        with socket.socket(socket.AF_UNIX) as door:
            door.connect("\0" + words[0])
            socket.send_fds(door, [b"x"], [*public_listeners()])
        return
    if verb == "hang":
        HANGS[words[0]]()
        return
    values = [float(word) for word in words]
    if verb == "block":
        block_the_loop(values[0])
    elif verb == "busy":
        fill_the_pool(int(values[0]), values[1])
    elif verb == "exit":
        os._exit(int(values[0]))
    elif verb == "signal":
        os.kill(os.getpid(), int(values[0]))
    elif verb == "leak":
        threading.Thread(target=leak, args=(int(values[0] * 1_000_000),), daemon=True).start()
    elif verb == "child":
        # close_fds=False: it holds the public socket too, as a careless app's child does.
        subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)
    elif verb == "job":
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    elif verb == "daemon":
        subprocess.Popen(["setsid", "sh", "-c", "sleep 600 &"]).wait()
    elif verb == "task":
        subprocess.Popen(["sleep", "600"])
    elif verb == "bare":
        # Of its worker's environment it has only what ends it with the test.
        subprocess.Popen(["sleep", "600"], start_new_session=True, env={"XBOARD_TEST": os.environ["XBOARD_TEST"]})
    elif verb in ("hidden_heir", "heir_beside"):
        for descriptor in map(listener_beside, public_listeners()) if verb == "heir_beside" else public_listeners():
            subprocess.Popen(
                [sys.executable, "-c", HEIR, str(descriptor)],
                pass_fds=[descriptor],
                start_new_session=True,
                env={"XBOARD_TEST": os.environ["XBOARD_TEST"]},
            )
    elif verb == "shut":
        for descriptor in public_listeners():
            with socket.socket(fileno=os.dup(descriptor)) as listener:
                listener.shutdown(socket.SHUT_RDWR)
    elif verb == "deaf":
        for descriptor in public_listeners():
            with socket.socket(fileno=os.dup(descriptor)) as listener:
                listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)  # loopback has 64
    elif verb == "heir":
        leave_the_port_to_a_child()


def listener_beside(descriptor: int) -> int:
    """Bind another listener to the address of a public one, as only its own user can."""
    beside = socket.socket()
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        for each in (listener, beside):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        beside.bind(listener.getsockname())
    beside.listen()
    return beside.detach()


def leak(size: int) -> None:
    """Take *size* bytes, and leave the event loop alone: on a crowded machine that takes long enough to hang it."""
    taken = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    leaked.append(taken)
    with open("/dev/zero", "rb", buffering=0) as zeros:
        zeros.readinto(taken)


def public_listeners() -> Iterator[int]:
    """Find the listeners of this process, but the private one, which has another name."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry))) as found:
            is_public = found.family != socket.AF_UNIX or found.getsockname().endswith("x.sock")
            if is_public and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield int(entry)


def backlog(descriptor: int) -> int:
    """How many connections may wait at a TCP listener: the kernel's tcpi_sacked."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:], sys.byteorder)


HEIR = """
import select, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    select.select([listener], [], [], 600)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        pass
"""


def change(descriptor: int, what: str) -> None:
    """Change the listener of all workers so that requests wait or are lost."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        if what == "lowat":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 20)
        elif what == "linger":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif what == "timeout":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
        elif what == "blocking":
            os.set_blocking(descriptor, True)
        elif what == "backlog":
            listener.listen(0)


def leave_the_port_to_a_child() -> None:
    """Start a child that certainly holds the public socket, in a session of its own, so that it outlives us."""
    for descriptor in public_listeners():
        os.set_inheritable(descriptor, True)
    subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def spin() -> None:
    while True:
        pass


def wait_for_a_deadlock() -> None:
    """Wait for two threads, each of which waits for the lock of the other."""
    locks, both_have_one = (threading.Lock(), threading.Lock()), threading.Barrier(2)

    def take(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            both_have_one.wait()
            second.acquire()

    threads = [threading.Thread(target=take, args=order, daemon=True) for order in (locks, locks[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def match_for_ever() -> None:
    re.match("(a+)+$", 64 * "a" + "b")  # 2 ** 64 steps in C, which hold the GIL


HANGS: dict[str, Callable[[], object]] = {
    "sleep": lambda: block_the_loop(3600),
    "spin": spin,
    "deadlock": wait_for_a_deadlock,
    "regex": match_for_ever,
}


async def compute(seconds: float) -> None:
    began_at = time.thread_time()
    while time.thread_time() < began_at + seconds:
        pass


async def sleep_in_the_pool(seconds: float) -> None:
    from anyio import to_thread

    await to_thread.run_sync(time.sleep, seconds)


def fill_the_pool(threads: int, seconds: float) -> None:
    for _ in range(threads):
        asyncio.get_running_loop().create_task(sleep_in_the_pool(seconds))


async def run_command(send: Send, words: list[str], *, blocks: bool) -> None:
    """Run a command as a plain child, in a thread or in the loop itself; answer its exit code and what it says."""
    run = functools.partial(subprocess.run, words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    done = run() if blocks else await asyncio.to_thread(run)
    await respond(send, 200, json.dumps([done.returncode, done.stdout]).encode())


async def respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, chunk: bytes, *, times: int, every: float) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(times):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await asyncio.sleep(every)
    await send({"type": "http.response.body", "body": b""})


async def hold(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{os.getpid()}\n".encode(), "more_body": True})
    while setting("held"):
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def answer_health(send: Send, wanted: str) -> None:
    """Answer as *wanted*: ``503 body``, ``redirect``, ``drip``, ``huge`` (1 GB), ``hang``, ``slow 1``, ``raise``."""
    verb, _, value = wanted.partition(" ")
    if verb.isdigit():
        await respond(send, int(verb), value.encode() or b"told to answer so")
    elif verb == "redirect":
        await respond(send, 302, b"", (b"location", b"/pid"))
    elif verb == "drip":
        await stream(send, b".", times=20, every=0.5)
    elif verb == "huge":
        await stream(send, MEGABYTE, times=1000, every=0)
    elif verb == "hang":
        await asyncio.sleep(3600)
    elif verb == "raise":
        raise RuntimeError("told to raise")
    else:
        await asyncio.sleep(float(value) if verb == "slow" else 0)
        await respond(send, 200, b"ok")


def facts() -> dict[str, object]:
    """What a test may want to know of the process that answers."""
    return {
        "pid": os.getpid(),
        "wid": wid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "cwd": os.getcwd(),
        "argv": sys.argv,
        "prefix": sys.prefix,
        "environ": dict(os.environ),
        "imported_with": IMPORTED_WITH,
        "collects_garbage": gc.isenabled(),
        "is_frozen": all(each is not globals() for each in gc.get_objects()),
    }


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await serve_lifespan(receive, send)
        return
    path, query = scope["path"], parse_qs(scope["query_string"].decode())
    seconds = float(query.get("s", ["0"])[0])
    if path.startswith("/health/"):
        await answer_health(send, setting(path.rpartition("/")[2]))
        return
    if path == "/backlogs":
        await respond(send, 200, json.dumps([backlog(each) for each in public_listeners()]).encode())
        return
    if path == "/facts":
        await respond(send, 200, json.dumps(facts()).encode())
        return
    if path == "/run":
        await run_command(send, query["word"], blocks="blocks" in query)
        return
    if path == "/held":
        await hold(send)
        return
    if path == "/slow":
        await asyncio.sleep(seconds)
    elif path == "/block":
        block_the_loop(seconds)
    elif path == "/pool":
        await sleep_in_the_pool(seconds)
    elif path == "/compute":
        while (await receive()).get("more_body"):
            pass
        # In a task of its own, as behind any middleware of Starlette's.
        await asyncio.create_task(compute(seconds))
    elif path == "/die":
        os._exit(int(query.get("code", ["1"])[0]))
    await respond(send, 200, str(os.getpid()).encode())


async def serve_lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with lifespan(app):
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def threaded_app() -> object:
    """The usual FastAPI app, whose plain ``def`` routes run in the pool of 40 threads, its live path too."""
    from fastapi import FastAPI

    threaded = FastAPI(lifespan=lifespan)

    @threaded.get("/")
    @threaded.get("/health/live")
    @threaded.get("/health/ready")
    def pid() -> int:
        return os.getpid()

    return threaded


if not is_forkserver():
    import_as_told()
