"""The dashboard beside a real circusd: what it shows, what it steers, and how it fares when circusd does not."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.ledger.query import search

from .free_ports import free_port, stranger
from .harness import BUNDLE, HERE, Circusd, Watcher, circusd, eventually, kill
from .processes import process
from .visitor import Visitor, page

ANSWERS_WITHIN = 0.5
DESCRIPTORS = 256
PLAIN = Watcher(name="plain", armed=False, numprocesses=1, listens=False, command="sleep 60")


def opened(c: Circusd) -> Visitor:
    """Wait until the page is there, and log in."""
    visitor = Visitor(c.watchers["dashboard"].port)
    eventually(lambda: visitor.get("/healthz").status == 200, what="the dashboard answers")
    visitor.log_in(c.folder)
    eventually(lambda: visitor.server()["reachable"], what="the dashboard has asked circusd")
    return visitor


def soonest(visitor: Visitor, path: str = "/api/state", *, times: int = 10) -> float:
    """The best of some answers: how long the page takes where it is the page that takes it, not this busy machine."""
    return min(visitor.get(path).seconds for _ in range(times))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, Visitor]]:
    """A circusd with a backend, its prober and the dashboard, for the tests that leave it as it was."""
    few = {"rlimit_nofile": DESCRIPTORS}
    watchers = [Watcher(options={"health.period": 0.5, "health.live_path": "/live"}), page(options=few)]
    with circusd(tmp_path_factory.mktemp("page"), watchers=watchers, plugins=BUNDLE) as c:
        c.wait_ready()
        yield c, opened(c)


def test_the_page_shows_what_circusd_tells(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared

    def complete() -> dict[str, Any] | None:
        server = visitor.server()
        workers = [
            worker for watcher in server["watchers"] if watcher["name"] == "web" for worker in watcher["workers"]
        ]
        is_whole = all(each["cpu"] is not None and each["latency"] is not None for each in workers)
        return server if workers and is_whole and server["error"] is None else None

    server = eventually(complete)
    (web,) = (watcher for watcher in server["watchers"] if watcher["name"] == "web")
    assert {each["pid"] for each in web["workers"]} == set(c.workers())
    assert all(each["rss"] > 1 << 20 for each in web["workers"])
    assert (server["circusd"]["pid"], server["error"]) == (c.pid, None)
    sockets = {each["name"]: each["port"] for each in server["sockets"]}
    assert sockets == {"web": c.watchers["web"].port, "dashboard": c.watchers["dashboard"].port}
    assert [prober["plugin"] for prober in server["probers"]] == ["http_health"]
    assert (server["has_ledger"], server["has_logs"]) == (True, True)


def test_the_stream_goes_on_and_the_figures_with_it(shared: tuple[Circusd, Visitor]) -> None:
    _, visitor = shared
    with visitor.stream() as events:
        seen = list(islice(events, 3))
        asked_at = [told["now"] - told["servers"][0]["age"] for _, told in seen]
        while asked_at[-1] < asked_at[0] + 0.5:  # circusd is not asked for each of them
            assert len(seen) < 30, asked_at
            seen.append(next(events))
            asked_at.append(seen[-1][1]["now"] - seen[-1][1]["servers"][0]["age"])

    assert {name for name, _ in seen} == {"state"}
    assert all(earlier["now"] < later["now"] for (_, earlier), (_, later) in pairwise(seen))


def test_the_last_minutes_are_kept(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared
    with visitor.stream() as events:

        def enough() -> dict[str, Any] | None:
            next(events)
            workers: dict[str, Any] = visitor.get("/api/history").json["workers"]
            return workers if workers and all(len(ring["t"]) > 1 for ring in workers.values()) else None

        workers = eventually(enough)
    assert {int(key.partition(":")[0]) for key in workers} >= set(c.workers())
    for ring in workers.values():
        assert len({len(ring[name]) for name in ("t", "cpu", "rss", "latency")}) == 1


def test_logs_are_shown(shared: tuple[Circusd, Visitor]) -> None:
    _, visitor = shared

    files = visitor.get("/api/logs").json["files"]
    assert ("web", "web") in [(each["id"], each["watcher"]) for each in files]
    assert any("Uvicorn running" in text for *_, text in visitor.get("/api/logs/web").json["lines"])


def test_one_worker_is_replaced_and_the_ledger_says_for_whom(shared: tuple[Circusd, Visitor]) -> None:
    """Given two workers, when one is to be restarted on the page, then a new one is ready before it goes."""
    c, visitor = shared
    old, kept = c.wait_ready()
    restarts = c.watcher()["restarts"]
    started = process(old).started

    said = visitor.done("replace", watcher="web", pid=old, started=started)

    eventually(lambda: old not in c.workers() and len(c.ready()) == 2, what="it is replaced")
    assert said == f"reloads worker {old} of web, new one first"
    assert kept in c.workers()
    assert c.watcher()["restarts"] == restarts

    def told() -> bool:
        records = search(c.folder / "ledger.db", watcher="web", limit=1000)
        return any("dashboard: admin from 127.0.0.1" in f"{each.reason} {each.data}" for each in records)

    eventually(told, what="the ledger names who asked")
    texts = [f"{each['reason']}" for each in visitor.get("/api/events?watcher=web&limit=1000").json["events"]]
    assert any("replacement requested by dashboard: admin from 127.0.0.1" in text for text in texts)


def test_a_worker_of_another_time_is_not_replaced(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared
    pid = c.wait_ready()[0]
    eventually(lambda: pid in [each["pid"] for each in visitor.watcher()["workers"]])

    assert visitor.act("replace", watcher="web", pid=pid, started=process(pid).started + 1).status == 404
    assert pid in c.workers()


def test_a_watcher_is_stopped_started_and_counted(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared

    visitor.done("incr", watcher="web")
    c.wait_ready(3)
    visitor.done("decr", watcher="web")
    c.wait_ready(2)
    visitor.done("stop", watcher="web")
    eventually(lambda: c.status() == "stopped")
    visitor.done("start", watcher="web")
    c.wait_ready(2)
    victim = c.workers()[0]
    eventually(lambda: victim in [each["pid"] for each in visitor.watcher()["workers"]])
    visitor.done("kill", watcher="web", pid=victim)
    eventually(lambda: victim not in c.workers() and len(c.ready()) == 2)


def test_it_rolls_over(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared
    before = c.wait_ready()

    visitor.done("reload", watcher="web")

    eventually(lambda: (visitor.watcher()["reload"] or {}).get("state") == "done")
    assert not set(before) & set(c.workers())


def test_all_is_stopped_and_started_but_the_page_itself(shared: tuple[Circusd, Visitor]) -> None:
    c, visitor = shared

    visitor.done("stop_all")
    eventually(lambda: c.status() == "stopped")
    assert (c.status("dashboard"), c.status("plugin:xboard")) == ("active", "active")
    visitor.done("start_all")
    c.wait_ready()


def test_a_second_circusd_is_added_and_removed(shared: tuple[Circusd, Visitor], tmp_path: Path) -> None:
    """Given a circusd without a watcher of ours, when it is added by its endpoint, then it is shown and steered."""
    _, visitor = shared
    with circusd(tmp_path, watchers=[PLAIN]) as other:
        visitor.done("add_server", endpoint=other.endpoint, label="the other")
        (server_id,) = [
            each["id"] for each in visitor.get("/api/state").json["servers"] if each["label"] == "the other"
        ]
        eventually(lambda: visitor.server(server_id)["reachable"])
        (plain,) = visitor.server(server_id)["watchers"]
        assert (plain["name"], plain["armed"], [each["pid"] for each in plain["workers"]]) == (
            "plain",
            False,
            other.workers("plain"),
        )
        visitor.done("incr", server=server_id, watcher="plain")
        eventually(lambda: len(other.workers("plain")) == 2)
        visitor.done("remove_server", id=server_id)

        assert server_id not in [each["id"] for each in visitor.get("/api/state").json["servers"]]


def test_connections_that_send_nothing_keep_nobody_from_logging_in(shared: tuple[Circusd, Visitor]) -> None:
    """Given more silent connections than the page has descriptors, when somebody logs in, then the page answers."""
    c, _ = shared
    port, workers = c.watchers["dashboard"].port, c.workers("dashboard")
    with contextlib.ExitStack() as held:
        for number in range(DESCRIPTORS + 150):
            silent = held.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            if number % 2:
                silent.sendall(b"G")  # part of a request

        eventually(lambda: Visitor(port).log_in(c.folder), what="a log-in")

        assert c.state()["circusd"]["pid"] == c.pid
        assert c.workers("dashboard") == workers


def test_the_dashboard_is_rolled_over_without_a_log_in(shared: tuple[Circusd, Visitor]) -> None:
    """Given an open page, when the dashboard is rolled over, then its stream ends soon and the cookie stays good."""
    c, visitor = shared
    (old,) = [each["pid"] for each in c.watcher("dashboard")["workers"]]
    with visitor.stream() as events:
        next(events)
        began = time.monotonic()
        c.do("xboard_reload", name="dashboard", by="a test")
        for _ in events:
            assert time.monotonic() - began < 60
        eventually(lambda: old not in [each["pid"] for each in c.watcher("dashboard")["workers"]])
    assert visitor.get("/api/state").status == 200


# --- circusd busy or gone ---


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_circusd_that_hangs_does_not_hold_up_the_page(shared: tuple[Circusd, Visitor]) -> None:
    """Given a circusd that answers nobody, the page answers at once, tells the age, and recovers by itself."""
    c, visitor = shared
    with frozen(c.pid):
        eventually(lambda: not visitor.server()["reachable"], what="the page sees that nobody answers")
        first = visitor.server()
        eventually(lambda: visitor.server()["age"] > first["age"] + 1, what="the figures grow old")
        times = [
            soonest(visitor, path) for path in ("/", "/api/state", "/api/history", "/api/logs", "/metrics", "/healthz")
        ]
        waits = []
        for _ in range(10):
            with visitor.stream() as events:
                began = time.monotonic()
                _, streamed = next(events)
                waits.append(time.monotonic() - began)
        refused = visitor.act("restart", watcher="web")

        assert max(*times, min(waits)) < ANSWERS_WITHIN
        assert streamed["servers"][0]["reachable"] is False
        assert "no reply within 2 s" in first["error"]
        assert [each["name"] for each in first["watchers"]] == [
            each["name"] for each in streamed["servers"][0]["watchers"]
        ]
        assert (refused.status, refused.json["ok"]) == (504, False)
    eventually(lambda: visitor.server()["reachable"] and visitor.server()["age"] < 8, what="it recovers")
    eventually(lambda: c.status() == "active")


def test_the_page_outlives_circusd_and_finds_the_next_one(tmp_path: Path) -> None:
    """Given circusd killed, the page answers at once; the next circusd takes its port over and shows itself there."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1), page()]) as c:
        c.wait_ready()
        visitor = opened(c)
        old = process(c.workers("dashboard")[0])
        c.kill9()

        eventually(lambda: not visitor.server()["reachable"])
        assert max(soonest(visitor), soonest(visitor, "/")) < ANSWERS_WITHIN
        assert visitor.server()["age"] is not None
        assert visitor.act("stop", watcher="web").status == 503

        c.start_again()
        c.wait_ready()
        eventually(lambda: visitor.server()["circusd"]["pid"] == c.pid, what="the page shows the next one")
        # Both answer until the old page has drained.
        eventually(lambda: not old.alive, what="the old page is gone")
        told = eventually(
            lambda: server if (server := visitor.server())["reachable"] else None, what="the new page has asked"
        )
        assert told["circusd"]["pid"] == c.pid


# --- the port, and the start ---


def test_a_taken_port_never_takes_the_backend_down(tmp_path: Path) -> None:
    """Given a stranger on the dashboard's port, the backend serves, the start succeeds, and the page comes later."""
    watchers = [Watcher(numprocesses=1), page(options={"port.retry": 0.3})]
    with circusd(tmp_path, watchers=watchers, start=False) as c:
        with stranger(c.watchers["dashboard"].port, tmp_path) as holder:
            started = c.run_cli("start")
            assert started.returncode == 0, started.stderr + c.report()
            assert c.serves()
            assert c.watcher("dashboard")["port"]["state"] == "refused"
            assert str(holder.pid) in c.watcher("dashboard")["port"]["reason"]
            assert holder.alive
        opened(c)
        assert c.serves()
        assert c.run_cli("stop").returncode == 0


def test_a_dashboard_that_cannot_start_leaves_the_backend_alone(tmp_path: Path) -> None:
    (tmp_path / "dashboard.token").write_text("admin = leaked\n")
    (tmp_path / "dashboard.token").chmod(0o644)
    options = {"restart.delay": 0.1, "restart.burst": 2}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1), page(options=options)]) as c:
        pid = c.wait_ready()[0]
        eventually(lambda: "others can read it" in c.watcher("dashboard")["last_reason"])

        assert c.serves()
        assert c.workers() == [pid]


def test_a_stop_with_open_pages_is_quick(tmp_path: Path) -> None:
    with circusd(tmp_path, watchers=[page(options={"graceful_timeout": 600})]) as c:
        visitor = opened(c)
        with visitor.stream() as events, visitor.stream("/api/logs/dashboard/stream") as lines:
            next(events), next(lines)
            c.stop()  # long before graceful_timeout


# --- Circus's own switch ---


def test_httpd_true_starts_the_dashboard(tmp_path: Path) -> None:
    """Given httpd = True in [circus], when circusd starts, then circusweb is ours and shows the circusd above it."""
    port = free_port()
    main = {"httpd": True, "httpd_host": "127.0.0.1", "httpd_port": port}
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1)], circus=main) as c:
        c.wait_ready()
        visitor = Visitor(port)
        eventually(lambda: visitor.get("/healthz").status == 200, what="circushttpd answers")
        visitor.log_in(c.folder)
        eventually(lambda: visitor.server()["reachable"])

        assert visitor.server()["label"] == "circus.ini"
        assert visitor.watcher()["armed"]
        assert c.run_cli("check").returncode == 0


FORWARDER = """\
#!{python}
import socket, sys, threading
arguments = sys.argv[1:]
assert arguments[-1] == "ops@far.example", arguments
own, host, port = arguments[arguments.index("-L") + 1].removeprefix("127.0.0.1:").split(":")
listener = socket.create_server(("127.0.0.1", int(own)))
def pump(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.close()
while True:
    near, _ = listener.accept()
    far = socket.create_connection((host, int(port)))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_circushttpd_reaches_another_host_by_ssh(tmp_path: Path) -> None:
    """Given a stand-in for ssh that forwards as -L says, then --ssh shows the circusd behind it."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(FORWARDER.format(python=sys.executable))
    ssh.chmod(0o755)
    (tmp_path / "page").mkdir()
    with circusd(tmp_path, watchers=[PLAIN]) as c:
        listener = socket.create_server(("127.0.0.1", 0))
        code = "from circusweb import circushttpd; circushttpd.main()"
        fd = listener.fileno()
        words = ["--endpoint", c.endpoint, "--fd", str(fd), "--ssh", "ops@far.example"]
        environ = {**c.environ(), "PATH": f"{ssh.parent}{os.pathsep}{os.environ['PATH']}"}
        popen = subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=tmp_path / "page", env=environ, pass_fds=[fd]
        )
        try:
            with listener:
                visitor = Visitor(listener.getsockname()[1])
            eventually(lambda: visitor.get("/healthz").status == 200)
            visitor.log_in(tmp_path / "page")
            eventually(lambda: visitor.server()["reachable"])
            assert [each["name"] for each in visitor.server()["watchers"]] == ["plain"]
        finally:
            popen.terminate()
            popen.wait(90)


# --- many pages ---

PAGES, WORKERS, SECONDS = 50, 40, 8.0


def test_fifty_pages_and_forty_workers_cost_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given 50 open pages and 40 workers, the dashboard takes under 20 % of a core and 120 MB, supervision goes on."""
    command = f"{sys.executable} -I -S {HERE / 'fake_worker.py'} xboard_circus.worker"
    options = {"health.period": 2, "health.live_path": "/health/live"}
    many = Watcher(numprocesses=WORKERS, command=command, listens=False, options=options)
    with circusd(tmp_path, watchers=[many, page()], plugins=BUNDLE) as c:
        visitor = opened(c)
        eventually(lambda: len(visitor.watcher()["workers"]) == WORKERS)
        dashboard = process(c.watcher("dashboard")["workers"][0]["pid"])
        master = process(c.pid)
        counts = [0] * PAGES
        ending = threading.Event()

        def look(number: int) -> None:
            with visitor.stream() as events:
                for _ in events:
                    counts[number] += 1
                    if ending.is_set():
                        return

        threads = [threading.Thread(target=look, args=[number]) for number in range(PAGES)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: min(counts) >= 2, what="all pages are open")
            before, used, master_used = list(counts), dashboard.cpu, master.cpu
            began = time.monotonic()
            victim = c.workers()[0]
            kill(victim)
            eventually(lambda: victim not in c.workers() and len(c.workers()) == WORKERS, every=0.2)
            back_after = time.monotonic() - began
            while (left := began + SECONDS - time.monotonic()) > 0:
                time.sleep(left)  # the measurement itself
            # It is not by sleeping that it is cheap.
            eventually(lambda: all(now - then >= SECONDS / 2 for now, then in zip(counts, before, strict=True)))
            seconds = time.monotonic() - began
            share = 100 * (dashboard.cpu - used) / seconds
            of_master = 100 * (master.cpu - master_used) / seconds
            shown = [after - earlier for after, earlier in zip(counts, before, strict=True)]
        finally:
            ending.set()
            for thread in threads:
                thread.join(90)
        with capsys.disabled():
            print(
                f"\n{PAGES} pages, {WORKERS} workers: dashboard {share:.1f} % of a core, "
                f"{dashboard.memory / 1e6:.0f} MB; circusd {of_master:.1f} %; "
                f"a killed worker was back after {back_after:.2f} s; "
                f"{min(shown)} to {max(shown)} updates in {seconds:.1f} s"
            )
        assert share < 20
        assert dashboard.memory < 120e6
        assert c.failures()[0].message["pid"] == victim
        assert len(c.failures()) == 1
