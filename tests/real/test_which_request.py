"""Which request did it: a worker that dies or hangs in a request is recorded with that request, and those beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.core.verdict import word_of

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .memory_group import memory_group
from .processes import open_files
from .test_why import why

QUICK = {"health.period": 0.3, "health.timeout": 0.6, "health.failure_threshold": 2, **FAST_RESTARTS}
DEADLY = "/v1/die/{how}/{token}"
TOKEN = "9f8e7d6c5b4a"
OTHERS = 20
STACKS = "its stacks when it was ended:"
DEATHS = int(os.environ.get("XBOARD_TEST_DEATHS", "1"))


def backend(
    preload: str, loop: str, *, name: str = "web", numprocesses: int = 1, fails: int = 2, **env: str
) -> Watcher:
    return Watcher(
        name,
        app="deadly_app:app",
        numprocesses=numprocesses,
        options={**QUICK, "worker.preload": preload, "health.failure_threshold": fails},
        arguments=f"--ws none --loop {loop}",
        env=env,
    )


@contextlib.contextmanager
def in_flight(c: Circusd, *paths: str, name: str = "web", headers: str = "", method: str = "GET") -> Iterator[None]:
    """Send a request to each of *paths*, each over a connection of its own, and wait for none."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", c.watchers[name].port), 30))
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        yield


def up(c: Circusd, name: str = "web") -> int:
    """Wait until the one worker is up and was probed; return its pid."""

    def is_probed() -> int | None:
        # Perhaps another than a moment ago: on a crowded machine one looks hung at QUICK.
        (worker,) = c.watcher(name)["workers"]
        return int(worker["pid"]) if word_of(worker) == "up" and worker["latency"] is not None else None

    return eventually(is_probed, every=0.1, what="the worker is up, and was probed")


def death_in(
    c: Circusd, path: str, *, name: str = "web", others: int = OTHERS, upload: int = 0, expect: str = ""
) -> tuple[dict[str, Any], str]:
    """Have the worker die by a request to *path* with *others* in flight; return the record, and what `why` says, once
    *expect* is in it: what is found of a hung worker is told before it is ended.

    The last of the others has a body of *upload* bytes.
    """
    pid = up(c, name)
    paths = [f"/v1/wait/{number}" for number in range(others)]
    uploads, length = paths[len(paths) - bool(upload) :], f"Content-Length: {upload}\r\n"
    with in_flight(c, *paths[: len(paths) - len(uploads)], name=name), contextlib.ExitStack() as stack:
        eventually(lambda: c.get("/waiting", name=name) == str(others - len(uploads)), what="the others are in flight")
        stack.enter_context(in_flight(c, *uploads, name=name, headers=length, method="POST"))
        eventually(lambda: c.get("/waiting", name=name) == str(others), what="the upload, too")
        with in_flight(c, path, name=name):
            return why(c, pid, expect=expect)


def routes(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["route"], each["state"]) for each in record["data"]["requests"]]


LEVELS = [("off", "asyncio"), ("server", "uvloop"), ("app", "asyncio"), ("app", "uvloop")]


@pytest.fixture(scope="module")
def of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """A circusd that waits for the watcher of a test; each alert goes into a file of its own."""
    folder = tmp_path_factory.mktemp("shared").resolve()
    script = folder / "note.sh"
    script.write_text(f"#!/bin/sh\ncat > {folder}/sent/$$\n")
    script.chmod(0o755)
    (folder / "sent").mkdir()
    idle = Watcher("idle", options={"autostart": False})
    with circusd(folder, watchers=[idle], plugins=BUNDLE, check_delay=1, start=False) as c:
        write_file(c)
        c.start_again()
        yield c


@pytest.fixture
def sharing(of_all_tests: Circusd) -> Circusd:
    """A circusd without a watcher that runs; see `running`."""
    of_all_tests.start_if_ended()
    return of_all_tests


def write_file(c: Circusd) -> None:
    c.write_ini(alert__note={"type": "command", "command": str(c.folder / "note.sh")})


@contextlib.contextmanager
def running(c: Circusd, watcher: Watcher) -> Iterator[Circusd]:
    """Let circusd have a watcher for a while, of a name of its own: no death is known of another test's."""
    (c.folder / watcher.name).mkdir(exist_ok=True)
    c.watchers[watcher.name] = watcher
    write_file(c)
    c.do("reloadconfig", waiting=True)
    try:
        yield c
    finally:
        del c.watchers[watcher.name]
        write_file(c)
        c.do("reloadconfig", waiting=True)


@pytest.mark.parametrize(("preload", "loop"), LEVELS)
def test_the_request_that_did_it_comes_first(sharing: Circusd, preload: str, loop: str) -> None:
    """Given twenty requests in flight, when one more kills or hangs the worker, then it is named first, by its route,
    with the number of the others, at each level of preload and with each event loop."""
    name = f"{preload}-{loop}"
    with running(sharing, backend(preload, loop, name=name)) as c:
        for _ in range(DEATHS):
            for how, state in {"segv": "last", "exit": "last", "hang": "running", "gil": "last"}.items():
                expect = STACKS * (how != "exit")
                record, text = death_in(c, f"/v1/die/{how}/{TOKEN}", name=name, expect=expect)

                assert routes(record)[0] == (DEADLY, state), text
                assert routes(record)[1:] == [("/v1/wait/{what}", "in flight")] * OTHERS, text
                assert f"GET {DEADLY}, for" in text
                assert f"others in flight: {OTHERS}" in text
                assert TOKEN not in text
                stacks = text.partition(STACKS)[2].splitlines()
                frames = [line.strip() for line in stacks if line.strip().startswith(("File", "..."))]
                called = [line.rpartition(" in ")[2] for line in frames[:2]]
                assert called == ["<lambda>", "die"] * (how != "exit"), text
                assert ("in die" in text, " of fastapi" in text) == (how != "exit",) * 2  # its frames are in one line
            record, text = death_in(c, f"/v1/die/kill/{TOKEN}", name=name)
            assert (DEADLY, "in flight") in routes(record), text
            for how, state in {"kill": "in flight", "segv": "last", "exit": "last"}.items():
                if how == "kill" or DEATHS > 1:
                    record, text = death_in(c, f"/v1/die/{how}/{TOKEN}", name=name, others=0)
                    assert routes(record) == [(DEADLY, state)], text


def test_a_hang_behind_a_middleware_is_that_of_its_request(sharing: Circusd) -> None:
    """Given a middleware, which runs each request in another task, when one hangs, then it is the one that ran."""
    with running(sharing, backend("off", "asyncio", name="middleware", MIDDLEWARE="1")) as c:
        record, text = death_in(c, f"/v1/die/hang/{TOKEN}", name="middleware", others=3)

    assert routes(record)[0] == (DEADLY, "running"), text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_hang_in_a_background_task_is_that_of_no_request(sharing: Circusd, loop: str) -> None:
    """Given an open WebSocket and a request in flight, when a task hangs that neither waits for, then none is blamed,
    and none poisonous."""
    connect = pytest.importorskip("websockets.sync.client").connect
    name = f"background-{loop}"
    web = replace(backend("off", loop, name=name), arguments=f"--ws auto --loop {loop}")
    with running(sharing, web) as c:
        pid = up(c, name)
        with in_flight(c, "/v1/wait/1", name=name), connect(f"ws://127.0.0.1:{web.port}/v1/ws", proxy=None):
            eventually(lambda: c.get("/waiting", name=name) == "1")
            c.get(f"/v1/later/hang/{TOKEN}", name=name)
            record, text = why(c, pid)

        assert sorted(routes(record)) == [("/v1/wait/{what}", "in flight"), ("/v1/ws", "in flight")], text
        assert "its event loop ran no request, but a background task or callback; in flight: " in text
        assert "blames" not in record["data"]
        (ahead,) = [each.reason for each in c.told("replace", name) if "a successor is started" in each.reason] or [""]
        assert "began last" not in ahead


def test_a_hang_in_a_task_of_a_request_is_that_of_the_request(sharing: Circusd) -> None:
    with running(sharing, backend("off", "uvloop", name="task")) as c:
        record, text = death_in(c, f"/v1/task/hang/{TOKEN}", name="task", others=3)

    assert routes(record)[0] == ("/v1/task/{how}/{token}", "running"), text


def test_the_kernel_kills_for_want_of_memory(tmp_path: Path) -> None:
    """Given requests in flight, when one takes more memory than there is, then it is named, and the rest by age; and
    when it does so again, then the route that was in flight in both deaths is named, by `why` and in the event."""
    # It blocks the loop, for long on a machine that is slow.
    with circusd(tmp_path, watchers=[backend("off", "asyncio", fails=50)], plugins=BUNDLE, check_delay=1) as c:
        for others in (0, OTHERS):
            pid = up(c)
            with memory_group(pid, limit=200 << 20):
                since = c.worker(pid)["age"]
                eventually(lambda: c.worker(pid)["age"] > since + 6, what="circusd has looked at its cgroup")  # noqa: B023
                record, text = death_in(c, f"/v1/die/leak/{TOKEN}", others=others, upload=others and 5 << 20)
            assert ("of the last" in text) == bool(others), text
            assert others or [route for route, _ in routes(record)] == [DEADLY], text
    assert f"in flight in 2 of the last 2 out-of-memory deaths: GET {DEADLY}" in text
    assert record["data"]["common"] in text

    assert record["cause"] == "out of memory", text
    by_age = [route for route in routes(record) if route[1] != "running"]  # a slow machine lets it be seen to run
    assert by_age[:2] == [("/v1/wait/{what}", "in flight"), ("/v1/wait/{what}", "largest")]
    assert "with the largest body POST /v1/wait/{what} with 5 MiB" in text
    assert DEADLY in dict(routes(record))


def test_a_record_full_of_rubbish_is_one_worker_without_evidence(sharing: Circusd) -> None:
    """Given a worker that writes anything where its requests are noted, then its death says so once, and those of its
    successors name their requests."""
    with running(sharing, backend("server", "asyncio", name="rubbish")) as c:
        record, text = death_in(c, f"/v1/die/scribble/{TOKEN}", name="rubbish", others=0)

        assert "requests" not in record["data"]
        assert "this worker's record of requests is unreadable" in text
        assert c.log("circusd").count("record of requests is unreadable") == 1
        record, text = death_in(c, f"/v1/die/exit/{TOKEN}", name="rubbish", others=0)
        assert routes(record) == [(DEADLY, "last")], text


def test_no_child_of_the_app_holds_the_memory(sharing: Circusd) -> None:
    """Given a child that the app starts or forks, then it has nothing of the memory, and circusd keeps none of it."""
    with running(sharing, backend("server", "asyncio", name="child")) as c:
        up(c, "child")
        assert "xboard-requests" not in c.get("/child", name="child")
        death_in(c, "/v1/die/fork/x", name="child", others=0)
        up(c, "child")

        def open_in_circusd() -> int:
            return sum("xboard-requests" in what for what in open_files(c.pid).values())

        eventually(lambda: open_in_circusd() == 1, what="circusd holds that of the worker that runs alone")


def test_an_answer_carries_the_id_of_its_request(sharing: Circusd) -> None:
    """Given requests with an id of their own, with none, and with one that is no sane word, then answers have one."""
    web = backend("server", "asyncio", name="id")
    with running(sharing, replace(web, options={**web.options, "request.id_header": "X-Request-ID"})) as c:
        up(c, "id")

        def id_for(header: str) -> str:
            with socket.create_connection(("127.0.0.1", web.port), 30) as connection:
                connection.sendall(f"GET /waiting HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode().lower()
            return answer.partition("x-request-id: ")[2].partition("\r\n")[0]

        assert id_for("X-Request-ID: abc-1\r\n") == "abc-1"
        made = {id_for(""), id_for("X-Request-ID: a b\r\n"), id_for("X-Request-ID: " + "x" * 65 + "\r\n")}
        assert len(made) == 3
        assert all(len(each.partition("-")[0]) == 8 for each in made)


def test_an_answer_carries_no_id_unasked(sharing: Circusd) -> None:
    """Given a worker as it is by default, then its answers carry no id, and that of a request is recorded."""
    web = backend("server", "asyncio", name="no-id")
    with running(sharing, web) as c:
        pid = up(c, "no-id")
        assert "x-request-id" not in str(c.open("/waiting", name="no-id").headers).lower()
        with socket.create_connection(("127.0.0.1", web.port), 30) as connection:
            connection.sendall(b"GET /v1/wait/1 HTTP/1.1\r\nHost: x\r\nX-Request-ID: abc-1\r\n\r\n")
            eventually(lambda: c.get("/waiting", name="no-id") == "1")
            kill(pid, signal.SIGKILL)
            record, _ = why(c, pid)

    # Killed so soon after its answer, the worker may not have noted yet that the look has ended.
    assert record["data"]["requests"][0]["id"] == "abc-1"


def test_it_can_be_switched_off(sharing: Circusd) -> None:
    web = Watcher("switched-off", 1, app="deadly_app:app", options={**QUICK, "request.record": "False"})
    with running(sharing, web) as c:
        pid = up(c, web.name)
        assert "x-request-id" not in str(c.open("/waiting", name=web.name).headers).lower()
        with in_flight(c, "/v1/wait/1", name=web.name):
            eventually(lambda: c.get("/waiting", name=web.name) == "1")
            kill(pid, signal.SIGKILL)
            record, text = why(c, pid)

    assert "requests" not in record["data"]
    assert "in flight" not in text


def test_requests_lists_what_is_in_flight_also_in_a_hung_worker(tmp_path: Path) -> None:
    """Given a worker that hangs in a request, with others in flight, when `requests` is run, then all are listed by
    age, with the one that its loop runs marked; with --slow only those as old."""
    web = backend("server", "asyncio")
    options = {**web.options, "health.failure_threshold": 1000}
    with circusd(tmp_path, watchers=[replace(web, options=options)], plugins=BUNDLE) as c:
        up(c)
        assert c.run_cli("requests").stdout == "no request is in flight\n"
        with in_flight(c, "/v1/wait/a", "/v1/wait/b"):
            eventually(lambda: c.get("/waiting") == "2")
            with in_flight(c, f"/v1/die/hang/{TOKEN}"):

                def listed() -> list[tuple[str, str]]:
                    (worker,) = json.loads(c.run_cli("requests", "web", "--json").stdout)
                    return [(each["route"], each["state"]) for each in worker["requests"]]

                expected = [(DEADLY, "running"), *[("/v1/wait/{what}", "in flight")] * 2]
                eventually(lambda: listed() == expected, what="circusd knows which one runs")
                text = c.run_cli("requests").stdout
                assert f"GET {DEADLY} (its event loop runs it)" in text
                assert text.index("/v1/wait/{what}") < text.index(DEADLY)
                assert "web #1" in text
                assert TOKEN not in text
                assert c.run_cli("requests", "--slow", "1h").returncode == 2
                assert "for 1 min 40 s or longer" in c.run_cli("requests", "--slow", "100s").stdout
                assert c.run_cli("requests", "nosuch").returncode == 1


def test_an_alert_of_a_hung_worker_names_the_request(sharing: Circusd) -> None:
    """Given an alert section, when a worker hangs in a request, then the alert names the request."""

    def sent() -> list[str]:
        return [each.read_text() for each in (sharing.folder / "sent").iterdir()]

    def names_it() -> bool:
        told = [text for text in sent() if f"its event loop ran GET {DEADLY}" in text]
        return "alert" in [json.loads(text)["watcher"] for text in told]

    with running(sharing, backend("server", "asyncio", name="alert")) as c:
        up(c, "alert")
        with in_flight(c, f"/v1/die/hang/{TOKEN}", name="alert"):
            eventually(names_it, what="the alert names it")

    assert TOKEN not in "".join(sent())
