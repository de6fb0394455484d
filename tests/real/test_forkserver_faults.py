"""Faults of the process from which workers are forked, at both levels: no worker is harmed, and nothing is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from xboard_circus.worker.fork_orders import READY

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .load import Load
from .memory_group import memory_group
from .processes import Process, process
from .test_forks import forked, forkserver, is_forked, preload, simple, sockets, up, write_app

PIDFD_GETFD = 438  # the number of the call, the same for all processors; Python has no name for it
LEVELS = ("server", "app")
MOST_TESTS = 16


def watchers(number: int, **options: object) -> list[Watcher]:
    """Return so many watchers of each level, called `app-0` and so on."""
    return [
        Watcher(f"{level}-{at}", options={**FAST_RESTARTS, "worker.preload": level, **options})
        for level in LEVELS
        for at in range(number)
    ]


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, list[str]]]:
    """One circusd for all, and its watchers that no test has had: a forkserver that has failed before is kept waiting
    for the next one."""
    all_of_them = watchers(MOST_TESTS, autostart=False)
    with circusd(tmp_path_factory.mktemp("faults"), watchers=all_of_them) as c:
        yield c, [watcher.name for watcher in all_of_them]


@pytest.fixture(params=LEVELS)
def running(unused: tuple[Circusd, list[str]], request: pytest.FixtureRequest) -> Iterator[tuple[Circusd, str]]:
    """A circusd, and the name of a watcher in it of which two workers are forked."""
    c, names = unused
    c.start_if_ended()
    names.remove(name := next(name for name in names if name.startswith(request.param)))
    with c.running(name):
        forkserver(c, name=name)
        forked(c, 2, name)
        assert preload(c, name)["level"] == request.param
        yield c, name


def reports(c: Circusd, name: str, reason: str) -> int:
    """Count the lines of circusd's log with this reason of a watcher."""
    return sum(f"xboard: {name}: " in line and reason in line for line in c.log("circusd").splitlines())


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_end_of_a_forkserver_harms_no_worker(running: tuple[Circusd, str], signum: int) -> None:
    c, name = running
    pids, server = c.wait_ready(name=name), forkserver(c, name=name)

    with Load(c.url_of(name)) as load:
        server.signal(signum)
        eventually(lambda: not server.alive)
        assert forkserver(c, name=name, not_pid=server.pid).parent == c.pid
        assert c.wait_ready(name=name) == pids
    assert not load.lost
    assert reports(c, name, signal.Signals(signum).name) == 1


def test_a_forkserver_that_hangs_holds_up_neither_circusd_nor_a_worker(running: tuple[Circusd, str]) -> None:
    """Given a forkserver under SIGSTOP, when the workers are killed, then others are started, and that is reported
    once."""
    c, name = running
    pids, server = c.wait_ready(name=name), forkserver(c, name=name)

    kill(server.pid, signal.SIGSTOP)
    for pid in pids:
        kill(pid)
    new = [pid for pid in c.wait_ready(name=name) if pid not in pids]

    assert [is_forked(c, pid) for pid in new] == [False, False]
    eventually(lambda: not server.alive, what="the one that hangs is ended")
    next_one = forkserver(c, name=name, not_pid=server.pid)
    assert c.told("restart", name)[-1].message["cause"] == "killed from outside"
    for pid in new:
        kill(pid)
    forked(c, 2, name, without=new)
    assert forkserver(c, name=name).pid == next_one.pid
    assert reports(c, name, "the forkserver did not answer within 0.2 s, 2 times") == 1
    assert reports(c, name, "forkserver") == 1


def test_a_forkserver_out_of_memory_harms_no_worker(running: tuple[Circusd, str]) -> None:
    """Given a forkserver with no memory left, when a worker is killed, then the next one is up, and so is another."""
    c, name = running
    with Load(c.url_of(name), connections=8) as load:
        (dead, sibling), server = c.wait_ready(name=name), forkserver(c, name=name)
        with memory_group(server.pid, limit=256 << 20) as group:
            group.shrink()
            load.stop()  # what the one that is killed has in flight is lost
            kill(dead)
            assert sibling in c.wait_ready(name=name)
            eventually(lambda: not server.alive, what="the kernel has killed it")
            forkserver(c, name=name, not_pid=server.pid)
        assert sibling in forked(c, 2, name, without=[dead])
        assert not load.lost
        assert c.verdict(name) == "ok"


@pytest.mark.parametrize(
    ("whose", "message"),
    [
        pytest.param("circusd", b"{", id="half an order"),
        pytest.param("circusd", b"{}", id="an order without descriptors"),
        pytest.param("forkserver", READY, id="the word of another process"),
        pytest.param("forkserver", b"\xff" * 4096, id="no word"),
    ],
)
def test_what_a_stranger_puts_on_the_order_socket_harms_no_worker(
    running: tuple[Circusd, str], whose: str, message: bytes
) -> None:
    """Given a copy of either end of the orders, when a flood of what is none is sent, then circusd answers, the workers
    stay, and the next one is forked again."""
    c, name = running
    with Load(c.url_of(name), connections=8) as load:
        pids, server = forked(c, 2, name), forkserver(c, name=name)

        with order_socket(c, server, whose) as stolen, c.answering(name=name):
            for _ in range(10_000):
                with contextlib.suppress(OSError):  # full, or closed by then
                    stolen.send(message, socket.MSG_DONTWAIT)
            assert c.wait_ready(name=name) == pids
        load.stop()
        assert load.lost == []

        eventually(lambda: not server.alive, what="the one that was spoken to is replaced")
        forkserver(c, name=name, not_pid=server.pid)
        kill(pids[0])
        assert pids[1] in forked(c, 2, name, without=pids[:1])
        assert len(c.forkservers()) == 1


LEAKS = """
import os
hoard = []
os.register_at_fork(after_in_parent=lambda: hoard.append(b"x" * (8 << 20)))
"""


def test_a_forkserver_that_leaks_is_replaced_and_its_workers_stay(tmp_path: Path) -> None:
    """Given an app that keeps 8 MiB at each fork, when workers are killed again and again, then the forkserver never
    takes more than twice what it had after its import and a fork, each replacement is reported, and the next worker
    is forked again."""
    watcher = simple(tmp_path)
    write_app(tmp_path, before=LEAKS)
    with circusd(tmp_path, watchers=[watcher]) as c:
        (sibling, pid), grown = forked(c, 2), "the forkserver has grown to more than "
        limit = 2 * forkserver(c).memory + (16 << 20)
        while not reports(c, "web", grown):
            assert all(server.memory < limit for server in c.forkservers())
            kill(pid)
            pid = eventually(lambda: next(new for new in up(c, 2) if new not in (pid, sibling)))  # noqa: B023

        kill(pid)
        assert sibling in forked(c, 2, without=[pid])
        assert forkserver(c).memory < limit
        assert reports(c, "web", grown) == 1


@contextlib.contextmanager
def order_socket(c: Circusd, server: Process, whose: str) -> Iterator[socket.socket]:
    """Take a copy of an end of the orders, as only root and the tracer of a process can; skip where nobody may."""
    (number,) = sockets(server.pid)
    theirs = copy_of(server.pid, number)
    if whose == "forkserver":
        with theirs:
            yield theirs
        return
    theirs.close()
    for each in sockets(c.pid):
        ours = copy_of(c.pid, each)
        peer = struct.unpack("3i", ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if ours.type == socket.SOCK_SEQPACKET and peer == c.pid:
            with ours:
                yield ours
            return
        ours.close()
    raise AssertionError("circusd has no order socket")


def copy_of(pid: int, number: int) -> socket.socket:
    """Return a socket of another process's (pidfd_getfd(2))."""
    pidfd = os.pidfd_open(pid)
    try:
        found = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if found < 0:
        pytest.skip(f"no descriptor can be copied from another process here: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=found)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_forkserver_ends_with_circusd_and_its_workers_serve_on(tmp_path: Path, is_stopped: bool) -> None:
    """Given a forkserver of each level, also under SIGSTOP, when circusd is killed, then the next one leaves nothing of
    it, and no request is lost."""
    levels = [watcher.name for watcher in watchers(1)]
    with circusd(tmp_path, watchers=watchers(1)) as c, contextlib.ExitStack() as loads:
        pids = {name: forked(c, 2, name) for name in levels}
        servers = {name: forkserver(c, name=name) for name in levels}
        workers = [process(pid) for name in levels for pid in pids[name]]
        assert [preload(c, name)["level"] for name in levels] == [*LEVELS]

        under_load = [loads.enter_context(Load(c.url_of(name))) for name in levels]
        for server in servers.values():
            if is_stopped:
                kill(server.pid, signal.SIGSTOP)
        c.kill9()
        if not is_stopped:
            eventually(lambda: not any(server.alive for server in servers.values()), what="the forkservers end")
        assert all(worker.alive for worker in workers)
        c.start_again()
        for name in levels:
            eventually(
                lambda: not set(c.ready(name)) & set(pids[name]) and len(c.ready(name)) == 2,  # noqa: B023
                what="the next has taken over",
            )
        loads.close()
        assert [load.lost for load in under_load] == [[], []]
        for name in levels:
            forked(c, 2, name)
        eventually(lambda: not any(worker.alive for worker in workers), what="the orphans are gone")
        eventually(lambda: not any(server.alive for server in servers.values()), what="the former forkservers are gone")
        assert len(c.forkservers()) == 2


def test_a_stopped_launcher_of_a_forkserver_is_ended_by_the_next_circusd(tmp_path: Path) -> None:
    """Given SIGSTOP before it becomes the command, when circusd is killed, then the next one leaves nothing of it."""
    with circusd(tmp_path, options={**FAST_RESTARTS, "worker.preload": "server"}) as c:
        c.wait_ready()
        children = Path(f"/proc/{c.pid}/task/{c.pid}/children")

        def is_launcher(found: Process) -> bool:
            return "launch.py" in found.command and "--worker forkserver" in found.command

        def launcher() -> Process:
            return next(found for pid in children.read_text().split() if is_launcher(found := process(int(pid))))

        def stopped_in_time() -> Process | None:
            """Stop the launcher of the next forkserver; where it has become that, let it go on, for another try."""
            c.do("xboard_reload", name="web")
            # On a crowded machine it may have become that between two looks: then we try again.
            found = eventually(launcher, every=0.0005, timeout=3, what="a forkserver is launched")
            kill(found.pid, signal.SIGSTOP)
            if is_launcher(found):
                return found
            found.signal(signal.SIGCONT)
            eventually(lambda: c.watcher()["reload"]["state"] != "running")
            return None

        stopped = eventually(stopped_in_time, what="a launcher is stopped")
        c.kill9()
        c.start_again()
        c.wait_ready()
        eventually(lambda: not stopped.alive, what="it is ended")
