"""Logs of real circusd and workers: rotated by their writers, read by the command line, and never a reason to stop."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from xboard_circus import config
from xboard_circus.logs import LogFile, LogFollower, log_files
from xboard_circus.supervisor.circusd_out import OUT_BYTES

from .alert_servers import hook_server
from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, fill, kill, read_one_line_of
from .test_alerts import QUICK, SOON, hook_section, names, told
from .test_cli import done
from .test_metrics import samples
from .test_restart import circusds, gone, under_load
from .visitor import Visitor, page

STAMP = "%Y-%m-%d %H:%M:%S"
# Prints "line N" for each N below COUNT, with a pause after every hundred where PAUSE says so.
WRITER = """
import os, sys, time
sys.stdout.reconfigure(line_buffering=False)
for number in range(int(os.environ["COUNT"])):
    sys.stdout.write(f"line {number} " + "x" * 60 + "\\n")
    if number % 100 == 99:
        sys.stdout.flush()
        time.sleep(float(os.environ.get("PAUSE", "0")))
sys.stdout.flush()
time.sleep(600)
"""


def stream(name: str, path: object, *, most: int, count: int, **more: object) -> dict[str, object]:
    lines = {"class": "FileStream", "filename": path, "max_bytes": most, "backup_count": count, **more}
    return {f"{name}_stream.{key}": value for key, value in lines.items()}


def writer(folder: Path, *, numprocesses: int = 1, env: dict[str, str], options: dict[str, object]) -> Watcher:
    script = folder / "writer.py"
    script.write_text(WRITER)
    return Watcher(
        "web",
        numprocesses=numprocesses,
        command="{python} " + str(script),
        listens=False,
        options=options,
        env=env,
    )


def oldest_first(log: LogFile) -> list[Path]:
    return [*reversed(log.old()), log.path]


def the_log(c: Circusd, name: str) -> LogFile:
    return next(each for each in log_files(config.load(c.ini)) if each.id == name)


def test_workers_output_is_rotated_by_circusd_and_each_line_is_whole(tmp_path: Path) -> None:
    """Given two workers that write 6,000 lines, when their log rotates, then no line is lost, torn or without time."""
    out = stream("stdout", tmp_path / "logs" / "web.out.log", most=100_000, count=20, time_format=STAMP)
    writes = writer(tmp_path, numprocesses=2, env={"COUNT": "3000"}, options=out)
    with circusd(tmp_path, watchers=[writes], start=False) as c:
        log = the_log(c, "web.out")
        log.path.touch()  # a follower that finds no file begins with the newest one, after how many rotations ever
        with contextlib.closing(LogFollower(log)) as follower:
            c.start_again()
            followed: list[str] = []

            def all_there() -> bool:
                followed.extend(follower.poll())
                return len(followed) >= 6000

            eventually(all_there, timeout=90)

        assert len(log.old()) >= 4
        # Circus reckons without the stamps of the piece that it is about to write.
        assert max(path.stat().st_size for path in oldest_first(log)) < 102_000
        lines = [line for path in oldest_first(log) for line in path.read_text().splitlines()]
        assert len(lines) == 6000
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\d+\] \| line \d+ x{60}", line) for line in lines)
        assert followed == lines


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given a log on a full disk, when it rotates there too, then circusd answers, replaces, and writes on later. It is
    an event, a verdict, an alert and a metric, each once. Of a log that is deleted no line is lost."""
    small = small_disk("small", "200k")
    out = stream("stdout", small / "web.log", most=60_000, count=1)
    writes = writer(tmp_path, env={"COUNT": "1000000", "PAUSE": "0.02"}, options=out)
    with (
        hook_server() as hook,
        circusd(tmp_path, watchers=[writes, page()], plugins=BUNDLE, start=False) as c,
    ):
        c.write_ini(alert__hook=hook_section(tmp_path, hook), plugin__xboard=QUICK)
        c.start_again()
        eventually(lambda: (small / "web.log.1").exists())
        visitor = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: visitor.get("/healthz").status == 200)
        visitor.log_in(c.folder)

        def lost() -> float:
            """Return the metric."""
            (figure,) = (
                n for of, n in samples(visitor)["xboard_watcher_output_lost_bytes_total"] if of["watcher"] == "web"
            )
            return figure

        def deleted() -> bool:
            (small / "web.log").unlink()
            return True

        eventually(deleted, what="no rotation is under way")
        eventually((small / "web.log").exists, what="a deleted log is begun anew")
        assert lost() == 0
        filler = fill(small)
        eventually(lambda: "output is lost" in c.log("circusd"))
        # Nobody reads circusd's log: everything that shows the watcher says so, as long as it lasts.
        eventually(lambda: c.watcher()["verdict"]["word"] == "degraded")
        assert "No space left on device" in c.watcher()["verdict"]["cause"]
        (event,) = c.told("output_lost")
        assert str(small / "web.log") in event.reason
        (alert,) = eventually(lambda: told(hook), timeout=SOON, what="an alert")
        assert (alert["watcher"], alert["kind"], alert["event"]) == ("web", "output_lost", "problem")
        assert "No space left on device" in alert["reason"]
        eventually(lost, what="a metric")
        with c.answering():
            pid = c.workers()[0]
            kill(pid)
            eventually(lambda: c.workers() and c.workers() != [pid])
            size = eventually((small / "web.log").stat, what="no rotation is under way").st_size
            filler.unlink()
            eventually(lambda: "is written again" in c.log("circusd"))
            eventually(lambda: (small / "web.log").stat().st_size != size)
        eventually(lambda: c.watcher()["verdict"]["word"] == "ok")
        assert c.watcher()["output"]["lost"] > 0
        assert len(c.told("output_back")) == 1
        eventually(lambda: lost() == c.watcher()["output"]["lost"], what="the metric stays")
        eventually(lambda: told(hook, "recovered"), timeout=SOON, what="the end of it is told")
        # Beside these the only worker, which the test has killed, may have been seen to be down.
        of_output = [each for each in names(told(hook)) if each[1] != "down"]
        assert of_output == [("web", "output_lost", "problem"), ("web", "output_lost", "recovered")]

        assert c.log("circusd").count("output is lost") <= 3
        assert "Exception in callback" not in c.log("circusd")


def test_with_no_room_for_any_log_workers_are_replaced_all_the_same(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    """Given full disks below all logs, circusd's and the plugin's too, and below the ledger, when a worker dies, then
    another serves; when circusd is restarted under load, 0 are lost, and the ledger has all of it once there is room.
    """
    logs, ledger = small_disk("logs", "300k"), small_disk("ledger", "300k")
    options = {"restart.delay": 0.1, "graceful_timeout": 2}
    with circusd(tmp_path, start=False, options=options, plugins=BUNDLE) as c:
        c.write_ini(plugin__xboard={"ledger.file": ledger / "ledger.db"})
        assert c.run_cli("start").returncode == 0
        pids = c.ready()
        fillers = [fill(logs), fill(ledger)]
        c.set(f"do.pid-{pids[0]}", "exit 3")
        eventually(lambda: len(c.ready()) == 2 and pids[0] not in c.ready())
        assert c.serves()
        assert c.run_cli("logs", "-n", "1").returncode == 0
        before = c.processes()
        with under_load(c):
            assert c.run_cli("restart").stdout.endswith("web: 2 of 2 up\nready\n")
            eventually(lambda: gone(before), what="the old ones end")
        assert len(circusds(c)) == 1
        for filler in fillers:
            filler.unlink()
        eventually(lambda: f"(pid {pids[0]})" in c.run_cli("why", str(pids[0])).stdout, what="its end is recorded")
        events = [json.loads(line) for line in done(c, "events", "--json").splitlines()]
        assert [each["reason"].partition(",")[0] for each in events if each["kind"] == "command"] == ["leave"]
        kill(c.wait_ready()[1])
        eventually(lambda: "killed from outside by SIGKILL" in c.log("circusd"))
        eventually(lambda: len(c.ready()) == 2)
        assert c.run_cli("stop").returncode == 0


def test_a_stop_with_no_room_for_the_last_words_stops(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given a disk that was full before the first line, when a watcher and then circusd are stopped, then both are."""
    logs = small_disk("logs", "300k")
    with circusd(tmp_path, start=False) as c:
        fill(logs)
        c.start_again()
        c.wait_ready()

        c.do("stop", name="web", waiting=True)

        assert c.status() == "stopped"
        c.do("start", name="web", waiting=True)
        c.wait_ready()
        c.stop()


def test_a_circusd_that_finds_no_room_for_its_own_log_arms_its_watchers(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    """Given a disk that is full before circusd's first line, when it is started, then its watcher is armed."""
    logs = small_disk("logs", "300k")
    with circusd(tmp_path, start=False) as c:
        filler = fill(logs)
        started = c.run_cli("start")

        assert started.returncode == 0, started
        assert c.watcher()["armed"] is True
        filler.unlink()
        kill(c.wait_ready()[0])
        eventually(lambda: "killed from outside by SIGKILL" in c.log("circusd"))


def test_circusd_rotates_its_own_log(tmp_path: Path) -> None:
    """Given a circusd started by the command line, when its log is full, then it goes on in a new one."""
    with circusd(tmp_path, start=False, numprocesses=1) as c:
        log = the_log(c, "circusd")
        # A line short of its 10 MiB, without writing them one at a time.
        log.path.parent.mkdir(exist_ok=True)
        log.path.write_text("earlier\n")
        os.truncate(log.path, (10 << 20) - 100)
        started = c.run_cli("start")
        assert started.returncode == 0, started.stderr
        kill(c.ready()[0])

        eventually(lambda: "killed from outside by SIGKILL" in log.path.read_text())
        assert [path.name for path in log.old()] == ["circusd.log.1"]
        assert log.old()[0].read_text().startswith("earlier\n")
        assert log.path.stat().st_size < 100_000
        assert c.run_cli("stop").returncode == 0


def test_a_pipe_in_the_place_of_circusds_log_holds_up_nobody(tmp_path: Path) -> None:
    """Given a pipe that nobody reads in the place of circusd's log, then workers are replaced, a restart is refused
    with the reason, circusd runs on, and a log is written again when the pipe is gone."""
    with circusd(tmp_path, start=False, numprocesses=1) as c:
        log = the_log(c, "circusd")
        assert c.run_cli("start").returncode == 0
        runs = c.state()["circusd"]["pid"]
        log.path.unlink()
        os.mkfifo(log.path)
        try:
            first = c.wait_ready()
            kill(first[0])
            eventually(lambda: c.ready() not in ([], first), what="another one serves")
            second = c.wait_ready()
            kill(second[0])  # by now circusd has written of the end of the first one
            eventually(lambda: c.ready() not in ([], second), what="a third one serves")
            refused = c.run_cli("restart")

            assert refused.returncode == 1
            assert f"{log.path} cannot be written, and circusd does not start; it is a pipe" in refused.stdout
            assert c.state()["circusd"]["pid"] == runs
        finally:
            log.path.unlink()  # who reads it for a report would wait for a writer
        kill(c.wait_ready()[0])
        eventually(lambda: "killed from outside by SIGKILL" in log.path.read_text())
        assert c.run_cli("stop").returncode == 0


def test_logs_are_for_whom_the_umask_of_the_ini_lets(tmp_path: Path) -> None:
    """Given umask = 027 in [circus], then no log is for everybody: of a bare circusd, and of the command line, which
    also makes them so that were made before."""
    logs = tmp_path / "logs"
    options = stream("stderr", "logs/web.log", most=1 << 20, count=1)
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=options)], circus={"umask": "027"}) as c:
        c.wait_ready()
        assert modes(logs)["web.log"] == 0o640
        c.stop()
        (logs / "web.log").chmod(0o644)

        assert c.run_cli("start").returncode == 0

        assert {"web.log", "circusd.log", "circusd.out"} <= modes(logs).keys()
        assert set(modes(logs).values()) == {0o640}
        assert c.run_cli("stop").returncode == 0


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_what_is_printed_into_circusd_out_does_not_grow_without_bound(tmp_path: Path) -> None:
    """Given a process without a stream that fills circusd.out, then it is emptied and its end is kept."""
    with circusd(tmp_path, start=False, numprocesses=1) as c:
        assert c.run_cli("start").returncode == 0
        log = the_log(c, "circusd.out")
        with log.path.open("ab", buffering=0) as file:  # as a child of circusd has it open
            for _ in range(9):
                file.write(b"x" * (1 << 20))
            file.write(b"x" * (OUT_BYTES - 4 - log.path.stat().st_size))
            file.write(b"the end\n")  # with this, and no sooner, it is too large

            eventually(lambda: log.path.stat().st_size < 1000)
            file.write(b"afterwards\n")
        assert log.path.read_bytes().endswith(b"afterwards\n")
        assert log.path.with_name("circusd.out.1").read_bytes().endswith(b"the end\n")
        assert c.run_cli("stop").returncode == 0


def test_old_rotated_logs_are_removed_and_look_alikes_are_not(tmp_path: Path) -> None:
    """Given logs of eight days ago, when the plugin looks, then only those that a writer of ours has numbered go."""
    logs = tmp_path / "logs"
    logs.mkdir()
    names = ["web.log", "web.log.1", "web.log.2", "web.log.3", "circusd.log.5", "plugin-xboard.log.3"]
    names += ["web.log.01", "web.log.1.gz", "web.log.1~", "web.log.20261124", "web.logs.1", "xweb.log.1", "web-log.1"]
    names += ["other.log", "other.log.1", "web.log.old", "circusd.log.6", "plugin-xboard.log.4", "WEB.log.1"]
    old = ["web.log.2", "web.log.3", "circusd.log.5", "plugin-xboard.log.3"]
    for name in names:
        (logs / name).write_text("x")
        os.utime(logs / name, (time.time() - 8 * 86_400,) * 2)
    (logs / "web.log.1").touch()
    err = stream("stderr", logs / "web.log", most=100_000, count=3)

    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=err)], plugins=BUNDLE):
        # They go one after the other.
        eventually(lambda: not [name for name in old if (logs / name).exists()])

    assert [name for name in names if not (logs / name).exists()] == old


# --- the command line ---


def write_logs(c: Circusd) -> None:
    """Logs as they are in circus.ini, of a circusd that does not run."""
    at = time.strftime(STAMP, time.localtime(time.time() - 3600))
    now = time.strftime(STAMP, time.localtime(time.time() - 5))
    (c.folder / "logs" / "web.log").write_text(
        f"{at} [7] | long ago\n{now} [7] | just now\n{now} [7] | \x1b[31mred\x1b[2J\n"
    )
    (c.folder / "logs" / "circusd.log").write_text(f"{at} circus[1] [INFO] began\n")
    (c.folder / "logs" / "api.log").write_text("no time\n")


@contextlib.contextmanager
def stopped(folder: Path) -> Iterator[Circusd]:
    with circusd(folder, watchers=[Watcher("web"), Watcher("api")], start=False) as c:
        write_logs(c)
        yield c


def test_logs_are_merged_by_time_while_circusd_is_down(tmp_path: Path) -> None:
    """Given logs and no circusd, when asked for all, then they are in order, and those without times stand alone."""
    with stopped(tmp_path) as c:
        said = c.run_cli("logs")

    lines = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in said.stdout.splitlines()]
    assert said.returncode == 0, said.stderr
    assert lines == [
        f"==> api ({c.folder}/logs/api.log), without times <==",
        "no time",
        "==> with times <==",
        "web | [7] | long ago",
        "circusd | circus[1] [INFO] began",
        "web | [7] | just now",
        "web | [7] | red?[2J",
    ]


def test_logs_of_one_watcher_since_ten_minutes_and_as_json(tmp_path: Path) -> None:
    with stopped(tmp_path) as c:
        since = c.run_cli("logs", "web", "--since", "10m")
        last = c.run_cli("logs", "WEB", "-n", "1", "--json")
        without = c.run_cli("logs", "api", "--since", "10m")
        unknown = c.run_cli("logs", "wbe")
        wrong = c.run_cli("logs", "--since", "soon")

    assert [line.split("| ")[1] for line in since.stdout.splitlines()] == ["just now", "red?[2J"]
    told = json.loads(last.stdout)
    assert (told["log"], told["watcher"], told["text"][-8:]) == ("web", "web", " red?[2J")
    assert abs(told["time"] - time.time()) < 60
    assert (without.stdout, "its lines have no time" in without.stderr) == ("no time\n", True)
    assert (unknown.returncode, "there is no log wbe; known are api, web, circusd" in unknown.stderr) == (1, True)
    assert (wrong.returncode, "write 90s, 10m" in wrong.stderr) == (2, True)


def test_following_goes_on_across_rotation_until_ctrl_c(tmp_path: Path) -> None:
    """Given a log that is followed, when it rotates, then all lines come, and Ctrl-C ends it quietly with 130."""
    with stopped(tmp_path) as c:
        path = c.folder / "logs" / "web.log"
        c.write_ini(watcher__web={"stdout_stream.max_bytes": 1000, "stdout_stream.backup_count": 3})
        command = [c.python, "-m", "xboard_circus", "logs", "-f", "web", "-c", str(c.ini)]
        with subprocess.Popen(
            command, env=c.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            said: list[str] = []
            reader = threading.Thread(target=lambda: said.extend(running.stdout or ()))
            reader.start()
            try:
                eventually(lambda: len(said) == 3)
                for number in range(3):
                    with path.open("a") as file:
                        file.write(f"line {number}\n")
                    path.replace(f"{path}.1")
                    path.touch()
                    eventually(lambda number=number: said[-1] == f"line {number}\n")  # type: ignore[misc]
                os.killpg(running.pid, signal.SIGINT)
                assert running.wait(90) == 130
                reader.join(90)
                assert running.stderr.read() == ""
            finally:
                running.kill()

    assert said[3:] == ["line 0\n", "line 1\n", "line 2\n"]


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """Given a long log, when the reader ends after a line, as `head` does, then nothing is said about it."""
    with stopped(tmp_path) as c:
        with (c.folder / "logs" / "web.log").open("a") as file:
            file.writelines(f"2026-01-01 00:00:00 {number}\n" for number in range(50_000))
        command = [c.python, "-m", "xboard_circus", "logs", "web", "-n", "50000", "-c", str(c.ini)]
        assert read_one_line_of(command, env=c.environ()) == (0, b"")
