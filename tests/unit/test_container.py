"""What the first process of a container says where it starts nothing."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xboard_circus.container import health_check, run
from xboard_circus.container.run import check_failure
from xboard_circus.core.lost import CircusdLife
from xboard_circus.host import circusd_record, procs, runtime


@pytest.mark.parametrize(
    ("content", "from_environment"),
    [
        (b"[circus]\ncheck_delay = $(circus.env.B) $(circus.env.A) $(circus.env.B)\n", "A, B"),
        (b"# \xe9\n[circus]\ncheck_delay = $(circus.env.A)\n", "A"),
        (b"[circus]\n", ""),
        (None, ""),
    ],
    ids=["variables", "not UTF-8", "no variable", "no file"],
)
def test_an_ini_at_fault_is_told_whatever_is_in_it(
    tmp_path: Path, content: bytes | None, from_environment: str
) -> None:
    ini = tmp_path / "circus.ini"
    if content is not None:
        ini.write_bytes(content)

    hint = f"; of its values, these are the container's environment's: {from_environment}" if from_environment else ""
    assert check_failure(ini, 1) == f"nothing was started: {ini} is at fault, see above{hint}"


def test_a_check_that_fails_by_itself_prints_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given an error of ours, whose report is in a file of the container's, then it is in the container's log, too."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "crash-20261126-1.log").write_text("Traceback: ...")

    assert "failed by an error of its own, see above" in check_failure(tmp_path / "circus.ini", 3)
    assert "Traceback: ..." in capsys.readouterr().out


@pytest.mark.parametrize("offset", [0, 1], ids=["our pid", "another pid"])
@pytest.mark.parametrize("is_renewed", [True, False], ids=["works", "hangs"])
def test_the_record_of_another_container_hides_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_renewed: bool, offset: int
) -> None:
    """Given a second container on the same volume, whose circusd has replaced the record of ours."""
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setattr(health_check, "circusd_answers", lambda _: False)
    ini, own = tmp_path / "circus.ini", procs.Identity.of(os.getpid())
    instance, clock = runtime.instance_id(ini), SimpleNamespace(now=1000.0)
    assert own is not None
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock.now))
    ours, other = CircusdLife(own.pid, own.started), CircusdLife(own.pid + offset, own.started + 1)
    watch = run.CircusdWatch(ini, own.pid)

    def write(life: CircusdLife) -> None:
        circusd_record.write(instance, life)
        os.utime(
            runtime.instance_dir(instance) / runtime.LIFE, (clock.now, clock.now)
        )  # that of two writes may be the same

    write(other)  # before ours has begun
    for clock.now in (1100.0, 1200.0, 1300.0, 1400.0):
        assert not watch.is_overdue()
    write(ours)
    assert not watch.is_overdue()

    found = []
    for clock.now in (1401.0, 1419.0, 1422.0, 1425.0, 1428.0):
        if is_renewed:
            write(ours)
            found.append(watch.is_overdue())
        write(other)
        found.append(watch.is_overdue())

    assert found[-1] != is_renewed
    assert not any(found[:-1])
    left = circusd_record.read(instance)
    assert left is not None
    assert (left[:2], left.why) == (other[:2], "")


def test_the_health_check_imports_next_to_nothing() -> None:
    """Given a host under load, where each import counts, then the check loads zmq and one module of ours."""
    code = "import sys, xboard_circus.container.__main__, xboard_circus.container.health_check; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.partition(".")[0] in ("xboard_circus", "circus", "psutil", "tornado")}

    assert ours == {
        *("xboard_circus", "xboard_circus.host", "xboard_circus.host.sockdiag"),
        *(f"xboard_circus.container{name}" for name in ("", ".__main__", ".health_check")),
    }


def test_a_check_that_was_killed_says_nothing_of_the_ini(tmp_path: Path) -> None:
    assert "was ended by SIGKILL; is there too little memory?" in check_failure(tmp_path / "circus.ini", 128 + 9)
