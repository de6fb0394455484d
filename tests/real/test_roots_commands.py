"""Root types commands beside files of another user's: what of root's that user gets by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .harness import Circusd, Watcher, circusd
from .test_users import USER, library_path, open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

# The package of an app, which `check` imports when it looks for the module below it.
SPY = """
import json, os
def terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
found = {"user": os.getuid(), "terminal": terminal(), "stdin": os.readlink("/proc/self/fd/0")}
found |= {"secret": "SECRET" in os.environ, "folder": os.getcwd(), "preflight": "XBOARD_PREFLIGHT" in os.environ}
with open("trace", "a") as file:
    file.write(json.dumps(found) + "\\n")
"""


def typed(c: Circusd, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own that has a terminal, as a shell of root's has one."""
    master, slave = os.openpty()
    try:
        return subprocess.run(
            ["setsid", "--ctty", c.python, "-m", "xboard_circus", *arguments, "-c", str(c.ini)],
            cwd="/",
            env={**c.environ(), **env},
            stdin=slave,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(master)
        os.close(slave)


def test_the_users_code_gets_neither_roots_terminal_nor_environment(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given an app in a folder of www-data's, when root types a command that looks for it, then the app's code runs as
    that user, in its folder, without the terminal, and without a variable that circusd does not have."""
    folder = open_folder / "typed"
    app = folder / "app"
    (app / "shop").mkdir(parents=True)
    (app / "shop" / "__init__.py").write_text(SPY)
    (app / "shop" / "main.py").write_text("from backend import app\n")
    (app / "trace").touch()
    (folder / "web").mkdir()
    for path in (folder / "web", app, app / "shop", app / "trace"):
        shutil.chown(path, USER, USER)
    uid = (app / "trace").stat().st_uid
    env = library_path(open_folder / "python") if python != sys.executable else {}
    options = {"uid": USER, "working_dir": app}
    web = Watcher(app="shop.main:app", numprocesses=1, options=options)

    def traces(*arguments: str, **env: str) -> list[dict[str, Any]]:
        (app / "trace").write_text("")
        done = typed(c, *arguments, **env)
        found = [json.loads(line) for line in (app / "trace").read_text().splitlines()]
        assert found, done
        expected = {"user": uid, "terminal": False, "stdin": "/dev/null", "folder": str(app)}
        assert [{name: each[name] for name in expected} for each in found] == [expected] * len(found), done
        return found

    with circusd(folder, watchers=[web], python=python, env=env, start=False) as c:
        for command in (["check"], ["check", "--deep"], ["doctor"]):
            assert [each for each in traces(*command, SECRET="hunter2") if each["secret"]] == [], command
        traces("start")
        c.wait_ready()
        found = traces("reload", SECRET="hunter2")
        assert {each["preflight"] for each in found} == {True, False}
        assert [each for each in found if each["secret"]] == []
        traces("restart")
        typed(c, "stop")
