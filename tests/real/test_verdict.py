"""The one word for a backend: what circusd judges, and what the command line shows of it."""

import socket
from pathlib import Path
from typing import Any

from .harness import Watcher, circusd, eventually, kill

COOLS = {"restart.burst": 2, "restart.delay": 0.1, "restart.delay_max": 60, "restart.cooldown": 60}


def test_a_backend_in_a_crash_loop_is_looping_and_ok_after_the_cure(tmp_path: Path) -> None:
    """Given an app that always dies, when its workers are held, then the verdict says so, why, and what to do."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=COOLS, told={"boot": "die"})]) as c:
        eventually(lambda: c.watcher()["cooldown_until"] is not None)
        verdict = c.watcher()["verdict"]
        shown = c.run_cli("status").stdout
        c.set("boot", "")
        c.do("restart", name="web", waiting=True)
        c.wait_ready()

        assert (verdict["word"], verdict["next"]) == ("looping", "#1 is started again")
        assert verdict["cause"].startswith("none of 1 workers is up: exited with code ")
        assert 0 < verdict["next_in"] <= 60
        assert shown.startswith("DOWN for ")
        assert " Next: #1 is started again in " in shown.splitlines()[0]
        assert " Cure: correct what " in shown.splitlines()[0]
        assert any(line.split()[:5] == ["web", "looping", "0", "of", "1"] for line in shown.splitlines())
        assert "2 of 2 used" in shown
        assert (c.verdict(), c.watcher()["incident"]) == ("ok", None)


def test_a_backend_whose_port_is_taken_is_blocked(tmp_path: Path) -> None:
    """Given a stranger on the port, when circusd starts, then the verdict is blocked, and ok once it is gone."""
    with circusd(tmp_path, start=False, watchers=[Watcher(options={"port.retry": 0.2})]) as c:
        with socket.create_server(("127.0.0.1", c.watchers["web"].port)):
            c.start_again()
            eventually(lambda: c.verdict() == "blocked")
            shown = c.run_cli("status").stdout
        eventually(lambda: c.verdict() == "ok", what="the port is bound and the workers are up")

        assert f":{c.watchers['web'].port} taken" in shown


def test_a_backend_that_has_lost_one_of_two_workers_is_degraded_until_it_is_back(tmp_path: Path) -> None:
    """Given two workers, when one cannot come back, then the verdict names it, and the incident ends with it."""
    with circusd(tmp_path, options=COOLS) as c:
        first, _ = c.wait_ready()
        eventually(lambda: c.verdict() == "ok")
        c.set("boot", "held")
        kill(first)
        cause = "1 of 2 workers up: #1 is starting, after: killed from outside by SIGKILL"

        def is_told() -> dict[str, Any] | None:
            now = c.watcher()
            return now if now["verdict"]["cause"] == cause and now["incident"] else None

        found = eventually(is_told, what=cause)
        c.set("boot", "")
        eventually(lambda: c.verdict() == "ok", what="the successor is up")

        assert found["verdict"]["word"] == "degraded"
        assert found["incident"]["worst"] == "degraded"
        assert c.watcher()["incident"] is None


def test_a_backend_that_an_operator_stopped_is_stopped_and_no_incident(tmp_path: Path) -> None:
    """Given a backend that serves, when it is stopped, or set to no workers, then that is what the verdict says."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        c.do("decr", name="web", nb=1, waiting=True)
        emptied = c.watcher()
        c.do("stop", name="web", waiting=True)
        stopped = c.watcher()

        assert (emptied["verdict"]["word"], emptied["incident"]) == ("stopped", None)
        assert "set to 0 workers" in emptied["verdict"]["cause"]
        assert (stopped["verdict"]["word"], stopped["verdict"]["cause"]) == (
            "stopped",
            "the watcher was stopped by circusctl stop",
        )


def test_a_first_start_is_deploying_and_no_incident_until_it_fails(tmp_path: Path) -> None:
    """Given an app that comes up slowly, when it is started, then that is no trouble; once it dies, it is down."""
    with circusd(tmp_path, start=False, watchers=[Watcher(told={"boot": "held"})]) as c:
        c.start_again()
        eventually(lambda: c.verdict() == "deploying")
        # Before that the cause also says that the port is looked at.
        first = eventually(lambda: now if (now := c.watcher())["port"]["state"] == "bound" and now["workers"] else None)
        first_pid = first["workers"][0]["pid"]
        kill(first_pid)
        eventually(lambda: c.verdict() == "down", what="a start has failed")
        c.set("boot", "")
        eventually(lambda: c.verdict() == "ok")

        assert first["verdict"]["cause"] == "starting, 0 of 2 workers up"
        assert first["incident"] is None
