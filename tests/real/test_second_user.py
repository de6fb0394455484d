"""What another user of the host can do: nothing."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from xboard_circus.dashboard import tokens

from .attacker import PYTHON, run_as
from .harness import BUNDLE, Watcher, circusd, eventually
from .test_users import USER, open_folder, pytestmark  # noqa: F401 - a fixture, and the marks

# Without a package of ours: whoever attacks brings programs of their own. It prints how each try ended.
ATTACK = """
import json, os, socket, sys
def tried(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return type(error).__name__
    return "got in"
def connect(path):
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(2)
        door.connect(path)
def write(path):
    open(path, "a").close()
def read(path):
    open(path, "rb").read(1)
ends = {}
for path in json.loads(sys.argv[1]):
    ends[path] = [tried(connect, path), tried(read, path), tried(write, path), tried(os.unlink, path)]
for folder in json.loads(sys.argv[2]):
    ends[folder] = [tried(os.listdir, folder), tried(os.mkdir, folder + "/x")]
print(json.dumps(ends))
"""


def attack(files: list[Path], folders: list[Path], user: str) -> dict[str, list[str]]:
    words = [json.dumps([str(path) for path in paths]) for paths in (files, folders)]
    found: dict[str, list[str]] = run_as(user, ATTACK, *words)
    return found


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_a_second_user_reaches_nothing(open_folder: Path) -> None:  # noqa: F811
    """Given circusd on unix sockets in a folder of mode 0700, when another user tries, then each door is closed."""
    folder = open_folder / "second"
    folder.mkdir(0o755)
    private = Path(tempfile.mkdtemp(prefix="run-", dir=folder))  # made with 0700
    endpoints = [private / "circusd.sock", private / "pubsub.sock"]
    lines = {"endpoint": f"ipc://{endpoints[0]}", "pubsub_endpoint": f"ipc://{endpoints[1]}"}
    with circusd(folder, watchers=[Watcher()], plugins=BUNDLE, circus=lines, start=False) as c:
        c.endpoint = lines["endpoint"]
        c.start_again()
        c.wait_ready()
        ledger = folder / "ledger.db"
        eventually(ledger.exists)
        sockets = [Path(worker["socket"]) for worker in c.watcher()["workers"]]
        tokens.load_or_make(folder)  # as the dashboard does at its first start
        token = folder / "dashboard.token"
        secrets = [*endpoints, *sockets, ledger, token]
        folders = [private, *{path.parent for path in sockets}]
        ends = attack(secrets, folders, USER)

        assert [path for path in secrets if not path.exists()] == []
        assert {path: found for path, found in ends.items() if set(found) != {"PermissionError"}} == {}
        assert len(ends) == len(secrets) + len(folders) == 2 + 2 + 2 + 2
        assert c.state()["circusd"]["pid"] == c.pid
        # The attack itself is sound: where a door is open, it gets in.
        token.chmod(0o666)
        assert attack([token], [], USER)[str(token)][1:3] == ["got in", "got in"]
