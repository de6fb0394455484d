"""The first process of a container, run without one: its signals, and what an earlier run has left."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from xboard_circus.host import circusd_record, last_words, runtime

from .alert_servers import hook_server
from .containers import WITH_LITTLE_PATIENCE
from .harness import BUNDLE, Circusd, circusd, eventually, holds
from .load import Load
from .test_alerts import QUICK, SOON, hook_section, sections, told
from .test_lost import of_kinds, recorded


@contextlib.contextmanager
def first_process(
    c: Circusd, python: tuple[str, ...] = ("-m", "xboard_circus.container")
) -> Iterator[subprocess.Popen[bytes]]:
    with (c.folder / "first.log").open("wb") as log:
        popen = subprocess.Popen([sys.executable, *python], cwd=c.folder, env=c.environ(), stdout=log, stderr=log)
    try:
        yield popen
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(90)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def test_sighup_is_a_rolling_reload_restart_is_refused_and_sigterm_the_end(tmp_path: Path) -> None:
    """A container ends with the circusd that its first process has started, so none may take its place."""
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c, first_process(c) as first:
        old = c.wait_ready()
        first.send_signal(signal.SIGHUP)
        eventually(lambda: len(c.ready()) == 2 and not set(old) & set(c.ready()))
        refused = c.run_cli("restart")
        assert refused.returncode == 1
        assert "ends the container; `xboard-circus reload` replaces the workers without a lost" in refused.stderr
        holds(lambda: first.poll() is None and c.serves(), seconds=1, what="it serves on")
        first.send_signal(signal.SIGTERM)
        assert first.wait(90) == 0


def test_below_another_init_orphans_are_reaped_too(tmp_path: Path) -> None:
    """Given a first process that is not process 1, when a worker dies and then its child, then no zombie is left."""
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c, first_process(c) as first:
        worker = c.wait_ready()[0]
        c.tell(worker, "child")
        (child,) = eventually(psutil.Process(worker).children, what="the worker has a child")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(c.ready()) == 2 and worker not in c.ready())
        with contextlib.suppress(psutil.NoSuchProcess):  # circusd may have been quicker
            child.kill()

        eventually(lambda: not child.is_running() and zombies_of(first.pid) == [], what="both are reaped")


def zombies_of(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process] if process.status() == psutil.STATUS_ZOMBIE else []
    return found


def test_what_an_earlier_run_said_at_its_end_does_not_end_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c:
        monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
        last_words.leave(runtime.instance_id(c.ini), "web could not be kept up for 6 s")
        with first_process(c) as first:
            c.wait_ready()
            holds(lambda: first.poll() is None, seconds=12, every=0.2)


def test_a_circusd_that_hangs_when_it_is_to_quit_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c, first_process(c) as first:
        c.wait_ready()
        monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
        os.kill(c.state()["circusd"]["pid"], signal.SIGSTOP)
        last_words.leave(runtime.instance_id(c.ini), "web could not be kept up for 6 s")
        assert first.wait(90) == 1
        assert "giving up: web could not be kept up" in (c.folder / "first.log").read_text().splitlines()[-1]
        eventually(lambda: c.processes() == [], what="what was killed with it is gone")


THAT_TELLS_WHAT_IT_READS = f"""
from xboard_circus.container.run import circusd_record
read = circusd_record.read
def read_and_told(instance):
    print(life := read(instance), flush=True)
    return life
circusd_record.read = read_and_told
{WITH_LITTLE_PATIENCE}"""


def test_a_hung_circusd_is_replaced_whatever_another_container_on_its_volume_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c, first_process(c, ("-c", THAT_TELLS_WHAT_IT_READS)):
        c.wait_ready(timeout=90)
        monkeypatch.setenv("XBOARD_RUNTIME_DIR", c.environ()["XBOARD_RUNTIME_DIR"])
        instance, hung = runtime.instance_id(c.ini), c.state()["circusd"]["pid"]
        own = circusd_record.read(instance)
        assert own is not None
        # What has recorded nothing as far as the first process knows may have no watcher of ours: it waits for it.
        first_log = c.folder / "first.log"
        eventually(lambda: f"started={own.started}," in first_log.read_text(), what="the first process has read it")
        other = own._replace(started=own.started + 1)  # with our pid, as containers have
        circusd_record.write(instance, other)
        eventually(lambda: circusd_record.read(instance)[:2] == own[:2], timeout=90, what="it is ours again")  # type: ignore[index]

        os.kill(hung, signal.SIGSTOP)
        circusd_record.write(instance, other)

        eventually(lambda: not psutil.pid_exists(hung), timeout=90, what="it was killed")
        c.wait_ready(timeout=90)
        assert c.state()["circusd"]["pid"] != hung


def test_who_is_told_to_end_before_circusd_can_take_the_signal_ends_well(tmp_path: Path) -> None:
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c, first_process(c) as first:
        # One after the other it starts a check and circusd: what has ended and is not reaped yet tells no command.
        eventually(lambda: any("circus.circusd" in each.command for each in c.processes()), every=0.005)

        first.send_signal(signal.SIGTERM)

        assert first.wait(90) == 0


def test_a_lost_circusd_is_started_again_beside_its_workers_until_it_is_lost_too_often(tmp_path: Path) -> None:
    """Given a load and a webhook, when circusd hangs, then another one takes over, no request is lost, and ledger and
    webhook report the loss once. When circusd is killed again and again, then the container ends as it did.
    """
    with hook_server() as hook, circusd(tmp_path, plugins=BUNDLE, start=False) as c:
        c.write_ini(**sections({"hook": hook_section(tmp_path, hook)}), plugin__xboard=QUICK)
        with first_process(c, ("-c", WITH_LITTLE_PATIENCE)) as first:
            recorded(c, *c.wait_ready())
            hung = c.state()["circusd"]["pid"]
            with Load(f"{c.url}/", rate=50) as load:
                os.kill(hung, signal.SIGSTOP)
                lost, back = of_kinds(c, "circusd_lost", "circusd_back")
                c.wait_ready()
            assert load.lost == []
            assert "did not answer any more, so the container's first process killed it" in lost["reason"]
            assert (lost["pid"], back["data"]["successor"]) == (hung, c.state()["circusd"]["pid"])
            eventually(lambda: told(hook, "recovered"), timeout=SOON)
            assert [each["event"] for each in told(hook)] == ["problem", "recovered"]

            for _ in range(4):
                pid = eventually(lambda: c.state()["circusd"]["pid"])
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: not psutil.pid_exists(pid))  # type: ignore[misc]
            assert first.wait(90) == 128 + signal.SIGKILL
        assert (c.folder / "first.log").read_text().count("starting it again; its workers serve on") == 4
        eventually(lambda: c.processes() == [], what="nothing is left")
