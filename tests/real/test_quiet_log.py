"""circusd's log has what went wrong: the commands of an operator leave no traceback in it."""

import os
import signal
from pathlib import Path

from .harness import Circusd, Watcher, circusd, eventually

CONFLICT = "ConflictError"


def tracebacks(c: Circusd) -> list[str]:
    return [line for line in c.log("circusd").splitlines() if CONFLICT in line or "Traceback" in line]


def test_the_commands_of_an_operator_leave_no_traceback(tmp_path: Path) -> None:
    """Given two workers that drain for a moment, when each command is given in turn, then the log has no traceback."""
    watcher = Watcher(told={"drain": "0.6"}, options={"graceful_timeout": 5})
    with circusd(tmp_path, watchers=[watcher], check_delay=0.2) as c:
        c.wait_ready()

        for name in ("restart", "reload", "incr", "decr", "stop", "start"):
            c.do(name, name="web", waiting=True)
        c.do("set", name="web", options={"numprocesses": 1}, waiting=True)
        for name in ("kill", "signal"):
            (one,) = c.wait_ready(1)
            assert c.call(name, name="web", pid=one, signum="term")["status"] == "ok"
            eventually(lambda: one not in c.workers())  # noqa: B023
        c.do("reloadconfig", waiting=True)
        c.wait_ready(1)
        c.do("rm", name="web", waiting=True)
        eventually(lambda: "web" not in c.call("list")["watchers"])

        assert tracebacks(c) == []


def test_a_stop_soon_after_a_start_leaves_no_traceback(tmp_path: Path) -> None:
    """Given a circusd that still starts its workers, when SIGTERM comes, it ends, and its log has no traceback."""
    watcher = Watcher(numprocesses=3, options={"warmup_delay": 1})
    with circusd(tmp_path, watchers=[watcher], check_delay=0.2) as c:
        eventually(lambda: c.call("list", name="web").get("pids"), what="the first worker is there")

        os.kill(c.pid, signal.SIGTERM)
        c.wait_ended()

        assert tracebacks(c) == []
        assert c.processes() == []
