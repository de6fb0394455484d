"""SIGTERM ends circusd also while it is at work with another command, and no request in flight is lost."""

import contextlib
import signal
from pathlib import Path

import pytest
from circus.exc import CallError

from .harness import PATIENCE, Circusd, Watcher, circusd, eventually, kill
from .state_words import is_leaving

LONG = {"graceful_timeout": 600}
PATIENT = "--ws none --timeout-graceful-shutdown 590"


def terminate(c: Circusd) -> None:
    """Send SIGTERM to circusd, and return when it has noticed: it has run on since, or has ended."""
    kill(c.pid, signal.SIGTERM)
    with contextlib.suppress(CallError):
        c.call("numwatchers", timeout=5)


def ended(c: Circusd) -> bool:
    """Wait until circusd has ended well; say whether nothing is left of it."""
    eventually(lambda: not c.past[-1].alive, what="circusd has ended after SIGTERM")
    assert c.wait_ended() == 0
    return c.processes() == []


@pytest.mark.parametrize("command", ["restart", "reload", "decr"])
def test_a_sigterm_during_a_command_ends_circusd_when_the_requests_are_answered(tmp_path: Path, command: str) -> None:
    """Given requests in flight and workers that drain for a command, when SIGTERM comes, then all are answered and
    circusd ends."""
    with circusd(tmp_path, watchers=[Watcher(options=LONG, arguments=PATIENT)]) as c:
        held = c.hold_each(c.wait_ready())
        assert c.call(command, name="web")["status"] == "ok"
        eventually(lambda: any(map(is_leaving, c.watcher()["workers"])), what="a worker drains")

        terminate(c)
        c.finish(held)

        assert ended(c)


@pytest.mark.parametrize("when", ["its boot", "a start by hand"])
def test_a_sigterm_during_a_slow_start_ends_circusd(tmp_path: Path, when: str) -> None:
    """Given a start that pauses after each worker, when SIGTERM comes in a pause, then circusd ends."""
    watcher = Watcher(numprocesses=3, options={**LONG, "warmup_delay": 2})
    with circusd(tmp_path, watchers=[watcher]) as c:
        if when == "a start by hand":
            c.wait_ready()
            c.do("stop", name="web", waiting=True)
            assert c.call("start", name="web")["status"] == "ok"
        eventually(lambda: c.workers(), what="the first worker is there")

        terminate(c)

        assert ended(c)


def test_a_stop_that_waits_for_a_start_is_answered(tmp_path: Path) -> None:
    """Given a start that pauses after each worker, when a stop with `waiting` comes, then it ends, and is answered."""
    watcher = Watcher(numprocesses=3, options={**LONG, "warmup_delay": 1})
    with circusd(tmp_path, watchers=[watcher]) as c:
        c.wait_ready()
        c.do("stop", name="web", waiting=True, timeout=PATIENCE)
        assert c.call("start", name="web")["status"] == "ok"

        assert c.call("stop", name="web", waiting=True, timeout=PATIENCE)["status"] == "ok"

        assert c.status() == "stopped"
