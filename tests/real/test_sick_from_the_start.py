"""A live path that fails from its first answer on is no good start: the worker is counted, replaced, and told of."""

import json
import signal
from pathlib import Path
from typing import Any

from .harness import BUNDLE, FAST_RESTARTS, Watcher, circusd, eventually, kill, time_to_start

OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "health.startup_timeout": 15,
    "graceful_timeout": 2,
    **FAST_RESTARTS,
}


def alerts(folder: Path) -> list[dict[str, Any]]:
    """Return the alerts that the command of the ini was given."""
    file = folder / "alerts"
    return [json.loads(line) for line in file.read_text().splitlines() if line] if file.exists() else []


def test_those_that_never_answer_well_are_replaced_and_one_alert_says_so(tmp_path: Path) -> None:
    """Given two of four whose live path fails from the first probe on, one by 500, one by no answer, when their time to
    start is over, then each is counted and replaced, one alert says so, and the others are left alone."""
    slow = {**OPTIONS, "health.startup_timeout": time_to_start()}
    watcher = Watcher(numprocesses=4, options=slow, told={"live.wid-2": "500", "live.wid-3": "hang"})
    program = tmp_path / "notify"
    program.write_text("#!/bin/sh\ncat >>alerts; echo >>alerts\n")
    program.chmod(0o700)
    # The incident lasts until the watcher is stopped, so that the second end of a worker is a part of it.
    alert = {"type": "command", "command": "./notify", "on": "restart"}
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE, start=False) as c:
        c.write_ini(alert__run=alert, plugin__xboard={"alerts.recover_after": 600})
        c.start_again()
        eventually(lambda: len(c.starts()) >= 4)
        first = {start.wid: start.pid for start in reversed(c.starts())}
        sick = {first[2], first[3]}

        eventually(lambda: sick <= {event.pid for event in c.failures()}, what="their ends are counted and published")
        c.set("live.wid-2", "")
        c.set("live.wid-3", "")

        fresh = c.wait_ready()
        assert not sick & set(fresh)
        assert {first[1], first[4]} <= set(fresh)
        (first_alert,) = eventually(lambda: alerts(tmp_path), what="an alert")
        assert (first_alert["watcher"], first_alert["kind"]) == ("web", "restart")
        assert first_alert["reason"].startswith("not up within health.startup_timeout")
        c.do("stop", name="web", waiting=True)
        eventually(lambda: "stopped" in [each["event"] for each in alerts(tmp_path)], what="the end of the incident")
        assert [each["event"] for each in alerts(tmp_path)] == ["problem", "stopped"]


def test_one_that_is_sick_before_the_prober_first_sees_it_is_replaced(tmp_path: Path) -> None:
    """Given a worker that came up and is sick by its first probe, then it is replaced and its siblings are left alone.

    The plugin is halted meanwhile, as where it starts late or the machine is busy.
    """
    with circusd(tmp_path, watchers=[Watcher(numprocesses=3, options=OPTIONS)], plugins=BUNDLE) as c:
        first, *others = c.wait_ready()
        kill(c.plugin("xboard").pid, signal.SIGSTOP)
        kill(first)
        (sick,) = eventually(lambda: set(c.wait_ready()) - {first, *others})

        c.set(f"live.pid-{sick}", "500")
        kill(c.plugin("xboard").pid, signal.SIGCONT)

        eventually(lambda: sick not in c.workers(), what="the sick one is replaced")
        assert set(others) < set(c.wait_ready())
