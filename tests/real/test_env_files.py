"""Env files: a reload puts changed values into force, a broken file costs no worker, and no secret is on show."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .processes import process

LEAKY = """
import os
print("password", os.environ["DB_PASSWORD"], "and", os.environ["API_KEY"], flush=True)
if os.path.exists(os.path.join(os.environ["BACKEND_DIR"], "leak")):
    raise RuntimeError("no connection with " + os.environ["DB_PASSWORD"] + os.environ["API_KEY"])
from backend import app
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    folder = tmp_path_factory.mktemp("env")
    (folder / "leaky.py").write_text(LEAKY)
    write(folder, "hunter2-1")
    # The last two would keep each worker from serving, and its probe from a good answer.
    (folder / "uvicorn.env").write_text("OF_UVICORN=yes\nXBOARD_PREFLIGHT=1\nXBOARD_LIVE_PATH=/none\n")
    watcher = Watcher(
        app="leaky:app",
        arguments="--ws none --env-file uvicorn.env",
        # Each worker imports the app, and so can fail in that, as one that is forked with it cannot.
        options={"worker.env_file": "base.env,\n  .env", "worker.preload": "server", **FAST_RESTARTS},
        env={"MODE": "test", "API_KEY": "k-of-ini"},
    )
    with circusd(folder, watchers=[watcher], env={"PYTHONPATH": str(folder)}) as c:
        yield c


@pytest.fixture
def c(shared: Circusd) -> Circusd:
    write(shared.folder, "hunter2-1")
    shared.wait_ready()
    return shared


def write(folder: Path, password: str, more: str = "") -> None:
    (folder / "base.env").write_text("BASE=1\nDB_PASSWORD=of-base\n")
    (folder / ".env").write_text(f"DB_PASSWORD={password}\nURL=db://app:${{DB_PASSWORD}}@db/\nMODE=prod\n{more}")


def passwords(c: Circusd) -> set[str]:
    return {process(pid).environ["DB_PASSWORD"] for pid in c.workers()}


def test_workers_have_the_values_and_nothing_shows_them(c: Circusd) -> None:
    """Given two env files and uvicorn's, then workers have their values, the [env:] wins, and no command shows them."""
    environ = json.loads(c.get("/facts"))["environ"]

    assert [environ[name] for name in ("BASE", "DB_PASSWORD", "URL", "MODE", "OF_UVICORN")] == [
        *("1", "hunter2-1", "db://app:hunter2-1@db/", "test", "yes")
    ]
    shown = [json.dumps(c.call("options", name="web")), json.dumps(c.state()), c.run_cli("check", "--deep").stdout]
    assert [("hunter2" in text, "of-base" in text) for text in shown] == [(False, False)] * 3
    assert "password *** and ***" in eventually(lambda: c.log() if "password ***" in c.log() else None)
    assert ("hunter2" in c.log(), "k-of-ini" in c.log()) == (False, False)


def test_a_death_is_recorded_without_the_secret(c: Circusd) -> None:
    """Given an app whose last words are its password, when it fails, reason, log and event have ***."""
    last = c.last_told()
    c.set("leak", "1")

    kill(c.workers()[0])
    event = eventually(lambda: [each for each in c.failures(after=last) if "RuntimeError" in str(each.message)])[0]
    c.set("leak", "")

    assert "no connection with ******" in event.message["reason"]
    for shown in (json.dumps(event.message), json.dumps(c.state())):
        assert ("hunter2" in shown, "k-of-ini" in shown) == (False, False)
    c.wait_ready()


def test_a_reload_puts_changed_values_into_force(c: Circusd) -> None:
    """Given a changed file, when the watcher is reloaded, then each new worker has the new value."""
    write(c.folder, "hunter2-2")
    assert passwords(c) == {"hunter2-1"}

    c.do("reload", name="web", waiting=True)

    assert passwords(c) == {"hunter2-2"}


def test_a_file_that_breaks_costs_no_worker_and_refuses_a_reload(c: Circusd) -> None:
    """Given a file that cannot be used any more, a dead worker is replaced with the old values, a reload refused."""
    c.do("reload", name="web", waiting=True)
    healthy, dead = c.workers()

    write(c.folder, "hunter2-3", "NO SIGN hunter2-4\n")
    malformed = c.call("reload", name="web", waiting=True)
    (c.folder / ".env").unlink()
    missing, by_cli = c.call("reload", name="web", waiting=True), c.run_cli("reload", "web")
    assert c.workers() == [healthy, dead]
    kill(dead)
    c.wait_ready()

    assert [malformed["status"], missing["status"], by_cli.returncode] == ["error", "error", 1]
    assert f"{c.folder}/.env, line 4: neither" in malformed["reason"]
    for shown in (missing["reason"], by_cli.stdout + by_cli.stderr, c.watcher()["last_reason"]):
        assert f"there is no file {c.folder}/.env" in shown
    assert healthy in c.workers()
    assert passwords(c) == {"hunter2-1"}
    assert "hunter2" not in json.dumps([c.state(), malformed]) + by_cli.stdout + by_cli.stderr


def test_a_start_without_its_env_file_says_so_and_goes_on_when_it_is_there(tmp_path: Path) -> None:
    """Given a missing file, `start` starts nothing; under bare circusd the workers wait, and run when it is there."""
    watcher = Watcher(options={"worker.env_file": ".env"})
    with circusd(tmp_path, watchers=[watcher], start=False) as c:
        refused = c.run_cli("start")
        shown = refused.stdout + refused.stderr
        assert (refused.returncode, "there is no file" in shown, "started circusd" in shown) == (1, True, False)

        c.start_again()
        verdict = eventually(lambda: v if (v := c.watcher()["verdict"])["word"] == "blocked" else None)
        assert "there is no file" in verdict["cause"]
        eventually(lambda: [worker["held_by"] for worker in c.watcher()["workers"]] == ["before"] * 2)
        (tmp_path / ".env").write_text("GREETING=hello\n")

        assert {process(pid).environ["GREETING"] for pid in c.wait_ready()} == {"hello"}
        assert c.failures() == []
