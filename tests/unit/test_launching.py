"""What the command that launches circusd makes, and what circusd inherits from it."""

import os
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xboard_circus.cli import launching
from xboard_circus.errors import XboardError
from xboard_circus.host.procs import Identity
from xboard_circus.instance import Instance

LIMITED = """
import resource, sys
from xboard_circus.cli.launching import keep_limits
from xboard_circus.host import procs
smaller = keep_limits(procs.Identity.of(int(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], *smaller)
"""
MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(("circusd", "shell"), [(MOST, 64), (64, MOST)], ids=["a small shell", "a raised limit"])
def test_a_restart_keeps_the_larger_limit_of_circusd_and_shell(circusd: int, shell: int) -> None:
    assert kept(circusd, f"ulimit -Sn {shell}") == str(MOST)


def test_a_restart_names_a_limit_that_it_cannot_keep() -> None:
    """ulimit without -S sets the hard limit too, which nobody without a right of root's raises again."""
    assert kept(MOST, "ulimit -n 64") == f"64 RLIMIT_NOFILE 64 in place of {MOST}"


@pytest.mark.parametrize(("umask", "mode"), [("000", 0o775), ("027", 0o750)])
def test_no_folder_of_logs_is_open_to_the_writing_of_all(tmp_path: Path, umask: str, mode: int) -> None:
    ini = tmp_path / "circus.ini"
    ini.write_text(f"[circus]\numask = {umask}\n[watcher:web]\ncmd = sleep 60\n")
    before = os.umask(0o022)
    try:
        assert launching.make_folders(Instance(ini), starts=True) is None
    finally:
        os.umask(before)

    assert (tmp_path / "logs").stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into making folders elsewhere")
def test_root_makes_no_folder_of_logs_behind_another_users_link(tmp_path: Path) -> None:
    ini, place = tmp_path / "circus.ini", tmp_path / "of-root"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    ini.write_text("[circus]\nlogoutput = link/new/circusd.log\n[watcher:web]\ncmd = sleep 60\n")
    os.chown(tmp_path / "link", 65534, -1, follow_symlinks=False)

    refused = launching.make_folders(Instance(ini), starts=False)

    assert "link/new: the folder for logs cannot be made: another user's link is in the place of a folder" in str(
        refused
    )
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("quiet", "is_waited_for"), [(1.0, True), (60.0, False)])
def test_a_circusd_that_gives_signs_of_life_is_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch, quiet: float, is_waited_for: bool
) -> None:
    """Given a host without a free core, on which circusd works and does not answer in time."""
    circusd, answers = Identity(4711, 1), [0, 0, 4711]
    client = SimpleNamespace(pid=lambda: answers.pop(0))
    config = SimpleNamespace(endpoint="tcp://h:1")
    instance: Any = SimpleNamespace(
        client=lambda as_found: nullcontext(client), quiet_for=lambda _: quiet, config=config
    )
    launched: Any = SimpleNamespace(identity=circusd, raise_if_ended=lambda: None, log="circusd.log")
    monkeypatch.setattr(launching, "ANSWER_WITHIN", 0.0)

    with nullcontext() if is_waited_for else pytest.raises(XboardError, match="runs, and does not answer"):
        launching.wait_for_answer(instance, launched)

    assert (answers == []) == is_waited_for


def kept(circusd: int, shell: str) -> str:
    """Return what a restart from a *shell* leaves of the limit on open files of a circusd."""
    lesser = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []
    with subprocess.Popen(["sh", "-c", f"ulimit -Sn {circusd}; echo; exec sleep 600"], stdout=subprocess.PIPE) as runs:
        try:
            assert runs.stdout is not None
            runs.stdout.readline()
            command = [*lesser, "sh", "-c", f'{shell}; exec "$0" -c "$1" {runs.pid}', sys.executable, LIMITED]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            runs.kill()
    return done.stdout.strip()
