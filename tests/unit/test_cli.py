"""What the command line says and how it ends, with a circusd that answers as the test says."""

import contextlib
import errno
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner, Result
from fake_circusd import UNKNOWN, Answer, FakeCircusd, always, in_turn
from rich.console import Console
from state_views import watcher_view, worker_view

import xboard_circus
from xboard_circus import preflight
from xboard_circus.checks import endpoint_rules
from xboard_circus.circus_client import CircusdClient
from xboard_circus.cli import (
    MODULES,
    alert_commands,
    cleaning,
    launching,
    lifecycle,
    main,
    new_files,
    restarting,
    servicing,
    stopping,
)
from xboard_circus.cli.error_boundary import HOW_FAR, ErrorBoundary
from xboard_circus.cli.events import complain_of_silence
from xboard_circus.cli.launching import Stage, outlooks
from xboard_circus.cli.leaving import leave
from xboard_circus.cli.overview import as_json
from xboard_circus.cli.screen import Progress, Screen, progress
from xboard_circus.cli.summary import FEW, Summary
from xboard_circus.config import ARM, load
from xboard_circus.core.history import FIGURES, Point
from xboard_circus.core.lost import CircusdLife
from xboard_circus.core.ports import Holder
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import parse_state, parse_traffic
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, listeners, procs, runtime, servers
from xboard_circus.instance import EndpointTaken, Instance, Silent
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.history_store import HistoryStore, Totals
from xboard_circus.snapshot import from_state
from xboard_circus.worker.traffic import Traffic

OK = {"status": "ok", "time": 1.0}
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts on files of other users")
# What `status --json` has had from the beginning.
ONE_WATCHER = (
    *("name", "status", "numprocesses", "verdict", "incident", "budget", "restarts", "cooldown_until"),
    *("last_reason", "last_reason_age", "port", "reload", "preload"),
)
ONE_WORKER = (
    *("pid", "wid", "slot", "word", "phase", "role", "health", "held_by", "age", "ready", "next_try", "reason"),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the command, with a runtime folder of its own, on a host that nobody else uses."""
    monkeypatch.setattr(pwd, "getpwall", list)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def closed_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


def write_ini(folder: Path, *, endpoint: str = "", more: str = "") -> Path:
    ini = folder / "circus.ini"
    endpoint = endpoint or f"tcp://127.0.0.1:{closed_port()}"
    pubsub = f"tcp://127.0.0.1:{closed_port()}"
    ini.write_text(
        f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = {pubsub}\nmulticast_endpoint =\n"
        f"[watcher:web]\ncmd = sleep 60\ngraceful_timeout = 0\n{more}"
    )
    return ini


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def worker(word: str = "up", **changes: Any) -> Any:
    return {**worker_view(2**22 + 7, word, started=5, wid=1, slot=1, age=75.0), **changes}


def watcher(*workers: Any, **changes: Any) -> Any:
    port = {"host": "127.0.0.1", "port": 8000, "state": "bound", "reason": ""}
    entries = [worker(each) if isinstance(each, str) else each for each in workers]
    more = {"numprocesses": 1, "port": port, "budget": {"used": 0, "limit": 5}, **changes}
    return watcher_view(*entries, **more)


def state(*watchers: Any, config_file: Path | str = "/srv/circus.ini", pid: int = 4711) -> Any:
    circusd = {"pid": pid, "started": procs.start_time(pid) or 1, "version": "0.1.0", "endpoint": "tcp://h:1"}
    circusd["python"] = "3.13.5"
    circusd |= {"uptime": 3700.0, "config_file": str(config_file), "instance": "3f2a", "state_dir": "/r"}
    return {**OK, "circusd": circusd, "probers": [], "watchers": list(watchers or [watcher("up")])}


@contextlib.contextmanager
def running(folder: Path, **answers: Answer) -> Iterator[FakeCircusd]:
    """A circusd of the ini in *folder* that answers xboard_state."""
    ini = folder / "circus.ini"
    with FakeCircusd({"xboard_state": always(state(config_file=ini)), **answers}) as fake:
        write_ini(folder, endpoint=fake.endpoint)
        yield fake


# --- the boundary ---


REFUSALS = {
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.log"),
    "limit": BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    "thread": RuntimeError("can't start new thread"),
}
USED_UP = f"; `xboard-circus doctor` shows what this host or user has used up, {HOW_FAR}\n"


@click.group(cls=ErrorBoundary)
def failing() -> None:
    pass


@failing.command()
@click.argument("how")
def fail(how: str) -> int:
    if how == "told":
        raise XboardError("the port is taken; stop pid 7")
    if how == "bug":
        raise KeyError("no such thing")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how in REFUSALS:
        raise REFUSALS[how]
    return int(how)


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        pytest.param("0", 0, "", id="done"),
        pytest.param("1", 1, "", id="a command returns its code"),
        pytest.param("told", 1, "xboard-circus: the port is taken; stop pid 7\n", id="told why, in one line"),
        pytest.param("full", 1, f"xboard-circus: a.log: No space left on device{USED_UP}", id="a full disk"),
        pytest.param("limit", 1, f"xboard-circus: Resource temporarily unavailable{USED_UP}", id="no process left"),
        pytest.param("thread", 1, f"xboard-circus: can't start new thread{USED_UP}", id="no thread left"),
        pytest.param("interrupt", 130, "xboard-circus: interrupted\n", id="Ctrl-C"),
    ],
)
def test_how_a_command_ends(how: str, code: int, told: str) -> None:
    result = CliRunner().invoke(failing, ["fail", how])

    assert (result.exit_code, result.stderr) == (code, told)


def test_a_command_goes_on_without_a_thread_for_its_spinner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stop` has to work where the processes of its user are used up."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        with progress() as shown:
            shown.waiting_for("pid 7")
            shown.report("left", "not finished yet: pid 7")

    assert capsys.readouterr().out == "not finished yet: pid 7\n" * 2


def test_a_command_with_all_three_streams_closed_meets_no_bug(folder: Path) -> None:
    """As a daemon may start it: a look at a stdin or stdout that is None failed."""
    write_ini(folder)
    command = f"exec {sys.executable} -m xboard_circus -c {folder / 'circus.ini'} top <&- >&- 2>&-"

    assert subprocess.run(["sh", "-c", command], check=False).returncode == 2  # it needs a terminal


def test_who_reads_no_further_fails_no_command() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):  # which the boundary takes for a success; rich would exit with 1
        Screen(file=Closed()).print("a line")


def test_a_bug_of_ours_leaves_its_traceback_in_a_file_and_says_where(folder: Path) -> None:
    result = CliRunner().invoke(failing, ["fail", "bug"])

    path = Path(result.stderr.strip().rpartition(" ")[2])
    assert result.exit_code == 3
    assert (path.parent, path.stat().st_mode & 0o777) == (folder / "runtime", 0o600)
    assert "KeyError: 'no such thing'" in path.read_text()
    assert "Traceback" not in result.output


def test_a_bug_is_told_where_the_runtime_folder_cannot_be_had(folder: Path) -> None:
    (folder / "runtime").write_text("in the way")

    result = CliRunner().invoke(failing, ["fail", "bug"])

    path = Path(result.stderr.strip().rpartition(" ")[2])
    assert (result.exit_code, path.exists()) == (3, True)
    path.unlink()


@pytest.mark.parametrize("arguments", [["bogus"], ["status", "--bogus"], ["init"], ["start", "--timeout", "0"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [("scale", "web", "two"), ("logs", "-n", "two"), ("events", "--limit", "two")])
def test_a_word_in_the_place_of_a_number_is_called_that(arguments: tuple[str, ...]) -> None:
    """click says "is not a valid integer range"."""
    assert "'two' is not a valid number." in run(*arguments).stderr


@pytest.mark.parametrize("command", ["start", "stop", "restart", "status", "clean"])
def test_a_missing_ini_is_one_line_that_says_what_to_do(command: str) -> None:
    result = run("-c", "no.ini", command)

    assert result.exit_code == 1
    assert result.stderr.startswith("xboard-circus: no.ini: no such file; run `xboard-circus init --app module:app`")
    assert result.stderr.count("\n") == 1


def test_the_ini_may_be_named_behind_the_command_too(folder: Path) -> None:
    write_ini(folder).rename(folder / "other.ini")

    assert "circusd of other.ini does not run" in run("status", "-c", "other.ini").stderr
    assert "circusd of other.ini does not run" in run("-c", "other.ini", "status").stderr


# --- status ---


def test_status_of_what_does_not_run_ends_with_1_and_says_so(folder: Path) -> None:
    write_ini(folder)

    result = run("status")

    told = "xboard-circus: circusd of circus.ini does not run; `xboard-circus start` starts it\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", told)


def test_status_as_json_of_what_does_not_run(folder: Path) -> None:
    write_ini(folder)

    result = run("status", "--json")

    told = json.loads(result.stdout)
    (line,) = told["headlines"]
    assert (result.exit_code, told["circusd"], told["watchers"]) == (1, None, [])
    assert (line["word"], line["lines"][0]["reason"]) == (
        "circusd_lost",
        "circusd of circus.ini does not run; `xboard-circus start` starts it",
    )
    assert "does not run" in result.stderr


def test_status_as_json_of_a_circusd_that_was_killed_has_the_line_of_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ini(folder)
    monkeypatch.setattr(circusd_record, "lost", lambda _: CircusdLife(pid=7, started=1))

    result = run("status", "--json")

    (line,) = json.loads(result.stdout)["headlines"]
    assert (result.exit_code, line["word"], line["command"]) == (1, "circusd_lost", "xboard-circus start")
    assert result.stderr == f"xboard-circus: {'. '.join(each['reason'] for each in line['lines'])}\n"


def test_status_shows_a_person_what_there_is(folder: Path) -> None:
    with running(folder) as fake:
        cooling = watcher(
            worker("cooling", next_try=290.4, reason="cooling down, next try in 290 s"),
            name="api",
            cooldown_until=290.4,
            budget={"used": 5, "limit": 5},
            last_reason="exited with code 3: no module [red]nosuch[/red]",
            last_reason_age=75.0,
            incident={"age": 3700.0, "worst": "looping"},
        )
        blocked = watcher(
            worker("held", held_by="port"),
            name="job",
            port={"host": "0.0.0.0", "port": 9000, "state": "refused", "reason": "held by pid 7 (evil\x1b[2J)"},
        )
        found = state(watcher("up"), cooling, blocked, config_file=folder / "circus.ini")
        fake.answers["xboard_state"] = always(found)
        result = run("status")

    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[0].startswith("DOWN for 0 s, since ")
    assert ": job, 0 of 1 up. Why: held by pid 7 (evil). Next: the port is tried again. Cure: stop what" in lines[0]
    assert lines[0].endswith(" or set another port in the ini file. Also: api is looping.")
    assert (
        lines[1]
        == "circusd of circus.ini runs: pid 4711, for 1 h 1 min, at tcp://h:1, xboard-circus 0.1.0, Python 3.13.5"
    )
    assert [" ".join(line.split()) for line in lines[3:6]] == [
        "NAME STATE UP PID AGE NEXT TRY PORT BUDGET",
        "job blocked 0 of 1 0.0.0.0:9000 taken 0 of 5 used",
        "#1 held 4194311 75 s",
    ]
    assert " ".join(lines[6].split()) == "api looping 0 of 1 127.0.0.1:8000 bound 5 of 5 used"
    assert re.fullmatch(r"  DOWN for 0 s, since .*\d: api, 0 of 1 up", lines[7])
    assert lines[8:10] == [
        "  Every start fails: exited with code 3: no module [red]nosuch[/red]",
        "  Next: #1 is started again in 4 min 50 s",
    ]
    assert lines[10].startswith("  Cure: correct what `xboard-circus why api` shows, then `xboard-circus retry api`")
    assert lines[11].split() == ["#1", "held", str(2**22 + 7), "75", "s", "in", "5", "min"]
    assert lines[12] == "    cooling down, next try in 290 s"
    assert " ".join(lines[13].split()) == "web ok 1 of 1 127.0.0.1:8000 bound 0 of 5 used"
    assert lines[14].split() == ["#1", "up", str(2**22 + 7), "75", "s"]


@pytest.mark.parametrize(
    ("ages", "shown"),
    [
        pytest.param([], [], id="no event"),
        pytest.param([1.0], [], id="one that is stored in a moment"),
        pytest.param([80.0, 1.0], ["2 of the events since 1 min 20 s ago are not in the ledger yet"], id="a full disk"),
    ],
)
def test_status_shows_that_the_ledger_is_behind(folder: Path, ages: list[float], shown: list[str]) -> None:
    events = [["web", "restart", {"time": time.time() - age, "pid": 71, "seq": f"e-{age}"}] for age in ages]
    with running(folder, xboard_events=always({**OK, "epoch": "e", "last": 2, "events": events})) as fake:
        plugin = "[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n"
        write_ini(folder, endpoint=fake.endpoint, more=plugin)
        result = run("status")

    found = [line.partition(";")[0] for line in result.stdout.splitlines() if "ledger" in line]
    assert (result.exit_code, found) == (0, shown)


def test_status_as_json_has_the_fixed_shape(folder: Path) -> None:
    own = worker(pid=os.getpid(), started=procs.start_time(os.getpid()))
    with running(folder) as fake:
        fake.answers["xboard_state"] = always(state(watcher(own), config_file=folder / "circus.ini"))
        result, first = run("status", "--json"), run("status").stdout.splitlines()[0]

    reply = json.loads(result.stdout)
    one = reply["watchers"][0]["workers"][0]
    rss, cpu = one.pop("rss"), one.pop("cpu")
    assert result.exit_code == 0
    assert {key: reply["circusd"][key] for key in ("pid", "version", "endpoint", "uptime")} == {
        "pid": 4711,
        "version": "0.1.0",
        "endpoint": "tcp://h:1",
        "uptime": 3700.0,
    }
    assert {*reply["watchers"][0]} > {"options", "ends", "probe", "output", "poison", "last_reload", "next_try"}
    assert (reply["probers"], reply["sockets"], reply["traffic"]) == ([], [], {})
    assert [line["lines"][0]["reason"] for line in reply["headlines"]] == [first.removesuffix(".")]
    one = {name: one[name] for name in ONE_WORKER}
    assert [{**{name: reply["watchers"][0][name] for name in ONE_WATCHER}, "workers": [one]}] == [
        {
            "name": "web",
            "status": "active",
            "numprocesses": 1,
            "verdict": {
                "word": "ok",
                "since": 0.0,
                "cause": "1 of 1 workers up",
                "cause_say": {"key": "SO_MANY_UP", "fields": {"n": 1, "total": 1}},
                "next": "",
                "next_say": None,
                "next_in": None,
                "cure": "",
                "cure_say": None,
            },
            "incident": None,
            "budget": {"used": 0, "limit": 5},
            "restarts": 0,
            "cooldown_until": None,
            "last_reason": "",
            "last_reason_age": None,
            "port": {"host": "127.0.0.1", "port": 8000, "state": "bound", "reason": "", "say": None},
            "reload": None,
            "preload": None,
            "workers": [
                {
                    "pid": os.getpid(),
                    "wid": 1,
                    "slot": 1,
                    "word": "up",
                    "phase": "up",
                    "role": "serving",
                    "health": "ok",
                    "held_by": None,
                    "ready": True,
                    "age": 75.0,
                    "next_try": None,
                    "reason": "",
                }
            ],
        }
    ]
    assert rss > 1_000_000
    assert 0 <= cpu < 1000


@pytest.mark.parametrize(
    ("how", "word", "data"),
    [
        pytest.param(
            "running",
            "deploying",
            {"done": 1, "total": 2, "age": 12.0},
            id="runs",
        ),
        pytest.param("done", "ok", None, id="is over"),
    ],
)
def test_status_shows_a_reload_that_runs(folder: Path, how: str, word: str, data: dict[str, Any] | None) -> None:
    reload = {"state": how, "done": 1, "total": 2, "age": 12.0, "replaced": [[1, 2]], "reason": "", "log": ""}
    with running(folder) as fake:
        told = watcher("up", "up", numprocesses=2, reload=reload)
        fake.answers["xboard_state"] = always(state(told, config_file=folder / "circus.ini"))
        shown, as_data = run("status"), run("status", "--json")

    reload = json.loads(as_data.stdout)["watchers"][0]
    assert f"web {word} 2 of 2" in " ".join(shown.stdout.split())
    assert ("  reload: 1 of 2 replaced, for 12 s" in shown.stdout.splitlines()) is (how == "running")
    assert (reload["reload"] or {}).items() >= (data or {}).items()
    assert (reload["reload"] is None, reload["last_reload"]["state"]) == (data is None, how)


def test_a_pid_that_is_another_process_by_now_has_no_figures(folder: Path) -> None:
    with running(folder) as fake:
        reused = watcher(worker(pid=os.getpid(), started=1))
        fake.answers["xboard_state"] = always(state(reused, config_file=folder / "circus.ini"))
        one = json.loads(run("status", "--json").stdout)["watchers"][0]["workers"][0]

    assert (one["rss"], one["cpu"]) == (None, None)


def test_a_watcher_without_a_port_has_none() -> None:
    found = from_state(parse_state(state(watcher("up", port=None))))

    assert as_json(Summary(found, {}, {}, None, 0.0))["watchers"][0]["port"] is None


def test_status_of_a_circusd_that_has_only_circus_s_commands(folder: Path) -> None:
    with circusd_process(folder) as process:
        answers = {
            "xboard_state": always(UNKNOWN),
            "dstats": always({**OK, "info": {"pid": process.pid}}),
            "status": always({**OK, "statuses": {"web": "active", "idle": "stopped"}}),
            "stats": always({**OK, "infos": {"web": {"7": {"wid": 1, "age": 3.0}, "8": "No such process (stopped?)"}}}),
            "options": always({**OK, "options": {"numprocesses": 2}}),
        }
        with FakeCircusd(answers) as fake:
            write_ini(folder, endpoint=fake.endpoint)
            result = run("status", "--json")

    reply = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (reply["circusd"]["pid"], reply["circusd"]["version"]) == (process.pid, None)
    assert [(each["name"], each["status"], each["numprocesses"]) for each in reply["watchers"]] == [
        ("idle", "stopped", 2),
        ("web", "active", 2),
    ]
    assert [(each["pid"], each["wid"], each["word"]) for each in reply["watchers"][1]["workers"]] == [
        (7, 1, "up"),
        (8, None, "leaving"),
    ]


@pytest.mark.parametrize("command", ["status", "start", "stop", "restart"])
def test_another_ini_s_circusd_on_the_endpoint_is_named_and_left_alone(folder: Path, command: str) -> None:
    with running(folder) as fake:
        fake.answers["xboard_state"] = always(state(config_file="/srv/other.ini"))
        result = run(command)

    assert result.exit_code == 1
    assert "quit" not in fake.commands()
    assert "is answered by another circusd, pid 4711, of /srv/other.ini; stop that one, or" in result.stderr


@only_root
@pytest.mark.parametrize("me", ["root", "daemon"])
def test_where_the_listener_is_unknown_only_processes_of_the_inis_owner_are_believed_to_be_circusd(
    folder: Path, monkeypatch: pytest.MonkeyPatch, me: str
) -> None:
    with running(folder) as fake, subprocess.Popen(["sleep", "60"], user=me) as mine:
        monkeypatch.setattr(servers, "server_of", lambda _: None)  # as of one on another host
        fake.answers["xboard_state"] = always(state(config_file=folder / "circus.ini", pid=mine.pid))
        monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam(me).pw_uid)
        monkeypatch.setattr(runtime, "_check", lambda _: None)  # it is root's
        assert run("status").exit_code == 0
        os.chown(folder / "circus.ini", 65534, -1)
        result = run("stop")
        is_left_alone = mine.poll() is None
        mine.kill()

    assert (result.exit_code, "quit" in fake.commands(), is_left_alone) == (1, False, True)
    assert f"says that it is pid {mine.pid}, which is user {me}'s: it is not believed" in result.stderr


@pytest.mark.parametrize("pid", [-1, 2**62])
def test_a_worker_with_a_pid_that_none_can_have_costs_only_its_own_figures(folder: Path, pid: int) -> None:
    """Given an answer of another user's circusd with such a worker, when `status` measures, then it shows the rest."""
    with subprocess.Popen(["sleep", "60"]) as real:
        rest = worker_view(real.pid, "up", slot=2, started=procs.start_time(real.pid))
        false = worker_view(pid, "up", slot=1, started=5)
        with running(folder) as fake:
            fake.answers["xboard_state"] = always(state(watcher(false, rest), config_file=folder / "circus.ini"))
            result = run("status", "--json")
        real.kill()

    assert result.exit_code == 0, result.output
    workers = {each["pid"]: each for each in json.loads(result.stdout)["watchers"][0]["workers"]}
    assert workers[real.pid]["rss"] > 0
    assert workers[pid].get("rss") is None


def test_a_program_on_the_endpoint_that_is_not_circusd_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ini = write_ini(folder, endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(
            EndpointTaken, match=rf"held by pid {os.getpid()} \(.*which does not answer as circusd does"
        ):
            Instance(ini, answer_within=0.2).find()


@pytest.mark.parametrize("info", [{}, {"info": {"pid": 7}}, {"info": []}])
def test_what_answers_as_no_circusd_does_is_no_bug_of_ours(folder: Path, info: dict[str, Any]) -> None:
    with running(folder, xboard_state=always(UNKNOWN), dstats=always({**OK, **info}), status=always(OK)):
        result = run("status")

    assert (result.exit_code, "does not answer as circusd does" in result.stderr) == (1, True)


def test_a_circusd_is_found_where_it_was_started_although_the_ini_names_another_endpoint_by_now(folder: Path) -> None:
    with circusd_process(folder) as process, running(folder) as fake:
        fake.answers["xboard_state"] = always(state(config_file=folder / "circus.ini", pid=process.pid))
        identity = procs.Identity.of(process.pid)
        assert identity is not None
        Instance(folder / "circus.ini").write_record(identity)
        write_ini(folder)

        assert f"circusd of circus.ini runs: pid {process.pid}" in run("status").stdout


# --- start ---


def test_start_with_an_error_in_the_ini_starts_nothing(folder: Path) -> None:
    write_ini(folder, more="health.period = fast\n")

    result = run("start")

    assert result.exit_code == 1
    assert "[watcher:web] health.period = fast: not a number of seconds" in result.stdout
    assert "circus.ini has errors; nothing was started or stopped" in result.stderr
    assert not (folder / "logs" / "circusd.out").exists()


def test_start_of_what_runs_says_so_and_is_done(folder: Path) -> None:
    with running(folder) as fake:
        runtime.write_record(
            runtime.instance_id(folder / "circus.ini"),
            pid=os.getpid(),
            started=procs.start_time(os.getpid()),
            endpoint=fake.endpoint,
        )
        fake.answers["xboard_state"] = always(state(watcher(status="stopped"), config_file=folder / "circus.ini"))
        result = run("start")

    assert result.exit_code == 0, result.output
    assert "circusd of circus.ini runs already: pid 4711, for 1 h 1 min" in result.stdout
    assert "its watcher web is stopped; `xboard-circus start web` starts it" in result.stdout


@pytest.mark.parametrize(
    ("told", "stage", "text"),
    [
        pytest.param(watcher("up"), Stage.READY, "web: 1 of 1 up", id="up"),
        pytest.param(watcher("busy"), Stage.READY, "web: 1 of 1 up", id="busy is up and serves"),
        pytest.param(watcher("sick"), Stage.READY, "web: 1 of 1 up", id="sick has come up, and serves"),
        pytest.param(
            watcher("starting", "starting", numprocesses=2),
            Stage.COMING,
            "web: deploying: starting, 0 of 2 workers up",
            id="the first start",
        ),
        pytest.param(
            watcher("up", worker("starting", slot=2), numprocesses=2),
            Stage.COMING,
            "web: deploying: starting, 1 of 2 workers up",
            id="one is late",
        ),
        pytest.param(
            watcher(worker("held", reason="waiting before the next try"), last_reason="exited with code 3"),
            Stage.COMING,
            "web: looping: none of 1 workers is up: exited with code 3",
            id="a short wait is borne, and told without the seconds that change",
        ),
        pytest.param(
            watcher(status="starting"),
            Stage.COMING,
            "web: deploying: starting, 0 of 1 workers up",
            id="no worker yet",
        ),
        pytest.param(
            watcher(numprocesses=0),
            Stage.STUCK,
            "web: set to 0 workers, so nothing answers: `xboard-circus scale web 1` starts one, "
            "`xboard-circus stop web` closes its port",
            id="none wanted",
        ),
        pytest.param(watcher(armed=False, status="stopped"), Stage.COMING, "web: stopped", id="its hook comes yet"),
        pytest.param(
            watcher("up", armed=False, last_reason_say=Say.RUNS_PLAINLY(why="its folder is not ours").as_data()),
            Stage.READY,
            "web: 1 of 1 up",
            id="it could not be armed",
        ),
        pytest.param(
            watcher(
                worker("held", held_by="port", reason="waits for the port"),
                port={"host": "h", "port": 80, "state": "refused", "reason": "the port is held by pid 7: a stranger"},
            ),
            Stage.STUCK,
            "web: blocked: port 80: the port is held by pid 7: a stranger",
            id="a stranger has the port",
        ),
        pytest.param(
            watcher("cooling", cooldown_until=300.0, last_reason="exited with code 3"),
            Stage.STUCK,
            "web: looping: none of 1 workers is up: exited with code 3",
            id="cooling down",
        ),
        pytest.param(
            watcher("up", name="api"),
            Stage.STUCK,
            "web: circusd runs without it, because it could not be created",
            id="Circus dropped it",
        ),
    ],
)
def test_how_far_a_watcher_is(told: Any, stage: Stage, text: str) -> None:
    (outlook,) = outlooks(from_state(state(told)), {"web": True})

    assert (outlook.stage, outlook.text) == (stage, text)


# --- stop ---


@contextlib.contextmanager
def circusd_process(folder: Path, *, deaf: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process that could be the circusd of the ini in *folder*, by its command line; it does what sleep does."""
    write_ini(folder)
    code = "import signal, sys, time; "
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    code += "print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, "circus.ini"], cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def record_of(folder: Path) -> dict[str, Any]:
    return runtime.read_record(runtime.instance_id(folder / "circus.ini")) or {}


def test_stop_of_what_does_not_run_says_so_and_is_done(folder: Path) -> None:
    ini = write_ini(folder)
    runtime.write_record(runtime.instance_id(ini), pid=2**22 + 7, started=1, endpoint="tcp://127.0.0.1:1")

    result = run("stop")

    assert (result.exit_code, result.stdout) == (0, "circusd of circus.ini does not run\n")
    assert record_of(folder)["stopped_by_operator"] is True  # the monitor must not start it again


def test_stop_asks_circusd_to_quit_and_waits_for_its_end(folder: Path) -> None:
    with circusd_process(folder) as process:

        def end(asked: dict[str, Any]) -> dict[str, Any]:
            threading.Timer(0.3, process.terminate).start()
            return OK

        answers = {"xboard_state": always(state(config_file=folder / "circus.ini", pid=process.pid)), "quit": end}
        with FakeCircusd(answers) as fake:
            write_ini(folder, endpoint=fake.endpoint)
            result = run("stop")

        assert (result.exit_code, result.stdout) == (0, "stopped circusd of circus.ini and all that it ran\n")
        assert process.wait(60) == -signal.SIGTERM
        assert (record_of(folder)["pid"], record_of(folder)["stopped_by_operator"]) == (process.pid, True)


@contextlib.contextmanager
def process_of(instance: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the marks of a worker of *instance* whose circusd is gone."""
    marks = {"XBOARD_INSTANCE": instance, "XBOARD_CIRCUSD": f"{2**22 + 7}:1", "XBOARD_LAUNCHER": f"{os.getsid(0)}:1"}
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with subprocess.Popen(command, env={**os.environ, **marks}, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_stop_records_no_circusd_of_which_there_is_no_process(folder: Path) -> None:
    """That record says later who may be circusd, and whom a stop may end; a user has an ini trusted by it."""
    with running(folder) as fake:
        fake.answers["xboard_state"] = always(state(config_file=folder / "circus.ini", pid=2**22))
        fake.answers["quit"] = always({})
        run("stop")
        assert runtime.read_record(runtime.instance_id(folder / "circus.ini")) is None


def test_stop_names_orphans_of_an_earlier_circusd_and_ends_with_1(folder: Path) -> None:
    with circusd_process(folder) as process, process_of(Instance(folder / "circus.ini").id) as orphan:

        def end(asked: dict[str, Any]) -> dict[str, Any]:
            process.terminate()
            return OK

        answers = {"xboard_state": always(state(config_file=folder / "circus.ini", pid=process.pid)), "quit": end}
        with FakeCircusd(answers) as fake:
            write_ini(folder, endpoint=fake.endpoint)
            stopped = run("stop")
        again = run("stop")

        assert orphan.poll() is None
    named = f"orphans of an earlier one still run: pid {orphan.pid} ("
    assert (stopped.exit_code, again.exit_code) == (1, 1)
    assert stopped.stderr.startswith(f"xboard-circus: stopped circusd of circus.ini, but {named}")
    assert again.stderr.startswith(f"xboard-circus: circusd of circus.ini does not run, but {named}")
    assert stopped.stderr.endswith("; `xboard-circus clean` ends them\n")


def test_a_circusd_that_does_not_answer_is_ended_by_signals(folder: Path) -> None:
    with circusd_process(folder, deaf=True) as process, socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        instance = Instance(write_ini(folder, endpoint=endpoint), answer_within=0.2)
        identity = procs.Identity.of(process.pid)
        assert identity is not None
        instance.write_record(identity)

        found = instance.find()
        assert found is not None
        screen = io.StringIO()
        stopping.stop(instance, found, Progress(Console(file=screen)), slack=0.3)

        assert process.wait(60) == -signal.SIGKILL
    told = screen.getvalue()
    assert f"circusd (pid {process.pid}) does not answer" in told
    assert "has not ended in time; SIGKILL" in told


def test_a_circusd_that_is_busy_is_asked_until_it_takes_the_quit(folder: Path) -> None:
    with circusd_process(folder) as process:
        asked_before = 0

        def busy_first(asked: dict[str, Any]) -> dict[str, Any]:
            nonlocal asked_before
            asked_before += 1
            if asked_before < 3:
                return {"status": "error", "errno": 5, "reason": "arbiter is already running watcher_reload command"}
            process.terminate()
            return OK

        answers = {"xboard_state": always(state(config_file=folder / "circus.ini", pid=process.pid))}
        with FakeCircusd({**answers, "quit": busy_first}) as fake:
            write_ini(folder, endpoint=fake.endpoint)
            result = run("stop")

    assert (result.exit_code, fake.commands().count("quit")) == (0, 3)


# --- restart NAME ---


def test_restart_of_one_watcher_waits_until_it_is_ready(folder: Path) -> None:
    with running(folder, restart=always({**OK, "info": {}})) as fake:
        result = run("restart", "WEB")

    assert (result.exit_code, result.stdout) == (0, "web: 1 of 1 up\nready\n")
    (asked,) = (each["properties"] for each in fake.asked if each["command"] == "restart")
    assert asked.pop("by").startswith("xboard-circus restart, user ")
    assert asked == {"name": "web", "match": "simple", "waiting": True}


def test_restart_of_a_watcher_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with running(folder):
        result = run("restart", "wbe")

    assert (result.exit_code, result.stderr) == (
        1,
        "xboard-circus: circusd of circus.ini has no watcher wbe; did you mean web?\n",
    )


def test_restart_of_a_watcher_needs_a_circusd(folder: Path) -> None:
    write_ini(folder)

    assert "does not run; `xboard-circus start` starts it" in run("restart", "web").stderr


# --- retry ---


@pytest.mark.parametrize("slot", ["2", "#2"])
def test_retry_sends_the_slot_with_who_asked(folder: Path, slot: str) -> None:
    with running(folder, xboard_retry=always(OK)) as fake:
        result = run("retry", "WEB", slot)

    assert (result.exit_code, result.stdout) == (
        0,
        "web #2 is starting; `xboard-circus status` shows when it is up\n",
    )
    (asked,) = [each["properties"] for each in fake.asked if each["command"] == "xboard_retry"]
    assert asked.pop("by").startswith("xboard-circus retry, user ")
    assert asked == {"name": "web", "slot": 2}


@pytest.mark.parametrize(
    ("status", "cure"),
    [("starting", "status 'my app'` shows when it is up"), ("stopped", "start 'my app'` starts it")],
)
def test_a_reload_of_a_watcher_that_is_not_active_names_a_cure_that_can_be_pasted(
    folder: Path, status: str, cure: str
) -> None:
    answer = always(state(watcher(name="my app", status=status), config_file=folder / "circus.ini"))
    with running(folder, xboard_state=answer):
        result = run("reload", "--no-preflight", "my app")

    assert (result.exit_code, result.stderr) == (1, f"xboard-circus: my app is {status}; `xboard-circus {cure}\n")


def test_a_scale_of_a_watcher_that_is_starting_waits_for_it(folder: Path) -> None:
    before = state(watcher(status="starting"), config_file=folder / "circus.ini")
    after = state(watcher("up", worker("up", slot=2), numprocesses=2), config_file=folder / "circus.ini")
    with running(folder, xboard_state=in_turn(before, after), set=always(OK)):
        result = run("scale", "web", "2")

    assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, ["web: 2 of 2 up", "ready"])


def test_retry_without_a_slot_retries_all_that_are_held(folder: Path) -> None:
    def with_held(*slots: int) -> Any:
        held = [worker_view(0, "cooling", slot=slot, next_try=60.0) for slot in slots]
        return always(state(watcher_view(worker_view(70, "up", slot=1), *held), config_file=folder / "circus.ini"))

    with running(folder, xboard_retry=always(OK)) as fake:
        fake.answers["xboard_state"] = with_held(4, 2)
        result = run("retry", "WEB")
        fake.answers["xboard_state"] = with_held()
        none = run("retry", "web")

    asked = [each["properties"]["slot"] for each in fake.asked if each["command"] == "xboard_retry"]
    assert (result.exit_code, asked) == (0, [2, 4])
    assert [line.partition(";")[0] for line in result.stdout.splitlines()] == [
        "web #2 is starting",
        "web #4 is starting",
    ]
    hint = "`xboard-circus status` shows each slot and its next try"
    assert (none.exit_code, none.stderr) == (
        1,
        f"xboard-circus: web has no held slot, so nothing was started; {hint}\n",
    )


def test_retry_of_a_slot_that_is_not_held_ends_with_1_and_the_reason(folder: Path) -> None:
    refusal = {"status": "error", "errno": 3, "reason": "web has no held worker in slot 7", "time": 1.0}
    with running(folder, xboard_retry=always(refusal)):
        result = run("retry", "web", "7")

    cure = "`xboard-circus status` shows each slot and its next try"
    told = f"xboard-circus: web #7 was not started: web has no held worker in slot 7; {cure}\n"
    assert (result.exit_code, result.stderr) == (1, told)


@pytest.mark.parametrize("slot", ["0", "one", "-1", "##1"])
def test_retry_of_what_is_no_slot_is_wrong_usage(folder: Path, slot: str) -> None:
    with running(folder) as fake:
        assert run("retry", "web", "--", slot).exit_code == 2

    assert not fake.commands()


def test_retry_of_an_unknown_watcher_names_those_that_there_are(folder: Path) -> None:
    with running(folder):
        result = run("retry", "wbe", "1")

    assert (result.exit_code, result.stderr) == (
        1,
        "xboard-circus: circusd of circus.ini has no watcher wbe; did you mean web?\n",
    )


# --- clean ---


def test_clean_names_a_stranger_on_a_port_and_lets_it_live(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        write_ini(folder, more=f"[socket:web]\nhost = 127.0.0.1\nport = {port}\n")
        result = run("clean")

    assert result.exit_code == 1
    assert f"127.0.0.1:{port} of [socket:web]: the port is held by pid {os.getpid()} (" in result.stderr
    assert "a stranger; left alone" in result.stderr


def test_clean_ends_nothing_while_a_start_is_at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the circusd that a start, or the monitor, has just launched."""
    monkeypatch.setattr(launching, "LOCK_WITHIN", 0.05)
    instance = Instance(write_ini(folder))
    with launching.alone(instance):
        results = run("clean"), run("clean", "--dry-run")

    assert [each.exit_code for each in results] == [1, 0]
    assert f"another start or stop of circus.ini is at work, with pid {os.getpid()}" in results[0].stderr
    assert run("clean").exit_code == 0


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("_end_circusd", "circusd was ordered to stop and may still run; no orphan was stopped, no file removed"),
        ("_end_orphans", "circusd does not run; orphans that were named may still run, and no file was removed"),
        ("_remove_files", "no process is left to stop; stale files that were not named are still there"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_ctrl_c_in_clean_says_what_was_done_and_what_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, said: str, option: list[str]
) -> None:
    monkeypatch.setattr(cleaning, step, interrupt)
    monkeypatch.setattr(Instance, "find", lambda _: Silent(procs.Identity(7, 1), "") if "circusd" in step else None)
    write_ini(folder)

    result = run("clean", *option)

    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        130,
        "xboard-circus: interrupted: "
        + ("nothing was stopped or removed" if option else f"{said}; `xboard-circus clean` goes on"),
    )


def test_clean_removes_what_would_keep_the_next_circusd_from_starting(folder: Path) -> None:
    write_ini(folder, more="[socket:web]\npath = web.sock\n[socket:other]\npath = other.sock\n")
    (folder / "circus.ini").write_text(
        (folder / "circus.ini").read_text().replace("[circus]\n", "[circus]\npidfile = circusd.pid\n")
    )
    (folder / "circusd.pid").write_text(f"{2**22 + 7}\n")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "web.sock"))
    (folder / "other.sock").write_text("no socket: not ours to remove")

    dry = run("clean", "--dry-run")
    assert (folder / "web.sock").exists()
    result = run("clean")

    assert (dry.exit_code, result.exit_code) == (0, 0)
    assert f"would remove {folder}/circusd.pid: the circusd that wrote it is gone" in dry.stdout
    assert f"removed {folder}/web.sock: no process listens on it" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["circus.ini", "other.sock"]


@only_root
@pytest.mark.parametrize("me", ["root", "daemon"])
@pytest.mark.parametrize("place", ["", "circus.ini"])
def test_clean_removes_no_file_that_another_users_ini_names(
    folder: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, place: str, me: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("run")
    (elsewhere / "cron.pid").write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(elsewhere / "d.sock"))
    (folder / "link").symlink_to(elsewhere)
    ini = write_ini(folder, more="[socket:web]\npath = link/d.sock\n")
    ini.write_text(ini.read_text().replace("[circus]\n", f"[circus]\npidfile = {elsewhere}/cron.pid\n"))
    shutil.chown(folder / place, "nobody")
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam(me).pw_uid)
    monkeypatch.setattr(runtime, "_check", lambda _: None)  # it is root's

    result = run("clean")

    assert f"left alone, because nobody may write {folder / place}" in result.stderr
    assert sorted(path.name for path in elsewhere.iterdir()) == ["cron.pid", "d.sock"]


@only_root
def test_a_user_who_has_started_anothers_ini_finds_its_circusd_by_his_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an ini of who deploys it, then a name with a variable is filled in for the user of its circusd alone."""
    ini = write_ini(folder, endpoint="tcp://$(circus.env.XB_HOST):1")
    shutil.chown(ini, "nobody")
    monkeypatch.setenv("XB_HOST", "h")
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("daemon").pw_uid)
    monkeypatch.setattr(runtime, "_check", lambda _: None)  # it is root's

    instance = Instance(ini, looks=True)
    assert instance.endpoint == "tcp://$(circus.env.XB_HOST):1"
    instance.write_record(procs.Identity(2**22 + 7, 1))  # as `stop` does: the file's owner may have named that process
    assert Instance(ini, looks=True).endpoint == "tcp://$(circus.env.XB_HOST):1"
    instance.write_record(procs.Identity(2**22 + 7, 1), was_started=True)
    assert Instance(ini, looks=True).endpoint == "tcp://h:1"


@pytest.mark.parametrize("has_room", [True, False])
def test_no_report_of_a_bug_commands_the_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_room: bool
) -> None:
    """Given an error that quotes what a worker said, then neither its report nor, on a full disk, the screen has that
    as it was."""
    write_ini(folder)
    monkeypatch.setattr(Instance, "find", Mock(side_effect=KeyError("evil")))
    monkeypatch.setattr("traceback.format_exc", lambda: "KeyError: \x1b]0;title\x07\n")
    if not has_room:
        monkeypatch.setattr("tempfile.mkstemp", Mock(side_effect=OSError("full")))

    result = run("status")

    assert result.exit_code == 3
    text = result.stderr + "".join(map(Path.read_text, map(Path, re.findall(r"\S+/crash-\S+\.log", result.stderr))))
    assert "KeyError: ?]0;title?\n" in text


@only_root
@pytest.mark.parametrize("who", ["nobody", "every user of this host"])
@pytest.mark.parametrize("place", ["", "circus.ini"])
def test_root_runs_no_command_of_an_alert_in_another_users_ini(
    monkeypatch: pytest.MonkeyPatch, place: str, who: str
) -> None:
    monkeypatch.setattr(endpoint_rules, "people", lambda: ["ann"])
    with tempfile.TemporaryDirectory() as made:  # that everybody may enter, unlike pytest's own
        folder = Path(made)
        folder.chmod(0o755)
        proof = folder / "proof"
        ini = write_ini(folder, more=f"[alert:ops]\ntype = command\ncommand = touch {proof}\n")
        if who == "nobody":
            shutil.chown(folder / place, who)
        else:
            (folder / place).chmod(0o777)

        result = run("alerts", "test", "-c", str(ini))

        assert (result.exit_code, proof.exists()) == (1, False)
    assert f"{who} may write {folder / place}, and root would run what is there" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_root_runs_no_command_of_an_alert_that_another_user_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_rules, "people", list)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        proof, script = folder / "proof", folder / "notify"
        script.write_text(f"#!/bin/sh\ntouch {proof}\n")
        script.chmod(0o755)
        ini = write_ini(folder, more=f"[alert:ops]\ntype = command\ncommand = {script}\n")
        assert (run("alerts", "test", "-c", str(ini)).exit_code, proof.exists()) == (0, True)
        proof.unlink()
        shutil.chown(script, "nobody")

        result = run("alerts", "test", "-c", str(ini))

        assert (result.exit_code, proof.exists()) == (1, False)
    assert f"nobody may write {script}, and root would run what is there" in result.stderr


def test_clean_ends_orphans_and_nothing_else(folder: Path) -> None:
    instance = runtime.instance_id(write_ini(folder))
    with process_of(instance) as orphan, process_of("0123456789ab") as stranger:
        dry = run("clean", "--dry-run")
        assert orphan.poll() is None
        result = run("clean")

        said = f"pid {orphan.pid} ("
        assert dry.stdout.startswith(f"would stop {said}")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"stopping {said}")
        assert f"an orphan of our circusd {2**22 + 7}, which is gone" in result.stdout
        assert (orphan.wait(60), stranger.poll()) == (-signal.SIGTERM, None)


def test_clean_says_whose_an_orphan_of_another_user_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ini(folder)
    theirs = Holder(pid=300, started=1, command="python -m app", user="somebody", circusd=(90, 1))
    monkeypatch.setattr(listeners, "orphans", lambda _: [theirs, theirs._replace(pid=301, user="")])

    said = run("clean", "--dry-run").stdout

    assert "would stop pid 300 (python -m app), user somebody's: an orphan of our circusd 90, which is gone" in said
    assert "would stop pid 301 (python -m app): an orphan" in said


# --- check and init ---


def test_check_ends_with_1_on_an_error_and_tells_programs_the_same(folder: Path) -> None:
    write_ini(folder, more="restrt.burst = 5\n")

    result, as_data = run("check"), run("check", "--json")

    assert (result.exit_code, as_data.exit_code) == (1, 1)
    assert (
        "error: circus.ini: [watcher:web] restrt.burst = 5: unknown option; did you mean restart.burst?"
        in result.stdout
    )
    assert json.loads(as_data.stdout)["passed"] is False


def test_check_of_a_good_ini_is_done(folder: Path) -> None:
    write_ini(folder)

    result = run("check")

    assert (result.exit_code, "ok: circus.ini: 1 watcher" in result.stdout) == (0, True)


def test_init_writes_an_ini_and_says_what_comes_next(folder: Path) -> None:
    result = run("init", "site", "--app", "shop.main:app", "--port", "8100", "--workers", "3")

    written = (folder / "site" / "circus.ini").read_text()
    assert result.exit_code == 0
    assert result.stdout == "wrote site/circus.ini; next: `xboard-circus -c site/circus.ini start`\n"
    assert "shop.main:app" in written
    assert run("init", "site", "--app", "shop.main:app").exit_code == 1
    assert run("init", "site", "--app", "shop.main:app", "--force").exit_code == 0
    assert run("init", "site", "--app", "shop main").exit_code == 2


def test_init_sets_the_ports_of_the_page_and_of_circusd(folder: Path) -> None:
    result = run("init", "--app", "shop.main:app", "--page-port", "8181", "--endpoint-port", "6001")

    config = load(folder / "circus.ini")
    assert result.exit_code == 0, result.output
    assert (config.endpoint, config.pubsub_endpoint) == ("tcp://127.0.0.1:6001", "tcp://127.0.0.1:6002")
    assert {socket.name: socket.port for socket in config.sockets} == {"backend": 8000, "dashboard": 8181}


def test_init_refuses_one_port_for_two(folder: Path) -> None:
    result = run("init", "--app", "shop.main:app", "--page-port", "8000")

    assert (result.exit_code, list(folder.iterdir())) == (2, [])
    assert "--port and --page-port are both 8000; choose two ports" in result.stderr


@pytest.mark.parametrize("words", ["tpo", "stpo", "restrat", "claen", "service remov"])
def test_no_command_that_stops_or_deletes_is_suggested(words: str) -> None:
    result = run(*words.split())

    assert result.exit_code == 2
    assert not re.search("stop|clean|restart|remove", result.stderr)


@pytest.mark.skipif(not hasattr(click.exceptions, "NoSuchCommand"), reason="this click suggests no command at all")
def test_other_commands_are_suggested() -> None:
    assert "'status'" in run("stauts").stderr
    assert "Did you mean 'install'?" in run("service", "instal").stderr


def test_options_prints_all_or_what_is_named() -> None:
    everything, family, one, slip = (
        run("options"),
        run("options", "health"),
        run("options", "restart.burst"),
        run("options", "healt.period"),
    )

    assert all(title in everything.stdout for title in ("[watcher:NAME]", "[plugin:NAME]", "[alert:NAME]"))
    assert ("health.period (seconds), default: 2\n" in family.stdout, "restart.burst" in family.stdout) == (True, False)
    assert one.stdout.count("default: ") == 1
    assert (slip.exit_code, "did you mean health.period?" in slip.stderr) == (2, True)


@pytest.mark.parametrize(("state_of_worker", "code"), [("starting", 1), ("up", 0)])
def test_a_second_start_during_a_start_waits_until_it_is_ready(folder: Path, state_of_worker: str, code: int) -> None:
    with running(folder) as fake:
        runtime.write_record(
            runtime.instance_id(folder / "circus.ini"),
            pid=os.getpid(),
            started=procs.start_time(os.getpid()),
            endpoint=fake.endpoint,
        )
        young = state(watcher(state_of_worker), config_file=folder / "circus.ini")
        young["circusd"]["uptime"] = 0.5
        fake.answers["xboard_state"] = always(young)
        result = run("start", "--timeout", "1.5")

    assert result.exit_code == code, result.output
    assert "runs already" in result.stdout
    assert ("not ready after" in result.stderr) == bool(code)


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback() -> None:
    code = """if True:
        import sys
        from xboard_circus.__main__ import main

        class CtrlC:
            def find_spec(self, name, path=None, target=None):
                if name == "click":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, CtrlC())
        main()
    """

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "xboard-circus: interrupted: nothing was done\n")


def test_status_says_of_a_circusd_that_was_lost_what_the_page_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given workers that serve on, then since when, what serves, and the cure, with nothing that would end them."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder.parent / "r"))  # paths of sockets may have 107 bytes
    instance = runtime.instance_id(folder / "circus.ini")
    with serving_port() as (port, worker):
        armed = f"hooks.before_start = {ARM}\nuse_sockets = True\nargs = --fd $(circus.sockets.web)\n"
        write_ini(folder, more=f"{armed}[socket:web]\nhost = 127.0.0.1\nport = {port}\n")
        workers = {"web": {"7": str(worker), "8": str(procs.Identity(2**22 + 9, 5))}}
        life = CircusdLife(pid=2**22 + 7, started=5, boot=circusd_record.boot(), workers=workers)
        circusd_record.write(instance, life._replace(gone_at=time.time() - 60))
        lost = run("status").stderr
        circusd_record.write(instance, life._replace(is_ordered=True))

        assert re.fullmatch(
            r"xboard-circus: circusd is down for 1 min( \d s)?, since [\w :]+: nothing replaces a worker that ends\. "
            rf"Its workers still answer on :{port} \(1 alive\)\. Cure: run `xboard-circus start`\n",
            lost,
        ), lost
        assert run("status").stderr.startswith("xboard-circus: circusd of circus.ini does not run")


def test_status_says_of_a_frozen_circusd_what_serves_and_the_cure_that_keeps_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with circusd_process(folder, deaf=True) as process, socket.create_server(("127.0.0.1", 0)) as server:
        instance = Instance(write_ini(folder, endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}"), answer_within=0.2)
        identity = procs.Identity.of(process.pid)
        assert identity is not None
        instance.write_record(identity)
        circusd_record.write(instance.id, CircusdLife(pid=identity.pid, started=identity.started))
        with pytest.raises(
            XboardError, match=r"circusd has not answered for .*, since .*Cure: run `xboard-circus restart`"
        ):
            instance.running()
        complain_of_silence(instance)  # `why`
        assert re.search(
            r"^xboard-circus: circusd has not answered for .*Cure: run `xboard-circus restart`\n$",
            capsys.readouterr().err,
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say how full a queue is")
def test_who_fills_the_queue_of_the_endpoint_has_no_circusd_killed(folder: Path) -> None:
    """Given a circusd that works, when connections of any user keep the operator's out, then `restart` does not take it
    for hung: killed, it would leave its port to that user. One that gives no sign of life is."""
    withdrawn: list[bool] = []

    def withdraw() -> bool:
        withdrawn.append(True)
        return True

    successor: Any = SimpleNamespace(gate=None, withdraw=withdraw)
    with (
        circusd_process(folder, deaf=True) as process,
        socket.create_server(("127.0.0.1", 0), backlog=3) as server,
        contextlib.ExitStack() as clients,
    ):
        instance = Instance(write_ini(folder, endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}"), answer_within=0.2)
        identity = procs.Identity.of(process.pid)
        assert identity is not None
        instance.write_record(identity)
        circusd_record.write(instance.id, CircusdLife(pid=identity.pid, started=identity.started))
        not_full = instance.crowded_out(identity)
        for _ in range(4):
            clients.enter_context(socket.create_connection(server.getsockname(), 10))
        found = instance.find()
        assert isinstance(found, Silent)
        why = r"works, but connections of other processes fill the queue of tcp://127\.0\.0\.1:.*: end the process that"
        with pytest.raises(XboardError, match=why + ".*; nothing was stopped$"), progress() as shown:
            leave(instance, found, successor, shown)
        with pytest.raises(XboardError, match=why):  # `status`
            instance.running()
        assert (not_full, process.poll(), withdrawn) == ("", None, [True])
        os.utime(folder / "runtime" / instance.id / runtime.LIFE, (0, time.time() - 60))
        with progress() as shown:
            assert leave(instance, found, successor, shown) is not None
        assert process.wait(60) == -signal.SIGKILL


@contextlib.contextmanager
def serving_port() -> Iterator[tuple[int, procs.Identity]]:
    """Serve 404 at a free port from a process of its own."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"port (\d+)", process.stdout.readline())
        identity = procs.Identity.of(process.pid)
        assert found is not None
        assert identity is not None
        try:
            yield int(found[1]), identity
        finally:
            process.kill()


def test_where_nothing_was_written_yet_logs_says_so_beside_the_lines(folder: Path) -> None:
    write_ini(folder)
    before = run("logs")
    (folder / "logs").mkdir()
    (folder / "logs" / "circusd.log").write_text("one line\n")
    after = run("logs")

    assert (before.exit_code, before.stdout) == (0, "")
    assert (after.stdout.splitlines()[-1], after.stderr) == ("one line", "")
    assert "nothing has been written to circusd, circusd.out yet" in before.stderr


def test_the_name_of_a_log_in_another_users_ini_moves_no_cursor(folder: Path) -> None:
    ini = write_ini(folder)
    ini.write_text(f"{ini.read_text()}\n[watcher:odd]\ncmd = sleep 9\nstderr_stream.filename = logs/\x1b[2J.log\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "\x1b[2J.log").write_text("one line\n")

    for words in (("logs", "--list"), ("logs",)):
        said = run(*words).stdout
        assert ("logs/?[2J.log" in said, "\x1b" in said) == (True, False), said


def test_who_stops_a_circusd_leaves_word_before_it_is_gone(folder: Path) -> None:
    ini = write_ini(folder)
    instance = Instance(ini)
    with circusd_process(folder) as process:
        circusd_record.write(
            instance.id,
            CircusdLife(pid=process.pid, started=procs.start_time(process.pid) or 0, boot=circusd_record.boot()),
        )
        instance.mark_stopped()
        running = circusd_record.read(instance.id)

    assert running is not None
    assert running.is_ordered


def test_status_says_of_a_watcher_without_workers_that_nobody_answers(folder: Path) -> None:
    shown = state(watcher(numprocesses=0, workers=[]), config_file=folder / "circus.ini")
    with FakeCircusd({"xboard_state": always(shown)}) as fake:
        write_ini(folder, endpoint=fake.endpoint)
        result = run("status")

    assert ". Why: set to 0 workers, so nothing answers. Next: nothing by itself. Cure: " in result.stdout
    assert "Cure: `xboard-circus scale web 1` starts one" in result.stdout


# --- watchers by name ---


def stopped_and_up(folder: Path) -> Any:
    api = watcher("up", name="api", numprocesses=1)
    return state(watcher(status="stopped", numprocesses=2), api, config_file=folder / "circus.ini")


@pytest.mark.parametrize(
    "command",
    ["start wbe", "stop web wbe", "restart web wbe", "status wbe", "scale wbe 2", "signal wbe:1 HUP", "describe wbe"],
)
def test_a_misspelt_watcher_is_corrected_before_anything_is_done(folder: Path, command: str) -> None:
    with running(folder) as fake:
        result = run(*command.split())

    told = "xboard-circus: circusd of circus.ini has no watcher wbe; did you mean web?\n"
    assert (result.exit_code, result.stderr) == (1, told)
    assert {*fake.commands()} <= {"xboard_state"}


def test_start_of_names_starts_those_that_are_stopped(folder: Path) -> None:
    with running(folder, start=always(OK)) as fake:
        answers = [stopped_and_up(folder), state(watcher("up"), config_file=folder / "circus.ini")]
        fake.answers["xboard_state"] = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
        result = run("start", "web", "API")

    assert (result.exit_code, result.stdout) == (0, "api runs already: 1 of 1 workers up\nweb: 1 of 1 up\nready\n")
    (asked,) = (each["properties"] for each in fake.asked if each["command"] == "start")
    assert asked.pop("by").startswith("xboard-circus start, user ")
    assert asked == {"name": "web", "match": "simple", "waiting": False}


def test_stop_of_names_stops_them_one_after_the_other_and_leaves_circusd(folder: Path) -> None:
    with running(folder, stop=always(OK)) as fake:
        fake.answers["xboard_state"] = always(stopped_and_up(folder))
        result = run("stop", "API", "web")

    assert result.stdout == (
        "stopped api; `xboard-circus start api` starts it\nstopped web; `xboard-circus start web` starts it\n"
    )
    asked = [each["properties"] for each in fake.asked if each["command"] == "stop"]
    assert [(each["name"], each["waiting"]) for each in asked] == [("api", True), ("web", True)]
    assert "quit" not in fake.commands()


def test_ctrl_c_in_a_stop_of_names_says_what_goes_on_and_what_was_not_begun(folder: Path) -> None:
    with running(folder, stop=lambda asked: os.kill(os.getpid(), signal.SIGINT)) as fake:
        fake.answers["xboard_state"] = always(stopped_and_up(folder))
        result = run("stop", "api", "web")

    assert result.exit_code == 130
    assert result.stderr == (
        "xboard-circus: interrupted: no longer waiting; circusd goes on to stop api; not begun: web\n"
    )


def test_ctrl_c_in_a_stop_says_that_circusd_goes_on_and_before_it_that_nothing_was_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with circusd_process(folder) as process:
        answers = {"xboard_state": always(state(config_file=folder / "circus.ini", pid=process.pid))}
        with FakeCircusd({**answers, "quit": lambda asked: os.kill(os.getpid(), signal.SIGINT)}) as fake:
            write_ini(folder, endpoint=fake.endpoint)
            on_its_way = run("stop")
    monkeypatch.setattr(launching, "alone", interrupt)
    before = run("stop")

    goes_on = "no longer waiting; circusd of circus.ini goes on to stop all that it runs: `xboard-circus status`"
    assert (on_its_way.exit_code, on_its_way.stderr) == (130, f"xboard-circus: interrupted: {goes_on}\n")
    assert (before.exit_code, before.stderr) == (130, "xboard-circus: interrupted: nothing was stopped\n")


# What only reads, or shows and acts by keys alone, has nothing to say of what was done.
READING = "describe top status why requests events logs doctor dashboard completion check options"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["start"], "nothing was started"),
        (["start", "web"], "nothing was started"),
        (["stop"], "nothing was stopped"),
        (["stop", "web"], "nothing was stopped"),
        (["restart"], "nothing was restarted"),
        (["restart", "web"], "nothing was restarted"),
        (["reload"], "nothing was reloaded"),
        (["retry", "web"], "nothing was started"),
        (["scale", "web", "2"], "nothing was scaled"),
        (["signal", "web", "HUP"], "no signal was sent"),
        (["clean"], "nothing was stopped or removed; `xboard-circus clean` goes on"),
        (["init", "new", "--app", "a:a"], "new may hold a part of the new files; --force writes all of them anew"),
        (["alerts", "test"], "which test alerts were delivered is not known"),
        (["service", "remove"], "only what the lines above name was done; `xboard-circus service remove` goes on"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_ctrl_c_as_a_command_begins_says_what_was_not_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
) -> None:
    write_ini(folder, more="[alert:ops]\ntype = command\ncommand = true\n")
    for place, name in (
        *((Instance, name) for name in ("find", "running")),
        *((module, "check_file") for module in (lifecycle, restarting)),
        (launching, "alone"),
        (new_files, "write_config"),
        (alert_commands, "_send_test"),
        (servicing, "_service"),
    ):
        monkeypatch.setattr(place, name, interrupt)
    result = run(*command)

    assert (result.exit_code, result.stderr) == (130, f"xboard-circus: interrupted: {said}\n")


def test_each_command_that_changes_something_is_interrupted_by_a_test() -> None:
    marks = test_ctrl_c_as_a_command_begins_says_what_was_not_done.pytestmark  # type: ignore[attr-defined]

    assert {command[0] for command, _ in marks[0].args[1]} == {*MODULES} - {*READING.split()}


@pytest.mark.parametrize(
    ("command", "order", "done", "said"),
    [
        (
            ["signal", "web", "HUP", "--yes"],
            "signal",
            "sent SIGHUP to web #1 (pid 701)\n",
            "whether web #2 (pid 702) got SIGHUP is not known; not begun: web #3 (pid 703)",
        ),
        (
            ["retry", "web"],
            "xboard_retry",
            "web #1 is starting; `xboard-circus status` shows when it is up\n",
            "whether web #2 was started is not known: `xboard-circus status`; not begun: web #3",
        ),
    ],
    ids=["signal", "retry"],
)
def test_ctrl_c_between_orders_says_which_were_sent(
    folder: Path, command: list[str], order: str, done: str, said: str
) -> None:
    def interrupt_second(asked: Any) -> Any:
        if len([each for each in fake.asked if each["command"] == order]) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            return None
        return OK

    word = "up" if order == "signal" else "cooling"
    workers = [worker(word, pid=700 + slot if word == "up" else 0, slot=slot) for slot in (1, 2, 3)]
    with running(folder, **{order: interrupt_second}) as fake:
        fake.answers["xboard_state"] = always(
            state(watcher(*workers, numprocesses=3), config_file=folder / "circus.ini")
        )
        result = run(*command)

    assert (result.exit_code, result.stdout, result.stderr) == (130, done, f"xboard-circus: interrupted: {said}\n")


@pytest.mark.parametrize(
    ("command", "at", "said"),
    [
        pytest.param(["reload"], (preflight, "preflight"), "nothing was reloaded", id="reload"),
        pytest.param(["restart", "web"], (preflight, "preflight"), "nothing was restarted", id="restart NAME"),
        pytest.param(["restart"], (restarting, "check_file"), "nothing was restarted", id="restart"),
        pytest.param(
            ["check", "--deep"],
            (preflight, "preflight"),
            "not all was checked, and nothing was changed",
            id="check --deep",
        ),
    ],
)
def test_ctrl_c_before_an_order_says_once_what_was_not_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], at: tuple[Any, str], said: str
) -> None:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder.parent / "r"))  # paths of sockets may have 107 bytes
    with running(folder) as fake:
        args = "-m xboard_circus.worker --fd $(circus.sockets.web) app:app"
        more = f"hooks.before_start = {ARM}\nuse_sockets = True\nargs = {args}\n"
        more += f"[socket:web]\nhost = 127.0.0.1\nport = {closed_port()}\nso_reuseport = True\n"
        file = write_ini(folder, endpoint=fake.endpoint if command[0] != "check" else "", more=more)
        file.write_text(file.read_text().replace("sleep 60", sys.executable))
        monkeypatch.setattr(*at, interrupt)
        result = run(*command)

    assert (result.exit_code, result.stderr.splitlines()[-1:]) == (130, [f"xboard-circus: interrupted: {said}"])
    assert not {"xboard_reload", "restart", "quit"} & set(fake.commands())


def interrupt(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_a_restart_starts_nothing_that_was_stopped_while_it_tried_the_new_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(restarting, "launch", started.append)
    monkeypatch.setattr(restarting, "check_file", lambda _: None)
    with circusd_process(folder) as process, contextlib.ExitStack() as circusd:
        answers = {"xboard_state": always(state(config_file=folder / "circus.ini", pid=process.pid))}
        fake = circusd.enter_context(FakeCircusd(answers))

        def stop_meanwhile(instance: Instance, _: object) -> None:
            identity = procs.Identity.of(process.pid)
            assert identity is not None
            instance.write_record(identity)
            instance.mark_stopped()
            process.kill()
            process.wait(60)
            circusd.close()

        monkeypatch.setattr(restarting, "try_new_code", stop_meanwhile)
        write_ini(folder, endpoint=fake.endpoint)
        result = run("restart", "--yes")

    said = "circusd was stopped meanwhile, so nothing was started: `xboard-circus start` starts it"
    assert (result.exit_code, result.stderr.splitlines()[-1:], started) == (1, [f"xboard-circus: {said}"], [])


def test_status_of_names_shows_those_alone(folder: Path) -> None:
    with running(folder) as fake:
        many = watcher(*[worker(slot=slot) for slot in range(1, FEW + 2)], name="api", numprocesses=FEW + 1)
        fake.answers["xboard_state"] = always(state(watcher("up"), many, config_file=folder / "circus.ini"))
        shown, data = run("status", "API"), run("status", "api", "--json")

    assert ("api" in shown.stdout, "web" in shown.stdout, "#1" in shown.stdout) == (True, False, True)
    assert [each["name"] for each in json.loads(data.stdout)["watchers"]] == ["api"]


def test_watch_needs_a_terminal(folder: Path) -> None:
    write_ini(folder)

    result = run("status", "--watch")

    assert (result.exit_code, "--watch needs a terminal; `xboard-circus status --json`" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("now", "count", "code", "sent", "shown"),
    [
        pytest.param(1, "2", 0, [2], "web: 1 -> 2 workers until circusd restarts; numprocesses = 2 in", id="more"),
        pytest.param(3, "1", 0, [1], "web: 3 -> 1 workers until circusd restarts; numprocesses = 1 in", id="fewer"),
        pytest.param(2, "0", 1, [], "`xboard-circus stop web` stops it and closes its port", id="none"),
        pytest.param(2, "99999", 2, [], "99999 is not in the range", id="a slip"),
    ],
)
def test_scale_sets_the_number_of_workers(
    folder: Path, now: int, count: str, code: int, sent: list[int], shown: str
) -> None:
    with running(folder, set=always(OK)) as fake:
        later = state(watcher("up", "up"), config_file=folder / "circus.ini")
        answers = [state(watcher(*["up"] * now, numprocesses=now), config_file=folder / "circus.ini"), later]
        fake.answers["xboard_state"] = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
        result = run("scale", "WEB", count)

    assert (result.exit_code, shown in result.output) == (code, True)
    asked = [each["properties"] for each in fake.asked if each["command"] == "set"]
    assert [each["options"]["numprocesses"] for each in asked] == sent
    assert all(each["by"].startswith("xboard-circus scale, user ") for each in asked)


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        pytest.param(2, "web was not set to 3 workers: it keeps 2, 2 of them up", id="before circusd had it"),
        pytest.param(
            3, "web is set to 3 workers, and 2 are up; circusd goes on: `xboard-circus status web`", id="after"
        ),
        pytest.param(0, "whether web is set to 3 workers is not known: no answer from circusd", id="no answer"),
    ],
)
def test_an_interrupted_scale_says_how_far_it_came(
    folder: Path, monkeypatch: pytest.MonkeyPatch, now: int, shown: str
) -> None:
    with running(folder) as fake:
        before = state(watcher("up", "up", numprocesses=2), config_file=folder / "circus.ini")
        fake.answers["xboard_state"] = always(before)

        def interrupted(*_: object, **__: object) -> None:
            after = state(watcher("up", "up", numprocesses=now), config_file=folder / "circus.ini")
            fake.answers["xboard_state"] = always(after)
            if not now:
                monkeypatch.setattr(Instance, "running", silent)
            raise KeyboardInterrupt

        def silent(_: Instance) -> None:
            raise XboardError("no answer from circusd")

        monkeypatch.setattr(CircusdClient, "scale", interrupted)
        result = run("scale", "web", "3")

    assert (result.exit_code, result.stderr.count("web")) == (130, shown.count("web")), result.stderr
    assert result.stderr.startswith(f"xboard-circus: interrupted: {shown}")


@pytest.mark.parametrize(
    ("target", "name", "pids"),
    [
        pytest.param("web", "HUP", [701, 702], id="all"),
        pytest.param("WEB:2", "SIGHUP", [702], id="a slot"),
        pytest.param("web:#2", "hup", [702], id="a slot as status writes it"),
        pytest.param("web:701", "1", [701], id="a pid"),
    ],
)
def test_signal_reaches_the_workers_that_are_meant(folder: Path, target: str, name: str, pids: list[int]) -> None:
    with running(folder, signal=always(OK)) as fake:
        two = watcher(worker(pid=701), worker(pid=702, slot=2), worker("held", pid=0, slot=3), numprocesses=3)
        fake.answers["xboard_state"] = always(state(two, config_file=folder / "circus.ini"))
        result = run("signal", target, name, "--yes")  # another's process may have that pid

    asked = [each["properties"] for each in fake.asked if each["command"] == "signal"]
    assert [(each["pid"], each["signum"], each["name"]) for each in asked] == [(pid, 1, "web") for pid in pids]
    assert result.stdout.splitlines()[-1] == f"sent SIGHUP to web #{pids[-1] - 700} (pid {pids[-1]})"


@pytest.mark.parametrize(
    ("script", "arguments", "is_refused"),
    [
        pytest.param("trap - USR1", ["USR1"], True, id="not handled"),
        pytest.param("trap - USR1", ["USR1", "--yes"], False, id="yes"),
        pytest.param("trap '' USR1", ["USR1"], False, id="ignored"),
        pytest.param("trap : USR1", ["USR1"], False, id="handled"),
        pytest.param("trap - TERM", ["TERM"], False, id="an order to end"),
        pytest.param("trap - WINCH", ["WINCH"], False, id="harmless"),
    ],
)
def test_a_signal_that_would_end_a_worker_with_its_requests_is_refused(
    folder: Path, script: str, arguments: list[str], is_refused: bool
) -> None:
    with subprocess.Popen(["sh", "-c", f"{script}; echo; read line"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with running(folder, signal=always(OK)) as fake:
            one = watcher(worker(pid=process.pid), numprocesses=1)
            fake.answers["xboard_state"] = always(state(one, config_file=folder / "circus.ini"))
            result = run("signal", "web", *arguments)
        process.communicate()

    assert (result.exit_code, "signal" in fake.commands()) == ((1, False) if is_refused else (0, True)), result.stderr
    if is_refused:
        assert result.stderr == (
            f"xboard-circus: SIGUSR1 would end web #1 (pid {process.pid}) with what is in flight: it has no handler "
            "there; no signal was sent: `xboard-circus reload web` replaces workers, `stop web` ends them, --yes sends "
            "it anyway\n"
        )


@pytest.mark.parametrize(
    ("target", "name", "code", "shown"),
    [
        pytest.param("web:7", "HUP", 1, "web has no running worker 7; no signal was sent", id="no such slot"),
        pytest.param("web", "UP", 2, "'UP' is no signal; did you mean hup?", id="no such signal"),
        pytest.param("web:", "HUP", 1, "has no watcher web:; did you mean web?", id="a colon and no slot"),
    ],
)
def test_signal_to_nothing_is_refused(folder: Path, target: str, name: str, code: int, shown: str) -> None:
    with running(folder) as fake:
        result = run("signal", target, name)

    assert (result.exit_code, shown in result.stderr, "signal" in fake.commands()) == (code, True, False)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param(["why", "\u00b2"], "nothing is recorded of \u00b2 that", id="a digit that is no number"),
        pytest.param(["why", "\udcff"], "?: a line break or a character that is not shown", id="no text"),
        pytest.param(["signal", "web\n", "HUP"], "web?: a line break", id="a name of two lines"),
        pytest.param(["-c", "a\nb", "status"], "a?b: a line break", id="a file of two lines"),
        pytest.param(["logs", "\x1b[2J"], "?[2J: a line break or a character", id="an order to the terminal"),
        pytest.param(["scale", "web", "2", "--timeout", "nan"], "'nan': not a number of seconds", id="nan"),
        pytest.param(["start", "--timeout", "inf"], "'inf': not a number of seconds", id="inf"),
        pytest.param(["restart", "--timeout", "1e400"], "'1e400': too large; write 31536000 or less", id="infinite"),
        pytest.param(["scale", "web", "2", "--timeout", "9" * 21], "too large; write 31536000", id="for ever"),
        pytest.param(["why", "9" * 5000], "nothing is recorded of 999", id="more digits than Python reads"),
        pytest.param(["logs", "--slot", "9" * 23], "is not a slot; write its number", id="no slot"),
        pytest.param(["requests", "--slow", "9" * 23], "is no age; write 500ms, 1s or 2m", id="no age"),
        pytest.param(["scale", "web", "2", "--timeout", "0"], "'0': too small; write 1 or more", id="no time"),
    ],
)
def test_an_argument_without_sense_is_answered_in_one_line(folder: Path, arguments: list[str], shown: str) -> None:
    with running(folder) as fake, contextlib.closing(LedgerStore(folder / "ledger.db")) as store:
        store.append([])
        bundle = "[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n"
        write_ini(folder, endpoint=fake.endpoint, more=bundle)
        result = run(*arguments)

    assert result.exit_code in (1, 2)
    assert shown in result.stderr.splitlines()[-1]
    assert not {"signal", "set"} & set(fake.commands())


def test_what_each_route_has_answered_is_shown_without_circusd(folder: Path) -> None:
    """Given a history, then --routes lists the routes of one watcher or of all, the busiest first, and --slow some."""
    write_ini(folder, more="[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n")
    traffic = Traffic()
    for route, count, took, status in (("/fast", 9, 0.004, 200), ("/slow", 2, 4.0, 503)):
        for _ in range(count):
            (row := traffic.row("GET", route)).add(took)
            if status != 200:
                row.correct(status)
    counted = parse_traffic(traffic.report(active=0))
    assert counted is not None
    with contextlib.closing(HistoryStore(folder / "ledger-history.db")) as store:
        store.write([("web", Point(2, 2, {0: (0.0,) * len(FIGURES)}))], {"web": Totals(5.0, counted)})

    lines = run("requests", "--routes").stdout.splitlines()
    assert [re.sub(" +", " ", each.strip()) for each in lines] == [
        "REQUESTS 4XX 5XX P50 P95 P99 ROUTE WATCHER",
        "9 0 0 0.0037 s 0.0049 s 0.005 s GET /fast web",
        "2 0 2 3.8 s 4.9 s 5 s GET /slow web",
    ]
    slow = json.loads(run("requests", "web", "--routes", "--slow", "1s", "--json").stdout)
    assert [(each["watcher"], each["route"], each["5xx"]) for each in slow] == [("web", "GET /slow", 2)]
    assert (
        run("requests", "--routes", "WEB", "--slow", "9").stdout.strip()
        == "no request was counted of WEB whose p95 is 9 s"
    )


def test_routes_of_what_has_no_history_are_refused_with_the_cure(folder: Path) -> None:
    ini = write_ini(folder)
    assert "no plugin keeps a history of traffic; add [plugin:xboard]" in run("requests", "--routes").stderr

    write_ini(folder, more="[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n")
    result = run("requests", "--routes", "wbe")
    assert (result.exit_code, result.stderr.strip()) == (
        1,
        f"xboard-circus: {ini.name}: no watcher wbe; did you mean web?",
    )


def test_a_path_in_another_encoding_is_read(folder: Path) -> None:
    ini = write_ini(folder)
    ini.rename(file := folder / "caf\udce9.ini")

    assert "every option is read" in run("-c", str(file), "check").stdout


def test_describe_shows_options_with_their_places_and_no_secret(folder: Path) -> None:
    options = {"restart.burst": 3, "health.period": 2.0}
    answers = {"options": always({**OK, "options": {"numprocesses": 4, "graceful_timeout": 0.0, "cmd": "sleep"}})}
    with running(folder, **answers) as fake:
        more = "numprocesses = 2\nrestart.burst = 3\nargs = --api-key hunter2-key\n[env:w*]\nDATABASE_URL = hunter2\n"
        write_ini(folder, endpoint=fake.endpoint, more=more)
        one = watcher("up", numprocesses=4, options=options, last_reason="killed from outside", last_reason_age=3.0)
        fake.answers["xboard_state"] = always(state(one, config_file=folder / "circus.ini"))
        result, everything = run("describe", "WEB"), run("describe", "web", "--all")

    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert "hunter2" not in result.stdout + everything.stdout
    assert "  numprocesses = 4  (in force; circus.ini:8 has 2)" in lines
    assert "  restart.burst = 3  (circus.ini:9)" in lines
    assert "  graceful_timeout = 0  (circus.ini:7)" in lines
    assert "  environment DATABASE_URL = ***  (circus.ini:12)" in lines
    assert "  127.0.0.1:8000 bound" in lines
    assert "  last: killed from outside (3 s ago)" in lines
    assert ("  health.period = 2  (default)" in lines, "  health.period = 2  (default)" in everything.stdout) == (
        False,
        True,
    )


@pytest.mark.parametrize(("command", "answer"), [("clean", "nothing that belongs to"), ("stop", "does not run")])
def test_what_has_ended_needs_no_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, answer: str
) -> None:
    """systemd removes that of a stopped service, and its user cannot make it."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", "/proc/none")

    result = run(command, "-c", str(write_ini(tmp_path)))

    assert (result.exit_code, answer in result.output) == (0, True), result.output


COMMAND = """
import time
from xboard_circus import __main__, cli

def command():
    {step}
    time.sleep(3)

cli.main = command
try:
    __main__.main()
except KeyboardInterrupt:
    print("interrupted")
"""
IMPORTED = """
import signal, weakref

class Gone: ...

gone = Gone()
reference = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
del gone
"""


@pytest.mark.parametrize(
    ("step", "said"),
    [
        pytest.param("import interrupted_late", "", id="in a callback of Python's import, which would forget it"),
        pytest.param(
            "exec('import signal; signal.raise_signal(signal.SIGINT); print(1)', {'__name__': 'rich.live'})",
            "1\n",
            id="where rich begins a picture, which could not be ended then",
        ),
        pytest.param(
            "exec('import signal; signal.raise_signal(signal.SIGINT); print(1)', {'__name__': 'rich.console'})",
            "",
            id="where rich prints a line that nobody reads",
        ),
    ],
)
def test_ctrl_c_ends_a_command_where_it_can_be_ended(tmp_path: Path, step: str, said: str) -> None:
    (tmp_path / "interrupted_late.py").write_text(IMPORTED)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}

    code = COMMAND.format(step=step)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == (f"{said}interrupted\n", "")


@pytest.mark.parametrize("command", ["status", "check", "start"])
def test_a_relative_ini_in_a_folder_that_was_removed_is_one_line(tmp_path: Path, command: str) -> None:
    """Given a shell in a folder that is gone, as after a deployment, then a command says so, and what to do."""
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f'rmdir {gone} && exec "$0" -m xboard_circus {command} -c circus.ini'
    env = {**os.environ, "PYTHONPATH": str(Path(xboard_circus.__file__).parent.parent)}
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=gone, env=env, capture_output=True, text=True, check=False
    )

    said = "circus.ini: the current folder was removed; `cd` into one that is there, or name the file by its whole path"
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "traceback" not in (done.stdout + done.stderr).lower()
