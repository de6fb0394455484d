"""circusd or a worker runs out of descriptors: that is no fault of the app, and ends no worker."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .processes import process


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Leave the process *pid* not one file descriptor that it does not have already."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(highest, 24), hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def refused(c: Circusd) -> list[str]:
    """Return what circusd's log says of spawns of "web" for which it had no descriptor."""
    return [line for line in c.log("circusd").splitlines() if "xboard: web: " in line and "Too many open files" in line]


def test_workers_that_die_while_circusd_has_no_descriptor_left_are_back_soon(tmp_path: Path) -> None:
    """Given no descriptor left for some seconds, when one of two workers and an only one die in it, then they are back
    once there are some, as no slot cools down for it, and what a dead one has left is ended."""
    options: dict[str, object] = {
        "restart.burst": 2,
        "restart.delay": 0.2,
        "restart.delay_max": 0.4,
        "restart.cooldown": 600,
        "worker.preload": "server",
    }
    pools = Watcher("pools", numprocesses=1, app="forking_app:app", options=options)
    with circusd(tmp_path, watchers=[Watcher(options=options), pools]) as c:
        sibling, dead = c.wait_ready()  # beside one that serves a cooldown would be a cooldown
        eventually(lambda: c.get("/", name="pools"))
        pool = [process(int(pid)) for pid in c.get("/pool", name="pools").split()]
        lone = c.workers("pools")
        with without_descriptors(c.pid):
            for pid in (dead, *lone):
                kill(pid)
            # Past the burst, had they been counted as failures of the app.
            eventually(lambda: len(refused(c)) > 3, what="spawns have failed")
            for forkserver in c.forkservers():
                kill(forkserver.pid)
            eventually(lambda: "no worker is forked: [Errno 24]" in c.log("circusd"), what="no forkserver is started")

        assert sibling in c.wait_ready()
        assert c.told("cooldown") == []
        eventually(lambda: not any(child.alive for child in pool), what="the pool of the dead worker is gone")


def test_a_live_path_that_finds_no_descriptor_while_the_reserve_is_whole_is_not_sick(tmp_path: Path) -> None:
    """Given one descriptor free, which each probe's connection takes, then the live path lacks one: no fault of it."""
    options = {"health.period": 0.3, "health.timeout": 1, "health.live_path": "/health/live"}
    web = Watcher(numprocesses=1, options=options)
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c, contextlib.ExitStack() as clients:
        (pid,) = c.wait_ready()
        for _ in range(40):  # more than the worker holds itself, which is no leak of its app then
            send_slow(clients, web.port)
        eventually(lambda: c.worker(pid)["probe"]["requests_active"] == 40, what="all are served")
        in_use = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        _, second = [number for number in range(2, max(in_use) + 3) if number not in in_use][:2]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (second, second))

        eventually(lambda: "descriptors used up" in c.worker(pid)["reason"], what="it says what it lacks")
        seen: set[float] = set()

        def many_rounds() -> bool:
            """Say whether there were more than it takes to be judged as sick."""
            seen.add(c.worker(pid)["latency"])
            return len(seen) > 5

        eventually(many_rounds)
        assert "descriptors used up" in c.worker(pid)["reason"]
        assert c.told("unhealthy") == []
        clients.close()
        eventually(lambda: c.words() == ["up"])


def send_slow(clients: contextlib.ExitStack, port: int) -> None:
    client = clients.enter_context(socket.create_connection(("127.0.0.1", port), 5))
    with contextlib.suppress(ConnectionError):  # uvloop closes what it has no descriptor for
        client.sendall(b"GET /slow?s=90 HTTP/1.1\r\nHost: test\r\n\r\n")


FEW = 100
SAYS = f"descriptors used up: {FEW} of {FEW}"


def used_up(c: Circusd) -> list[int]:
    """Return the pids of the workers that have no descriptor left, and say so."""
    return [worker["pid"] for worker in c.watcher()["workers"] if SAYS in worker["reason"]]


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_workers_without_descriptors_say_so_and_are_not_taken_for_hung(tmp_path: Path, loop: str) -> None:
    """Given more requests than two workers have descriptors, then both go on and say what they lack; when the clients
    are gone, then both are well."""
    options = {"rlimit_nofile": FEW, "health.period": 0.3, "health.timeout": 1, "health.live_path": "/health/live"}
    web = Watcher(options=options, arguments=f"--ws none --loop {loop}")
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c, contextlib.ExitStack() as clients:
        pids = c.wait_ready()

        def both_are_full() -> bool:
            for _ in range(FEW):
                send_slow(clients, web.port)
            return sorted(used_up(c)) == sorted(pids)

        eventually(both_are_full, timeout=90, every=1, what="both say so")  # one may get few of the connections
        assert (c.verdict(), SAYS in c.watcher()["verdict"]["cause"]) == ("degraded", True)

        seen: set[float] = set()

        def many_rounds() -> bool:
            """Say whether there were more than it takes to be judged as hung."""
            seen.add(c.worker(pids[0])["latency"])
            return len(seen) > 5

        eventually(many_rounds)
        assert sorted(used_up(c)) == sorted(pids)
        clients.close()

        eventually(lambda: c.words() == ["up", "up"], what="both are well")
        assert c.workers() == pids
        assert c.told("unhealthy") == []
        assert c.serves()
