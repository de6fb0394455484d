"""``xboard-circus restart`` from elsewhere than circusd lives: a unit of systemd, another network, another shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xboard_circus.host import procs, runtime

from .harness import Circusd, circusd, eventually
from .load import Load
from .machine import machine
from .parts import needs
from .processes import Process, process
from .service_host import UserManager, user_manager
from .test_cli import done
from .test_restart import circusds, gone, under_load
from .test_service_system import venv_of
from .test_users import USER, open_folder, python  # noqa: F401 - fixtures

DEPLOY, KEPT, OWN = "xb-deploy.service", "xb-kept.service", "xb-own.service"
ONESHOT = "Type=oneshot\nExecStart={cli} restart --no-preflight -c {ini}"
STARTED = "Type=oneshot\nRemainAfterExit=yes\nExecStart={cli} start -c {ini}"
# As systemd takes circusd for its main process: it guesses it, or has started what waits for it.
OF_ONES_OWN = {
    "forking": "Type=forking\nExecStart={cli} start -c {ini}\nExecStop={cli} stop -c {ini}",
    "a script": "Type=exec\nExecStart=/bin/sh -c '{python} -m circus.circusd {ini}; true'",
}


@contextmanager
def beside_systemd(folder: Path) -> Iterator[tuple[Circusd, UserManager]]:
    with circusd(folder, start=False) as c, user_manager(c) as host:
        c.extra_env["XDG_RUNTIME_DIR"] = str(host.runtime)
        yield c, host
        c.run_cli("stop")


def write_unit(host: UserManager, c: Circusd, name: str, lines: str) -> None:
    text = lines.format(cli=f"{sys.executable} -m xboard_circus", python=sys.executable, ini=c.ini)
    of_circusd = f"WorkingDirectory={c.folder}\nEnvironment=XBOARD_RUNTIME_DIR={c.runtime}/r\n"
    (host.units / name).write_text(f"[Service]\n{of_circusd}{text}\n")
    reload(host)


def reload(host: UserManager) -> None:
    """Have systemd read its units, and wait until it answers again: for a moment it has no socket."""
    host.ctl("daemon-reload")
    eventually(lambda: host.ctl("show", "default.target").returncode == 0, timeout=60, what="systemd answers")


def home_of(pid: int) -> tuple[str, str, str]:
    """Where a process lives: its control groups, its mounts, its network."""
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    return groups, os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink(f"/proc/{pid}/ns/net")


def only(found: list[Process]) -> int:
    (circusd,) = found
    return circusd.pid


def test_a_restart_within_a_unit_of_systemd_outlives_that_unit(tmp_path: Path) -> None:
    """Given a circusd of a login, when a timer's unit restarts it and ends, then 0 lost, and circusd and workers live
    where they have lived."""
    with beside_systemd(tmp_path) as (c, host):
        done(c, "start")
        old = [*circusds(c), *map(process, c.wait_ready(timeout=90))]
        home = home_of(old[0].pid)
        write_unit(host, c, DEPLOY, ONESHOT)
        with under_load(c):
            assert host.ctl("start", DEPLOY).returncode == 0, c.report()
            eventually(lambda: host.show(DEPLOY, "ActiveState") == "inactive", timeout=90, what="systemd ends the unit")
            eventually(lambda: gone(old), timeout=90, what="the old ones end")
            workers = c.wait_ready(timeout=90)

        assert {home_of(pid) for pid in (only(circusds(c)), *workers)} == {home}


@pytest.mark.parametrize("kind", OF_ONES_OWN)
def test_below_a_unit_of_ones_own_a_restart_is_refused_with_the_cure(tmp_path: Path, kind: str) -> None:
    """Given a unit whose end is that of circusd, when restarted, then it is refused, and nothing is touched."""
    with beside_systemd(tmp_path) as (c, host):
        write_unit(host, c, OWN, OF_ONES_OWN[kind])
        assert host.ctl("start", OWN).returncode == 0
        workers = c.wait_ready(timeout=90)
        eventually(lambda: runtime_record(c) is not None, what="circusd is recorded")
        refused = c.run_cli("restart", "--no-preflight")

        assert refused.returncode == 1, refused
        assert f"is run by systemd as {OWN}: `systemctl --user restart {OWN}` restarts it" in refused.stderr
        assert c.wait_ready(timeout=90) == workers
        assert host.show(OWN, "ActiveState") == "active"
        host.ctl("stop", OWN)


def test_where_systemd_is_process_1_a_restart_outlives_its_unit_or_is_refused(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given a circusd of one unit, when another with mounts of its own restarts it and ends, then 0 lost, and it lives
    where it has lived; given one of a unit of Type=forking, then that is refused, and nothing is touched."""
    folder = open_folder / "process-1"
    folder.mkdir()
    venv_of(folder, python, open_folder / "python")
    cli = [f"{folder}/.venv/bin/python", "-m", "xboard_circus"]
    with circusd(folder, start=False) as c, machine(c, open_folder) as host:

        def pids() -> list[int]:
            said = json.loads(host.inside([*cli, "status", "--json", "-c", str(c.ini)]).stdout)
            return [said["circusd"]["pid"], *(each["pid"] for each in said["watchers"][0]["workers"])]

        def homes() -> str:
            show = "for pid; do cat /proc/$pid/cgroup; readlink /proc/$pid/ns/mnt; done | sort | uniq -c"
            return host.inside(["sh", "-c", show, "sh", *map(str, pids())]).stdout

        for name, lines in ((KEPT, STARTED), (OWN, OF_ONES_OWN["forking"]), (DEPLOY, f"PrivateMounts=yes\n{ONESHOT}")):
            text = lines.format(cli=" ".join(cli), ini=c.ini)
            (host.units / name).write_text(f"[Service]\nStandardError=append:{folder}/said\n{text}\n")
        reload(host)
        assert host.ctl("start", KEPT).returncode == 0, (folder / "said").read_text()
        before, home = pids(), homes()
        with Load(c.url, rate=50) as load:
            assert host.ctl("start", DEPLOY).returncode == 0, (folder / "said").read_text()
            eventually(lambda: host.show(DEPLOY, "ActiveState") == "inactive", timeout=90, what="systemd ends the unit")
            eventually(lambda: not set(before) & set(pids()), timeout=90, what="all are new")
        assert load.lost == []
        assert homes() == home
        host.ctl("stop", KEPT)

        assert host.ctl("start", OWN).returncode == 0
        before = pids()
        assert host.ctl("start", DEPLOY).returncode != 0
        assert f"is run by systemd as {OWN}: `systemctl restart {OWN}` restarts it" in (folder / "said").read_text()
        assert (host.show(OWN, "ActiveState"), pids()) == ("active", before)
        host.ctl("stop", OWN)


def runtime_record(c: Circusd) -> object:
    return (c.runtime / "r" / runtime.instance_id(c.ini) / runtime.RECORD).exists() or None


def test_a_restart_from_another_network_keeps_the_backend_in_its_own(tmp_path: Path) -> None:
    """Given a shell in another network namespace, when circusd is restarted there, then 0 lost, and it and its workers
    are in the namespace of the old one."""
    needs("unshare")
    command = ["unshare", "--net", sys.executable, "-m", "xboard_circus", "restart", "--no-preflight"]
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace may be made")
    with circusd(tmp_path) as c:
        c.wait_ready(timeout=90)
        old, before = only(circusds(c)), c.processes()
        home = home_of(old)
        with under_load(c):
            elsewhere = subprocess.run(
                [*command, "-c", str(c.ini)], env=c.environ(), capture_output=True, text=True, timeout=240, check=False
            )
            assert elsewhere.returncode == 0, elsewhere
            eventually(lambda: gone(before), timeout=90, what="the old ones end")
            workers = c.wait_ready(timeout=90)

        assert {home_of(pid) for pid in (only(circusds(c)), *workers)} == {home}


# In PID namespaces of their own the next pid can be chosen.
ANOTHER = """
import os, subprocess, time
from pathlib import Path
from xboard_circus.cli import restarting
from xboard_circus.host import procs

net = Path("/proc/self/ns/net")
home = net.readlink()

def start(*words):
    begun = subprocess.Popen(["unshare", "--net", *words, "sleep", "60"])
    while begun.poll() is None and Path(f"/proc/{begun.pid}/comm").read_text() != "sleep\\n":
        time.sleep(0.01)
    return begun

def end_and_give_its_pid_away(_):
    circusd.kill()
    circusd.wait()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(circusd.pid - 1))
    assert start("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups").pid == circusd.pid

circusd = start()
restarting._refuse_service = end_and_give_its_pid_away
restarting._move_to(procs.Identity.of(circusd.pid))
print("stayed" if net.readlink() == home else "moved")
"""


def test_a_restart_enters_nothing_of_what_gets_the_pid_of_circusd(tmp_path: Path) -> None:
    """Given a circusd that ends while `restart` judges it, and a process of another user that gets its pid, when
    `restart` goes on, then it stays out of that one's namespaces."""
    needs("unshare", "setpriv")
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process space may be made")

    got = subprocess.run(
        [*apart, sys.executable, "-c", ANOTHER], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )

    assert (got.stdout, got.returncode) == ("stayed\n", 0), got


def test_the_next_circusd_has_niceness_and_processors_of_the_last_and_nothing_of_the_callers_unit(
    tmp_path: Path,
) -> None:
    """Given a nice circusd on one processor, when restarted from a shell that has all, and variables of a unit, then
    the next one and its workers are as nice, on that processor, and without these."""
    with circusd(tmp_path) as c:
        c.wait_ready(timeout=90)
        old = only(circusds(c))
        os.setpriority(os.PRIO_PROCESS, old, 1)
        os.sched_setaffinity(old, {min(os.sched_getaffinity(0))})
        c.extra_env |= {"INVOCATION_ID": "of-a-timer", "NOTIFY_SOCKET": "/nowhere"}

        restarted = c.run_cli("restart", "--no-preflight", timeout=240)

        assert restarted.returncode == 0, restarted
        for pid in (only(circusds(c)), *c.wait_ready(timeout=90)):
            assert os.getpriority(os.PRIO_PROCESS, pid) == 1
            assert os.sched_getaffinity(pid) == {min(os.sched_getaffinity(0))}
            assert not {"INVOCATION_ID", "NOTIFY_SOCKET"} & set(procs.environ(pid) or {})


def test_a_user_who_may_not_leave_a_unit_is_refused_a_restart_that_would_end_with_it(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
) -> None:
    """Given a plain user's circusd of a login, when a unit of that user's restarts it, then that is refused with the
    cure; with that cure it outlives the unit."""
    folder = open_folder / "plain"
    folder.mkdir()
    venv_of(folder, python, open_folder / "python")
    cli = [f"{folder}/.venv/bin/python", "-m", "xboard_circus"]
    with circusd(folder, start=False) as c:
        shutil.chown(folder, USER, USER)
        for below in folder.rglob("*"):
            shutil.chown(below, USER, USER)
        with user_manager(c, user=USER) as host:
            place = f"XBOARD_RUNTIME_DIR={host.home}/r"

            def run_cli(*words: str) -> str:
                done = host.inside(["env", place, *cli, *words, "-c", str(c.ini)])
                return f"{done.stdout}{done.stderr}"

            def pids() -> list[int]:
                said = json.loads(run_cli("status", "--json"))
                return [said["circusd"]["pid"], *(each["pid"] for each in said["watchers"][0]["workers"])]

            def write(more: str = "") -> None:
                lines = f"{more}\n{ONESHOT.format(cli=' '.join(cli), ini=c.ini)}\nStandardError=append:{folder}/said\n"
                (host.units / DEPLOY).write_text(f"[Service]\nEnvironment={place}\n{lines}")
                reload(host)

            said = run_cli("start")
            assert said.endswith("ready\n"), said
            before = pids()
            write()
            assert host.ctl("start", DEPLOY).returncode == 1
            assert f"write KillMode=process into [Service] of {DEPLOY}" in (folder / "said").read_text()
            assert pids() == before
            write("KillMode=process")
            with Load(c.url, rate=50) as load:
                assert host.ctl("start", DEPLOY).returncode == 0, (folder / "said").read_text()
                eventually(lambda: not set(before) & set(pids()), timeout=90, what="all are new")
            assert load.lost == []
            run_cli("stop")
