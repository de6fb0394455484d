"""Root types commands beside files of another user's: what of root's that user gets by it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .attacker import completed_as
from .harness import BUNDLE, Circusd, Watcher, circusd
from .operations import Checkout
from .processes import process
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
PLANTED = """
import os
if os.geteuid() in (0, 1):
    open({marker!r}, "a").close()
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


def plant(folder: Path, marker: Path, *names: str) -> None:
    """Have www-data put modules into *folder*, which its group may write, as `service install` shares it."""
    shutil.chown(folder, "root", USER)
    folder.chmod(0o1775)
    text = PLANTED.format(marker=str(marker))
    write = 'for name in "$@"; do printf %s "$TEXT" >"$name.py"; done'
    made = completed_as(USER, ["/bin/sh", "-ec", f"cd {folder}; {write}", "sh", *names], TEXT=text, PATH=os.defpath)
    assert made.returncode == 0, made


def test_root_starts_and_restarts_nothing_in_a_folder_where_another_user_may_put_modules(open_folder: Path) -> None:  # noqa: F811
    """Given root's circusd in a folder that was shared since, when root types a command that would import from there,
    then it is refused with the cure, nothing of that user's runs as root, and what runs, runs on."""
    folder, marker = open_folder / "shared", open_folder / "ran-as-root"
    folder.mkdir()
    (folder / "hook.py").write_text("def after_start(watcher, arbiter, hook_name, **kwargs):\n    return True\n")
    options = {"hooks.after_start": "hook.after_start"}
    with circusd(folder, watchers=[Watcher(options=options)], env={"PYTHONPATH": "."}) as c:
        workers = c.wait_ready()
        plant(folder, marker, "sitecustomize", "typing", "sqlite3", "click")
        c.extra_env.clear()  # root's own shell looks for nothing in there
        why = f"its group may write {folder}, and root would run what is there; run this as "
        for command in (["start"], ["restart"], ["restart", "--cold"], ["restart", "web"], ["reload"]):
            refused = c.run_cli(*command)
            assert refused.returncode == 1, refused
            assert why in refused.stderr, refused
            assert "Nothing was started or stopped" in refused.stderr
        deep = c.run_cli("check", "--deep")
        assert (deep.returncode, why in deep.stdout) == (1, True), deep
        (folder / "service.ini").touch()
        refused = c.run_cli("restart")
        assert "a service runs there: `systemctl restart xboard-backend`" in refused.stderr
        assert not marker.exists()
        assert c.ready() == workers
        assert process(c.pid).alive
        (folder / "sitecustomize.py").unlink()  # circusd's own end imports nothing more


def test_root_empties_no_file_that_has_a_second_name_in_a_folder_of_another_users(tmp_path: Path) -> None:
    """Given a second name of root's file, as `protected_hardlinks = 0` lets another user make it in his folder, when
    root writes over it, then that is refused before anything of the file is gone."""
    precious = tmp_path / "precious"
    precious.write_text("root's")
    (theirs := tmp_path / "theirs").mkdir()
    os.link(precious, theirs / "circus.ini")
    shutil.chown(theirs, USER, USER)

    init = [sys.executable, "-m", "xboard_circus", "init", "--force", "--app", "shop.main:app", str(theirs)]
    refused = subprocess.run(init, capture_output=True, text=True, timeout=120, check=False)
    assert (refused.returncode, "circus.ini cannot be written: not a plain file" in refused.stderr) == (1, True), (
        refused
    )
    assert precious.read_text() == "root's"
    (theirs / "circus.ini").unlink()
    (theirs / "circus.ini").write_text("x" * 100_000)
    written = subprocess.run(init, capture_output=True, text=True, timeout=120, check=False)
    assert (written.returncode, "xxx" in (theirs / "circus.ini").read_text()) == (0, False), written


def test_root_obeys_no_ini_and_reads_no_ledger_that_all_may_write(tmp_path: Path, open_folder: Path) -> None:  # noqa: F811
    """Given root's ini of mode 666, in which another user names a file of root's as pid file, and root's ledger in a
    folder of mode 777, when root cleans, or asks for the page's link or events, then it is refused with the place."""
    folder = open_folder / "all"
    folder.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("4190000")
    with circusd(folder, plugins=BUNDLE, start=False) as c:
        (ledger := folder / "state").mkdir()
        plugin = "[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\nledger.file = state/ledger.db\n"
        page = "[watcher:dashboard]\ncmd = xboard-circus-dashboard\n"
        c.ini.write_text(f"[circus]\nendpoint = {c.endpoint}\n{page}{plugin}")
        with contextlib.closing(sqlite3.connect(ledger / "ledger.db")) as made:
            made.execute("CREATE TABLE events (time)")
        c.ini.chmod(0o666)
        write = 'printf "[circus]\npidfile = %s\n%s" "$1" "$(sed 1d "$2")" >"$2"'
        written = completed_as(USER, ["/bin/sh", "-c", write, "sh", str(precious), str(c.ini)], PATH=os.defpath)
        assert (written.returncode, "pidfile" in c.ini.read_text()) == (0, True), written
        cleaned = c.run_cli("clean")
        assert precious.exists()
        assert f"left alone, because every user of this host may write {c.ini}" in cleaned.stderr, cleaned
        link = c.run_cli("dashboard", "--no-open")
        assert (link.returncode, link.stdout) == (1, ""), link
        assert f"every user of this host may write {c.ini}" in link.stderr
        c.ini.chmod(0o644)
        assert "every user" not in c.run_cli("events").stderr
        ledger.chmod(0o777)
        events = c.run_cli("events")
        assert (events.returncode, events.stdout) == (1, "")
        assert f"every user of this host may write {ledger}; name another file" in events.stderr
        c.run_cli("clean")
        assert not precious.exists()


LISTENS = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
NAMES_ROOTS_FILES = """
[circus]
endpoint = ipc://{roots}/c.sock
pidfile = {roots}/cron.pid
[watcher:web]
cmd = /bin/sleep 9
uid = {user}
working_dir = {roots}/shut
hooks.before_start = xboard_circus.plugins.guard.arm
worker.env_file = {roots}/passwd
stdout_stream.class = xboard_circus.RotatingFileStream
stdout_stream.filename = {roots}/none/web.log
[watcher:plain]
cmd = /bin/sleep $(circus.sockets.held)
use_sockets = True
[socket:held]
host = 127.0.0.1
port = {port}
[socket:unix]
path = {roots}/none/u.sock
[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
ledger.file = {roots}/ledger.db
working_dir = {roots}/theirs
[alert:mail]
type = webhook
url_file = {roots}/passwd
"""


@pytest.mark.parametrize("place", [".", "circus.ini"])
def test_root_is_advised_no_command_on_what_another_users_ini_names(open_folder: Path, place: str) -> None:  # noqa: F811
    """Given an ini, or its folder, of www-data's that names files, folders and a port of root's, when root examines it,
    then no cure is a command on these, such as `chmod 600 /etc/passwd`; of an ini of root's they are."""
    folder, roots = open_folder / f"advice-{place}", open_folder / f"roots-{place}"
    for each in (folder, roots, roots / "shut", roots / "theirs"):
        each.mkdir()
    shutil.chown(roots / "theirs", USER)
    (roots / "shut").chmod(0o700)
    (roots / "passwd").write_text("DB_PASSWORD=hunter2hunter2\n")
    (roots / "ledger.db.damaged-1").touch()
    os.mkfifo(roots / "ledger.db")
    listens = subprocess.Popen([sys.executable, "-c", LISTENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with listens, circusd(folder, plugins=BUNDLE, start=False) as c:
        assert listens.stdin is not None
        assert listens.stdout is not None
        (roots / "cron.pid").write_text(f"{listens.pid}\n")
        c.ini.write_text(NAMES_ROOTS_FILES.format(roots=roots, user=USER, port=int(listens.stdout.readline())))
        of_check = [f"chmod 600 {roots}/passwd", f"chmod o+x {roots}/shut", f"mkdir -p {roots}/none"]
        of_check.append(f"`chown root {roots}/theirs` and `chmod go-w` it")
        of_doctor = [f"chmod 0700 {roots}", f"`kill {listens.pid}`", "nothing breaks by it; delete it", "delete them"]
        commands = {"check": of_check, "doctor": of_check + of_doctor, "alerts list": of_check[:1], "events": []}

        def advised() -> dict[str, str]:
            runs = {command: c.run_cli(*command.split()) for command in commands}
            return {command: run.stdout + run.stderr for command, run in runs.items()}

        for command, text in advised().items():
            assert [each for each in commands[command] if each not in text] == [], text
        shutil.chown(folder / place, USER)
        for command, text in advised().items():
            assert [each for each in (*of_check, *of_doctor) if each in text] == [], text
            assert not re.search(rf"(chmod|chown|mkdir|setfacl|rm)\b[^;\n]*{roots}|it is no plain file; delete", text)
            asked = f"ask who wrote the ini: {USER} may write {folder / place}, and so name anything"
            assert (asked in text) == (command != "events"), text
        listens.stdin.close()


def test_an_operator_runs_nothing_in_the_folder_of_a_service_and_all_in_that_of_a_team(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
) -> None:
    """Given a folder that is shared with the user of a service, when an operator who is not root types a command that
    would import from there, then it is refused with the cure, also in that user's group; in a team's, it is not."""
    folder, ours = open_folder / "services", open_folder / "operators"
    marker = ours / "ran"
    for each in (folder, ours):
        each.mkdir()
    shutil.chown(ours, "daemon")
    web = Watcher(command="{python} -m http.server {port}", options={"hooks.after_start": "planted.hook"})
    with circusd(folder, watchers=[web], start=False) as c:
        plant(folder, marker, "planted")
        env = {"XBOARD_RUNTIME_DIR": str(ours / "r"), "PATH": os.defpath, "PYTHONPATH": str(folder)}
        env |= library_path(open_folder / "python")

        def of_operator(*words: str, groups: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
            command = [python, "-m", "xboard_circus", *words, "-c", str(c.ini)]
            who: dict[str, Any] = {"user": "daemon", "group": "daemon", "extra_groups": groups}
            return subprocess.run(command, cwd=ours, env=env, **who, capture_output=True, text=True, check=False)

        why = f"its group may write {folder}, and daemon would run what is there; run this as the user who runs it"
        for groups in ((), (USER,)):
            assert why in of_operator("check", groups=groups).stdout
            for command in ("start", "restart"):
                refused = of_operator(command, groups=groups)
                assert (refused.returncode, why in refused.stderr) == (1, True), refused
        folder.chmod(0o2775)
        assert why in of_operator("check").stdout  # a group that the operator is not in
        assert not marker.exists()
        team = of_operator("check", groups=(USER,))
        assert (why in team.stdout, marker.exists()) == (False, True), team


@pytest.fixture
def checkout(open_folder: Path) -> Iterator[Checkout]:  # noqa: F811
    made = Checkout(open_folder / "checkout")
    # As pip's --editable does it: the package is found, and nothing else of the folder.
    (site,) = made.folder.glob(".venv/lib/python*/site-packages")
    (site / "checkout.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (site / "xboard_circus").symlink_to(made.folder / "xboard_circus")
    yield made
    script(made, "start_backend.sh", "stop")
    shutil.rmtree(made.runtime, ignore_errors=True)


def script(checkout: Checkout, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"./scripts/{name}", *arguments],
        cwd=checkout.folder,
        env=checkout.environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_scripts_start_nothing_of_roots_in_a_shared_checkout(checkout: Checkout, open_folder: Path) -> None:  # noqa: F811
    """Given a checkout in which www-data has put modules, when root starts or watches the backend there by a script,
    then it is refused, and nothing of that user's runs as root."""
    marker = open_folder / "ran-by-a-script"
    plant(checkout.folder, marker, "sitecustomize", "typing", "sqlite3", "click")
    for name, *arguments in (["start_backend.sh", "start"], ["start_backend.sh", "restart"], ["monitor_backend.sh"]):
        refused = script(checkout, name, *arguments)
        assert f"its group may write {checkout.folder}, and root would run what is there" in refused.stderr, refused
        assert refused.returncode == 1, refused
    assert not marker.exists()
