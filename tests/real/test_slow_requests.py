"""Requests that last longer than request.slow: reported once with the stack that shows where each waits."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .test_which_request import in_flight, up

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
)
QUICK = {"health.period": 0.3, "health.timeout": 60, **FAST_RESTARTS}


def backend(*, loop: str = "asyncio", slow: float = 1, **env: str) -> Watcher:
    return Watcher(
        app="slow_app:app",
        numprocesses=1,
        options={**QUICK, "request.slow": slow},
        arguments=f"--loop {loop}",
        env=env,
    )


def stack_of(c: Circusd, route: str) -> list[str]:
    """Wait until a route was reported; return the lines of its stack."""
    what = r"(?:has no answer yet|holds the event loop) after [\d.]+ s\. Its stack:"
    pattern = rf"WARNING: +{re.escape(route)} \(request \S+\) {what}\n((?:  .*\n)+)"
    found = eventually(lambda: re.search(pattern, c.log()), what=f"{route} is reported")
    return [line.strip() for line in found[1].splitlines()]


def functions(stack: list[str]) -> list[str]:
    return [line.rpartition(" in ")[2] for line in stack if line.startswith("File")]


@pytest.mark.parametrize(("loop", "middleware"), [("asyncio", ""), ("uvloop", ""), ("asyncio", "1")])
def test_a_slow_request_is_reported_with_where_it_waits(tmp_path: Path, loop: str, middleware: str) -> None:
    """Given requests that wait in a task, in gather and in a thread, then the log has for each where it waits, the
    frames of the app first; the ledger has an event; and there is no value, query or second report."""
    with circusd(tmp_path, watchers=[backend(loop=loop, MIDDLEWARE=middleware)], plugins=BUNDLE) as c:
        pid = up(c)
        paths = ["/waits/9f8e7d?token=secret-1", "/waits/other", "/gathers", "/thread/9f8e7d"]
        with in_flight(c, *paths, headers="X-Request-ID: id-1\r\nCookie: secret-2\r\n"):
            stack = stack_of(c, "GET /waits/{what}")
            assert functions(stack)[:2] == ["waits_inside", "waits"]
            assert re.fullmatch(r"\.\.\. \d+ frames of .*\bfastapi\b.*, the last one File .*", stack[-1])
            assert "starlette" in stack[-1]
            assert functions(stack_of(c, "GET /gathers"))[:2] == ["waits_inside", "gathers"]
            assert functions(stack_of(c, "GET /thread/{what}"))[:2] == ["blocks_inside", "in_thread"]

            eventually(lambda: len(c.told("slow_request")) == 3, what="the events are there")
            pattern = r"slow_request: no answer yet: GET /waits/\{what\}, for [\d.]+ s \(request id-1\); it is in (.*)"
            line = eventually(lambda: re.search(pattern, c.run_cli("events").stdout), what="it is in the ledger")
        assert {event.message["pid"] for event in c.told("slow_request")} == {pid}
        assert line[1].startswith("waits_inside (slow_app.py:")
        assert c.log().count("GET /waits/{what} (request") == 1
        assert not re.search("hunter2|secret-|9f8e7d", c.log() + c.run_cli("events", "--json").stdout)
        assert c.workers() == [pid]


def test_what_holds_the_event_loop_is_reported_meanwhile(tmp_path: Path) -> None:
    """Given a request that blocks the loop, then its stack is in the log before it lets go, and only its own."""
    with circusd(tmp_path, watchers=[backend()], plugins=BUNDLE) as c:
        up(c)
        with in_flight(c, "/holds?seconds=30", "/who"):
            assert functions(stack_of(c, "GET /holds"))[:1] == ["holds"]
        assert "GET /who (request" not in c.log()


def test_streams_websockets_uploads_and_background_tasks_are_not_slow(tmp_path: Path) -> None:
    """Given what lasts but is not slow, when a slow request that came later is reported, then nothing else is."""
    with circusd(tmp_path, watchers=[backend()], plugins=BUNDLE) as c, contextlib.ExitStack() as stack:
        up(c)
        port = c.watchers["web"].port
        upload = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        upload.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        stack.enter_context(in_flight(c, "/ws", headers=UPGRADE))
        stack.enter_context(in_flight(c, "/events", "/background"))
        eventually(lambda: "began" in c.get("/seen"), what="the background task runs")
        stack.enter_context(in_flight(c, "/waits/1"))
        stack_of(c, "GET /waits/{what}")
        eventually(lambda: "ended" in c.get("/seen"), what="the background task has ended")

        assert c.log().count(" Its stack:") == 1


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with circusd(tmp_path, watchers=[backend(slow=0)], plugins=BUNDLE) as c:
        up(c)
        with in_flight(c, "/waits/1", "/background"):
            eventually(lambda: "ended" in c.get("/seen"), what="three seconds have passed")
        assert "Its stack" not in c.log()
