"""The service in a real ``systemd --user``: when it counts as ready, and what becomes of it."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from xboard_circus.host import procs, runtime

from .alert_servers import HookServer, hook_server
from .free_ports import stranger
from .harness import BUNDLE, PATIENCE, Circusd, Watcher, circusd, eventually, holds, kill
from .load import Load
from .operations import small_checkout
from .processes import marked
from .service_host import NAME, UNIT, UserManager, install, run, script, user_manager
from .test_alerts import QUICK, SOON, hook_section, sections, told
from .test_lost import losses
from .visitor import page

# Seconds, in place of the minute and a half that the unit gives circusd.
WATCHDOG = 12
ROUNDS = int(os.environ.get("ROUNDS", "2"))
ENDED_EARLY = """
import logging, os, signal

class Early(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "sockets started" and os.path.exists("{flag}"):
            os.unlink("{flag}")
            os.kill(os.getpid(), signal.SIGTERM)

logging.getLogger("circus").addHandler(Early())
"""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SHORT_WATCHDOG = f"[Service]\nWatchdogSec={WATCHDOG}\n"


@contextlib.contextmanager
def service(
    folder: Path,
    *,
    told: Mapping[str, str] | None = None,
    drop_in: str = "",
    beside: Sequence[Watcher] = (),
    start: bool = True,
) -> Iterator[tuple[Circusd, UserManager]]:
    watcher = Watcher(told=told or {}, options={"graceful_timeout": 8})
    with circusd(folder, watchers=[watcher, *beside], plugins=BUNDLE, start=False) as c, user_manager(c) as host:
        host.drop_in(UNIT, f"[Service]\nStandardError=append:{c.folder}/logs/circusd.log\n\n{drop_in}")
        if start:
            install(host, c)
        yield c, host


@contextlib.contextmanager
def alerting_service(
    folder: Path, *, drop_in: str = "", beside: Sequence[Watcher] = ()
) -> Iterator[tuple[Circusd, UserManager, HookServer]]:
    """A service with a webhook for its alerts."""
    with hook_server() as hook, service(folder, drop_in=drop_in, beside=beside, start=False) as (c, host):
        c.write_ini(**sections({"hook": hook_section(folder, hook)}), plugin__xboard=QUICK)
        install(host, c)
        yield c, host, hook


def lose(c: Circusd, host: UserManager, hook: HookServer, by: Callable[[int], object]) -> tuple[str, ...]:
    """Lose the circusd of the service *by* something, and return what the ledger and the alert have of it.

    A plugin that outlives it for a moment may report the loss before the next one does; each only once.
    """
    restarts, pid = int(host.show(UNIT, "NRestarts")), int(host.show(UNIT, "MainPID"))
    alerts, before = len(told(hook)), len(losses(c))
    sends, delivered = c.log("plugin-xboard").count("alert:hook: sends"), deliveries(c)
    by(pid)
    eventually(lambda: host.show(UNIT, "NRestarts") == str(restarts + 1), timeout=90, every=0.1)
    eventually(lambda: host.show(UNIT, "ActiveState") == "active", timeout=90, every=0.1)
    eventually(lambda: c.log("plugin-xboard").count("alert:hook: sends") > sends, timeout=SOON)
    eventually(lambda: "recovered" in [each["event"] for each in told(hook)[alerts:]], timeout=SOON, what="the alert")
    eventually(lambda: losses(c)[before:], timeout=SOON, every=0.2, what="the ledger has it")
    kinds = tuple(record["kind"] for record in losses(c)[before:])
    assert len(kinds) == len(set(kinds))
    assert {record["pid"] for record in losses(c)[before:]} == {pid}
    sent = [(each["watcher"], each["kind"], each["event"]) for each in told(hook)[alerts:]]
    # One that hung was silent first, and that is the same incident.
    assert {what[:2] for what in sent} in ({("circusd", "lost")}, {("circusd", "silent")})
    problems, recoveries = ([event for *_, event in sent].count(each) for each in ("problem", "recovered"))
    assert (recoveries, problems + recoveries) == (1, len(sent))
    # Of one that was lost with its plugin the next one tells, as over. And killed between a delivery and its record,
    # a plugin has the next one deliver it again.
    recorded = deliveries(c) - delivered
    assert recorded <= 1
    assert 0 <= problems - recorded <= 1
    return kinds


def deliveries(c: Circusd) -> int:
    """Count the alerts on problems that the plugin recorded as delivered."""
    return c.log("plugin-xboard").count("delivered: [") - c.log("plugin-xboard").count("delivered: [OK]")


def until_gone(pids: Sequence[int]) -> None:
    eventually(lambda: all(map(is_gone, pids)), what=f"{pids} end")


def is_gone(pid: int) -> bool:
    return not procs.is_running(pid, procs.start_time(pid) or 0)


def test_it_is_ready_when_the_workers_are_and_a_slow_start_is_given_time(tmp_path: Path) -> None:
    """Given workers that take longer than the time-out, when it starts or restarts, then it is ready when both are."""
    with service(tmp_path) as (c, host):  # its `start` has waited
        assert (host.show(UNIT, "ActiveState"), len(c.ready())) == ("active", 2)
        for how in ("start", "restart"):
            c.set("boot", "held")
            limit = begun(host, how)
            restarts = host.show(UNIT, "NRestarts")
            holds(lambda: host.show(UNIT, "ActiveState") == "activating", seconds=limit + 2, every=0.2)
            c.set("boot", "")
            eventually(lambda: host.show(UNIT, "ActiveState") == "active", what="it is ready")
            ready = {int(each.name) for each in (c.folder / "web" / "ready-at").iterdir()}
            assert (len(c.workers()), set(c.workers()) - ready) == (2, set())
            assert host.show(UNIT, "NRestarts") == restarts
            eventually(lambda: host.show(UNIT, "StatusText") == "web: 2 of 2 workers up", what="its last word")


def begun(host: UserManager, how: str) -> int:
    """Start the service, or start it anew, with a time-out in which it says to systemd that it starts; return that.

    The first word takes circusd, the plugin and a round of probes, for as long as the machine makes them wait.
    """
    for limit in (10, 30, 90):
        if how == "start":
            host.ctl("stop", UNIT)
        (host.units / f"{UNIT}.d" / "limit.conf").write_text(f"[Service]\nTimeoutStartSec={limit}\n")
        host.ctl("daemon-reload")
        before = {"", host.show(UNIT, "InvocationID")}
        host.ctl(how, "--no-block", UNIT)
        tries: set[str] = set()

        def has_said(tries: set[str] = tries, before: set[str] = before) -> bool:
            tries |= {host.show(UNIT, "InvocationID")} - before
            return len(tries) > 1 or "starting, 0 of 2 workers up" in host.show(UNIT, "StatusText")

        eventually(has_said, timeout=2 * PATIENCE, what="its first word")
        if len(tries | {host.show(UNIT, "InvocationID")}) == 1:
            return limit
    raise AssertionError("nothing within 90 s")


def test_a_reload_loses_no_request_and_one_that_fails_leaves_all_as_it_is(tmp_path: Path) -> None:
    """Given load, when systemd reloads, then nothing is lost; with code that dies it says so and the old ones serve."""
    with service(tmp_path) as (c, host):
        before = c.wait_ready()
        url = f"{c.url}/"
        with Load(url, rate=100, connections=8) as kept, Load(url, rate=50) as fresh:
            done = host.ctl("reload", UNIT)
            after = c.wait_ready()
        assert done.returncode == 0, done.stderr
        assert not set(before) & set(after)
        assert (kept.lost, fresh.lost) == ([], [])
        assert kept.answered > 100

        c.set("boot", "die")
        assert host.ctl("reload", UNIT).returncode != 0
        assert host.show(UNIT, "ActiveState") == "active"
        assert c.workers() == after


def test_a_restart_loses_no_request_and_a_stop_in_its_middle_ends_all(tmp_path: Path) -> None:
    """Given load, when systemd restarts, also while a reload runs or circusd hangs, then circusd and workers are new, 0
    lost; with a file that nobody can read, or code that dies, the old ones serve on, also over a restart with the cure;
    a stop in the middle leaves nothing. Nor is a request lost to a signal that comes before circusd's first hook."""
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(ENDED_EARLY.format(flag=early / "now"))
    with service(tmp_path, drop_in=f"Environment=PYTHONPATH={early}:{Path(__file__).parent}\n") as (c, host):
        old = c.wait_ready()
        with Load(f"{c.url}/", rate=50, connections=8) as kept, Load(f"{c.url}/", rate=50) as fresh:
            for _ in range(ROUNDS):
                circusd, before = host.show(UNIT, "MainPID"), c.wait_ready()
                done = host.ctl("restart", UNIT)
                assert done.returncode == 0, done.stderr
                until_gone(before)
                assert host.show(UNIT, "MainPID") != circusd
            before = c.wait_ready()
            c.set("boot", "held")
            host.ctl("reload", "--no-block", UNIT)
            eventually(lambda: host.show(UNIT, "ActiveState") == "reloading", what="the reload runs")
            c.set("boot", "")
            assert host.ctl("restart", UNIT).returncode == 0
            until_gone(before)

            before = c.wait_ready()
            kill(int(host.show(UNIT, "MainPID")), signal.SIGSTOP)
            assert host.ctl("restart", UNIT).returncode == 0
            until_gone(before)
            assert host.show(UNIT, "NRestarts") == "0"

            before = c.wait_ready()
            (early / "now").touch()
            host.ctl("restart", "--no-block", UNIT)
            eventually(lambda: not (early / "now").exists(), what="it has come")
            until_gone(before)

            before, text, restarts = c.wait_ready(), c.ini.read_text(), int(host.show(UNIT, "NRestarts"))
            c.ini.write_text(f"{text}\ngarbage [\n")
            host.ctl("restart", "--no-block", UNIT)
            eventually(lambda: int(host.show(UNIT, "NRestarts")) > restarts, what="circusd does not start")
            c.ini.write_text(text)
            until_gone(before)
            old = c.wait_ready()
            for boot in ("die", "", "die"):  # systemd runs no ExecStop= of a unit that starts, or reloads
                c.set("boot", boot)
                enough = c.log().count("told to die") + 1
                host.ctl("restart", "--no-block", UNIT)
                if boot:
                    eventually(partial(has_died, c, enough))
                else:
                    until_gone(old)
                    old = c.wait_ready()
        print(f"{ROUNDS} restarts: {kept.summary()}, {fresh.summary()}")
        assert (kept.lost, fresh.lost) == ([], [])
        assert not any(map(is_gone, old))
        assert losses(c) == []

        everything = host.processes(UNIT)
        assert host.ctl("stop", UNIT).returncode == 0
        assert all(map(is_gone, [*old, *everything]))


def has_died(c: Circusd, times: int) -> bool:
    return c.log().count("told to die") >= times


def test_a_restart_takes_the_listener_from_systemd_and_asks_no_worker(tmp_path: Path) -> None:
    """Given workers that answer nothing, when systemd restarts, then the next circusd has their listener, no client is
    refused, and after that systemd holds none."""
    with service(tmp_path) as (c, host):
        old = c.wait_ready()
        for pid in old:
            kill(pid, signal.SIGSTOP)
        assert host.ctl("restart", "--no-block", UNIT).returncode == 0
        seen: list[bool] = []

        def is_taken_over() -> bool:
            seen.append(connects(c))
            return "over from" in c.log("circusd")

        eventually(is_taken_over, every=0.1)
        c.wait_ready()
        until_gone(old)
        assert "over from the circusd before this one" in c.log("circusd")
        assert all(seen)
        assert host.show(UNIT, "NFileDescriptorStore") == "0"
        assert host.ctl("stop", UNIT).returncode == 0
        assert not connects(c)


def connects(c: Circusd) -> bool:
    address = ("127.0.0.1", c.watchers["web"].port)
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address, timeout=5):
        return True
    return False


def test_a_circusd_that_hangs_is_replaced_by_the_watchdog(tmp_path: Path) -> None:
    """Given a service, when circusd is stopped by SIGSTOP, then another serves, that is told, and nothing is left."""
    with alerting_service(tmp_path, drop_in=SHORT_WATCHDOG) as (c, host, hook):
        c.wait_ready()
        old = host.processes(UNIT)
        holds(
            lambda: host.show(UNIT, "NRestarts") == "0",
            seconds=WATCHDOG + 1,
            every=0.5,
            what="it is left alone while well",
        )
        kinds = lose(c, host, hook, lambda pid: os.kill(pid, signal.SIGSTOP))

        assert set(kinds) <= {"circusd_lost", "circusd_back"}
        assert all(map(is_gone, old))
        assert not set(c.wait_ready()) & set(old)
        assert c.serves()


def test_a_killed_circusd_leaves_no_orphan_and_no_port_conflict_and_is_told(tmp_path: Path) -> None:
    """Given a service, a stranger on the port of its page, and an empty token, when circusd is killed, alone, with all
    it runs, or by a reset of the host, then new workers serve on the same port, and ledger and alert tell of each once:
    of the page's port too, over all of that."""
    boot_id = tmp_path / "boot-id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    (tmp_path / "dashboard.token").touch(0o600)
    held = page(options={"port.retry": 0.3})
    with (
        stranger(held.port, tmp_path) as holder,
        alerting_service(tmp_path, beside=[held]) as (c, host, hook),
    ):
        c.wait_ready()
        eventually(lambda: deliveries(c) == 1, timeout=SOON, what="the page's taken port is told")
        old = host.processes(UNIT)
        kinds = lose(c, host, hook, lambda pid: os.kill(pid, signal.SIGKILL))

        assert set(kinds) <= {"circusd_lost", "circusd_back"}
        assert all(map(is_gone, old))
        c.wait_ready()
        assert c.watcher()["port"]["state"] == "bound"
        assert c.watcher()["restarts"] == 0
        assert c.serves()

        everything = ("kill", "--kill-whom=all", "--signal=KILL", UNIT)
        assert set(lose(c, host, hook, lambda _: host.ctl(*everything))) <= {"circusd_lost", "circusd_back"}

        def reset(_: int) -> None:
            host.inside(["nsenter", "--mount", f"--target={host.pid}", "--", "mount", "--bind", str(boot_id), BOOT_ID])
            host.ctl(*everything)

        assert lose(c, host, hook, reset) == ("host_restarted",)
        assert c.serves()

        holder.signal(signal.SIGKILL)
        eventually(lambda: c.get("/healthz", name="dashboard"), what="the page is there")
        eventually(lambda: len(told(hook, "recovered")) == 4, timeout=SOON, what="the page's port is told to be free")
        of_page = [each["event"] for each in told(hook) if each["kind"] == "port_refused"]
        assert of_page == ["problem", "recovered"]
        refusals = c.run_cli("events", "--kind", "port_refused", "--since", "1h", "--json").stdout.splitlines()
        assert len(refusals) == 1 + int(host.show(UNIT, "NRestarts"))  # of each circusd one
        assert (tmp_path / "dashboard.token").stat().st_size > 0


def test_a_stop_drains_and_leaves_nothing(tmp_path: Path) -> None:
    """Given a worker that takes its time to drain, when the service is stopped, then it gets it, and all is gone."""
    (tmp_path / ".venv").symlink_to(sys.prefix)  # a whole one, for once
    with service(tmp_path, told={"drain": "held"}) as (c, host):
        workers = c.wait_ready()
        everything = host.processes(UNIT)
        assert (host.runtime / NAME).stat().st_mode & 0o777 == 0o700
        # 8 s of graceful_timeout, and what the script adds to it.
        assert (host.show(UNIT, "WatchdogUSec"), host.show(UNIT, "TimeoutStopUSec")) == ("38s", "23s")
        host.ctl("stop", "--no-block", UNIT)
        eventually(lambda: host.show(UNIT, "StatusText").startswith("stopping; "))
        c.set("drain", "")
        eventually(lambda: host.show(UNIT, "ActiveState") == "inactive", timeout=90, every=0.1)

        assert host.show(UNIT, "Result") == "success"
        assert all(c.said("stopped", pid) for pid in workers)
        assert all(map(is_gone, everything))
        assert marked(XBOARD_INSTANCE=runtime.instance_id(c.folder / "service.ini")) == []


@pytest.mark.parametrize(
    ("drop_in", "then"),
    [
        pytest.param("ExecStartPre=/bin/sleep 5\n", "stop", id="a stop between two circusds"),
        pytest.param(
            "KillMode=mixed\nUnsetEnvironment=XBOARD_SERVICE\nExecStop=\nExecStopPost=\n", "", id="a unit by hand"
        ),
    ],
)
def test_what_is_in_flight_is_answered(tmp_path: Path, drop_in: str, then: str) -> None:
    """Given requests in flight, when systemd restarts and then stops, or restarts a unit that is none of ours and keeps
    no process, then they are answered before their workers end."""
    with service(tmp_path, drop_in=f"[Service]\n{drop_in}") as (c, host):
        old = c.wait_ready()
        held = c.hold_each(old)
        circusd = int(host.show(UNIT, "MainPID"))
        host.ctl("restart", "--no-block", UNIT)
        if then:
            eventually(lambda: is_gone(circusd))
            host.ctl(then, "--no-block", UNIT)
        holds(lambda: not any(map(is_gone, old)), seconds=2, what="they answer")
        c.finish(held)
        until_gone(old)


def test_an_end_from_elsewhere_is_known_as_one_and_answered_with_a_start(tmp_path: Path) -> None:
    """Given a service that runs, when circusd is told to quit, then systemd knows at once, and starts it again."""
    with service(tmp_path, told={"drain": "held"}) as (c, host):
        c.wait_ready()
        c.do("quit")
        eventually(lambda: host.show(UNIT, "ActiveState") == "deactivating")
        c.set("drain", "")
        eventually(lambda: host.show(UNIT, "NRestarts") == "1", timeout=90, every=0.1)
        eventually(lambda: host.show(UNIT, "ActiveState") == "active", timeout=90, every=0.1)
        assert c.serves()


def test_the_script_is_idempotent_upgrades_and_removes(tmp_path: Path) -> None:
    """Given an installed service, when installed again, then nothing changes; removed, then nothing of it is left."""
    with service(tmp_path, start=False) as (c, host):
        dry = install(host, c, "--dry-run")
        assert "would write: " in dry
        assert not (c.folder / "service.ini").exists()
        assert not (host.units / UNIT).exists()
        first = install(host, c)
        pid = host.show(UNIT, "MainPID")
        second = install(host, c)

        assert first.count("\nwrite: ") == 3
        assert "write: " not in second
        assert second.count("unchanged: ") == 3
        assert host.show(UNIT, "MainPID") == pid
        beside = run([str(host.home / ".local" / "bin" / NAME), "restart"], host.environ)
        assert beside.returncode == 1
        assert f"is run by systemd as {UNIT}: `systemctl --user restart {UNIT}`" in beside.stderr
        assert host.show(UNIT, "MainPID") == pid
        upgrade = install(host, c, "--dry-run", action="upgrade")
        assert f"would run: {c.folder}/.venv/bin/python -I -m pip install" in upgrade
        assert f"would run: systemctl --user restart {UNIT}" in upgrade
        told = install(host, c, action="remove")
        assert told.count("\ndelete: ") == 3
        eventually(lambda: is_gone(int(pid)))
        assert not (host.units / UNIT).exists()
        assert not (c.folder / "service.ini").exists()
        assert [path for path in host.units.rglob("*") if path.name == UNIT] == []  # a link to nothing, too
        assert (c.folder / "circus.ini").exists()
        assert "not installed" in install(host, c, action="remove")


PIP = """#!/bin/sh
if [ "$1 $2 $3" = "-I -m pip" ]; then
    echo "$*" >>{calls}
    while [ -e {calls}.hold ]; do sleep 0.05; done
    exit
fi
exec {python} "$@"
"""


def test_an_upgrade_installs_the_packages_and_runs_what_was_installed(tmp_path: Path) -> None:
    """Given a service, when it is upgraded, then pip is called for its own .venv, another circusd serves, and
    no request is lost; nor by a restart meanwhile, and a second upgrade is refused. One that fails says how to go
    back."""
    with service(tmp_path, start=False) as (c, host):
        calls, python = tmp_path / "pip-calls", c.folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PIP.format(calls=calls, python=sys.executable))
        python.chmod(0o755)
        words = ("--user", "--name", NAME, "--dir", str(c.folder))
        here = small_checkout()
        assert run([script(), "install", *words], host.environ).returncode == 0
        old = host.show(UNIT, "MainPID")
        assert not calls.exists()
        (host.units / UNIT).write_text((host.units / UNIT).read_text().replace("RestartSec=2", "RestartSec=9"))
        hold = calls.with_name(f"{calls.name}.hold")
        hold.touch()
        with (
            Load(f"{c.url}/", rate=100, connections=8) as kept,
            Load(f"{c.url}/", rate=50) as fresh,
            ThreadPoolExecutor(1) as pool,
        ):
            upgrade = pool.submit(run, [script(), "upgrade", *words], host.environ)
            try:
                eventually(calls.exists, what="pip is called")
                for action in ("upgrade", "install", "remove"):
                    refused = run([script(), action, *words], host.environ)
                    assert (refused.returncode, f"{NAME} is being changed already, with pid" in refused.stderr) == (
                        *(1, True),
                    ), refused
                assert host.ctl("restart", UNIT).returncode == 0
            finally:
                hold.unlink()
            done = upgrade.result()

        assert done.returncode == 0, done.stderr
        assert (kept.lost, fresh.lost) == ([], [])
        assert calls.read_text() == f"-I -m pip install --quiet --disable-pip-version-check --upgrade {here}\n"
        assert host.show(UNIT, "ActiveState") == "active"
        assert host.show(UNIT, "MainPID") not in ("0", old)
        assert host.show(UNIT, "RestartUSec") == "2s"
        assert c.serves()

        text = c.ini.read_text()
        c.ini.write_text(f"{text}\ngarbage [\n")
        refused = run([script(), "upgrade", *words], host.environ)
        assert (refused.returncode, "garbage" in refused.stderr) == (1, True), refused
        assert calls.read_text().count("install") == 1, "nothing was installed"
        c.ini.write_text(f"{text}\n[watcher:gone]\ncmd = no-such-program\n")
        failed = run([script(), "upgrade", *words], host.environ)
        back = f"{c.folder}/.venv has the code of {here} now; to go back: `git -C {here} checkout` of the commit before"
        assert (failed.returncode, back in failed.stderr) == (1, True), failed.stderr
        assert c.serves()


APART = {
    "health": "xboard_circus.plugins.http_health.HttpHealth",
    "notify": "xboard_circus.plugins.systemd_notify.SystemdNotify",
}


def test_a_prober_that_hangs_is_ended_by_the_watchdog(tmp_path: Path) -> None:
    """Given a prober in a process of its own, when it hangs while circusd answers, then the service is begun anew."""
    with service(tmp_path, drop_in=SHORT_WATCHDOG, start=False) as (c, host):
        c.plugins = dict(APART)
        c.write_ini()
        install(host, c)
        c.wait_ready()
        os.kill(c.plugin("health").pid, signal.SIGSTOP)
        eventually(lambda: host.show(UNIT, "NRestarts") == "1", timeout=90, every=0.1)
