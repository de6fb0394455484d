"""What the doctor makes of what it sees; real faults are in tests/real/test_doctor.py."""

import math
import os
import resource
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement
from state_views import state_view, watcher_view

from xboard_circus import config as configuration
from xboard_circus.checks.findings import Finding, Level, good, warning
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.doctor import clock, dependencies, examine, network, old_files, past, resources, supervision
from xboard_circus.doctor.case import Case
from xboard_circus.doctor.resources import MIB, Limits
from xboard_circus.doctor.supervision import of_watcher
from xboard_circus.host import oom, procs, runtime
from xboard_circus.host.free_memory import limit_in
from xboard_circus.instance import Instance
from xboard_circus.ledger import Record
from xboard_circus.logs import Line, LogFile
from xboard_circus.snapshot import from_state

GIB = 1024 * MIB


def test_dependencies_are_told_one_by_one_where_they_are_wrong() -> None:
    def installed(name: str) -> str:
        if name == "gone":
            raise metadata.PackageNotFoundError(name)
        return {"circus": "0.18.0"}.get(name, "99.9")

    wanted = map(Requirement, ("circus>=0.19,<0.20", "gone>=1", "rich>=13", 'ruff>=99; extra == "test"'))

    found = list(dependencies.compared(wanted, installed=installed))

    assert [(each.level, each.what) for each in found] == [
        (Level.ERROR, "circus 0.18.0 is installed, and <0.20,>=0.19 is what works"),
        (Level.ERROR, "gone is not installed"),
        (Level.OK, "as required: rich 99.9"),
    ]
    assert "pip install 'circus<0.20,>=0.19'" in found[0].hint


def test_the_packages_of_this_environment_are_right() -> None:
    assert {each.level for each in dependencies.look(Case(Path("circus.ini"), now=0.0))} == {Level.OK}


def room(size: int, free: int, files: int, free_files: int, *, flags: int = 0) -> os.statvfs_result:
    return os.statvfs_result((1, 1, size, free, free, files, free_files, free_files, flags, 255))


@pytest.mark.parametrize(
    ("found", "level"),
    [
        pytest.param(room(100 * GIB, 50 * GIB, 1000, 500), Level.OK, id="half full"),
        pytest.param(room(100 * GIB, 3 * GIB, 1000, 500), Level.OK, id="much of a large disk is little in per cent"),
        pytest.param(room(100 * GIB, GIB - 1, 1000, 500), Level.WARNING, id="little"),
        pytest.param(room(100 * GIB, 99 * MIB, 1000, 500), Level.ERROR, id="very little"),
        pytest.param(room(64 * MIB, 60 * MIB, 1000, 500), Level.OK, id="a small disk"),
        pytest.param(room(64 * MIB, 3 * MIB, 1000, 500), Level.ERROR, id="a small full disk"),
        pytest.param(room(100 * GIB, 50 * GIB, 1000, 40), Level.WARNING, id="few inodes"),
        pytest.param(room(100 * GIB, 50 * GIB, 1000, 0), Level.ERROR, id="no inodes"),
        pytest.param(room(100 * GIB, 50 * GIB, 0, 0), Level.OK, id="no inodes to count"),
        pytest.param(room(100 * GIB, 50 * GIB, 1000, 500, flags=os.ST_RDONLY), Level.ERROR, id="read-only"),
    ],
)
def test_room_on_a_disk(found: os.statvfs_result, level: Level) -> None:
    assert resources.of_room("/srv", found).level is level


@pytest.mark.parametrize(("available", "level"), [(0.5, Level.OK), (0.08, Level.WARNING), (0.01, Level.ERROR)], ids=str)
def test_memory(available: float, level: Level) -> None:
    assert resources.of_memory("here", 16 * GIB, int(16 * GIB * available)).level is level


def test_the_limit_of_a_container_leaves_out_what_is_only_cached(tmp_path: Path) -> None:
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "900\n",
        "memory.stat": "anon 500\ninactive_file 300\n",
    }.items():
        (tmp_path / name).write_text(text)

    assert limit_in(tmp_path) == (1000, 400)
    (tmp_path / "memory.max").write_text("max\n")
    assert limit_in(tmp_path) is None
    assert limit_in(tmp_path / "none") is None
    for name, text in {
        "memory.limit_in_bytes": "1000\n",
        "memory.usage_in_bytes": "900\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert limit_in(tmp_path) == (1000, 300)


@pytest.mark.parametrize(("load", "level"), [(1.0, Level.OK), (4.0, Level.WARNING), (9.0, Level.ERROR)], ids=str)
def test_load(load: float, level: Level) -> None:
    assert resources.of_load(load, 2).level is level


def test_limits_are_read_and_compared_with_what_is_recommended() -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = resources.limits_of(os.getpid())
    told = resources.of_process("web (pid 7)", Limits(1024, math.inf, 524_288), 20, name="web")

    assert (found.files, found.most_files) == (files, most)
    assert told == warning(
        "web (pid 7): 1024 open files, 20 in use; unlimited processes",
        "`ulimit -n 65536` before `xboard-circus start`; or rlimit_nofile = 65536 in [watcher:web]",
    )


def test_limits_of_another_users_process_are_read_without_a_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: psutil.Process, *_: object) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "rlimit", refused)

    assert resources.limits_of(os.getppid()).files > 0


def test_a_hard_limit_that_is_too_low_takes_root() -> None:
    told = resources.of_process("circusd (pid 7)", Limits(1024, 9999, 4096), 20, name="circusd")

    assert told.hint.startswith("as root, write `* - nofile 65536` into /etc/security/limits.conf")


@pytest.mark.parametrize(
    ("files", "processes", "used", "level"),
    [
        pytest.param(65_536, 4_096, 10, Level.OK, id="as recommended"),
        pytest.param(65_536, 4_095, 10, Level.WARNING, id="fewer processes"),
        pytest.param(256, 4_096, 10, Level.ERROR, id="far too few files"),
        pytest.param(65_536, 100, 10, Level.ERROR, id="far too few processes"),
        pytest.param(65_536, 4_096, 60_000, Level.ERROR, id="nearly all in use"),
    ],
)
def test_limits_of_a_process(files: float, processes: float, used: int, level: Level) -> None:
    assert resources.of_process("circusd", Limits(files, processes), used, name="circusd").level is level


NFT_OPEN = """
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		tcp dport { 22, 8000-8010 } accept
	}
}
"""
NFT_NONE = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
UFW = """\
Status: active

To                         Action      From
--                         ------      ----
22/tcp                     ALLOW       Anywhere
8000:8010/tcp              ALLOW       Anywhere
9000                       DENY        Anywhere
"""


@pytest.mark.parametrize(
    ("rules", "port", "expected"),
    [
        pytest.param({"ufw status": UFW}, 8005, "ok ufw lets it through", id="ufw, in a range"),
        pytest.param({"ufw status": UFW}, 9000, "warning ufw does not seem to", id="ufw, denied"),
        pytest.param({"ufw status": "Status: inactive", "nft list ruleset": NFT_OPEN}, 8000, "ok nftables", id="nft"),
        pytest.param({"nft list ruleset": NFT_OPEN}, 9000, "warning nftables does not", id="nft, not named"),
        pytest.param({"nft list ruleset": NFT_NONE}, 9000, "ok nftables", id="nft, that refuses nobody"),
        pytest.param({"nft list ruleset": ""}, 9000, "ok nftables", id="nft, empty"),
        pytest.param({"iptables -S INPUT": "-P INPUT ACCEPT\n"}, 9000, "ok iptables", id="iptables, open"),
        pytest.param({"iptables -S INPUT": "-P INPUT DROP\n"}, 9000, "warning iptables", id="iptables, closed"),
        pytest.param(
            {"iptables -S INPUT": "-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 9000 -j ACCEPT\n"},
            9000,
            "ok iptables",
            id="iptables, one port",
        ),
        pytest.param({}, 9000, "unknown neither ufw, nft nor iptables", id="nothing to ask"),
    ],
)
def test_firewall(rules: dict[str, str], port: int, expected: str) -> None:
    told = network.of_port(port, is_root=True, output=lambda *command: rules.get(" ".join(command)))

    level, _, what = expected.partition(" ")
    assert told.level.value == level
    assert f"port {port}: {what}" in told.what


def test_a_firewall_that_cannot_be_read_is_not_called_open() -> None:
    told = network.of_port(8000, is_root=False, output=lambda *command: "")

    assert (told.level, "needs root" in told.what) == (Level.UNKNOWN, True)


def test_an_endpoint_for_the_whole_network_is_bad() -> None:
    assert network.of_address("endpoint", "0.0.0.0", 5555, is_guarded=True).level is Level.ERROR
    assert network.of_address("endpoint", "127.0.0.1", 5555, is_guarded=False).level is Level.OK


@pytest.mark.parametrize(
    ("above", "folder", "socket", "level"),
    [
        (0o755, 0o700, 0o777, Level.OK),
        (0o700, 0o755, 0o777, Level.OK),
        (0o755, 0o755, 0o755, Level.OK),
        (0o755, 0o755, 0o777, Level.ERROR),
        (0o755, 0o750, 0o775, Level.ERROR),
        (0o755, 0o777, None, Level.ERROR),
    ],
)
def test_a_unix_endpoint_is_as_open_as_its_folders(above: int, folder: int, socket: int | None, level: Level) -> None:
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name, "run", "control.sock")
        path.parent.mkdir()
        if socket is not None:
            path.touch()
            path.chmod(socket)
        path.parent.chmod(folder)
        Path(name).chmod(above)

        assert network.of_file("endpoint", path).level is level


def watcher(*words: str, **more: Any) -> WatcherEntry:
    found: WatcherEntry = watcher_view(*words, **{"numprocesses": 2, **more})
    return found


@pytest.mark.parametrize(
    ("found", "level"),
    [
        pytest.param(watcher("up", "up"), Level.OK, id="all up"),
        pytest.param(watcher("up"), Level.WARNING, id="one missing"),
        pytest.param(watcher(last_reason="exit code 1"), Level.ERROR, id="none"),
        pytest.param(watcher("up", "cooling", cooldown_until=12.0), Level.ERROR, id="cooling down"),
        pytest.param(watcher("up", "hung"), Level.WARNING, id="one hung"),
        pytest.param(watcher("sick", "sick"), Level.WARNING, id="a dependency is down"),
        pytest.param(watcher(status="stopped"), Level.ERROR, id="stopped"),
        pytest.param(watcher(numprocesses=0), Level.ERROR, id="set to no workers"),
        pytest.param(watcher(numprocesses=0, armed=False), Level.ERROR, id="set to none, not ours"),
        pytest.param(watcher(armed=False), Level.OK, id="not ours"),
    ],
)
def test_watchers(found: WatcherEntry, level: Level) -> None:
    assert of_watcher(found).level is level


PLUGIN_DOWN = "plugin:xboard {}: hung workers are not noticed"


@pytest.mark.parametrize(
    ("plugin", "what"),
    [
        (watcher("up", name="plugin:xboard", numprocesses=1), None),
        (watcher(name="plugin:xboard", status="stopped"), PLUGIN_DOWN.format("is stopped")),
        (watcher(name="plugin:xboard", numprocesses=0), PLUGIN_DOWN.format("has no process")),
    ],
    ids=["runs", "stopped", "taken away"],
)
def test_a_plugin_that_does_not_run_is_told(plugin: WatcherEntry, what: str | None) -> None:
    found = [each for each in supervision.watchers([watcher("up", "up"), plugin]) if each.level is not Level.OK]

    assert [each.what for each in found] == ([] if what is None else [what])


@pytest.mark.parametrize(
    ("written", "told"),
    [(0.0, ""), (-7200.0, "forward by about 7200 s"), (7200.0, "back by at least 7200 s")],
    ids=["right", "set forward", "set back"],
)
def test_a_clock_that_was_set_since_circusd_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: float, told: str
) -> None:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    own = procs.Identity.of(os.getpid())
    assert own is not None
    case = Case(tmp_path / "circus.ini", now=time.time(), circusd=own)
    runtime.write_record(case.instance_id, pid=own.pid, started=own.started)
    at = case.now - procs.age(own.started) + written if written <= 0 else case.now + written
    os.utime(tmp_path / "r" / case.instance_id / runtime.RECORD, (at, at))

    assert clock.jump(case, own) == told


@pytest.mark.parametrize(("count", "told"), [("pgfault 7\noom_kill 3\noom_kill_x 9\n", True), ("oom_kill 0\n", False)])
def test_what_the_kernel_killed_since_boot_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str, told: bool
) -> None:
    (tmp_path / "vmstat").write_text(count)
    monkeypatch.setattr(oom, "HOST", tmp_path / "vmstat")

    found = [each.what for each in resources.memory(Case(tmp_path / "circus.ini", 0.0))]

    assert ("the kernel has killed 3 processes for want of memory since boot" in found) is told


def test_a_lost_circusd_is_counted_once_though_its_end_and_the_next_start_are_two_records() -> None:
    records = [
        Record(1.0, "circusd", "circusd_lost", pid=7, data={"started": 70}, reason="killed"),
        Record(2.0, "circusd", "circusd_back", pid=7, data={"started": 70}, reason="runs again"),
    ]
    again = Record(3.0, "circusd", "circusd_lost", pid=8, data={"started": 80}, reason="killed again")

    assert list(past.of_losses([])) == []
    assert [each.what.partition(" in ")[0] for each in past.of_losses(records)] == ["circusd itself was lost once"]
    (found,) = past.of_losses([*records, again])
    assert found.level is Level.WARNING
    assert "lost 2 times in the last day" in found.what
    assert found.what.endswith(": killed again")


def test_the_ledger_is_looked_at_once_and_only_where_somebody_records(tmp_path: Path) -> None:
    plugins = {
        "xboard": "use = xboard_circus.plugins.bundle.Bundle\nledger.file = data/ledger.db",
        "ledger": "use = xboard_circus.plugins.ledger.Ledger\nledger.file = data/ledger.db",
        "health": "use = xboard_circus.plugins.http_health.HttpHealth",
    }
    ini = tmp_path / "circus.ini"
    ini.write_text("".join(f"[plugin:{name}]\n{lines}\n" for name, lines in plugins.items()))
    (tmp_path / "data").mkdir()
    for folder in (tmp_path, tmp_path / "data"):
        (folder / "ledger.db.damaged-1").touch()
    found = configuration.load(ini)

    told = [each.what for each in old_files.of_config(found)]

    assert told == [f"damaged ledgers were set aside: {tmp_path / 'data' / 'ledger.db.damaged-1'}"]
    assert resources.folders(found).count(tmp_path / "data") == 1


def test_a_watcher_that_is_off_by_the_ini_is_none_that_was_stopped(tmp_path: Path) -> None:
    ini = "[watcher:web]\ncmd = sleep 9\n[watcher:Page]\ncmd = sleep 9\nautostart = False\n"
    (tmp_path / "circus.ini").write_text(f"[circus]\n{ini}")
    stopped = [watcher(name=name, status="stopped") for name in ("web", "page")]
    snapshot = from_state(state_view(*stopped))
    case = Case(tmp_path / "circus.ini", 0.0, Instance(tmp_path / "circus.ini"), snapshot)

    told = {diagnosis.what: diagnosis.level for diagnosis in supervision.look(case)}

    assert told["web: stopped: the watcher is stopped"] is Level.ERROR
    assert told["page is off: its section says autostart = False"] is Level.OK


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
@pytest.mark.parametrize(
    ("hook", "told"),
    [
        pytest.param("", "job.log was deleted, and job writes on into it: its lines are lost", id="Circus's own"),
        pytest.param(f"hooks.before_start = {configuration.ARM}", "job.log was deleted", id="armed"),
    ],
)
def test_a_log_that_was_deleted_under_its_writer_is_reported(tmp_path: Path, hook: str, told: str) -> None:
    ini, log = tmp_path / "circus.ini", tmp_path / "job.log"
    ini.write_text(f"[watcher:job]\ncmd = sleep 9\n{hook}\nstderr_stream.filename = {log.name}\n")
    case = Case(ini, 0.0, Instance(ini), circusd=procs.Identity.of(os.getpid()))

    with log.open("w"):
        before = [each.what for each in old_files.deleted_logs(case)]
        log.unlink()
        without = [(each.level, each.what) for each in old_files.deleted_logs(case)]
        log.touch()
        replaced = [(each.level, each.what) for each in old_files.deleted_logs(case)]

    assert before == ["no log was deleted under its writer"]
    assert without == replaced == [(Level.WARNING, f"{tmp_path}/{told}")]


def test_restarts_are_counted_by_watcher_without_those_that_were_ordered() -> None:
    records = [
        Record(1.0, "web", "restart", cause="crashed", reason="died by SIGSEGV"),
        Record(2.0, "api", "restart", cause="commanded"),
        Record(3.0, "web", "restart", cause="oom", reason="killed for want of memory"),
    ]

    told = list(past.of_restarts(records))

    assert len(told) == 1
    assert told[0].what.startswith("web: 2 failures in the last day, the last at ")
    assert told[0].what.endswith(": killed for want of memory")


def test_errors_in_a_log_are_counted_and_the_harmless_ones_are_not() -> None:
    log = LogFile("circusd", "circusd", Path("circusd.log"), None)
    texts = [
        "2026-11-24 20:47:29 circus[7] [ERROR] first",
        "2026-11-24 20:47:29 circus[7] [ERROR] ConflictError: arbiter is already running watcher_restart command",
        "2026-11-24 20:47:29 [7] | ERROR:    Exception in ASGI application \x1b[2J",
        "2026-11-24 20:47:29 [7] | INFO: no ERROR of ours, an error in words",
    ]

    told = past.of_lines(log, [Line(1.0, text) for text in texts])

    assert told is not None
    assert told.what.startswith("circusd: 2 errors in the last day, the last: ")
    assert "\x1b" not in told.what
    assert past.of_lines(log, [Line(1.0, texts[3].replace("ERROR of", "errors of"))]) is None


def test_a_topic_that_hangs_or_fails_costs_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "runtime"))
    over = threading.Event()

    def hangs(_case: Case) -> list[Finding]:
        over.wait(60)
        return []

    def fails(_case: Case) -> list[Finding]:
        raise ValueError("no such thing")

    topics = {"disk": hangs, "clock": fails, "load": lambda _case: [good("none")]}
    began = time.monotonic()
    try:
        found = examine(tmp_path / "none.ini", topics=topics, within=0.3)
    finally:
        over.set()

    assert time.monotonic() - began < 30
    assert [str(each) for each in found] == [
        "disk: gave no answer within 0.3 s",
        "clock: could not be looked at: ValueError: no such thing",
        "load: none",
    ]
    assert [each.level for each in found] == [Level.UNKNOWN, Level.UNKNOWN, Level.OK]
    assert not os.listdir(tmp_path)
