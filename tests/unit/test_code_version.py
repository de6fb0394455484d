"""Which code a folder had at a time, and what the page tells of reloads with it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from xboard_circus.config import load
from xboard_circus.dashboard.code_version import versions
from xboard_circus.dashboard.death_view import Evidence
from xboard_circus.dashboard.settings import Settings
from xboard_circus.ledger import LedgerStore, Record

BEGAN = int(time.time()) - 1000  # the ledger keeps nothing of 1970
INI = """\
[circus]
endpoint = tcp://127.0.0.1:1
[watcher:web]
cmd = sleep 1000
working_dir = {folder}
[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""


def git(folder: Path, *arguments: str, at: int) -> str:
    env = {
        **os.environ,
        "GIT_COMMITTER_DATE": f"@{BEGAN + at} +0000",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
    }
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.example", *arguments]
    return subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, at: int) -> str:
    git(folder, "commit", "--allow-empty", "--no-gpg-sign", "-m", "x", at=at)
    return git(folder, "rev-parse", "HEAD", at=at)[:8]


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, list[str]]:
    """A checkout that moved at 100, 200 and 300, and its commits; the app is in a folder of it."""
    repository = tmp_path / "repository"
    app = repository / "app"
    app.mkdir(parents=True)
    git(repository, "init", "-q", at=100)
    return app, [commit(repository, at) for at in (100, 200, 300)]


def test_a_checkout_has_the_commit_that_it_was_at_and_a_worktree_too(
    checkout: tuple[Path, list[str]], tmp_path: Path
) -> None:
    app, commits = checkout
    git(app, "worktree", "add", "-q", str(tmp_path / "tree"), commits[0], at=250)

    found = versions(app, [BEGAN + at for at in (99, 100, 250, 999)])

    assert [each["commit"] for each in found] == [None, commits[0], commits[1], commits[2]]
    assert [each["commit"] for each in versions(tmp_path / "tree", [BEGAN + 200, BEGAN + 250])] == [None, commits[0]]


def test_without_git_the_newest_file_by_then_counts(tmp_path: Path) -> None:
    for name, at in {"a.py": 100, "lib/b.py": 200, ".hidden/c.py": 300, "env/lib/d.py": 300, "e.txt": 300}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    (tmp_path / "env" / "pyvenv.cfg").touch()

    assert [each["changed"] for each in versions(tmp_path, [50.0, 150.0, 400.0])] == [None, 100.0, 200.0]


@pytest.mark.parametrize("head", ["", "nonsense\n", f"{'a' * 40} /etc/shadow A <a@b> 1 +0000\tx\n"])
def test_what_is_no_record_of_git_s_names_no_commit(head: str, tmp_path: Path) -> None:
    (tmp_path / ".git" / "logs").mkdir(parents=True)
    (tmp_path / ".git" / "logs" / "HEAD").write_text(head)

    assert versions(tmp_path, [1e9])[0]["commit"] is None


def test_the_last_reloads_have_their_code(checkout: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Given two reloads and one that runs, then the newest comes first, each with the code before and after."""
    app, commits = checkout
    (tmp_path / "circus.ini").write_text(INI.format(folder=app))
    config = load(tmp_path / "circus.ini")
    of_failed = {
        "state": "failed",
        "took": 5.0,
        "total": 2,
        "replaced": [],
        "cut": 0,
        "log": "DB_PASSWORD=hunter2",
        "by": "me",
    }
    store = LedgerStore(tmp_path / "ledger.db")
    store.append(
        [
            Record(time=BEGAN + 150.0, watcher="web", kind="ready", pid=7),
            Record(time=BEGAN + 250.0, watcher="web", kind="reload_begin", data={"total": 2}),
            Record(time=BEGAN + 255.0, watcher="web", kind="reload_end", reason="reload failed", data=of_failed),
            Record(time=BEGAN + 350.0, watcher="web", kind="reload_begin", data={"total": 2}),
            Record(time=BEGAN + 351.0, watcher="web", kind="ready", pid=8),
            Record(
                time=BEGAN + 352.0,
                watcher="web",
                kind="reload_end",
                data={**of_failed, "state": "done", "took": 2.0, "log": ""},
            ),
            Record(time=BEGAN + 360.0, watcher="web", kind="reload_begin", data={"total": 2}),
        ]
    )
    store.close()
    page = Evidence(Settings(folder=tmp_path, endpoint=config.endpoint, label="here", config=config))

    found = page.reloads("WEB")

    shown = [(each["began"] - BEGAN, each["state"], each["old"]["commit"], each["new"]["commit"]) for each in found]
    assert shown == [
        (360.0, "running", commits[2], commits[2]),
        (350.0, "done", commits[0], commits[2]),
        (250.0, "failed", commits[0], commits[1]),
    ]
    assert (found[2]["reason"], found[2]["by"]) == ("reload failed", "me")
    assert "hunter2" not in str(found)
