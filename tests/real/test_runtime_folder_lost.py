"""The runtime folder goes, or can be written no more, while the workers run: nobody is shown as well unseen."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from .facts_of_state import held, looks_well
from .harness import BUNDLE, Circusd, circusd, circusd_as, eventually, holds, kill
from .load import Load
from .processes import process
from .state_words import health_of
from .test_users import library_path, open_folder, python  # noqa: F401 - fixtures

OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "restart.delay": 0.2,
    "restart.delay_max": 0.4,
    "graceful_timeout": 5,
}
Spoil = Callable[[Circusd], AbstractContextManager[None]]
LIMITED = {**OPTIONS, "restart.burst": 3, "restart.cooldown": 600}


@pytest.fixture
def c(tmp_path: Path) -> Iterator[Circusd]:
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE, check_delay=1) as running:
        pids = running.wait_ready()
        eventually(lambda: all(running.worker(pid)["latency"] is not None for pid in pids), what="each was probed")
        yield running


def can_be_asked(worker: dict[str, object]) -> bool:
    """Say whether a worker has a private socket that is there."""
    return worker["socket"] is not None and Path(str(worker["socket"])).exists()


def take_away(c: Circusd) -> None:
    """Remove the runtime folder with all that is in it, also what is written while it goes."""
    shutil.rmtree((c.runtime / "r").rename(c.runtime / "gone"), ignore_errors=True)


def told_of(c: Circusd, *, after: int) -> set[int | None]:
    """Return the workers of which it is told that they cannot be probed."""
    return {each.pid for each in c.told("unprobed", after=after)}


def test_workers_that_nobody_can_probe_any_more_are_told_and_replaced_by_others_that_are_probed(c: Circusd) -> None:
    """Given two workers that are probed, when the runtime folder is removed, then it is told of each, none is shown as
    well without a probe, and others that are probed take their places, without a failure."""
    before, old = c.last_told(), set(c.workers())

    take_away(c)

    eventually(lambda: told_of(c, after=before) == old, what="an event tells of each")

    def are_probed() -> bool:
        workers = c.watcher()["workers"]
        assert all(can_be_asked(worker) or not looks_well(worker) for worker in workers)
        fresh = [each for each in workers if looks_well(each) and each["latency"] is not None]
        return len(fresh) == 2 and not old & {each["pid"] for each in fresh}

    eventually(are_probed, what="others are in their places, and are probed")
    assert c.failures(after=before) == []
    assert c.serves()


def test_a_worker_that_cannot_be_probed_is_told_once_not_shown_as_well_and_not_replaced_in_vain(tmp_path: Path) -> None:
    """Given a file in the place of their runtime folder, then the health of both workers is unknown at once, and later
    by their probes; it is told once of each; none is replaced, as another could not be probed either; and both are well
    when the folder is there again."""
    # An earlier probe proves a worker's health for more than 500 s.
    with circusd(tmp_path, options={**OPTIONS, "health.timeout": 100}, plugins=BUNDLE, check_delay=1) as c:
        pids = c.wait_ready()
        eventually(lambda: [looks_well(each) for each in c.watcher()["workers"]] == [True] * 2, what="both are probed")
        before, prober = c.last_told(), c.plugin("xboard")
        prober.signal(signal.SIGSTOP)
        eventually(lambda: c.state()["probers"][0]["round_age"] > 1, what="no report is on its way")

        with in_the_way(c):
            eventually(lambda: told_of(c, after=before) == {*pids}, what="an event tells of each")
            assert are_unknown(c, "its private socket is gone from the runtime folder, so it cannot be probed")
            prober.signal(signal.SIGCONT)
            eventually(
                lambda: are_unknown(c, "private socket unreachable: Not a directory"), what="it is probed in vain"
            )
            wait_for_a_look(c)
            holds(lambda: c.workers() == pids, seconds=2)
            assert len(c.told("unprobed", after=before)) == 2

        eventually(
            lambda: [looks_well(each) for each in c.watcher()["workers"]] == [True] * 2, what="both are well again"
        )
        assert c.workers() == pids


def are_unknown(c: Circusd, why: str) -> bool:
    return all((health_of(each), each["reason"]) == ("unknown", why) for each in c.watcher()["workers"])


def wait_for_a_look(c: Circusd) -> None:
    """Wait until circusd has looked after the folders once more: its record, that is removed, is there again."""
    record = c.runtime / "r" / c.instance / "circusd.json"
    record.unlink()
    eventually(record.exists, what="circusd has looked after its folders")


def test_circusd_is_found_and_restarted_after_that(c: Circusd) -> None:
    """Given a runtime folder that was removed, then circusd's record is there again, and a restart loses nobody."""
    old = c.workers()
    take_away(c)

    record = c.runtime / "r" / c.instance / "circusd.json"
    eventually(lambda: record.exists() and json.loads(record.read_text())["pid"] == c.pid, what="it is recorded")
    restarted = c.run_cli("restart", "--no-preflight")

    assert restarted.returncode == 0, restarted
    assert not set(old) & set(c.wait_ready())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
def test_where_another_user_makes_it_first_all_look_in_another_place(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given a runtime folder in /tmp that was removed, when another user makes one of that name, then circusd, its
    workers and its plugin use that of the session, each worker is probed, and the end of circusd is told; and when that
    other one is removed, the next circusd finds them there, and no request is lost."""
    uid = 50_000 + os.getpid() % 10_000
    env = {**(library_path(open_folder / "python") if python != sys.executable else {}), "XBOARD_RUNTIME_DIR": ""}
    usual, session = Path(f"/tmp/xboard-circus-{uid}"), Path(f"/run/user/{uid}")
    folder = open_folder / "planted"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xb-planted-", dir="/run")))
        for made in (usual, session):
            stack.callback(shutil.rmtree, made, ignore_errors=True)
        session.mkdir(parents=True, mode=0o700)
        circus = {"endpoint": f"ipc://{place}/x.sock"}
        c = stack.enter_context(
            circusd(folder, options=OPTIONS, plugins=BUNDLE, circus=circus, python=python, env=env, start=False)
        )
        c.endpoint = circus["endpoint"]
        for path in (place, session, folder, *folder.rglob("*")):
            os.chown(path, uid, uid)
        theirs = stack.enter_context(circusd_as(uid, c, python=python))

        def are_probed_in(root: Path) -> bool:
            workers = c.watcher()["workers"]
            return len(workers) == 2 and all(
                looks_well(each) and each["latency"] is not None and str(each["socket"]).startswith(str(root))
                for each in workers
            )

        eventually(lambda: are_probed_in(usual), what="each worker is probed")
        plugin = c.plugin("xboard")

        shutil.rmtree(usual.rename(folder / "gone"), ignore_errors=True)
        usual.mkdir()

        eventually(lambda: are_probed_in(session), what="each worker is probed in the other place")
        assert plugin.alive
        record = session / "xboard-circus" / c.instance / "circusd.json"
        eventually(lambda: record.exists(), what="circusd is recorded there")
        eventually(record.with_name("life.json").exists, what="so is its life")
        theirs.send_signal(signal.SIGKILL)
        eventually(lambda: f"circusd (pid {theirs.pid}) was killed" in c.log("plugin-xboard"), what="its end is told")
        assert list(usual.iterdir()) == []

        theirs.wait()
        before = c.processes()
        with Load(c.url, rate=20) as load:
            usual.rmdir()  # which does not move ours once more
            stack.enter_context(circusd_as(uid, c, python=python))
            eventually(lambda: are_probed_in(session), what="the workers of the next circusd are probed there")
            eventually(lambda: not [each for each in before if each.alive], what="those of before have ended")
        assert load.lost == []
        assert not usual.exists()


def test_a_worker_that_hangs_after_that_is_replaced(c: Circusd) -> None:
    """Given a runtime folder that was removed, when workers hang later, then others take their places."""
    hung = c.workers()[0]
    take_away(c)

    c.tell(hung, "block 600")

    eventually(lambda: hung not in c.workers(), what="the hung one is gone")
    c.wait_ready()


@contextlib.contextmanager
def in_the_way(c: Circusd) -> Iterator[None]:
    """Put a file in the place of the watcher's runtime folder: nothing in it can be made, read or removed."""
    folder = c.runtime / "r" / c.instance / "web"
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("in the way")
    try:
        yield
    finally:
        folder.unlink()
        folder.with_name("elsewhere").rename(folder)


@contextlib.contextmanager
def read_only(c: Circusd) -> Iterator[None]:
    """Make the watcher's runtime folder read-only, as a file system with an error is: all in it can be read still."""
    folder = str(c.runtime / "r" / c.instance / "web")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def closed(c: Circusd) -> Iterator[None]:
    """Close the folder above to its own user, who could open the watcher's again: nothing below can be reached."""
    above = c.runtime / "r" / c.instance
    above.chmod(0)
    try:
        yield
        assert not stat.S_IMODE(above.stat().st_mode), "no proof: circusd has opened it"
    finally:
        above.chmod(0o700)


def may_mount() -> bool:
    """Return whether this process may mount a folder on itself."""
    command = ["unshare", "--mount", "mount", "--bind", "/tmp", "/tmp"]
    return os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode


@pytest.mark.parametrize(
    ("spoiled", "logged"),
    [
        pytest.param(in_the_way, "/web is no folder; remove it", id="a file in its place"),
        pytest.param(
            read_only,
            "Read-only file system",
            id="read-only",
            marks=pytest.mark.skipif(not may_mount(), reason="only root can mount a folder, where it is allowed to"),
        ),
    ],
)
def test_a_death_is_told_counted_and_limited_without_the_runtime_folder(
    tmp_path: Path, spoiled: Spoil, logged: str
) -> None:
    """Given a runtime folder out of reach, when a worker is killed, state, event and `why` tell it; when those in its
    place are killed too, its slot cools down, and its sibling serves on."""
    with circusd(tmp_path, options=LIMITED, plugins=BUNDLE, check_delay=1) as c:
        pids = c.wait_ready()
        with spoiled(c):
            a_death_is_told_counted_and_limited(c, pids)
            eventually(lambda: logged in c.log("circusd") + c.log("web"), what="the cause is logged")
        assert c.serves()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
def test_a_death_is_told_counted_and_limited_where_the_runtime_folder_is_closed(
    open_folder: Path,  # noqa: F811
    python: str,  # noqa: F811
) -> None:
    """The same where circusd's own user, who is not root, may neither enter nor read the folder."""
    uid = 50_000 + os.getpid() % 10_000
    env = library_path(open_folder / "python") if python != sys.executable else {}
    folder = open_folder / "closed"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xb-closed-", dir="/run")))
        circus = {"endpoint": f"ipc://{place}/x.sock"}
        c = stack.enter_context(
            circusd(folder, options=LIMITED, plugins=BUNDLE, circus=circus, python=python, env=env, start=False)
        )
        c.endpoint = circus["endpoint"]
        for path in (place, folder, *folder.rglob("*"), c.runtime):
            os.chown(path, uid, uid)
        stack.enter_context(circusd_as(uid, c, python=python))
        pids = c.wait_ready()
        with closed(c):
            a_death_is_told_counted_and_limited(c, pids, uid)
        assert c.serves()


def a_death_is_told_counted_and_limited(c: Circusd, pids: list[int], uid: int | None = None) -> None:
    dead, sibling = pids
    before = c.last_told()
    c.set("boot", "held")  # one that was up for 5 s would be started again whatever the limit
    kill(dead)

    (failure,) = eventually(lambda: [each for each in c.failures(after=before) if each.pid == dead])
    assert failure.message["cause"] == "killed from outside"
    assert c.watcher()["restarts"] >= 1
    assert "killed from outside" in eventually(lambda: why(c, dead, uid), every=0.2, what="`why` tells of it")
    assert sibling in c.workers()
    eventually(lambda: cools_down(c, sibling, after=before))
    assert len(c.failures(after=before)) == LIMITED["restart.burst"]
    (entry,) = eventually(lambda: held(c), what="its slot is held")
    assert entry["next_try"] > 500
    assert c.workers() == [sibling]


def cools_down(c: Circusd, sibling: int, *, after: int) -> bool:
    """Kill all workers but *sibling*; return whether their slot cools down by now."""
    for pid in set(c.workers()) - {sibling}:
        with contextlib.suppress(ProcessLookupError):
            process(pid).signal(signal.SIGKILL)
    return bool(c.told("cooldown", after=after))


def why(c: Circusd, pid: int, uid: int | None) -> str:
    """Return what `why` says of a worker to the user *uid*, or to us."""
    command = [c.python, "-m", "xboard_circus", "why", str(pid), "--json", "-c", str(c.ini)]
    groups = None if uid is None else list[int]()
    asked = subprocess.run(
        command,
        user=uid,
        group=uid,
        extra_groups=groups,
        cwd=c.folder,
        env=c.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked
    return str(json.loads(asked.stdout)["text"])
