"""The commands why and events, on a ledger that is there without a circusd."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from xboard_circus.cli import main
from xboard_circus.cli.events import coming
from xboard_circus.config import load
from xboard_circus.core.incidents import Present
from xboard_circus.dashboard.death_view import Evidence
from xboard_circus.dashboard.settings import Settings
from xboard_circus.instance import Instance
from xboard_circus.ledger import LedgerStore, Record
from xboard_circus.ledger.database import inode_of
from xboard_circus.ledger.query import search
from xboard_circus.ledger.record import record_of

events_of_cli = sys.modules["xboard_circus.cli.events"]  # the package has the command of that name
PLUGIN = "[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\nledger.file = kept/events.db\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circus.ini").write_text(f"[circus]\n[watcher:My Web]\ncmd = sleep 60\n{PLUGIN}")
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[LedgerStore]:
    with closing(LedgerStore(folder / "kept" / "events.db")) as store:
        yield store


def record(kind: str, ago: float = 0.0, **more: Any) -> Record:
    fields: dict[str, Any] = {"watcher": "my_web", **more}
    return Record(time=time.time() - ago, kind=kind, **fields)


def filled(store: LedgerStore) -> None:
    store.append(
        [
            record("spawn", 7300, pid=70),
            record("restart", 120, pid=70, wid=1, cause="crash", reason="died by SIGSEGV"),
            record("restart", 60, pid=80, watcher="other", cause="exited", reason="exited with code 0"),
            record("command", 30, watcher="circusd", reason="stop, requested by circusctl"),
        ]
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param([], ["spawn", "restart", "restart", "command"], id="all"),
        pytest.param(["--since", "10m"], ["restart", "restart", "command"], id="since"),
        pytest.param(["--watcher", "My Web"], ["spawn", "restart"], id="of a watcher as the ini spells it"),
        pytest.param(["--kind", "spawn", "--kind", "command"], ["spawn", "command"], id="of two kinds"),
        pytest.param(["--limit", "1"], ["command"], id="the last"),
    ],
)
def test_events_are_listed_oldest_first(store: LedgerStore, arguments: list[str], expected: list[str]) -> None:
    filled(store)

    result = run("events", "--json", *arguments)

    assert [json.loads(line)["kind"] for line in result.stdout.splitlines()] == expected


@pytest.mark.parametrize("column", ["time", "watcher", "kind", "pid", "wid", "cause", "reason", "data", "say", "seq"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("inf", id="a word"),
        pytest.param(float("inf"), id="infinite"),
        pytest.param(1e300, id="no time"),
        pytest.param(b"\xff\x00", id="bytes"),
        pytest.param('{"lived": 1e999, "budget": {"used": NaN}, "exit_code": 1' + "0" * 400 + "}", id="no numbers"),
        pytest.param('{"slot": [1], "wait": "soon", "follows": {"a": 1}, "took": []}', id="other types"),
        pytest.param('{"slot": "1", "wait": [1], "follows": [70], "took": "long"}', id="more other types"),
        pytest.param('{"slot": 1, "wait": 1e300, "next": "n"}', id="waits without measure"),
        pytest.param('{"slot": 1, "a": ' + '{"a":' * 900 + "1" + "}" * 901, id="deep"),
    ],
)
def test_a_row_of_nonsense_spoils_nothing_but_itself(
    store: LedgerStore, folder: Path, column: str, value: object
) -> None:
    """Given a row into which its owner has put nonsense, when asked, then the others are told."""
    filled(store)
    kinds = ("cooldown", "restart", "ready", "kept", "reload_begin", "reload_end") if column == "data" else ()
    store.append([record(kind, 60, watcher="my_web", pid=70) for kind in kinds])
    store.append([record("restart", 10, pid=90, cause="crash", reason="later", data={"slot": 2})])
    with closing(sqlite3.connect(folder / "kept" / "events.db")) as connection, connection:
        is_one = "kind != 'spawn'" if kinds else "kind = 'restart'"
        connection.execute(f"UPDATE events SET {column} = ? WHERE pid = 70 AND {is_one}", [value])

    whys = [run("why", "my_web"), run("why"), run("why", "70")]
    events = run("events", "--json")

    assert {each.exit_code for each in whys} <= {0, 1}
    assert "later" in whys[0].stdout
    assert events.exit_code == 0
    assert [json.loads(line)["pid"] for line in events.stdout.splitlines()][-1] == 90
    assert run("events").exit_code == run("events", "--rows").exit_code == 0
    page = Evidence(
        Settings(
            folder=folder, endpoint="tcp://127.0.0.1:1", label="here", config=load(folder / "circus.ini"), deadline=0.1
        )
    )
    json.dumps(
        [page.events(limit=100), page.why(watcher=None, pid=None), page.why(watcher=None, pid=70)], allow_nan=False
    )


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        pytest.param(["--watcher", "nosuch"], "nothing that fits is recorded yet", id="no such watcher"),
        pytest.param(["--since", "1s"], "nothing that fits is recorded yet", id="nothing lately"),
    ],
)
def test_an_empty_list_is_told_beside_the_list(store: LedgerStore, arguments: list[str], note: str) -> None:
    filled(store)

    result = run("events", *arguments)

    assert (result.exit_code, result.stdout) == (0, "")
    assert note in result.stderr


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        pytest.param(
            "restarts", "no event is of kind restarts; did you mean restart? known are before_done, ", id="a slip"
        ),
        pytest.param("nosuch", "no event is of kind nosuch; known are before_done, ", id="no kind at all"),
    ],
)
def test_a_kind_that_there_is_not_is_wrong_usage(store: LedgerStore, kind: str, note: str) -> None:
    filled(store)

    result = run("events", "--kind", kind)

    assert (result.exit_code, result.stdout) == (2, "")
    assert note in result.stderr


def test_a_limit_past_what_sqlite_can_count_is_wrong_usage(store: LedgerStore) -> None:
    filled(store)

    assert run("events", "--limit", "9" * 30).exit_code == 2
    assert run("events", "--limit", "1000000000").exit_code == 0


def test_a_ledger_in_a_folder_that_nobody_may_write_to_is_read(
    folder: Path, store: LedgerStore, small_disk: Callable[[str, str], Path]
) -> None:
    filled(store)
    store.close()
    disk = small_disk("kept-elsewhere", "4m")
    shutil.copy(folder / "circus.ini", disk)
    shutil.copytree(folder / "kept", disk / "kept")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    result = run("events", "--kind", "command", "-c", str(disk / "circus.ini"))

    assert (result.exit_code, result.stderr) == (0, "")
    assert "stop, requested by circusctl" in result.stdout


def test_secrets_are_masked_for_people_and_programs(store: LedgerStore) -> None:
    store.append([record("restart", pid=70, cause="crash", reason="no way to redis://:hunter22@cache/0")])

    for arguments in (["events"], ["events", "--json"], ["why"], ["why", "--json"]):
        result = run(*arguments)
        assert "hunter22" not in result.stdout
        assert "redis://:***@cache/0" in result.stdout


def crash_loop(store: LedgerStore) -> None:
    """Store a slot that ended twice and is up again after a retry, and one end of another watcher after it."""
    died = {"cause": "crash", "reason": "died by SIGSEGV", "data": {"slot": 1}}
    up = {"reason": "up 0.4 s after its start", "data": {"slot": 1}}
    store.append(
        [
            record("ready", 900, pid=70, **up),
            record("restart", 800, pid=70, wid=1, **died),
            record("spawn", 799, pid=71),
            record("restart", 790, pid=71, wid=2, **{**died, "reason": "died again"}),
            record("command", 760, watcher="circusd", reason="retry my_web, requested by ops"),
            record("ready", 757, pid=72, **up),
            record("restart", 300, watcher="other", pid=80, wid=1, **died),
            record("ready", 299, watcher="other", pid=81, **up),
        ]
    )


def test_events_of_an_incident_are_one_line_and_rows_on_demand(store: LedgerStore) -> None:
    """Given a crash loop that is over, when listed, then its events are one line, and each is there with --rows."""
    crash_loop(store)

    shown = [line.partition("  ")[2] for line in run("events").stdout.splitlines()]
    rows = [line.split()[4:6] for line in run("events", "--watcher", "My Web", "--rows").stdout.splitlines()]

    assert shown == [
        "my_web (pid 70)  ready: up 0.4 s after its start",
        "my_web  incident (over after 43 s, 4 events): #1 ended 2 times in 10 s: died again",
        "circusd  command: retry my_web, requested by ops",
        "other  incident (over after 1 s, 2 events): #1 ended: died by SIGSEGV",
    ]
    assert [row[-1] for row in rows] == ["70)", "70)", "71)", "71)", "72)"]
    assert run("events", "--limit", "1").stdout == run("events").stdout.splitlines(keepends=True)[-1]
    assert run("events", "--all").stdout.count("\n") == 8


def test_why_alone_tells_the_worst_of_the_last_hour_and_what_fixed_it(store: LedgerStore) -> None:
    crash_loop(store)

    lines = run("why").stdout.splitlines()

    assert lines[0] == "Worker 1 of my_web (pid 71) crashed: died again"
    assert lines[2:5] == [
        "  incident: #1 ended 2 times in 10 s: died again (over after 43 s)",
        "  fixed by: retry my_web, requested by ops; then ready #1 (pid 72): up 0.4 s after its start",
        "  more:     1 more in the last hour: `xboard-circus events --since 1h`",
    ]
    assert "incident:" not in run("why", "my_web").stdout
    assert run("why", "other").stdout.startswith("Worker 1 of other (pid 80)")


def test_why_tells_what_is_not_over_and_not_what_happened_last(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a slot that cools down, when a dependency comes back after that, then the slot is what both words tell."""
    died = {"cause": "crash", "reason": "died by SIGSEGV", "data": {"slot": 1}}
    store.append(
        [
            record("unhealthy", 60, pid=None, reason="a dependency is down"),
            record("restart", 50, pid=70, wid=1, **died),
            record("restart", 45, pid=71, wid=2, **{**died, "data": {"slot": 2}}),
            record("ready", 40, pid=72, wid=3, data={"slot": 2, "follows": 71}),
            record("recovered", 30, pid=None, reason="ok again"),
        ]
    )
    monkeypatch.setattr(events_of_cli, "_current", lambda _: {"my_web": Present(is_troubled=True)})

    told = [run("why").stdout, run("why", "My Web").stdout]

    assert {each.splitlines()[0] for each in told} == {"Worker 1 of my_web (pid 70) crashed: died by SIGSEGV"}
    assert "incident: #1, #2 ended 2 times" in told[0]


@pytest.mark.parametrize("is_news", [True, False])
def test_why_tells_of_a_reload_that_failed_while_it_is_news(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch, is_news: bool
) -> None:
    crash_loop(store)
    store.append([record("reload_end", 5, pid=None, reason="reload failed", data={"state": "failed"})])
    monkeypatch.setattr(events_of_cli, "_current", lambda _: {"my_web": Present(has_failed_reload=is_news)})

    store.append([record("restart", 1, pid=72, wid=3, cause="crash", reason="died again", data={"slot": 1})])
    store.append([record("ready", 1, pid=73, wid=4, data={"slot": 1})])

    told = [run("why").stdout, run("why", "My Web").stdout]

    assert {each.partition(" of my_web")[0] for each in told} == {"A reload" if is_news else "Worker 1"}


def test_a_stop_explains_no_crash_loop_and_fixes_none(store: LedgerStore) -> None:
    """Given a crash loop that an operator has stopped, then its last crash is told, and that it was stopped."""
    died = {"cause": "crash", "reason": "died by SIGSEGV", "data": {"slot": 1}}
    stopped = {"cause": "commanded", "reason": "commanded: operator", "data": {"slot": 2}}
    store.append(
        [
            record("restart", 50, pid=70, wid=1, **died),
            record("command", 20, reason="stop, requested by ops"),
            record("end", 20, pid=80, wid=2, **stopped),
            record("stop", 20, pid=None),
        ]
    )

    lines = run("why").stdout.splitlines()

    assert lines[0] == "Worker 1 of my_web (pid 70) crashed: died by SIGSEGV"
    assert lines[3] == "  ended by: stop, requested by ops"


def test_an_event_is_one_line_for_people(store: LedgerStore) -> None:
    store.append([record("restart", pid=70, cause="crash", reason="died\x1b[2J by\nSIGSEGV")])

    (line,) = run("events").stdout.splitlines()

    assert line.partition("  ")[2] == "my_web (pid 70)  restart [crash]: died by SIGSEGV"


@pytest.mark.parametrize(
    ("whom", "expected"),
    [
        pytest.param([], "Worker 1 of my_web (pid 70) crashed", id="the worst of the last hour"),
        pytest.param(["other"], "A process of other (pid 80) exited: exited with code 0", id="the last of a watcher"),
        pytest.param(["My Web"], "A process of my_web (pid 70)", id="of a watcher as the ini spells it"),
        pytest.param(["80"], "A process of other (pid 80)", id="of a pid"),
    ],
)
def test_why(store: LedgerStore, whom: list[str], expected: str) -> None:
    filled(store)
    store.append([record("restart", 1, pid=70, cause="crash", reason="died again")] if whom == ["My Web"] else [])

    result = run("why", *whom)

    assert (result.exit_code, result.stdout.startswith(expected)) == (0, True)


def test_a_watcher_that_is_not_armed_has_only_what_circus_tells(store: LedgerStore) -> None:
    store.append([record("reap", pid=70, data={"exit_code": 3})])

    assert "A process of my_web ended: no reason recorded (exit code 3)" in run("why").stdout


def test_why_of_what_needs_no_reason(store: LedgerStore) -> None:
    store.append([record("spawn", pid=70)])

    result = run("why", "70")

    assert result.exit_code == 1
    assert "nothing is recorded of 70 that would need a reason" in result.stderr


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A circusd that has a death in memory which the ledger may have, one that it has not, and what is no event."""
    of_first = {"time": 1.9e9, "pid": 70, "wid": 1, "cause": "crash", "reason": "died by SIGSEGV", "seq": "e-1"}
    of_second = {**of_first, "time": 1.9e9 + 1, "pid": 71, "reason": "died again", "follows": 70, "seq": "e-2"}
    held = [["my_web", "restart", of_first], ["my_web", "restart", of_second], ["other", "restart"], "junk", None]
    monkeypatch.setattr(Instance, "events", lambda _: held)


def test_what_waits_in_circusd_is_told_and_marked(store: LedgerStore, waiting: None) -> None:
    """Given a full disk, when asked, then the death that the ledger lacks is shown as such, and the others once."""
    store.append([record_of("my_web", "restart", {"time": 1.9e9, "pid": 70, "seq": "e-1"}, now=0.0)])

    listed = [json.loads(line) for line in run("events", "--json").stdout.splitlines()]

    assert [(each["id"], each["pid"], each["stored"]) for each in listed] == [(1, 70, True), (2, 71, False)]
    assert "ledger:   not in it yet" in run("why").stdout
    assert "ledger:   not in it yet" in run("why", "71").stdout
    assert "ledger:" not in run("why", "70").stdout
    assert "successor pid 71" in run("why", "70").stdout
    assert run("events", "--watcher", "other").stdout == ""


def test_what_waits_in_circusd_is_told_before_there_is_a_ledger(waiting: None) -> None:
    assert "died again" in run("why").stdout
    assert run("events", "--rows").stdout.count("(not in the ledger yet)") == 2


@pytest.mark.parametrize("command", ["why", "events"])
def test_there_is_no_ledger_yet(command: str) -> None:
    result = run(command)

    assert result.exit_code == 1
    assert "there is no ledger yet" in result.stderr
    assert "`xboard-circus start`" in result.stderr


@pytest.mark.parametrize("command", ["why", "events"])
def test_a_damaged_ledger_is_an_answer_and_no_bug(folder: Path, command: str) -> None:
    (folder / "kept").mkdir()
    (folder / "kept" / "events.db").write_bytes(b"no database" * 1000)

    result = run(command)

    assert result.exit_code == 1
    assert "file is not a database" in result.stderr


def test_what_comes_is_followed_into_a_new_file(store: LedgerStore, folder: Path) -> None:
    """Given somebody who follows, when a record is stored, and one in a file that took its place, both are told."""
    filled(store)
    query = partial(search, store.path, watcher="my_web")
    last = search(store.path, limit=1)[0].id or 0
    found = coming(store.path, query, last=last, inode=inode_of(store.path))

    def happen() -> None:
        store.append([record("cooldown")])

    threading.Timer(0.1, happen).start()
    assert next(found).kind == "cooldown"
    store.close()
    for each in (folder / "kept").iterdir():
        each.rename(folder / each.name)
    store.append([record("recovered")])
    assert next(found).kind == "recovered"
