"""What a reload or a stop cuts off is told, with the option that would have given it more time."""

import contextlib
import re
import threading
from pathlib import Path

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually


def test_a_failed_reload_of_a_backend_that_is_down_does_not_say_that_it_serves(tmp_path: Path) -> None:
    """Given two workers that die at import, when reloaded, the command fails and tells how many serve: none."""
    options = {"restart.burst": 50, "restart.delay": 1, "restart.delay_max": 1}
    with circusd(tmp_path, watchers=[Watcher(options=options, told={"boot": "die"})]) as c:
        eventually(lambda: len(c.failures()) >= 2)

        result = c.run_cli("reload")

        assert result.returncode == 1, result.stdout
        assert "told to die at import" in result.stderr
        assert "serve on" not in result.stderr
        assert re.search(r"\b(0 of 2|none|no worker)\b", result.stderr), result.stderr


def in_flight(c: Circusd, number: int) -> None:
    """Have so many requests in flight that take a minute."""

    def ask() -> None:
        with contextlib.suppress(OSError):  # cut off, as it is to be
            c.get("/slow?s=60")

    for _ in range(number):
        threading.Thread(target=ask, daemon=True).start()


def test_a_reload_tells_what_it_cut_at_the_drain_limit(tmp_path: Path) -> None:
    """Given requests that outlast the drain limit, and a worker that logs nothing, when reloaded, then output and event
    tell their number and name the option, and the worker leaves no file behind."""
    watcher = Watcher(numprocesses=1, arguments="--ws none --log-level critical --timeout-graceful-shutdown 1")
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        (old,) = c.wait_ready()
        eventually(lambda: c.worker(old)["probe"], what="it was probed")
        in_flight(c, 2)
        eventually(lambda: c.worker(old)["probe"]["requests_active"] == 2, what="both are in flight")
        before = c.last_told()

        result = c.run_cli("reload", "--no-preflight")

        told = [event["reason"] for _, _, event in c.call("xboard_events", after=before)["events"]]
        assert any("timeout-graceful-shutdown" in reason for reason in told), told
        assert any(re.search(r"\b2 (requests|connections)\b", reason) for reason in told), told
        last = (result.stdout + result.stderr).strip()
        assert "timeout-graceful-shutdown" in last, last
        assert re.search(r"\b2 (requests|connections)\b", last), last
        assert list(c.runtime.rglob("*.cut")) == []


def test_why_names_graceful_timeout_where_a_stop_had_to_kill(tmp_path: Path) -> None:
    """Given a shutdown that takes longer than graceful_timeout, when stopped, `why` names the option and its value."""
    watcher = Watcher(numprocesses=1, options={"graceful_timeout": 1.5}, told={"drain": "60"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE, check_delay=1) as c:
        (pid,) = c.wait_ready()

        c.do("stop", name="web", waiting=True)

        text = eventually(lambda: why(c, pid), every=0.2)
        assert "SIGKILL" in text
        assert "graceful_timeout" in text
        assert "1.5" in text


def why(c: Circusd, pid: int) -> str:
    """Return what `why` tells of the end of *pid*; empty as long as that is not recorded."""
    text = c.run_cli("why", str(pid)).stdout
    return text if "SIGKILL" in text else ""
