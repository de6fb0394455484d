"""Rolling reload under load: no request lost, no worker missing, and the old ones kept where the new code is bad."""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from circus.client import CircusClient

from .facts_of_state import held
from .free_ports import free_port, stranger
from .harness import FORKSERVERS, PATIENCE, Circusd, Watcher, circusd, crowding, eventually, holds, is_well, kill
from .load import Connection, Load
from .memory_group import memory_group
from .test_cli import begun, read_until
from .transfers import Transfers

pytestmark = pytest.mark.real
READY = {"health.ready_path": "/health/ready", "health.live_path": "/health/live"}
TOO_LATE = "not ready within health.startup_timeout = 15 s"
PACE = 144.6  # mean of a gap between 1 and 1000 ms whose logarithm is evenly spread, in ms


class UnevenLoad(Load):
    """Kept-alive connections that lie idle for 1 to 1000 ms between two requests, *rate* requests a second in all."""

    async def drive(self) -> None:
        count = round(self.rate * PACE / 1000)
        await asyncio.gather(*(self._connection(random.Random(number)) for number in range(count)))

    async def _connection(self, gaps: random.Random) -> None:
        idle: deque[Connection] = deque()
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic() + gaps.random()
        while not self._stop.is_set():
            await self._sleep_until(due)
            await self._until_fewer()
            task = asyncio.create_task(self._request(due, idle, kept=True))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 10 ** gaps.uniform(-3, 0)
        await asyncio.gather(*tasks)
        for connection in idle:
            connection.writer.close()


class ReadyWorkers:
    """The smallest number of ready workers that circusd told of, asked all along by a thread of its own.

    Attributes:
        crowded: The largest `crowding` meanwhile.
    """

    def __init__(self, c: Circusd, name: str = "web") -> None:
        self.samples = 0
        self.fewest = 10**6
        self.crowded = 1.0
        self._name = name
        self._stop = threading.Event()
        self._client = CircusClient(endpoint=c.endpoint, timeout=PATIENCE)
        self._thread = threading.Thread(target=self._look, daemon=True, name="ready-workers")

    def __enter__(self) -> "ReadyWorkers":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(90)
        self._client.stop()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            watchers = self._client.send_message("xboard_state")["watchers"]
            workers = next(each["workers"] for each in watchers if each["name"] == self._name)
            self.fewest = min(self.fewest, sum(map(is_well, workers)))
            self.crowded = max(self.crowded, crowding())
            self.samples += 1


def pids(c: Circusd, name: str = "web") -> set[int]:
    """The workers that serve; an old one that still drains is none."""
    return {each["pid"] for each in c.watcher(name)["workers"] if is_well(each)}


def reload_of(c: Circusd, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] | None = c.watcher(name)["reload"]
    return found or {"state": "none yet"}


def rolled(c: Circusd, name: str = "web", *, timeout: float = 90.0) -> dict[str, Any]:
    """Reload and return how it ended."""
    c.do("xboard_reload", name=name, by="the test")
    eventually(lambda: reload_of(c, name)["state"] != "running", timeout=timeout, what="the reload ends")
    return reload_of(c, name)


def tell_figures(what: str, *loads: Load, reloads: int, ready: ReadyWorkers) -> None:
    figures = {load.__class__.__name__: load.summary() for load in loads}
    print(f"\n{what}: {reloads} reloads, ready workers >= {ready.fewest} in {ready.samples} samples")
    print(json.dumps(figures))


def roll_under_load(
    c: Circusd, *, rate: float, requests: int, at_least: int, workers: int
) -> tuple[Load, Load, Transfers, ReadyWorkers]:
    """Reload again and again until both that many requests and reloads are done, each time into new pids."""
    new, kept = Load(c.url, rate=rate / 2, connections=None), UnevenLoad(c.url, rate=rate / 2)
    reloads, successors = 0, set()
    with Transfers(c.url) as transfers, new, kept, ReadyWorkers(c) as ready:
        while reloads < at_least or len(new.requests) + len(kept.requests) < requests:
            before = pids(c)
            ended = rolled(c)
            reloads += 1
            assert (ended["state"], ended["done"], ended["total"]) == ("done", workers, workers), ended
            assert {old for old, _ in ended["replaced"]} == before
            successors |= {pid for _, pid in ended["replaced"]}
        kept.stop()
        new.stop()
    tell_figures(f"{workers} workers", new, kept, reloads=reloads, ready=ready)
    print(dict(transfers.outcomes))
    assert successors <= new.workers | kept.workers, "some new worker has served nobody"
    return new, kept, transfers, ready


@pytest.mark.parametrize(
    ("workers", "rate", "requests", "reloads"),
    [
        pytest.param(2, 200, 4_000, 20, id="two workers"),
        pytest.param(1, 100, 1_000, 8, id="one worker"),
    ],
)
def test_reloads_under_load_lose_nothing(
    tmp_path: Path, workers: int, rate: float, requests: int, reloads: int
) -> None:
    """Given kept-alive, new and slow requests all along, when rolled over again and again, then none is lost."""
    # A client that gets no turn for six seconds would otherwise meet the end of its keep-alive, reload or no reload.
    web = Watcher(
        numprocesses=workers,
        app="transfer_app:app",
        arguments="--ws none --timeout-keep-alive 60",
        options=READY,
    )
    with circusd(tmp_path, watchers=[web]) as c:
        c.wait_ready()

        new, kept, transfers, ready = roll_under_load(
            c, rate=rate, requests=requests, at_least=reloads, workers=workers
        )

        assert (new.lost, kept.lost, transfers.lost) == ([], [], {})
        assert max(request.latency for request in [*new.requests, *kept.requests]) < 2 * ready.crowded
        assert ready.fewest >= workers
        assert c.failures() == []


@pytest.mark.parametrize(
    ("setting", "value", "reason", "more"),
    [
        pytest.param("boot", "die", "told to die at import", [], id="dies at import"),
        pytest.param("boot", "hang", TOO_LATE, ["--no-preflight"], id="never starts, no preflight"),
        pytest.param("ready", "500", TOO_LATE, [], id="answers 500 on ready"),
    ],
)
def test_bad_code_ends_the_reload_and_the_old_workers_serve_on(
    tmp_path: Path, setting: str, value: str, reason: str, more: list[str]
) -> None:
    """Given code that can't get ready, when reloaded with the command line, then exit 1, old pids, nothing lost."""
    options = {**READY, "health.startup_timeout": 15}
    with circusd(tmp_path, options=options) as c:
        before = c.wait_ready()
        c.set(setting, value)

        with Load(c.url, rate=50) as load, ReadyWorkers(c) as ready:
            result = c.run_cli("reload", *more)

        assert result.returncode == 1, result.stdout + result.stderr
        assert reason in result.stderr
        assert ("serve on" in result.stderr, "last lines" in result.stderr) == (True, True), result.stderr
        assert c.ready() == before
        assert (load.lost, ready.fewest) == ([], 2)
        assert (c.watcher()["restarts"], c.watcher()["budget"]["used"]) == (0, 0)


def test_a_reload_of_workers_that_wait_for_a_taken_port_fails_with_that_reason(tmp_path: Path) -> None:
    """Given a port that somebody else holds, when reloaded, then it fails after health.startup_timeout, and why."""
    # Without a forkserver, whose import counts, too, and takes longer than that on a crowded machine.
    web = Watcher(numprocesses=1, options={"health.startup_timeout": 1, "worker.preload": "off"})
    with stranger(web.port, tmp_path), circusd(tmp_path, watchers=[web]) as c:
        eventually(lambda: c.watcher()["port"]["state"] == "refused" and held(c))

        c.do("xboard_reload", name="web")

        reload = eventually(lambda: r if (r := c.watcher()["reload"])["state"] != "running" else None)
        assert (reload["state"], "waiting for the port: the port is held by" in reload["reason"]) == ("failed", True)


def test_the_command_line_reloads_every_armed_watcher(tmp_path: Path) -> None:
    """Given two watchers, when reloaded without a name, then both have new workers, and each change is a line."""
    with circusd(tmp_path, watchers=[Watcher("web"), Watcher("api", numprocesses=1)]) as c:
        before = {name: set(c.wait_ready(name=name)) for name in c.watchers}

        result = c.run_cli("reload")

        assert result.returncode == 0, result.stderr
        for name, number in (("web", 2), ("api", 1)):
            assert len(pids(c, name)) == number
            assert pids(c, name).isdisjoint(before[name])
            assert f"{name}: a trial worker was ready after " in result.stdout
            assert f"{name}: {number} of {number} replaced: pid " in result.stdout
        assert result.stdout.endswith("\nreloaded\n")
        assert len(c.starts("api")) == 3  # the first one, the trial, the new one


def test_a_second_reload_is_refused_and_an_interrupt_leaves_the_first_running(tmp_path: Path) -> None:
    """Given a reload that runs, when another is asked for, and the first interrupted, then 1, 130, and it is done."""
    with circusd(tmp_path, numprocesses=2) as c:
        old = set(c.wait_ready())
        c.set("boot", "held")
        with begun(c, "reload", "web", "--no-preflight") as first:
            (new,) = eventually(lambda: set(c.workers()) - old, what="the first new one is in its startup")
            refused = [c.run_cli("reload", "web", *more) for more in ([], ["--no-preflight"])]
            c.set(f"boot.pid-{new}", "go")  # the second one is held on
            read_until(first, "1 of 2 replaced")
            first.send_signal(signal.SIGINT)
            _, said = first.communicate(timeout=PATIENCE)
        c.set("boot", "")

        for result in refused:
            assert (result.returncode, "runs already" in result.stderr) == (1, True), result.stderr
        assert first.returncode == 130
        assert "circusd goes on with the reload of web" in said
        assert eventually(lambda: reload_of(c)["state"] == "done")


def test_stop_ends_a_reload_and_circusd_answers(tmp_path: Path) -> None:
    """Given a reload whose new worker takes its time, when stopped, then all are gone at once, and it was stopped."""
    with circusd(tmp_path, numprocesses=2) as c:
        c.wait_ready()
        c.set("boot", "slow 600")
        with begun(c, "reload", "--no-preflight") as command, c.answering():
            eventually(lambda: len(c.watcher()["workers"]) == 3)
            c.do("stop", name="web", waiting=True)
            _, said = command.communicate(timeout=PATIENCE)

        assert (command.returncode, "the reload was stopped" in said, "serve on" in said) == (1, True, False), said
        assert (c.status(), c.workers()) == ("stopped", [])
        assert reload_of(c)["state"] == "stopped"
        c.set("boot", "")
        c.do("start", name="web", waiting=True)
        assert len(c.wait_ready()) == 2


def test_who_has_not_got_ready_when_the_watcher_is_stopped_has_not_failed(tmp_path: Path) -> None:
    """Given a reload whose new worker is in its startup, when the watcher is stopped, then that is why it ended."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        c.set("boot", "slow 600")
        c.do("xboard_reload", name="web")
        eventually(lambda: c.log().count("Waiting for application startup") == 2)

        c.do("stop", name="web", waiting=True, timeout=90)

        ends = eventually(lambda: ended if len(ended := c.events.named("end")) == 2 else None)
        assert [end.message["cause"] for end in ends] == ["commanded", "commanded"]


def test_a_reload_whose_circusd_dies_tells_so(tmp_path: Path) -> None:
    """Given a reload whose new worker takes its time, when circusd dies, then the command says so."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        c.set("boot", "slow 600")
        with begun(c, "reload", "--no-preflight") as command:
            eventually(lambda: len(c.watcher()["workers"]) == 2)
            c.kill9()
            _, said = command.communicate(timeout=PATIENCE)

        assert command.returncode == 1
        assert "web: circusd ended in the middle of the reload; `xboard-circus start` starts it" in said


def test_a_slow_drain_holds_up_nothing_else(tmp_path: Path) -> None:
    """Given a reload whose old worker drains, when another watcher's worker dies, then one is up while it does."""
    options = {"graceful_timeout": 600}
    slow = Watcher("slow", numprocesses=1, arguments="--ws none --timeout-graceful-shutdown 590", options=options)
    with circusd(tmp_path, watchers=[slow, Watcher("web", numprocesses=1)]) as c:
        old = c.wait_ready(name="slow")[0]
        crashed = c.wait_ready(name="web")[0]
        held = c.hold_each([old], name="slow")
        with c.answering():
            c.do("xboard_reload", name="slow", by="the test")
            eventually(lambda: c.worker(old, "slow")["drains"], what="the old one drains")
            kill(crashed)
            eventually(lambda: c.ready("web") not in ([], [crashed]), what="the crash is put right")
        assert c.worker(old, "slow")["drains"]
        c.finish(held, name="slow")
        eventually(lambda: reload_of(c, "slow")["state"] == "done")


def drains(c: Circusd) -> set[int]:
    return {worker["pid"] for worker in c.watcher()["workers"] if worker["drains"]}


def test_old_workers_drain_side_by_side(tmp_path: Path) -> None:
    """Given three workers with a slow request each, when reloaded, then all drain at once beside three new ones."""
    with circusd(tmp_path, numprocesses=3) as c:
        old = c.wait_ready()
        held = c.hold_each(old)

        c.do("xboard_reload", name="web", by="the test")
        eventually(lambda: drains(c) == set(old), what="all old ones drain")

        assert pids(c).isdisjoint(old)
        assert len(pids(c)) == 3
        assert (reload_of(c)["state"], reload_of(c)["done"]) == ("running", 3)
        c.finish(held)
        ended = eventually(lambda: told if (told := reload_of(c))["state"] != "running" else None)
        assert (ended["state"], ended["done"], ended["cut"]) == ("done", 3, 0)
        assert not set(old) & set(c.workers())


@pytest.mark.skipif(not FORKSERVERS, reason="three started workers, which share no pages, do not fit into that group")
def test_old_workers_drain_one_at_a_time_where_memory_is_short(tmp_path: Path) -> None:
    """Given the same in a control group with less memory than two workers take, then one drains at a time."""
    with circusd(tmp_path, numprocesses=3) as c:
        old = c.wait_ready()
        held = c.hold_each(old)

        with memory_group(c.pid, limit=65 << 20):
            c.do("xboard_reload", name="web", by="the test")
            eventually(lambda: drains(c), what="the first old one drains")
            holds(lambda: (len(drains(c)), reload_of(c)["done"]) == (1, 1), seconds=2.5)
            c.finish(held)
            eventually(lambda: reload_of(c)["state"] == "done")

        assert pids(c).isdisjoint(old)


def test_where_memory_is_short_the_new_worker_is_killed_and_no_healthy_one(tmp_path: Path) -> None:
    """Given workers that are larger than what their control group has left, when reloaded, then the kernel ends the one
    that serves nobody yet, and the reload fails with that reason; one that serves is treated like any process again."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        c.set("boot", "eat 200")
        with memory_group(c.pid, limit=2 << 30) as group:
            c.do("xboard_reload", name="web", by="the test")
            eventually(lambda: reload_of(c)["state"] == "done")
            old = c.wait_ready()
            assert {adjustment(pid) for pid in old} == {adjustment(c.pid)}

            group.leave(100 << 20)
            c.do("xboard_reload", name="web", by="the test")
            failed = eventually(lambda: told if (told := reload_of(c))["state"] == "failed" else None)
            assert "out of memory" in failed["reason"]
            assert set(c.ready()) == set(old)


def adjustment(pid: int) -> str:
    return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()


def test_a_command_that_is_not_ours_is_rolled_over_by_its_uptime(tmp_path: Path) -> None:
    """Given plain uvicorn on a shared socket, when reloaded, then it is done without a trial, and says so."""
    stock = "{python} -m uvicorn {app} --fd $(circus.sockets.{name})"
    with circusd(tmp_path, watchers=[Watcher(command=stock)]) as c:
        before = set(c.wait_ready())

        result = c.run_cli("reload")

        assert result.returncode == 0, result.stderr
        assert "web: no trial: " in result.stdout
        assert len(pids(c)) == 2
        assert pids(c).isdisjoint(before)


def test_a_server_that_binds_by_itself_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Given a server that binds its port, when reloaded, then exit 1 with the command that works, and it serves on."""
    port = free_port()
    command = "{python} -m uvicorn {app} --port {port}"
    web = Watcher(command=command, numprocesses=1, listens=False, port=port, options={"port.port": port})
    with circusd(tmp_path, watchers=[web]) as c:
        before = c.wait_ready()

        result = c.run_cli("reload")

        assert (result.returncode, "`xboard-circus restart web`" in result.stderr) == (1, True), result.stderr
        assert c.ready() == before


def test_a_reload_with_websockets_does_not_wait_for_the_drain_limit(tmp_path: Path) -> None:
    """Given 20 WebSockets on one worker, when it is reloaded, then all are closed with 1012 over
    `worker.websocket_spread`, in several steps, and the old worker is gone long before the drain limit."""
    connect = pytest.importorskip("websockets.sync.client").connect
    closed_by_server = pytest.importorskip("websockets.exceptions").ConnectionClosed
    web = Watcher(
        app="streams_app:app",
        arguments="--ws auto --timeout-graceful-shutdown 590",
        numprocesses=1,
        options={**READY, "graceful_timeout": 600, "worker.websocket_spread": 2},
    )
    with circusd(tmp_path, watchers=[web]) as c, contextlib.ExitStack() as opened, ThreadPoolExecutor(20) as pool:
        (old,) = c.wait_ready()
        clients = [opened.enter_context(connect(f"ws://127.0.0.1:{web.port}/ws")) for _ in range(20)]

        def heard(client: Any) -> tuple[float, int | None]:
            with contextlib.suppress(closed_by_server):
                client.recv(timeout=200)
            return time.monotonic(), client.close_code

        closed = [pool.submit(heard, client) for client in clients]
        result = c.run_cli("reload", "--no-preflight")
        assert result.returncode == 0, result.stdout + result.stderr
        eventually(lambda: old not in c.workers(), what="it is gone, long before the drain limit")

        moments = sorted(at for at, _ in (each.result(timeout=60) for each in closed))
        assert {code for _, code in (each.result() for each in closed)} == {1012}
        assert sum(later - earlier > 0.02 for earlier, later in itertools.pairwise(moments)) >= 4, moments
