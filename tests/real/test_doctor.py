"""``xboard-circus doctor`` against real faults: a port that is held, a full disk, leftovers, low limits."""

import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xboard_circus.host import runtime

from .harness import BUNDLE, Circusd, Watcher, circusd, crowding, eventually, kill
from .processes import process

Finding = dict[str, str]


def examined(c: Circusd) -> tuple[int, list[Finding]]:
    result = c.run_cli("doctor", "--json")
    assert result.stderr == "", result.stderr
    told = json.loads(result.stdout)
    assert told["passed"] is (result.returncode == 0)
    return result.returncode, told["findings"]


def of(found: list[Finding], topic: str, level: str | None = None) -> list[Finding]:
    return [each for each in found if each["topic"] == topic and level in (None, each["level"])]


def files(folder: Path) -> dict[str, float]:
    """All below *folder* with the time of its last change; what Python, circusd and its plugin write is left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".log", ".out")]
    paths = [path for path in paths if not path.name.startswith(("ledger.db", "ledger-history.db"))]
    return {str(path): path.stat().st_mtime for path in paths}


def test_a_backend_that_is_well_is_told_so_and_nothing_is_changed(tmp_path: Path) -> None:
    """Given a backend that serves, when examined, then its topics are good, and no file or process is another."""
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        eventually(lambda: c.state()["probers"])
        before, running = files(c.folder), c.processes()
        _, found = examined(c)
        shown = c.run_cli("doctor")

        told = {each["topic"] for each in found}
        assert {"settings", "circusd", "ports", "dependencies", "disk", "memory", "load", "limits", "clock"} <= told
        assert {"control", "firewall", "leftovers", "errors"} <= told
        for topic in ("circusd", "ports", "dependencies", "control", "leftovers"):
            assert {each["level"] for each in of(found, topic)} == {"ok"}, of(found, topic)
        assert any("web: 2 of 2 workers up" in each["what"] for each in of(found, "circusd"))
        port = c.watchers["web"].port
        assert any(f":{port} is held by our circusd" in each["what"] for each in of(found, "ports"))
        assert any(f"(pid {c.pid})" in each["what"] for each in of(found, "limits"))
        assert any("web (pid " in each["what"] for each in of(found, "limits"))
        assert all(each["level"] == "ok" or each["hint"] or each["what"] for each in found)
        assert "ok: circusd: web: 2 of 2 workers up" in shown.stdout
        assert (files(c.folder), c.processes()) == (before, running)


def test_a_stranger_on_the_port_is_named(tmp_path: Path) -> None:
    """Given a stranger on the public port, when examined, before and after a start, then it is bad and names it."""
    with circusd(tmp_path, start=False, watchers=[Watcher(options={"port.retry": 0.2})]) as c:
        port = c.watchers["web"].port
        with socket.create_server(("127.0.0.1", port)):
            code, before = examined(c)
            c.start_again()
            eventually(lambda: c.watcher()["port"]["state"] != "cleaning")
            _, after = examined(c)

    assert code == 1
    for found in (before, after):
        assert [f"pid {os.getpid()}" in each["what"] for each in of(found, "ports", "error")] == [True], found
        assert f":{port}" in of(found, "ports", "error")[0]["what"]
    assert [each["hint"] for each in of(before, "circusd", "error")] == ["`xboard-circus start` starts it"]
    assert f"web: blocked: port {port}: " in of(after, "circusd", "error")[0]["what"]


def test_a_full_disk_is_told(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given logs on a disk without room, when examined, then it is bad."""
    small = small_disk("small", "1m")
    options = {"stderr_stream.filename": small / "web.log", "stdout_stream.filename": small / "web.log"}
    with circusd(tmp_path, start=False, watchers=[Watcher(options=options)]) as c:
        _, room = examined(c)
        (small / "filler").write_bytes(b"x" * ((1 << 20) - 8192))
        code, full = examined(c)

    assert of(room, "disk", "error") == []
    assert code == 1
    assert [str(small) in each["what"] for each in of(full, "disk", "error")] == [True]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_a_deleted_log_is_reported_and_its_next_line_begins_it_anew(tmp_path: Path) -> None:
    """Given a log deleted as by ``find -delete``, when examined, then it is named, and the next line is not lost."""
    with circusd(tmp_path) as c:
        c.wait_ready()
        log = c.folder / "logs" / "web.log"
        log.unlink()
        _, found = examined(c)
        c.run_cli("restart", "web", timeout=60)
        eventually(lambda: log.exists() and "Started server process" in log.read_text())

    assert [each["what"] for each in of(found, "logs", "warning")] == [f"{log} was deleted"]


def test_low_limits_of_the_shell_and_of_what_runs_are_told(tmp_path: Path) -> None:
    """Given circusd started with 512 open files, when examined from a shell with 256, then both are bad."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        resource.prlimit(c.pid, resource.RLIMIT_NOFILE, (512, 512))
        resource.prlimit(c.ready()[0], resource.RLIMIT_NPROC, (100, 100))
        command = f"ulimit -n 256; exec {c.python} -m xboard_circus doctor --json -c {c.ini}"
        done = subprocess.run(["sh", "-c", command], env=c.environ(), capture_output=True, text=True, check=False)
        found = json.loads(done.stdout)["findings"]

        assert done.returncode == 1
        assert [each["what"].partition(",")[0] for each in of(found, "limits", "error")] == [
            "this shell: 256 open files",
            f"circusd (pid {c.pid}): 512 open files",
            of(found, "limits", "error")[2]["what"].partition(",")[0],
        ]
        assert of(found, "limits", "error")[2]["what"].endswith("100 processes")


def test_what_dead_processes_left_is_told_and_left_there(tmp_path: Path) -> None:
    """Given a circusd that was killed with its workers, when examined, then all that it left is told."""
    with circusd(tmp_path, plugins=BUNDLE, circus={"pidfile": "circusd.pid"}, numprocesses=1) as c:
        worker = process(c.wait_ready()[0])
        folder = c.runtime / "r" / c.instance / "web"
        token = Path(eventually(lambda: c.watcher()["workers"][0]["socket"])).stem
        eventually(lambda: (folder / f"{token}.sock").exists())
        c.kill9()
        eventually(lambda: c.processes() == [worker], what="the plugin has left, and written all that it had to")
        _, orphaned = examined(c)
        worker.signal(signal.SIGKILL)
        eventually(lambda: not worker.alive)
        (folder / "gate-3").touch()
        (c.folder / "ledger.db.damaged-20261124").touch()
        (c.runtime / "r" / "crash-20261124-1.log").touch()
        (c.folder / "circusd.pid").write_text(str(os.getpid()))  # another process has its pid by now
        before = sorted(c.runtime.rglob("*"))
        _, found = examined(c)

        assert f"pid {worker.pid}" in of(orphaned, "circusd", "error")[0]["what"]
        told = " ".join(each["what"] for each in of(found, "leftovers", "warning"))
        marks = (f"{token}.beat", f"{token}.code", f"{token}.ready and 3 more")
        for name in (*marks, "circusd.pid", "crash-20261124-1.log"):
            assert name in told
        assert "ledger.db.damaged-20261124" in told
        assert sorted(c.runtime.rglob("*")) == before


def test_a_wrong_ini_is_told_with_its_place_and_the_rest_all_the_same(tmp_path: Path) -> None:
    """Given an ini with a wrong value, and one that cannot be read, when examined, then each is bad with its place."""
    with circusd(tmp_path, start=False, watchers=[Watcher(options={"health.period": "fast"}, is_sound=False)]) as c:
        code, wrong = examined(c)
        c.ini.write_text("no section\n")
        _, broken = examined(c)
        c.ini.unlink()
        _, missing = examined(c)

    assert code == 1
    (fast,) = of(wrong, "settings", "error")
    assert (fast["section"], fast["option"], fast["value"]) == ("watcher:web", "health.period", "fast")
    assert "not a number of seconds" in fast["what"]
    assert "line 1: neither a [section] nor an option" in of(broken, "settings", "error")[0]["what"]
    assert "no such file" in of(missing, "settings", "error")[0]["what"]
    for found in (broken, missing):
        assert of(found, "dependencies", "ok")
        assert of(found, "memory")


def test_a_circusd_that_does_not_answer_is_told_in_bounded_time(tmp_path: Path) -> None:
    """Given a circusd under SIGSTOP, when examined, then it is bad, and all is told within half a minute."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        assert process(c.pid).signal(signal.SIGSTOP)
        began = time.monotonic()
        code, found = examined(c)
        took = time.monotonic() - began
        process(c.pid).signal(signal.SIGCONT)

    assert code == 1
    assert f"circusd (pid {c.pid}) runs and does not answer" in of(found, "circusd", "error")[0]["what"]
    assert took < 30 * crowding()


def test_the_last_restart_and_the_last_error_are_told(tmp_path: Path) -> None:
    """Given a worker that was killed, and an error in a log, when examined, then both are told with what to do."""
    with circusd(tmp_path, plugins=BUNDLE, options={"restart.delay": 0.1}) as c:
        pids = c.wait_ready()
        eventually(lambda: c.state()["probers"])  # the recorder hears only what comes after its start
        kill(pids[0])
        with (c.folder / "logs" / "circusd.log").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} circus[1] [ERROR] boom of the test\n")

        def told() -> str:
            return " ".join(f"{each['what']} {each['hint']}" for each in of(examined(c)[1], "errors", "warning"))

        found = eventually(lambda: said if "failure in" in (said := told()) else None, every=0.5)

    assert "web: 1 failure in the last day, the last at " in found
    assert "SIGKILL" in found
    assert "`xboard-circus why web` shows more" in found
    assert "circusd: 1 error in the last day, the last: " in found
    assert "boom of the test" in found


@pytest.mark.parametrize(("moved", "expected"), [(7200, "back by at least"), (-7200, "forward by about")])
def test_a_clock_that_was_set_is_told(tmp_path: Path, moved: int, expected: str) -> None:
    """Given a record of circusd from another time than its start, when examined, then the clock was set since."""
    with circusd(tmp_path, numprocesses=1) as c:
        c.wait_ready()
        record = c.runtime / "r" / c.instance / runtime.RECORD
        os.utime(record, (time.time() + moved,) * 2)
        _, found = examined(c)

    assert any(f"it was set {expected}" in each["what"] for each in of(found, "clock", "warning"))
