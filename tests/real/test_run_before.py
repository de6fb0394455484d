"""`run.before`: once per start, restart and reload, before a new worker; a failure costs none; never two at once."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from xboard_circus.host.session import members

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, fill, holds
from .processes import process

MIGRATE = """
import os, sqlite3, subprocess, sys, time

def mode():
    return open("mode").read().strip()

db = sqlite3.connect(os.environ["DATABASE"], timeout=30, isolation_level=None)
db.execute("create table if not exists runs (id integer primary key, pid int, began real, ended real)")
run = db.execute("insert into runs (pid, began) values (?, ?)", (os.getpid(), time.monotonic())).lastrowid
print("upgrade of", os.environ["DATABASE"], "with", os.environ["DB_PASSWORD"], flush=True)
if mode() == "fail":
    sys.exit("no such revision: 42")
if mode() == "hang":
    subprocess.Popen(["sleep", "600"])
while mode() in ("hang", "slow"):
    time.sleep(0.02)
db.execute("create table if not exists board (id integer)")
db.execute("update runs set ended = ? where id = ?", (time.monotonic(), run))
"""
APP = """
import os, sqlite3
sqlite3.connect(os.environ["DATABASE"]).execute("select * from board")
from backend import app
"""


def prepare(folder: Path) -> None:
    (folder / "migrate.py").write_text(MIGRATE)
    (folder / "needs_board.py").write_text(APP)
    (folder / ".env").write_text(f"DATABASE={folder}/board.db\nDB_PASSWORD=hunter2\n")
    say(folder, "ok")


def watcher(name: str = "web", numprocesses: int = 2) -> Watcher:
    options = {"worker.env_file": ".env", "run.before": f"{sys.executable} migrate.py", "run.before_timeout": 20}
    return Watcher(name, numprocesses, app="needs_board:app", options={**FAST_RESTARTS, **options})


def say(folder: Path, mode: str) -> None:
    (folder / ".mode").write_text(mode)
    (folder / ".mode").replace(folder / "mode")


def runs(c: Circusd) -> list[tuple[int, float, float | None]]:
    """The pid, begin and end of each run, in order."""
    with contextlib.closing(sqlite3.connect(c.folder / "board.db", timeout=30)) as db:
        return db.execute("select pid, began, ended from runs order by id").fetchall()


def running(c: Circusd, after: int) -> int:
    """The pid of the run behind the first *after* ones."""
    return eventually(lambda: runs(c)[after:], what="it runs")[0][0]


def is_reloaded(c: Circusd, name: str) -> bool:
    return bool(c.watcher(name)["reload"]["state"] == "done")


def overlaps(c: Circusd) -> bool:
    found = runs(c)
    return any(ended is None or ended > later for (_, _, ended), (_, later, _) in pairwise(found))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    folder = tmp_path_factory.mktemp("before")
    prepare(folder)
    with circusd(folder, watchers=[watcher(), watcher("other", 1)], env={"PYTHONPATH": str(folder)}) as c:
        yield c


@pytest.fixture
def c(shared: Circusd) -> Circusd:
    say(shared.folder, "ok")
    shared.wait_ready()
    shared.wait_ready(name="other")
    return shared


def test_it_runs_once_for_all_workers_of_a_start_and_not_for_one_that_is_replaced(c: Circusd) -> None:
    """Given two watchers with the same command, each ran it once, before its workers, one after the other."""
    assert (len(runs(c)), overlaps(c)) == (2, False)

    killed = c.workers()[0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in c.wait_ready(), what="it is replaced")

    assert len(runs(c)) == 2
    assert "with ***" in c.log()
    assert "hunter2" not in c.log()


def test_a_reload_runs_it_once_and_a_failed_one_leaves_the_old_workers(c: Circusd) -> None:
    """Given a migration that fails, a reload exits with 1, says why, and replaces nothing; one that works, all."""
    before, old = len(runs(c)), c.wait_ready()
    say(c.folder, "fail")

    failed = c.run_cli("reload", "--no-preflight", "web")

    assert failed.returncode == 1
    for text in (failed.stderr, c.log(), json.dumps(c.watcher()["reload"])):
        assert "no such revision: 42" in text
    (event,) = c.told("before_failed")
    assert event.message["reason"] == 'run.before exited with code 1: "no such revision: 42"'
    assert "with ***" in event.message["log"]
    assert (c.workers(), len(runs(c))) == (old, before + 1)
    say(c.folder, "ok")
    c.do("reload", name="web", waiting=True)
    assert (set(old) & set(c.workers()), len(runs(c))) == (set(), before + 2)


@pytest.mark.parametrize("fault", ["hangs", "is killed", "the leader of its group is killed"])
def test_one_that_does_not_end_by_itself_leaves_the_old_workers_and_no_process(c: Circusd, fault: str) -> None:
    """Given a migration with a child that hangs, or gets SIGKILL, the reload fails with that, and both are gone."""
    before, old = len(runs(c)), c.workers()
    say(c.folder, "hang")
    if fault == "hangs":
        c.write_ini(watcher__web={"run.before_timeout": 2})
        c.do("reloadconfig", waiting=True)

    c.do("xboard_reload", name="web")
    pid = running(c, before)
    leader = os.getsid(pid)
    if fault != "hangs":
        eventually(lambda: len(members(leader)) == 2, what="it has a child")
        os.kill(leader if "group" in fault else pid, signal.SIGKILL)
    reload = eventually(lambda: r if (r := c.watcher()["reload"])["state"] != "running" else None)

    assert reload["state"] == "failed"
    assert (
        reload["reason"]
        == {
            "hangs": "run.before did not end within run.before_timeout = 2 s, and was killed",
            "is killed": "run.before was killed by SIGKILL",
            "the leader of its group is killed": "run.before was killed",
        }[fault]
    )
    assert c.workers() == old
    eventually(lambda: not members(leader), what="none is left of it")
    c.write_ini()
    c.do("reloadconfig", waiting=True)


def test_two_at_once_wait_for_each_other(c: Circusd) -> None:
    """Given a slow migration, when two watchers are reloaded at once, and one twice, then no run meets another."""
    before = len(runs(c))
    say(c.folder, "slow")

    for name in ("web", "other"):
        c.do("xboard_reload", name=name)
    refused = c.call("xboard_reload", name="web")
    running(c, before)
    say(c.folder, "ok")
    for name in ("web", "other"):
        eventually(partial(is_reloaded, c, name))

    assert (refused["status"], len(runs(c))) == ("error", before + 2)
    assert all(later[1] >= (one[2] or 0) for one, later in pairwise(runs(c)[before:]))


def test_a_stop_ends_it(c: Circusd) -> None:
    """Given a migration of a start, when the watcher is stopped, then it is gone before the stop is over."""
    before = len(runs(c))
    c.do("stop", name="other", waiting=True)
    say(c.folder, "hang")
    c.do("start", name="other", waiting=True)
    run = process(running(c, before))
    verdict = c.watcher("other")["verdict"]

    c.do("stop", name="other", waiting=True)

    assert not run.alive
    assert (verdict["word"], "run.before is running" in verdict["cause"]) == ("deploying", True)
    say(c.folder, "ok")
    c.do("start", name="other", waiting=True)


def test_workers_of_a_killed_circusd_serve_until_it_has_run(tmp_path: Path) -> None:
    """Given circusd killed in a run, the next one ends that run, and the old workers serve until its own is done."""
    prepare(tmp_path)
    with circusd(tmp_path, watchers=[watcher()], env={"PYTHONPATH": str(tmp_path)}) as c:
        old = [process(pid) for pid in c.wait_ready()]
        say(tmp_path, "slow")
        c.do("xboard_reload", name="web")
        left = process(running(c, 1))

        c.kill9()
        c.start_again()
        running(c, 2)
        assert not left.alive
        assert {int(c.get("/pid")) for _ in range(10)} <= {each.pid for each in old}
        assert all(each.alive for each in old)
        say(tmp_path, "ok")

        assert not set(c.wait_ready(timeout=90)) & {each.pid for each in old}
        eventually(lambda: not any(each.alive for each in old))
        assert len(runs(c)) == 3


def test_a_restart_runs_it_once(tmp_path: Path) -> None:
    """Given a migration that works, `restart` runs it once before its new workers; its trial and a later death none."""
    prepare(tmp_path)
    with circusd(tmp_path, watchers=[watcher()], env={"PYTHONPATH": str(tmp_path)}) as c:
        old = c.wait_ready()
        assert len(runs(c)) == 1

        restarted = c.run_cli("restart")

        assert restarted.returncode == 0, restarted.stderr
        assert not set(old) & set(c.wait_ready())
        assert (len(runs(c)), overlaps(c)) == (2, False)
        killed = c.workers()[0]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in c.wait_ready(), timeout=90, what="it is replaced")
        assert len(runs(c)) == 2


def test_a_restart_that_it_fails_leaves_the_old_workers_serving(tmp_path: Path) -> None:
    """Given a migration that fails, `restart` exits with 1 at once, the state says who serves; after the cure, new."""
    prepare(tmp_path)
    with circusd(tmp_path, watchers=[watcher()], env={"PYTHONPATH": str(tmp_path)}) as c:
        old = c.wait_ready()
        say(tmp_path, "fail")

        restarted = c.run_cli("restart", "--no-preflight")

        assert (restarted.returncode, "no such revision: 42" in restarted.stderr) == (1, True)
        assert "not ready after" not in restarted.stderr
        cause = "2 of the workers of an earlier circusd serve on: no worker is started: run.before exited"
        # Not in the moment in which it is run again.
        eventually(lambda: cause in (shown := c.run_cli("status").stdout) and shown.startswith("degraded for "))
        assert {int(c.get("/pid")) for _ in range(10)} <= set(old)
        os.kill(old[0], signal.SIGKILL)
        eventually(lambda: c.watcher()["verdict"]["cause"].startswith("1 of the workers"))
        os.kill(old[1], signal.SIGKILL)
        eventually(lambda: c.verdict() == "blocked", what="none of them serves any more")
        say(tmp_path, "ok")
        c.wait_ready()


def test_a_start_that_it_fails_says_so_and_goes_on_when_it_works(tmp_path: Path) -> None:
    """Given a migration that fails, `start` exits with 1 and the reason, and workers run after the cure only."""
    prepare(tmp_path)
    say(tmp_path, "fail")
    env = {"PYTHONPATH": str(tmp_path)}
    with circusd(tmp_path, watchers=[watcher()], env=env, plugins=BUNDLE, start=False) as c:
        started = c.run_cli("start")

        assert (started.returncode, "no such revision: 42" in started.stderr) == (1, True)
        eventually(lambda: "no such revision: 42" in c.run_cli("why", "web").stdout)
        # Held slots are shown when Circus's start is over, which may be later than the first failure.
        eventually(lambda: {worker["phase"] for worker in c.watcher()["workers"]} == {"held"})
        assert (tmp_path / "web" / "starts").exists() is False
        say(tmp_path, "ok")
        c.wait_ready()
        assert c.run_cli("stop").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_without_room_to_note_a_run_none_begins(tmp_path: Path) -> None:
    """Given a full file system under the runtime folder and a new command, when reloaded, then no run is left behind
    that nobody knows of, and beside which the next one would begin; with room it runs."""
    prepare(tmp_path)
    with circusd(tmp_path, watchers=[watcher()], env={"PYTHONPATH": str(tmp_path)}, start=False) as c:
        (c.runtime / "r").mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=711", "tmpfs", c.runtime / "r"]).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            c.start_again()
            old = c.wait_ready()
            say(c.folder, "slow")
            c.write_ini(watcher__web={"run.before": f"{sys.executable} migrate.py another"})
            c.do("reloadconfig", waiting=True)
            before, filler = len(runs(c)), fill(c.runtime / "r")

            failed = c.run_cli("reload", "--no-preflight", "web")

            assert failed.returncode == 1
            assert "No space left on device" in failed.stderr
            holds(lambda: len(runs(c)) == before, seconds=1, what="a run goes on that has failed for circusd")
            assert c.workers() == old
            filler.unlink()
            say(c.folder, "ok")
            assert c.run_cli("reload", "--no-preflight", "web").returncode == 0
            assert len(runs(c)) == before + 1
        finally:
            c.close()
            subprocess.run(["umount", "-l", c.runtime / "r"], check=True)
