"""What another user of the host can do: nothing."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from xboard_circus.core.sentences import Say
from xboard_circus.dashboard import tokens

from .attacker import PYTHON, run_as, running_as, taking_descriptors
from .harness import BUNDLE, FAST_RESTARTS, PATIENCE, Watcher, circusd, eventually, holds
from .test_cli import begun, done
from .test_restart import circusds, slow, successor
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

# It binds each of these ports in turn, with every option that may help, until its input ends; it prints what it got.
GRAB = """
import json, os, select, socket, sys
ports, got, tries = [int(word) for word in sys.argv[1:]], {}, 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for port in ports:
        for host in ("127.0.0.1", "0.0.0.0"):
            grabbing = socket.socket()
            grabbing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, tries & 1)
            grabbing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, tries >> 1 & 1)
            try:
                grabbing.bind((host, port))
                grabbing.listen()
            except OSError:
                grabbing.close()
            else:
                got[port] = grabbing
    tries += 1
    if tries == 4:
        print("trying", flush=True)
print(json.dumps([*got]))
"""

# It binds a port, and hands it on.
HANDS_ON = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener, socket.socket(socket.AF_UNIX) as door:
    door.connect("\\0" + sys.argv[2])
    socket.send_fds(door, [b"x"], [listener.fileno()])
print("true")
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


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_another_user_does_not_get_the_endpoints_during_a_restart(tmp_path: Path) -> None:
    """Given another user who binds circusd's endpoints all the time, when restarted, then he gets none of them.

    Nor where the old circusd is killed while it leaves, or the command is.
    """
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1), slow(tmp_path, 3)]) as c:
        c.wait_ready()
        ports = [each.rpartition(":")[2] for each in (c.endpoint, c.pubsub)]
        with running_as(USER, GRAB, *ports) as grabbing:
            assert grabbing.stdout is not None
            assert grabbing.stdout.readline() == "trying\n"

            done(c, "restart", "--no-preflight")
            [old] = circusds(c)
            with begun(c, "restart", "--no-preflight") as restarting:
                new = successor(c)
                assert old.signal(signal.SIGKILL)
                _, errors = restarting.communicate(timeout=PATIENCE)
            assert restarting.returncode == 0, errors
            assert circusds(c) == [new]
            with begun(c, "restart", "--no-preflight") as restarting:
                new = successor(c)
                restarting.kill()
            eventually(lambda: circusds(c) == [new] and c.state()["circusd"]["pid"] == new.pid)

            got, _ = grabbing.communicate(timeout=PATIENCE)
        assert json.loads(got) == []
        assert not list((c.runtime / "r" / c.instance).glob("gate-*"))


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_who_hands_the_port_to_a_process_of_roots_has_it_neither_ended_nor_named_for_that(tmp_path: Path) -> None:
    """Given another user who binds the port of a stopped backend and hands it to a process of root's that takes
    descriptors from anybody, when circusd starts with port.policy = any, then that process lives, and no cure of
    verdict, status or check is to end it."""
    web = Watcher(numprocesses=1, options={"port.policy": "any", "port.retry": 0.2, "port.grace": 0.1})
    with taking_descriptors(tmp_path.name) as taker, circusd(tmp_path, watchers=[web], start=False) as c:
        run_as(USER, HANDS_ON, web.port, tmp_path.name)
        assert taker.stdout is not None
        assert taker.stdout.readline() == "has it\n"
        checked = c.run_cli("check")
        c.start_again()
        verdict = eventually(lambda: (found := c.watcher()["verdict"])["word"] == "blocked" and found)
        holds(lambda: taker.poll() is None, seconds=1)

        assert f"pid {taker.pid} (" in verdict["cause"]
        for text in (verdict["cause"], checked.stdout + checked.stderr, c.run_cli("status").stdout):
            assert f"has it from user {USER}, and may not know of it" in text
            assert f"kill {taker.pid}" not in text
            assert "stop it;" not in text
        assert verdict["cure"] == Say.CURE_HANDED()

        taker.kill()  # with it the port is free
        c.wait_ready()


@pytest.mark.parametrize("whose", ["ini", "part"])
def test_roots_circusd_takes_over_no_watcher_that_another_user_may_have_written(open_folder: Path, whose: str) -> None:  # noqa: F811
    """Given the ini of root's running circusd, or a file that it includes, which is another user's by now, when root
    has it read again, restarts or reloads, then circusd refuses that as `check` does, and runs nothing of it."""
    folder, proof = open_folder / f"of-{whose}", open_folder / f"proof-{whose}"
    folder.mkdir(0o755)
    part = folder / "part.inc"
    part.touch()
    with circusd(folder, watchers=[Watcher()], circus={"include": "part.inc"}) as c:
        workers, theirs = c.wait_ready(), {"ini": c.ini, "part": part}[whose]
        with theirs.open("a") as file:
            file.write(f"[watcher:theirs]\ncmd = sh -c 'id > {proof}; exec sleep 60'\n")
        shutil.chown(theirs, USER)
        what = f"{USER} may write {theirs}, which circusd uses as root: who has {USER} has root"
        checked = c.run_cli("check")
        assert (checked.returncode, what in checked.stdout) == (1, True), checked

        for command in ("reloadconfig", "restart", "reload"):
            reply = c.call(command, waiting=True)
            assert (reply["status"], what in str(reply["reason"])) == ("error", True), (command, reply)
        assert c.ready() == workers
        assert not proof.exists()
        shutil.chown(theirs, "root")  # the trap is sound
        c.do("reloadconfig", waiting=True)
        eventually(proof.exists, what="root's own watcher runs")


@pytest.mark.parametrize("watcher", ["web", "theirs"])
def test_root_starts_nothing_that_another_user_may_have_planted(open_folder: Path, watcher: str) -> None:  # noqa: F811
    """Given a folder in PYTHONPATH of a user who is not root, and neither, or is, the watcher's, when root checks,
    starts or restarts, by the command line or circusctl, then that is refused with the cure, and no .pth file in there
    runs."""
    folder, proof = open_folder / f"planted-{watcher}", open_folder / f"proof-{watcher}"
    libraries = folder / "libraries"
    folder.mkdir(0o755)
    options = {"uid": USER, "working_dir": "/"}
    watchers = [Watcher(), Watcher("theirs", numprocesses=1, command="/bin/sleep 600", listens=False, options=options)]
    with circusd(folder, watchers=watchers, start=False) as c:
        libraries.mkdir()
        (libraries / "x.pth").write_text(f"import os; open({str(proof)!r}, 'a').close()\n")
        shutil.chown(libraries, USER)
        c.start_again()
        workers = c.wait_ready()
        c.write_ini(**{f"env__{watcher}": {"PYTHONPATH": libraries}})

        what = f"{USER} may write {libraries}, which circusd uses as root: who has {USER} has root"
        for command in (["check"], ["doctor"], ["restart", "--yes"], ["restart", "--cold"], ["reload"]):
            refused = c.run_cli(*command)
            assert refused.returncode == 1, refused
            assert f"{what}; `chown root {libraries}`" in refused.stdout + refused.stderr, refused
        for order in ("reloadconfig", "restart", "reload"):
            assert what in str(c.call(order, waiting=True)["reason"]), order
        assert c.ready() == workers
        assert not proof.exists()
        assert c.run_cli("stop").returncode == 0
        assert c.run_cli("start").returncode == 1
        assert not proof.exists()
        shutil.chown(libraries, "root")  # the trap is sound
        c.run_cli("check")
        assert proof.exists()


def test_root_starts_nothing_that_includes_what_another_user_may_make_later(open_folder: Path) -> None:  # noqa: F811
    """Given an include by a pattern that matches a folder of another user without a file yet, which that user could
    make between root's check and Circus's reading, when root checks, starts or has it read again, then it is refused
    with the cure; the folder of root's beside it is not."""
    folder, apps, proof = open_folder / "patterns", open_folder / "apps", open_folder / "proof-patterns"
    for each in (folder, apps, apps / "roots", apps / "theirs"):
        each.mkdir(0o755)
    (apps / "roots" / "part.ini").touch()
    with circusd(folder, watchers=[Watcher()], circus={"include": f"{apps}/*/part.ini"}) as c:
        workers = c.wait_ready()
        checked = c.run_cli("check")
        assert checked.returncode == 0, checked
        shutil.chown(apps / "theirs", USER)

        what = f"{USER} may write {apps}/theirs, which circusd uses as root: who has {USER} has root"
        for command in ("check", "reload", "restart"):
            refused = c.run_cli(command)
            assert refused.returncode == 1, refused
            assert f"{what}; `chown root {apps}/theirs`" in refused.stdout + refused.stderr, refused
        assert what in str(c.call("reloadconfig", waiting=True)["reason"])
        assert c.ready() == workers
        assert c.run_cli("stop").returncode == 0
        assert c.run_cli("start").returncode == 1

        (apps / "theirs" / "part.ini").write_text(f"[watcher:theirs]\ncmd = sh -c 'id > {proof}; exec sleep 60'\n")
        c.start_again()  # the trap is sound: bare circusd reads it
        eventually(proof.exists, what="that user's watcher runs as root")


def test_root_starts_no_script_that_another_user_may_put_there_later(open_folder: Path) -> None:  # noqa: F811
    """Given a watcher of root's whose script lies in another user's folder, from which that user has moved it away,
    when root checks, starts or reloads, then it is refused as with the script there."""
    folder, theirs, proof = open_folder / "scripts", open_folder / "of-scripts", open_folder / "proof-scripts"
    for each in (folder, theirs):
        each.mkdir(0o755)
    script = theirs / "job.sh"
    script.write_text(f"id > {proof}; exec sleep 60\n")
    job = Watcher("job", numprocesses=1, command=f"sh {script}", listens=False, options=FAST_RESTARTS)
    with circusd(folder, watchers=[Watcher(), job], start=False) as c:
        shutil.chown(theirs, USER)
        script.rename(theirs / "job")

        what = f"{USER} may write {theirs}, which circusd uses as root: who has {USER} has root"
        for command in ("check", "start"):
            refused = c.run_cli(command)
            assert refused.returncode == 1, refused
            assert f"{what}; `chown root {theirs}`" in refused.stdout + refused.stderr, refused
        c.start_again()
        c.wait_ready()
        assert what in str(c.call("reloadconfig", waiting=True)["reason"])
        assert not proof.exists()
        (theirs / "job").rename(script)  # the trap is sound: bare circusd tries again
        eventually(proof.exists, what="that user's script runs as root")


@pytest.mark.parametrize("variable", ["XBOARD_RUNTIME_DIR", "XBOARD_STATE_DIR"])
def test_root_makes_nothing_below_a_folder_of_another_user(open_folder: Path, variable: str) -> None:  # noqa: F811
    """Given a runtime folder below another user's, who could exchange it for a link while root makes, gives away and
    reads what is in it, when root starts circusd, then nothing is made in it, the cure is told, and none starts; one
    without a state folder serves."""
    folder, theirs = open_folder / variable, open_folder / f"{variable}-theirs"
    for each in (folder, theirs):
        each.mkdir(0o755)
    shutil.chown(theirs, USER)
    with circusd(folder, watchers=[Watcher()], env={variable: str(theirs / "run")}, start=False) as c:
        result = c.run_cli("start")

        assert [*theirs.glob("run/*")] == []
        log = folder / "logs" / "circusd.log"
        told = log.read_text() if log.exists() else result.stderr
        assert f"it is below {theirs}, which is user {theirs.stat().st_uid}'s, or open to a group: put it" in told
        assert bool(c.processes()) == (variable == "XBOARD_STATE_DIR")
