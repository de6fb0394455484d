"""request.timeout: what has not begun to answer by then is answered 504, once and whole, and is cancelled."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .test_slow_requests import UPGRADE
from .test_which_request import in_flight, up

QUICK = {"health.period": 0.3, "health.timeout": 60, **FAST_RESTARTS}
STACKS = [("asyncio", "h11", ""), ("uvloop", "httptools", ""), ("asyncio", "httptools", "1"), ("uvloop", "h11", "1")]
POOL = 40


def backend(*, loop: str = "asyncio", http: str = "httptools", timeout: float = 1, **env: str) -> Watcher:
    return Watcher(
        app="slow_app:app",
        numprocesses=1,
        options={**QUICK, "request.timeout": timeout, "request.id_header": "X-Request-ID"},
        arguments=f"--loop {loop} --http {http}",
        env=env,
    )


@contextlib.contextmanager
def client(c: Circusd) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", c.watchers["web"].port, timeout=60)) as found:
        yield found


def get(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    """Return status, body and id of the answer to a request on a connection that stays open."""
    connection.request(method, path, headers={"X-Request-ID": "id-1"})
    answer = connection.getresponse()
    found = answer.status, answer.read(), str(answer.headers["x-request-id"])
    assert not answer.will_close
    assert int(answer.headers["content-length"]) == (len(found[1]) or 15)
    return found


CLEANED_UP = ["cleaned up", "suppressed", "the dependency was closed", "the sync dependency was closed"]
LATE = (504, b"Gateway Timeout", "id-1")


@pytest.mark.parametrize(("loop", "http", "middleware"), STACKS)
def test_a_late_request_is_answered_504_and_cancelled(tmp_path: Path, loop: str, http: str, middleware: str) -> None:
    """Given endpoints that wait, then each is answered 504 on a connection that stays usable, and what it does on its
    cancellation runs to its end: a finally that awaits, a dependency, one that suppresses it and answers again."""
    with circusd(tmp_path, watchers=[backend(loop=loop, http=http, MIDDLEWARE=middleware)], plugins=BUNDLE) as c:
        pid = up(c)
        with client(c) as connection:
            for path in ("/waits/1", "/cleans-up", "/depends", "/suppresses", "/gathers"):
                assert get(connection, path) == LATE, path
                assert get(connection, "/who")[:2] == (200, str(pid).encode()), path
            assert get(connection, "/waits/1", "HEAD") == (504, b"", "id-1")
            assert get(connection, "/who")[1] == str(pid).encode()
        eventually(lambda: sorted(json.loads(c.get("/seen"))) == CLEANED_UP, what="all have cleaned up")
        eventually(lambda: c.worker(pid)["probe"]["requests_active"] == 0, what="no request is left")
        told = eventually(lambda: re.search(r"answered 504: GET /waits/\{what\}, .*", c.run_cli("events").stdout))
        assert "it is in waits_inside (slow_app.py:" in told[0]
        assert "Exception" not in c.log()
        assert c.workers() == [pid]


@pytest.mark.parametrize(("loop", "http", "middleware"), STACKS[1:3])
def test_a_thread_runs_on(tmp_path: Path, loop: str, http: str, middleware: str) -> None:
    """Given more requests than threads, each in an endpoint that blocks, then all are answered 504, there are no more
    threads than before, the stack of one is in the log, and their late answers go nowhere."""
    with circusd(tmp_path, watchers=[backend(loop=loop, http=http, MIDDLEWARE=middleware)], plugins=BUNDLE) as c:
        pid = up(c)
        with client(c) as connection, in_flight(c, *["/thread/other"] * (POOL + 20)):
            assert get(connection, "/thread/1") == LATE
            eventually(lambda: c.get("/threads") == str(POOL), what="the pool is full")
            assert get(connection, "/thread/1") == LATE  # it waits for a thread, and is cancelled
            assert get(connection, "/who")[1] == str(pid).encode()
            assert c.get("/threads") == str(POOL)
            told = (
                r"WARNING: +GET /thread/\{what\} \(request \S+\) was answered 504, and its thread runs on after .* Its "
                r"stack:\n  File .*, line \d+ in blocks_inside\n  File .*, line \d+ in in_thread\n"
            )
            eventually(lambda: re.search(told, c.log()), what="its stack is in the log")
            assert c.get("/seen") == "[]"
            get(connection, "/release")
            eventually(lambda: c.get("/seen").count("the thread ended") == POOL, what="the threads end")
            assert get(connection, "/who")[1] == str(pid).encode()
        eventually(lambda: c.worker(pid)["probe"]["requests_active"] == 0, what="no request is left")
        assert "Exception" not in c.log()


@pytest.mark.parametrize(
    ("loop", "http", "middleware"), [("asyncio", "h11", "1"), ("uvloop", "httptools", "")], ids=["asyncio", "uvloop"]
)
def test_what_is_not_late_goes_on(tmp_path: Path, loop: str, http: str, middleware: str) -> None:
    """Given a stream, a WebSocket, a background task and a slow upload that last longer, then none of them is cut."""
    with circusd(tmp_path, watchers=[backend(loop=loop, http=http, MIDDLEWARE=middleware)], plugins=BUNDLE) as c:
        up(c)
        port = c.watchers["web"].port
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(3)]
            stream, websocket, upload = clients
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            websocket.sendall(f"GET /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
            assert websocket.recv(1000).startswith(b"HTTP/1.1 101 ")
            upload.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nConnection: close\r\n\r\n")
            assert get(stack.enter_context(client(c)), "/background")[1] == b'"at once"'
            for _ in range(30):  # the client's own time: 3 s
                time.sleep(0.1)
                upload.sendall(b"x")
            answer = b"".join(iter(lambda: upload.recv(4096), b""))
            assert answer.endswith(b"\r\n\r\n30"), answer
            received = b""
            while b"data: 25\n" not in received:
                received += stream.recv(4096)
            websocket.sendall(b"\x81\x82\0\0\0\0ab")  # masked by zeros
            assert websocket.recv(1000).startswith(b"\x81\x02ab")
        eventually(lambda: "the background task ended" in c.get("/seen"))
        assert "answered 504" not in c.log()
