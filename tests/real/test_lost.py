"""circusd itself is killed: it is recorded and alerted, and an end that somebody asked for is not."""

import contextlib
import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from circus.exc import CallError

from xboard_circus.alerts.memory import memory_file
from xboard_circus.dashboard.tokens import load
from xboard_circus.ledger.query import search

from .alert_servers import hook_server
from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .memory_group import memory_group
from .test_alerts import SOON, alerting, hook_section, names, told
from .test_metrics import samples
from .test_monitor import has_successor, monitor
from .visitor import Visitor, page

LOST = ("circusd_lost", "circusd_back", "host_restarted")
LIFE = "life.json"


def losses(c: Circusd) -> list[dict[str, Any]]:
    """What the ledger has of circusds that were lost, whether one runs or not."""
    kinds = [word for kind in LOST for word in ("--kind", kind)]
    result = c.run_cli("events", *kinds, "--since", "1h", "--json")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def of_kinds(c: Circusd, *kinds: str) -> list[dict[str, Any]]:
    """Wait until the ledger has exactly these."""

    def found() -> list[dict[str, Any]] | None:
        records = losses(c)
        return records if [record["kind"] for record in records] == list(kinds) else None

    return eventually(found, every=0.2, what=f"the ledger has {kinds}")


def recorded(c: Circusd, *pids: int) -> None:
    """Wait until the ledger has that each of *pids* was ready: what circusd told before that is in it, too."""

    def has_them() -> bool:
        return set(pids) <= {each.pid for each in search(c.folder / "ledger.db", kind=("ready",))}

    eventually(has_them, every=0.1, what=f"{pids} are recorded as ready")


def life(c: Circusd) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((c.runtime / "r" / c.instance / LIFE).read_text())
    return content


def test_it_is_told_while_circusd_is_down_and_again_when_one_runs(tmp_path: Path) -> None:
    """Given a webhook, when circusd is killed, then ledger, `why` and webhook tell before there is another; when one
    runs, then that is told, once."""
    with hook_server() as hook, alerting(tmp_path, {"hook": hook_section(tmp_path, hook)}) as c:
        old = c.pid

        c.kill9()

        (lost,) = of_kinds(c, "circusd_lost")
        assert (lost["watcher"], lost["pid"], lost["cause"]) == ("circusd", old, None)
        why = c.run_cli("why").stdout
        assert f"circusd was lost: circusd (pid {old}) was killed or crashed, without a stop request" in why
        assert "errors: circusd itself was lost once in the last day" in c.run_cli("doctor").stdout
        assert "circusd is down for" in c.run_cli("status").stderr
        eventually(lambda: told(hook), timeout=SOON, what="the webhook is told while no circusd runs")
        (problem,) = told(hook)
        assert (problem["severity"], problem["next"].split()[-1]) == ("critical", "start")
        assert f"Its workers still answer on :{c.watchers['web'].port} (2 alive)\n" in problem["text"]

        c.start_again()
        eventually(lambda: told(hook, "recovered"), timeout=SOON)
        _, back = of_kinds(c, "circusd_lost", "circusd_back")
        assert (back["pid"], back["data"]["successor"]) == (old, c.pid)
        assert back["data"]["gap"] > 0
        assert f"circusd runs again, as pid {c.pid}" in c.run_cli("why", "circusd").stdout
        eventually(lambda: "port_freed" in c.run_cli("events").stdout, what="it has taken over")
        assert f"circusd was lost: circusd (pid {old})" in c.run_cli("why").stdout
        assert names(told(hook)) == [("circusd", "lost", "problem"), ("circusd", "lost", "recovered")]


def test_the_next_one_tells_where_nobody_was_left_to(tmp_path: Path) -> None:
    """Given a webhook, when circusd is killed with its plugin, then the next one makes one record and one alert of it,
    and no more when its plugin is started anew."""
    with hook_server() as hook, alerting(tmp_path, {"hook": hook_section(tmp_path, hook)}) as c:
        old, plugin = c.pid, c.plugin("xboard")
        plugin.signal(signal.SIGSTOP)
        c.kill9()
        kill(plugin.pid)

        c.start_again()

        (lost,) = of_kinds(c, "circusd_lost")
        assert (lost["pid"], lost["data"]["successor"]) == (old, c.pid)
        assert "after it was last seen" in lost["reason"]
        eventually(lambda: told(hook), timeout=SOON)
        (over,) = told(hook)
        assert over["event"] == "recovered"
        assert f"circusd (pid {old}) was killed or crashed" in over["reason"]
        memory = memory_file(Path(c.state()["circusd"]["state_dir"]), "plugin:xboard")
        # A plugin that is killed before it has noted what it sent sends that again.
        eventually(
            lambda: not any(json.loads(memory.read_text())["waiting"].values()), what="the alert is noted as sent"
        )

        began = c.log("plugin-xboard").count("alert:hook: sends")
        kill(c.plugin("xboard").pid)
        eventually(lambda: c.log("plugin-xboard").count("alert:hook: sends") > began, timeout=SOON)
        # The next alert comes after whatever it might have told again.
        c.set("boot", "die")
        for pid in c.workers():
            kill(pid)
        eventually(lambda: len(told(hook)) > 1, timeout=SOON)
        assert "lost" not in [each["kind"] for each in told(hook)[1:]]
        assert len(losses(c)) == 1


def test_a_scraper_reads_that_the_next_one_follows_a_loss(tmp_path: Path) -> None:
    """Given who scrapes the page, when circusd is killed and started, then the metric of that is 1, which was 0."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1), page()], plugins=BUNDLE) as c:
        scraper = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: scraper.get("/healthz").status == 200, timeout=90, what="the page answers")
        scraper.session = load(tmp_path).reader

        def follows_loss(figure: float) -> bool:
            """Whether the metric is that; not while the page is replaced, and not before it has a first state."""
            with contextlib.suppress(OSError, http.client.HTTPException):
                return samples(scraper).get("xboard_circusd_follows_loss") == [({"server": "local"}, figure)]
            return False

        eventually(lambda: follows_loss(0.0), timeout=90, every=0.2, what="the first one follows no loss")
        c.kill9()
        c.start_again()

        eventually(lambda: follows_loss(1.0), timeout=90, every=0.2, what="the next one follows a loss")


@pytest.mark.parametrize("way", ["quit", "SIGTERM", "stop", "restart", "circusctl restart", "killed in its stop"])
def test_an_end_that_was_asked_for_is_no_loss(tmp_path: Path, way: str) -> None:
    """Given a circusd, when somebody ends it in order, or does not wait for that, then the next one tells nothing."""
    watcher = Watcher(options={"graceful_timeout": 20}, told={"drain": "10"} if way == "killed in its stop" else {})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        recorded(c, *c.wait_ready())
        if way == "circusctl restart":
            before = c.wait_ready()
            assert c.run_circusctl("restart").returncode == 0
            eventually(lambda: not set(before) & set(c.wait_ready()))
        elif way == "restart":
            assert c.run_cli("restart").returncode == 0
        else:
            end(c, way)
            c.start_again()
        recorded(c, *c.wait_ready())

        assert losses(c) == []
        assert life(c)["is_ordered"] is False


def end(c: Circusd, way: str) -> None:
    """End circusd in that way, and return when it is gone."""
    if way == "stop":
        assert c.run_cli("stop").returncode == 0
    elif way == "quit":
        assert c.run_circusctl("quit", "--waiting").returncode == 0
    else:
        os.kill(c.pid, signal.SIGTERM)
    if way == "killed in its stop":
        eventually(lambda: life(c)["is_ordered"], what="circusd has begun to stop")
        c.kill9()
    c.wait_ended()


def test_the_kernels_kill_is_told_as_such(tmp_path: Path) -> None:
    """Given circusd in a memory cgroup that is made too small, when the kernel kills it, then the ledger says so."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        recorded(c, *c.wait_ready())
        with memory_group(c.pid, limit=1 << 30) as group:
            eventually(lambda: str(group) in " ".join(life(c)["kills"]), what="its cgroup is written down")
            group.shrink()

            def is_killed() -> bool:
                with contextlib.suppress(CallError):
                    c.call("status", name="x" * 10_000_000, timeout=1)  # which it has to find memory for
                return not c.past[-1].alive

            eventually(is_killed)

            (lost,) = of_kinds(c, "circusd_lost")

    assert lost["cause"] == "out of memory"
    assert "OOM killer, oom_kill of its cgroup rose" in lost["reason"]


def test_a_circusd_that_the_monitor_brings_back_is_told(tmp_path: Path) -> None:
    """Given a monitor, when circusd hangs and the monitor ends it, then the ledger says who did, and that one runs."""
    with circusd(tmp_path, plugins=BUNDLE) as c, monitor(c, patience=1):
        recorded(c, *c.wait_ready())

        os.kill(c.pid, signal.SIGSTOP)

        eventually(lambda: has_successor(c), what="a new circusd answers")
        lost, back = of_kinds(c, "circusd_lost", "circusd_back")
        assert lost["cause"] == "unhealthy"
        assert "did not answer any more, so the monitor killed it" in back["reason"]


def test_a_stop_after_the_kill_hides_nothing(tmp_path: Path) -> None:
    """Given a killed circusd, when an operator stops or cleans what is left, then the next one still tells."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        recorded(c, *c.wait_ready())
        c.kill9()
        of_kinds(c, "circusd_lost")
        stopped = c.run_cli("stop")
        assert (stopped.returncode, "clean" in stopped.stderr) == (1, True)  # its workers serve on
        assert c.run_cli("clean").returncode == 0

        c.start_again()

        of_kinds(c, "circusd_lost", "circusd_back")
