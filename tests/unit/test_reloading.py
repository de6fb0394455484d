"""What ``xboard-circus reload`` says and how it ends, with a circusd that answers as the test says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_circusd import Answer, always, in_turn
from test_cli import OK, folder, run, running, state, watcher

from xboard_circus.circus_client import CircusdGone
from xboard_circus.cli.reloading import _waiting
from xboard_circus.errors import XboardError
from xboard_circus.host import procs
from xboard_circus.instance import Instance, Silent

__all__ = ["folder"]  # a fixture


def reloading(**changes: Any) -> dict[str, Any]:
    told = {"state": "running", "done": 0, "total": 2, "replaced": [], "reason": "", "log": ""}
    return {**told, **changes}


def begins(**changes: Any) -> Answer:
    return always({**OK, "reload": reloading(**changes)})


def states(folder: Path, *reloads: dict[str, Any] | None, status: str = "active") -> Answer:
    """The answers to `xboard_state`: the first one finds circusd, the others follow the reload."""
    ini = folder / "circus.ini"
    return in_turn(*(state(watcher("up", reload=each, status=status), config_file=ini) for each in (None, *reloads)))


def refused(reason: str) -> Answer:
    return always({"status": "error", "errno": 2, "reason": reason})


def test_every_replaced_worker_is_a_line(folder: Path) -> None:
    first = reloading(done=1, replaced=[[10, 20]])
    last = reloading(state="done", done=2, replaced=[[10, 20], [11, 21]])
    with running(folder, xboard_state=states(folder, first, last), xboard_reload=begins()) as fake:
        result = run("reload", "WEB", "--no-preflight")

        assert (result.exit_code, result.stdout) == (
            0,
            "web: 1 of 2 replaced: pid 10 -> 20\nweb: 2 of 2 replaced: pid 11 -> 21\nreloaded\n",
        )
        asked = [each["properties"] for each in fake.asked if each["command"] == "xboard_reload"]
        assert [(each["name"], each["by"].partition(",")[0]) for each in asked] == [("web", "xboard-circus reload")]


def test_a_reload_makes_no_folder_for_the_output_of_a_circusd(folder: Path) -> None:
    """Given a folder where logs/ cannot be made, as in a container with a read-only root, and no log of the ini in it.

    A file in its place is refused to root as well.
    """
    (folder / "logs").write_text("")
    last = reloading(state="done", done=2, replaced=[[10, 20], [11, 21]])
    with running(folder, xboard_state=states(folder, last), xboard_reload=begins()):
        result = run("reload", "--no-preflight")

    assert (result.exit_code, result.stdout.splitlines()[-1:]) == (0, ["reloaded"]), result.stderr


def test_a_failure_is_told_with_the_log_and_with_who_serves_on(folder: Path) -> None:
    failed = reloading(state="failed", done=1, replaced=[[10, 20]], reason="it died", log="first\nBoom: no key\n")
    with running(folder, xboard_state=states(folder, failed), xboard_reload=begins()):
        result = run("reload", "--no-preflight")

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "xboard-circus: web: the reload failed: it died",
        "xboard-circus: the last lines written:",
        "  first",
        "  Boom: no key",
        "xboard-circus: web: 1 of 1 workers serve on, 1 of them new",
    ]


def test_a_stopped_watcher_serves_no_more_and_nobody_says_so(folder: Path) -> None:
    ended = reloading(state="stopped", reason="the watcher was stopped")
    found = state(watcher(reload=None), config_file=folder / "circus.ini")
    after = state(watcher(reload=ended, status="stopped", workers=[]), config_file=folder / "circus.ini")
    with running(folder, xboard_state=in_turn(found, after), xboard_reload=begins()):
        result = run("reload", "--no-preflight")

    assert (result.exit_code, result.stderr) == (
        1,
        "xboard-circus: web: the reload was stopped: the watcher was stopped\n",
    )


@pytest.mark.parametrize(
    ("arguments", "answers", "words"),
    [
        pytest.param(["api"], {}, "has no watcher api; known are: web", id="an unknown name"),
        pytest.param([], {"status": "stopped"}, "runs no armed watcher", id="nothing runs"),
        pytest.param(["web"], {"status": "stopped"}, "web is stopped; `xboard-circus start web`", id="a stopped one"),
        pytest.param(["web"], {"armed": False}, "not armed; `xboard-circus restart web`", id="one that is not armed"),
        pytest.param([], {"reload": reloading(done=1)}, "runs already: 1 of 2 done", id="one runs"),
    ],
)
def test_what_cannot_be_reloaded_is_told_before_anything_is_begun(
    folder: Path, arguments: list[str], answers: dict[str, Any], words: str
) -> None:
    with running(
        folder, xboard_state=always(state(watcher("up", **answers), config_file=folder / "circus.ini"))
    ) as fake:
        result = run("reload", *arguments)

        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
        assert "xboard_reload" not in fake.commands()


def test_what_circusd_refuses_is_told_in_its_words(folder: Path) -> None:
    with running(folder, xboard_reload=refused("message error: a reload of web is running already: 1 done")):
        result = run("reload", "--no-preflight")

    assert (result.exit_code, "is running already: 1 done" in result.stderr) == (1, True)


def test_a_circusd_that_was_restarted_meanwhile_is_told(folder: Path) -> None:
    with running(folder, xboard_state=states(folder, None), xboard_reload=begins()):
        result = run("reload", "--no-preflight")

    assert (result.exit_code, "was circusd restarted?" in result.stderr) == (1, True)


def test_a_circusd_that_still_ends_is_told_to_have_ended() -> None:
    """Given a killed circusd whose sockets are closed a moment before it is gone, then the command says the same."""
    dying = iter([Silent(procs.Identity(1, 1), "it has ended"), None])
    instance = cast(Instance, SimpleNamespace(find=lambda: next(dying)))

    with (
        pytest.raises(XboardError, match="web: circusd ended in the middle of the reload"),
        _waiting(instance, "web", ""),
    ):
        raise CircusdGone("tcp://127.0.0.1:1", "it has ended", listening=False)


def test_a_command_that_is_not_ours_is_reloaded_without_a_trial(folder: Path) -> None:
    done = reloading(state="done", done=0, total=0)
    with running(folder, xboard_state=states(folder, None, done), xboard_reload=begins()):
        result = run("reload")

    assert result.exit_code == 0, result.stderr
    assert "web: no trial: its command is not `python -m xboard_circus.worker`\n" in result.stdout
    assert "web: no worker runs; those that wait start with the new code\n" in result.stdout


def test_without_circusd_there_is_nothing_to_reload(folder: Path) -> None:
    with running(folder):
        pass
    result = run("reload")

    assert (result.exit_code, "`xboard-circus start` starts it" in result.stderr) == (1, True)
