"""One judgement: what `check` refuses is refused by every door in the same words, before anything is touched."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from xboard_circus.checks import check
from xboard_circus.cli import main

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .visitor import Visitor, page

SHOWN = 290  # what an answer of circusd shows of one error


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, Visitor]]:
    folder = tmp_path_factory.mktemp("judgement")
    (folder / "bad.env").write_text("A=1\nB 2\n")
    with circusd(folder, watchers=[Watcher(options=FAST_RESTARTS), page()]) as c:
        c.wait_ready()
        visitor = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: visitor.get("/healthz").status == 200, what="the page answers")
        visitor.log_in(c.folder)
        eventually(lambda: visitor.watcher()["name"] == "web", what="the page has circusd's state")
        yield c, visitor


def by_cli(c: Circusd, *arguments: str) -> tuple[bool, str]:
    """Whether a command of the command line was refused, and what it printed."""
    result = CliRunner(env=c.environ()).invoke(main, [*arguments, "-c", str(c.ini)])
    return result.exit_code == 1, result.output


BUSY = "already running"  # Circus does nothing else while it manages its watchers, as it does each `check_delay`


def by_circusctl(c: Circusd, command: str, **name: Any) -> tuple[bool, str]:
    def answer() -> dict[str, Any] | None:
        said = c.call(command, waiting=True, **name)
        return None if BUSY in str(said.get("reason")) else said

    reply = eventually(answer, what="circusd is free")
    return reply["status"] == "error", str(reply.get("reason"))


def by_page(visitor: Visitor, action: str) -> tuple[bool, str]:
    def answer() -> tuple[bool, str] | None:
        said = visitor.act(action, watcher="web")
        told = " ".join(map(str, said.json.values()))
        return None if BUSY in told else (said.status == 409, told)

    return eventually(answer, what="circusd is free")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"numprocesses": -3}, "starts nothing", id="a negative number of workers"),
        pytest.param({"cmd": ""}, "missing or empty", id="no command"),
        pytest.param({"cmd": "nosuch --fd $(circus.sockets.web)"}, "there is no program nosuch", id="no program"),
        pytest.param({"use_sockets": False}, "uses a socket of Circus's", id="a socket that is not given"),
        pytest.param({"restart.brst": 3}, "did you mean restart.burst?", id="a slip"),
        pytest.param({"health.period": "fast"}, "not a number of seconds", id="no number"),
        pytest.param({"restart.window": 1}, "a limit out of reach", id="a contradiction"),
        pytest.param({"hooks.before_strat": "a.b"}, "Circus calls no hook of that name", id="no such hook"),
        pytest.param({"hooks.after_start": "nosuch.b"}, "No module named 'nosuch'", id="a hook of no module"),
        pytest.param({"worker.env_file": ".env"}, "there is no file", id="no env file"),
        pytest.param({"worker.env_file": "bad.env"}, "line 2: neither NAME=value", id="a malformed env file"),
        pytest.param({"run.before": "nosuch upgrade"}, "there is no program nosuch", id="no migration"),
        pytest.param({"working_dir": "/nosuch"}, "there is no folder /nosuch", id="no folder"),
        pytest.param({"uid": "nosuch"}, "not known on this host", id="no user"),
        pytest.param({"rlimit_nosuch": 5}, "no such limit", id="no limit"),
        pytest.param({"stderr_stream.filename": "/dev/null/x.log"}, "cannot be written", id="no log"),
        pytest.param({"stop_signal": 99999}, "no signal of this system", id="a signal that nobody can send"),
        pytest.param({"graceful_timeout": "soon"}, "Circus cannot read this", id="what Circus stumbles over"),
    ],
)
def test_every_door_refuses_a_bad_file_in_the_words_of_check(
    shared: tuple[Circusd, Visitor], monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, object], what: str
) -> None:
    """Given a bad file, when any door is tried, then it says what check says, and every worker is the same."""
    c, visitor = shared
    before = c.workers(), c.workers("dashboard")
    if "module" not in what:
        # What `check` does beyond: imports in processes of their own, a second each time.
        monkeypatch.setattr(check, "_of_host", lambda *_, **__: iter(()))
    c.write_ini(watcher__web=changes)
    try:
        refused, shown = by_cli(c, "check")
        errors = [line.removeprefix("error: ") for line in shown.splitlines() if line.startswith("error: ")]

        answers = {
            "start": by_cli(c, "start"),
            "restart": by_cli(c, "restart"),
            "restart web": by_cli(c, "restart", "web"),
            "reload": by_cli(c, "reload", "web"),
            "circusctl reloadconfig": by_circusctl(c, "reloadconfig"),
            "circusctl reload": by_circusctl(c, "reload", name="web"),
            "circusctl restart": by_circusctl(c, "restart", name="web"),
            "the page's reload": by_page(visitor, "reload"),
            "the page's restart": by_page(visitor, "restart"),
            "the page's restart of all": by_page(visitor, "restart_all"),
        }
    finally:
        c.write_ini()

    assert refused
    assert what in errors[0]
    words = errors[0][:SHOWN]
    assert {door: text for door, (is_refused, text) in answers.items() if not is_refused or words not in text} == {}
    assert (c.workers(), c.workers("dashboard")) == before


def test_a_file_that_no_parser_reads_is_refused_by_every_door(shared: tuple[Circusd, Visitor]) -> None:
    """Given a file that begins with no section, when a door within circusd is tried, then line 1 is named."""
    c, visitor = shared
    before = c.workers()
    c.ini.write_text("numprocesses = 2\n")
    try:
        answers = [
            *(by_cli(c, *command) for command in (["check"], ["start"], ["restart"], ["reload"])),
            by_circusctl(c, "reloadconfig"),
            by_page(visitor, "restart"),
        ]
    finally:
        c.write_ini()

    assert [(refused, "line 1: neither a [section] nor an option" in text) for refused, text in answers] == [
        (True, True)
    ] * len(answers)
    assert c.workers() == before
