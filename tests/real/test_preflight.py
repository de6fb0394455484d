"""The trial of new code on a throw-away worker, by ``check --deep``."""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.host.written_files import walk

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .processes import marked
from .test_cli import begun
from .test_users import USER, library_path, open_folder, python, www_data

__all__ = ["open_folder", "python"]  # fixtures

pytestmark = pytest.mark.real


def checked(c: Circusd) -> tuple[int, str, str]:
    """The exit code, and the level and the words of what the trial came to."""
    result = c.run_cli("check", "--deep", "--json")
    told: dict[str, Any] = json.loads(result.stdout)
    (trial,) = [each for each in told["findings"] if "trial" in each["what"]]
    return result.returncode, trial["level"], trial["what"]


def is_clean(c: Circusd) -> bool:
    """Nothing of a trial is left: no process, no folder."""
    return marked(XBOARD_INSTANCE=c.instance) == [] and not list(c.runtime.rglob("preflight-*"))


def test_a_trial_runs_as_a_worker_would_and_leaves_nothing(tmp_path: Path) -> None:
    """Given a port that another has, when checked deeply, then a worker was ready once, off the port, and is gone."""
    with circusd(tmp_path, start=False) as c, socket.create_server(("127.0.0.1", c.watchers["web"].port)):
        code, level, words = checked(c)

        assert (code, level) == (0, "ok"), words
        assert words.startswith("a trial worker was ready after ")
        (start,) = c.starts()
        assert start.wid == 0
        assert c.said("stopped", start.pid)
        assert is_clean(c)


@pytest.mark.parametrize(
    ("watcher", "words"),
    [
        pytest.param(
            Watcher(told={"boot": "die"}), 'exited with code 1: "RuntimeError: told to die at import"', id="dies"
        ),
        pytest.param(
            Watcher(told={"boot": "ignore-term", "ready": "500"}, options={"graceful_timeout": 1}),
            "not ready within health.startup_timeout = 15 s; /health/ready says: status 500",
            id="never ready, and deaf to SIGTERM",
        ),
        pytest.param(
            Watcher(told={"ready": "400"}),
            "not ready within health.startup_timeout = 15 s; /health/ready says: status 400: it answers, but refuses "
            "the probe; set health.host to a name that it allows",
            id="does not know localhost",
        ),
    ],
)
def test_a_trial_that_fails_is_an_error_with_the_last_lines(tmp_path: Path, watcher: Watcher, words: str) -> None:
    """Given an app that can't get ready, when checked deeply, then exit 1 with the reason, its log, and it is gone."""
    options = {"health.ready_path": "/health/ready", "health.startup_timeout": 15, **watcher.options}
    watcher = Watcher(told=watcher.told, options=options)
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        code, level, told = checked(c)

        assert (code, level) == (1, "error"), told
        assert f"the trial worker did not get ready: {words}; its last lines:\n" in told
        assert is_clean(c)


def test_a_reload_that_the_trial_refuses_is_an_event_that_why_explains(tmp_path: Path) -> None:
    """Given code that dies at import, when a reload is refused for it, then that is recorded, and nothing replaced."""
    with circusd(tmp_path, numprocesses=1, plugins=BUNDLE) as c:
        pids = c.wait_ready()
        c.set("boot", "die")

        assert c.run_cli("reload").returncode == 1

        (failed,) = c.told("preflight_failed")
        assert "told to die at import" in failed.reason
        assert "preflight failed: " in c.watcher()["last_reason"]
        what = "The preflight of web failed: nothing was replaced"
        eventually(lambda: what in c.run_cli("why", "web").stdout, every=0.5)
        assert c.workers() == pids


def test_a_command_that_is_not_our_worker_is_left_out_with_a_word(tmp_path: Path) -> None:
    """Given plain uvicorn, when checked deeply, then nothing is started, and it says why."""
    stock = "{python} -m uvicorn {app} --fd $(circus.sockets.{name})"
    with circusd(tmp_path, watchers=[Watcher(command=stock)], start=False) as c:
        result = c.run_cli("check", "--deep")

        assert result.returncode == 0, result.stdout
        assert "[watcher:web] no trial: its command is not `python -m xboard_circus.worker`" in result.stdout
        assert c.starts() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_an_interrupt_ends_the_trial_too(tmp_path: Path, signum: signal.Signals) -> None:
    """Given a trial that takes its time, when the command is ended, then it ends, and nothing of the trial is left."""
    with (
        circusd(
            tmp_path, watchers=[Watcher(told={"boot": "slow 30"}, options={"graceful_timeout": 1})], start=False
        ) as c,
        begun(c, "check", "--deep") as command,
    ):
        eventually(lambda: c.starts())
        command.send_signal(signum)

        assert command.wait(90) == 128 + signum
        assert is_clean(c)


@pytest.mark.skipif(www_data() is None, reason=f"there is no user {USER}")
def test_a_trial_runs_as_the_watchers_user_beside_the_real_ones(open_folder: Path, python: str) -> None:
    """Given circusd as root and a watcher with a user, when tried and reloaded, then both run as that user."""
    user = www_data()
    assert user is not None
    folder = open_folder / "preflight"
    folder.mkdir(mode=0o755)
    web = Watcher(numprocesses=1, options={"uid": USER})
    env = library_path(open_folder / "python") if python != sys.executable else {}
    with circusd(folder, watchers=[web], python=python, env=env, start=False) as c:
        (folder / "web").chmod(0o777)
        c.start_again()
        old = c.wait_ready()[0]

        result = c.run_cli("reload")

        assert result.returncode == 0, result.stdout + result.stderr
        assert "web: a trial worker was ready after " in result.stdout
        assert c.wait_ready() != [old]
        assert json.loads(c.get("/facts"))["uid"] == user.pw_uid
        assert len(c.starts()) == 3
        assert (folder / "web" / "ready-at" / str(c.starts()[1].pid)).stat().st_uid == user.pw_uid
        assert list(c.runtime.rglob("preflight-*")) == []


def test_very_deep_folders_of_the_watchers_user_are_no_reason_against_its_code(tmp_path: Path) -> None:
    """Given an app that makes 1,200 folders in one another where its trial runs, then the trial still counts."""
    (tmp_path / "deep.py").write_text(DEEP)
    command = "{python} -m xboard_circus.worker deep:app --fd $(circus.sockets.web)"
    with circusd(tmp_path, watchers=[Watcher(command=command, env={"PYTHONPATH": str(tmp_path)})], start=False) as c:
        try:
            code, level, words = checked(c)
            assert (code, level) == (0, "ok"), words
        finally:
            # Python 3.13 removes them with the trial's folder; before it gave up, as would those of pytest.
            for path, _, _ in [*walk(c.runtime)]:
                if path.endswith("/d") and not os.listdir(path):
                    os.removedirs(path)


DEEP = """
import os

async def app(scope, receive, send):
    await receive()
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

place = os.environ["XBOARD_WORKER_DIR"]
for _ in range(1200):
    place += "/d"
    os.mkdir(place)
"""
