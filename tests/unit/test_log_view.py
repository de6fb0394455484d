"""What `logs` and `events` choose and colour, and what `completion` prints."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from fake_circusd import always
from test_cli import folder, run, running, state, watcher, worker, write_ini

from xboard_circus.cli import main
from xboard_circus.ledger.record import record_of
from xboard_circus.ledger.store import LedgerStore

_ = folder  # a fixture, which runs by itself
LOGGED = "stderr_stream.class = FileStream\nstderr_stream.filename = web.log\n"
STORED = "[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\nledger.file = ledger.db\n"
STAMP = "2026-11-24 20:47:29"
LINES = f"""\
{STAMP} [701] | INFO:     127.0.0.1 - "GET /ERROR HTTP/1.1" 200
{STAMP} [702] | WARNING:  slow
{STAMP} [701] | ERROR:    it broke
{STAMP} [701] | Traceback (most recent call last):
{STAMP} [702] | INFO:     fine
{STAMP} [701] |   File "app.py", line 3
{STAMP} [703] | \x1b[31mCRITICAL\x1b[0m: the end
"""


def texts(shown: str) -> list[str]:
    return [line.partition("] | ")[2].split(":")[0].strip() for line in shown.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--level", "critical"], ["CRITICAL"], id="one level"),
        pytest.param(
            ["--level", "error"],
            ["ERROR", "Traceback (most recent call last)", 'File "app.py", line 3', "CRITICAL"],
            id="a level and above, with the rest of a traceback that another worker's line splits",
        ),
        pytest.param(["--level", "warning", "-n", "1"], ["CRITICAL"], id="the last of what is chosen"),
        pytest.param(["--grep", r"GET /\w+ "], ["INFO"], id="a regular expression"),
        pytest.param(["--grep", "slow|fine", "--level", "WARNING"], ["WARNING"], id="both"),
    ],
)
def test_logs_are_chosen_by_level_and_expression(folder: Path, arguments: list[str], expected: list[str]) -> None:
    write_ini(folder, more=LOGGED)
    (folder / "web.log").write_text(LINES)

    assert texts(run("logs", "web", *arguments).stdout) == expected


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--grep", "("], "'(' is no regular expression: "),
        (["--level", "loud"], "'loud' is not one of"),
        (["--slot", "x"], "'x' is not a slot"),
    ],
)
def test_a_wrong_choice_is_refused(folder: Path, arguments: list[str], shown: str) -> None:
    write_ini(folder, more=LOGGED)

    result = run("logs", "web", *arguments)

    assert (result.exit_code, shown in result.stderr) == (2, True)


def test_logs_of_a_slot_are_those_of_its_worker_and_of_earlier_ones(folder: Path) -> None:
    """Given a slot whose worker 701 is gone, when its logs are shown, then its lines come with those of 703."""
    with running(folder) as fake:
        write_ini(folder, endpoint=fake.endpoint, more=LOGGED + STORED)
        (folder / "web.log").write_text(LINES)
        found = watcher(worker(pid=703), worker(pid=702, slot=2), numprocesses=2)
        fake.answers["xboard_state"] = always(state(found, config_file=folder / "circus.ini"))
        store = LedgerStore(folder / "ledger.db")
        store.append([record_of("web", "restart", {"pid": 701, "slot": 1, "seq": "e-1"}, now=time.time())])
        store.close()
        first, second, third = (run("logs", "web", "--slot", slot) for slot in ("1", "#2", "7"))

    assert re.findall(r"\[(\d+)\]", first.stdout) == ["701", "701", "701", "701", "703"]
    assert re.findall(r"\[(\d+)\]", second.stdout) == ["702", "702"]
    assert (third.exit_code, "no worker in slot 7 is known of web" in third.stderr) == (1, True)


def test_logs_of_a_slot_need_lines_with_pids(folder: Path) -> None:
    """Given a stream without time_format, when the lines of a slot are asked for, then the cure is shown."""
    with running(folder) as fake:
        write_ini(
            folder,
            endpoint=fake.endpoint,
            more=LOGGED + "stdout_stream.class = FileStream\nstdout_stream.filename = out.log\n" + STORED,
        )
        (folder / "web.log").write_text("INFO: up\nERROR: it broke\n")
        found = watcher(worker(pid=701), worker(pid=702, slot=2), numprocesses=2)
        fake.answers["xboard_state"] = always(state(found, config_file=folder / "circus.ini"))
        alone = run("logs", "web", "--slot", "1")
        (folder / "out.log").write_text(LINES)
        beside = run("logs", "web", "--slot", "1")

    cure = "its lines have no pid, so those of one slot are not known; set time_format for its stream, then `xboard-"
    assert (alone.exit_code, alone.stdout, cure in alone.stderr) == (1, "", True)
    assert (beside.exit_code, beside.stdout.count("[701]"), cure in beside.stderr) == (0, 4, True)


def on_a_terminal(folder: Path, *arguments: str, **env: str) -> str:
    """Run a command with a terminal of its own as stdout, and return what it wrote there."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", **env}
    with subprocess.Popen(
        [sys.executable, "-m", "xboard_circus", *arguments], cwd=folder, stdout=theirs, stderr=theirs, env=variables
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # Linux reports the other side's end so
            pass
        assert process.wait(30) == 0, shown
    os.close(ours)
    return shown.decode()


def test_logs_and_events_have_colours_on_a_terminal_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    write_ini(folder, more=LOGGED + STORED)
    (folder / "web.log").write_text(LINES)
    store = LedgerStore(folder / "ledger.db")
    store.append([record_of("web", "restart", {"pid": 701, "seq": "e-1", "reason": "killed"}, now=time.time())])
    store.close()

    shown = on_a_terminal(folder, "logs", "web")
    assert f"\x1b[31m{STAMP} [701] | ERROR:    it broke\x1b[0m" in shown
    assert f"\x1b[33m{STAMP} [702] | WARNING:  slow\x1b[0m" in shown
    assert "\x1b[31m" in on_a_terminal(folder, "events")
    for command in (["logs", "web"], ["events"], ["logs"]):
        assert "\x1b" not in on_a_terminal(folder, *command, NO_COLOR="1")
        assert "\x1b" not in run(*command).stdout


@pytest.mark.parametrize(
    ("shell", "script", "install"),
    [
        ("bash", "complete -o nosort -F", "bash-completion/completions/xboard-circus"),
        ("zsh", "#compdef xboard-circus", "put `fpath+=~/.zfunc` before `compinit`"),
        ("fish", "complete --no-files --command xboard-circus", "~/.config/fish/completions/xboard-circus.fish"),
    ],
)
def test_completion_prints_the_script_and_how_to_install_it(shell: str, script: str, install: str) -> None:
    result = run("completion", shell)

    assert (result.exit_code, script in result.stdout, install in result.stderr) == (0, True, True)
    assert f"xboard-circus completion {shell} > " in result.stderr


def completed(*words: str) -> list[str]:
    found = ShellComplete(main, {}, "xboard-circus", "_X").get_completions([*words[:-1]], words[-1])
    return [each.value for each in found]


def test_names_of_watchers_are_completed_live_and_from_the_ini_while_circusd_is_down(folder: Path) -> None:
    write_ini(folder)
    assert completed("stop", "") == ["web"]
    with running(folder) as fake:
        found = [watcher("up", name=name) for name in ("web", "api", "admin", "plugin:xboard")]
        fake.answers["xboard_state"] = always(state(*found, config_file=folder / "circus.ini"))

        for command in (
            "start",
            "stop",
            "restart",
            "reload",
            "status",
            "scale",
            "describe",
            "retry",
            "why",
            "requests",
        ):
            assert completed(command, "a") == ["api", "admin"]
        assert completed("stop", "-c", "circus.ini", "w") == ["web"]
        assert completed("events", "--kind", "port_") == ["port_freed", "port_refused", "port_shared", "port_shut"]
    assert completed("-c", "nosuch.ini", "stop", "") == []


@pytest.mark.parametrize(
    "name", ["$(touch${IFS}x)", "`id`", "a;id", "a|id", "a&id", "a>x", "*", "~x", "'a", "a\nb", "a b"]
)
def test_no_name_in_which_a_shell_would_read_a_command_is_completed(folder: Path, name: str) -> None:
    """Given a watcher of such a name in another user's ini or circusd, which bash would put into the line as it is."""
    write_ini(folder)
    with running(folder) as fake:
        found = [watcher("up", name=each) for each in ("web-2.x", name)]
        fake.answers["xboard_state"] = always(state(*found, config_file=folder / "circus.ini"))
        assert completed("why", "") == ["web-2.x"]


def test_each_command_is_completed() -> None:
    context: Any = click.Context(main)

    assert completed("") == main.list_commands(context)


def test_events_of_an_unknown_kind_are_refused_with_the_known_ones(folder: Path) -> None:
    write_ini(folder, more=STORED)

    result = run("events", "--kind", "restrat")

    assert result.exit_code == 2
    assert "no event is of kind restrat; did you mean restart? known are " in " ".join(result.stderr.split())
