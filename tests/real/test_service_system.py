"""The service of the system: its unit as the script writes it, its score, and its sandbox with a user of its own."""

from __future__ import annotations

import json
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from .alert_servers import hook_server
from .harness import BUNDLE, FORKSERVERS, Circusd, Watcher, circusd, eventually
from .load import Load
from .machine import Machine, machine
from .parts import needs
from .service_host import NAME, SCRIPT, UNIT, UserManager, run, user_manager
from .test_alerts import QUICK, hook_section, told
from .test_users import USER, library_path, open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

WANTED_SCORE = 3.0
TAKEN_OVER = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun")
while True:
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"unit_stop\\0end" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGSTOP)
                print(entry.name)
                time.sleep(60)
        except OSError:
            continue
    time.sleep(0.05)
"""


def venv_of(folder: Path, python: str, home: Path) -> None:  # noqa: F811
    """Make a .venv in *folder* whose Python the service's user can run."""
    program = folder / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    # The copy for that user has the app of the tests among its packages.
    exports = library_path(home) if python != sys.executable else {"PYTHONPATH": str(Path(__file__).parent)}
    lines = [f"export {name}={value}" for name, value in exports.items()]
    program.write_text("\n".join(["#!/bin/sh", *lines, f'exec {python} "$@"', ""]))
    program.chmod(0o755)


def told_in(host: UserManager, *command: str) -> str:
    done = host.inside(list(command))
    assert done.returncode == 0, done
    return done.stdout + done.stderr


@contextmanager
def service_of_the_system(above: Path, python: str, name: str) -> Iterator[tuple[Circusd, Machine]]:  # noqa: F811
    """A machine with systemd, and the folder *name* that holds what its service is to run."""
    folder = above / name
    (folder / "data").mkdir(parents=True)
    shutil.chown(folder / "data", USER, USER)
    venv_of(folder, python, above / "python")
    watcher = Watcher(options={"graceful_timeout": 8}, env={"BACKEND_DIR": str(folder / "data")})
    with circusd(folder, watchers=[watcher], plugins=BUNDLE, start=False) as c, machine(c, above) as host:
        # The folder lies in /tmp, and the service has a /tmp of its own.
        host.drop_in(UNIT, f"[Service]\nPrivateTmp=no\nStandardError=append:{folder}/logs/circusd.log\n")
        yield c, host


def losses(host: Machine) -> list[str]:
    """Return what the ledger of the service has of circusds that ended, and of starts of the machine."""
    kinds = [f"--kind={kind}" for kind in ("circusd_lost", "host_restarted")]
    lines = told_in(host, f"/usr/local/bin/{NAME}", "events", *kinds, "--json").splitlines()
    return [json.loads(line)["kind"] for line in lines]


def forks_again(host: Machine) -> bool:
    """Say whether a worker is forked; kill one where none is: on a crowded machine they may have been started."""
    web = json.loads(told_in(host, f"/usr/local/bin/{NAME}", "status", "--json"))["watchers"][0]
    pids = [str(worker["pid"]) for worker in web["workers"]]
    marked = [host.inside(["grep", "-q", "XBOARD_FORK_LEVEL", f"/proc/{pid}/environ"]).returncode == 0 for pid in pids]
    if not any(marked) and web["preload"]["state"] == "ready":
        host.inside(["kill", "-9", pids[0]])
    return any(marked)


@contextmanager
def taken_over(c: Circusd, host: Machine) -> Iterator[IO[str]]:
    """A deaf process of the service's user in its control group, which stops what is to end it and prints its pid."""
    (c.folder / "taken_over.py").write_text(TAKEN_OVER)
    enter = f"echo $$ >/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs; exec setpriv --reuid={USER} --regid={USER} "
    command = f"{enter} --clear-groups {c.folder}/.venv/bin/python -u {c.folder}/taken_over.py"
    inside = ["nsenter", "--mount", "--pid", f"--target={host.pid}", "--", "sh", "-c", command]
    with subprocess.Popen(inside, env=host.environ, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline()
            yield running.stdout
        finally:
            running.kill()


def test_the_service_is_back_after_a_kill_of_circusd_and_after_a_reset_of_the_machine(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
) -> None:
    """Given the service under a systemd that is process 1, without D-Bus, when it is restarted, then 0 lost; when
    circusd is killed, and then the machine loses its power and boots, then the backend serves again each time, and the
    ledger and the alerts have each loss once, by its name. A process of its user outlives no stop."""
    with hook_server() as hook, service_of_the_system(open_folder, python, "reset") as (c, host):
        c.write_ini(alert__hook=hook_section(c.folder, hook, on="lost"), plugin__xboard=QUICK)
        shutil.chown(c.folder / "hook-url", USER)
        told_in(host, str(SCRIPT), "install", "--name", NAME, "--dir", str(c.folder), "--run-as", USER)
        again = [str(SCRIPT), "install", "--name", NAME, "--dir", str(c.folder)]
        assert "unchanged: /etc/systemd/system" in told_in(host, *again)  # it keeps its user
        refused = host.inside([*again, "--run-as", "daemon"])
        assert f"{NAME} runs as {USER}: say --run-as {USER}" in refused.stderr, refused
        assert (c.folder / "logs").owner() == USER
        with Load(f"{c.url}/", rate=100) as load:
            told_in(host, "systemctl", "restart", UNIT)
            (hold := c.folder / "data" / "boot").write_text("held")
            told_in(host, "systemctl", "reload", "--no-block", UNIT)
            eventually(lambda: host.show(UNIT, "ActiveState") == "reloading", what="no ExecStop= is run now")
            hold.unlink()
            told_in(host, "systemctl", "restart", UNIT)
        print(f"a restart without D-Bus: {load.summary()}")
        assert load.lost == []
        told_in(host, "kill", "-9", host.show(UNIT, "MainPID"))
        eventually(lambda: host.show(UNIT, "NRestarts") == "1" and host.show(UNIT, "ActiveState") == "active")
        assert json.loads(c.get("/facts"))["uid"] == pwd.getpwnam(USER).pw_uid
        eventually(lambda: losses(host) == ["circusd_lost"], every=0.3)

        with taken_over(c, host):
            host.ctl("stop", UNIT)
            assert host.processes(UNIT) == []
        assert host.inside(["ls", f"/run/{NAME}.job"]).returncode == 2
        told_in(host, "systemctl", "start", UNIT)
        with taken_over(c, host) as held:
            host.ctl("restart", "--no-block", UNIT)
            pid = held.readline().strip()
            host.ctl("stop", "--no-block", UNIT)
            told_in(host, "kill", "-CONT", pid)
            eventually(lambda: host.show(UNIT, "ActiveState") == "inactive", what="the stop replaces it")
            assert host.processes(UNIT) == []
        told_in(host, "systemctl", "start", UNIT)
        assert json.loads(c.get("/facts"))["uid"] == pwd.getpwnam(USER).pw_uid

        host.cut_power()
        host.boot()
        eventually(lambda: host.show(UNIT, "ActiveState") == "active", timeout=120, every=0.2, what="it is started")
        assert json.loads(c.get("/facts"))["uid"] == pwd.getpwnam(USER).pw_uid
        eventually(lambda: losses(host) == ["circusd_lost", "host_restarted"], every=0.3)
        eventually(lambda: len(told(hook, "recovered")) > 1, what="each is told")
        assert {each["watcher"] for each in told(hook)} == {"circusd"}
        # Of one that was lost with its plugin the next one tells, as over.
        assert any("was killed or crashed" in each["reason"] for each in told(hook)[:-1])
        *killed, reset = told(hook, "recovered")
        assert (len(killed), "the host was restarted" in reset["reason"]) == (1, True)


def test_the_unit_is_sound_scores_well_and_its_sandbox_leaves_it_working(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given the system's unit with a user of its own, when it runs in its sandbox, then it does all that it should."""
    with service_of_the_system(open_folder, python, "service") as (c, host):
        folder = c.folder
        words = ["--name", NAME, "--dir", str(folder), "--run-as", USER]
        told_in(host, str(SCRIPT), "install", *words)

        unit = f"/etc/systemd/system/{UNIT}"
        assert told_in(host, "systemd-analyze", "verify", unit) == ""
        report = told_in(host, "systemd-analyze", "security", "--offline=true", "--no-pager", unit)
        score = re.search(r"exposure level for \S+ ([\d.]+)", report)
        assert score is not None
        print(f"systemd-analyze security: {score[1]}")
        assert float(score[1]) <= WANTED_SCORE

        facts = json.loads(c.get("/facts"))
        assert facts["uid"] == pwd.getpwnam(USER).pw_uid
        assert "NOTIFY_SOCKET" not in facts["environ"]
        eventually(lambda: host.show(UNIT, "StatusText") == "web: 2 of 2 workers up", what="its last word")
        state = json.loads(told_in(host, f"/usr/local/bin/{NAME}", "status", "--json"))
        assert state["circusd"]["endpoint"] == f"ipc:///run/{NAME}/circusd.sock"
        before = {worker["pid"] for worker in state["watchers"][0]["workers"]}
        with Load(f"{c.url}/", rate=50, connections=4) as load:
            told_in(host, "systemctl", "reload", UNIT)
        assert load.lost == []
        assert not load.workers <= before
        assert (folder / "ledger.db").exists()
        if FORKSERVERS:
            eventually(lambda: forks_again(host), every=2, what="a worker is forked in the sandbox")

        told_in(host, str(SCRIPT), "remove", *words)
        eventually(lambda: not host.processes(UNIT))
        assert host.inside(["ls", unit, f"/usr/local/bin/{NAME}"]).returncode == 2


def test_no_worker_of_another_user_ends_what_circusd_prints_into_the_journal(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given root's circusd under a systemd that is process 1, when a worker of another user shuts its stdout down, then
    what that worker, another one and circusd print is in the journal."""
    (folder := open_folder / "journal").mkdir()
    streams = [f"{name}_stream.{option}" for name in ("stdout", "stderr") for option in ("class", "filename")]

    def unarmed(name: str, shell: str, **options: object) -> Watcher:
        bare = {**dict.fromkeys(streams), "working_dir": "/", **options}
        return Watcher(name, numprocesses=1, armed=False, listens=False, command=f'sh -c "{shell}"', options=bare)

    tries = f"{python} -c 'import socket; socket.socket(fileno=1).shutdown(socket.SHUT_RDWR)' 2>&1"
    theirs = unarmed("theirs", f"{tries}; touch {folder}/web/tried; echo it goes on; exec sleep 1000", uid=USER)
    roots = unarmed("roots", f"until [ -e {folder}/web/tried ]; do sleep 0.1; done; echo so does it; exec sleep 1000")
    with (
        circusd(folder, watchers=[Watcher(numprocesses=1), theirs, roots], start=False) as c,
        machine(c, open_folder) as host,
    ):
        shutil.chown(folder / "web", USER)
        unit = ["[Service]", f"ExecStart={sys.executable} -m circus.circusd {c.ini}", f"WorkingDirectory={folder}"]
        unit += [f'Environment="{name}={value}"' for name, value in c.environ().items()]
        (host.units / "xb-journal.service").write_text("\n".join(unit))
        told_in(host, "systemctl", "start", "xb-journal")
        journal = partial(told_in, host, "journalctl", "--unit=xb-journal", "--output=cat")
        eventually(
            lambda: {"it goes on", "so does it"} <= {*journal().splitlines()}, timeout=20, every=0.2, what="it has both"
        )
        assert "non-socket" in journal()  # what Python said of the pipe
        told_in(host, "systemctl", "stop", "xb-journal")
        eventually(lambda: "[INFO] roots stopped" in journal(), every=0.2, what="circusd is heard")


def test_a_service_of_a_user_needs_no_right_of_the_system(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given a `systemd --user` of somebody who is not root, when it is installed, then it runs in its sandbox."""
    folder = open_folder / "of-a-user"
    (folder / "data").mkdir(parents=True)
    venv_of(folder, python, open_folder / "python")
    watcher = Watcher(options={"graceful_timeout": 8}, env={"BACKEND_DIR": str(folder / "data")})
    with circusd(folder, watchers=[watcher], plugins=BUNDLE, start=False) as c:
        run(["chown", "-R", USER, str(folder)], c.environ())
        with user_manager(c, user=USER) as host:
            host.drop_in(UNIT, f"[Service]\nStandardError=append:{folder}/logs/circusd.log\n")
            words = ["--user", "--name", NAME, "--dir", str(folder)]
            command = [str(folder / ".venv" / "bin" / "python"), "-I", "-m", "xboard_circus", "service"]
            told_in(host, *command, "install", *words)
            assert json.loads(c.get("/facts"))["uid"] == pwd.getpwnam(USER).pw_uid
            eventually(lambda: host.show(UNIT, "StatusText") == "web: 2 of 2 workers up", what="its last word")
            assert told_in(host, "systemd-analyze", "--user", "verify", str(host.units / UNIT)) == ""
            assert host.ctl("reload", UNIT).returncode == 0
            told_in(host, *command, "remove", *words)
            eventually(lambda: not host.processes(UNIT))


def test_without_root_a_service_of_the_system_is_refused(tmp_path: Path) -> None:
    """Given an `id` that says so, since the checkout may lie where no other user gets to."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = run([str(SCRIPT), "install", "--dir", str(tmp_path)], environ)

    assert done.returncode == 1
    assert "a service of the system takes root: sudo" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["id"]


def refusal(home: Path, *words: str) -> tuple[int, str]:
    """Let the script do what it does not do, and return how it ended and its only line."""
    done = run([str(SCRIPT), *words], {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(home)})
    assert len(done.stderr.splitlines()) == 1, done
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "circus.ini").write_text("[circus]\n")
    for words, reason in (
        (["--run-as", "root"], "--run-as root: who reaches circusd's endpoint could then do all that root can"),
        (["--run-as", "a;b"], "--run-as a;b: write a user's name"),
        (["--name", "a b"], "--name a b: write letters, digits, - and _ only"),
        (["--ini", "/etc/circus.ini"], "--ini /etc/circus.ini: write its name in the folder that --dir names"),
        (["--user", "--ini", "none.ini"], "no such file; `xboard-circus init"),
    ):
        code, line = refusal(tmp_path, "install", "--dry-run", "--dir", str(tmp_path), *words)

        assert code == 1
        assert reason in line


@pytest.mark.skipif(not Path("/usr/lib/systemd/system/dbus.service").exists(), reason="no unit of the host's to name")
def test_a_unit_of_the_hosts_own_is_not_hidden_by_ours(tmp_path: Path) -> None:
    code, line = refusal(tmp_path, "install", "--dry-run", "--dir", str(tmp_path), "--name", "dbus")

    assert code == 1
    assert "dbus is a service of this host's own: choose another --name" in line


def test_what_is_mistyped_is_named(tmp_path: Path) -> None:
    for words, reason in (
        (["instal"], "No such command 'instal'."),
        (["install", "--frob"], "No such option"),
        (["install", "--name"], "Option '--name' requires an argument."),
        (["install", "--dir", str(tmp_path / "none")], "there is no such folder, or you may not enter it"),
    ):
        done = run([str(SCRIPT), *words], {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(tmp_path)})

        assert (done.returncode, done.stdout) == (2, "")
        assert reason in done.stderr
    shown = run([str(SCRIPT), "install", "--help"], {"PATH": "/usr/bin:/bin"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: ")


def test_without_a_systemd_of_the_users_nothing_is_written(tmp_path: Path) -> None:
    """Given that nobody is logged in, as with sudo, then the script says so before it writes a file."""
    needs("systemctl")
    (tmp_path / "circus.ini").write_text("[circus]\n")

    code, line = refusal(tmp_path, "install", "--user", "--dir", str(tmp_path))

    assert code == 1
    assert "answers: log in as that user, not by su or sudo, or: loginctl enable-linger " in line
    assert [path.name for path in tmp_path.iterdir()] == ["circus.ini"]
