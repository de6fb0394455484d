"""circusd is killed while a plugin still imports: the plugin notices it late, and ends all the same."""

import contextlib
import ctypes
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from xboard_circus.host.procs import PR_SET_CHILD_SUBREAPER, adopt_orphans

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .processes import process

HOLD = """
import os, sys, time

class Hold:
    def find_spec(self, name, *_):
        while name == "xboard_circus.plugins._bundled" and os.path.exists({flag!r}):
            time.sleep(0.02)

sys.meta_path.insert(0, Hold())
"""


@contextlib.contextmanager
def subreaper() -> Iterator[Callable[[], None]]:
    """Yield what makes this process the parent of orphans below it, as `systemd --user` is; reap them at the end."""
    known = {child.pid for child in psutil.Process().children()}
    try:
        yield adopt_orphans
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)


def plugins(c: Circusd) -> set[int]:
    return {found.pid for found in c.processes() if "bundle.Bundle" in found.command}


def killed_while_it_imports(c: Circusd, flag: Path) -> set[int]:
    """Start circusd and kill it while its plugin imports; return the pids of plugins that are left."""
    flag.touch()
    c.start_again()
    eventually(lambda: plugins(c), what="the plugin is there, and imports")
    c.kill9()
    return plugins(c)


@contextlib.contextmanager
def importing_slowly(folder: Path, priority: int) -> Iterator[tuple[Circusd, Path]]:
    """Yield a circusd that does not run yet, and the file that holds its plugin's import while it is there."""
    flag = folder / "hold"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(HOLD.format(flag=str(flag)))
    watcher = Watcher(options={"priority": priority})
    env = {"PYTHONPATH": str(folder / "site")}
    with circusd(folder, watchers=[watcher], plugins=BUNDLE, env=env, check_delay=1, start=False) as c:
        yield c, flag


def late_plugins(adopt: Callable[[], object], c: Circusd, flag: Path) -> Iterator[int]:
    """Yield a plugin that imports on without its circusd, below init, and then one below a subreaper."""
    for is_below_us in (False, True):
        if is_below_us:
            adopt()
        (late,) = killed_while_it_imports(c, flag)
        assert (process(late).parent == os.getpid()) is is_below_us
        yield late


in_either_order = pytest.mark.parametrize(
    "priority", [2, 0], ids=["the watcher starts first", "the plugin starts first"]
)


@in_either_order
def test_a_plugin_that_still_imports_when_circusd_is_killed_ends(tmp_path: Path, priority: int) -> None:
    """Given a plugin that imports slowly, when circusd is killed meanwhile and started again, only its own is left;
    whether init becomes the parent of what it leaves, or a subreaper that is older than circusd."""
    with subreaper() as adopt, importing_slowly(tmp_path, priority) as (c, flag):
        for _ in late_plugins(adopt, c, flag):
            flag.unlink()
            eventually(lambda: not plugins(c), what="the late plugin is gone")

        c.start_again()
        pids = c.wait_ready()
        kill(pids[0])
        c.wait_ready()
        eventually(lambda: len(plugins(c)) == 1, what="one plugin runs")
        eventually(lambda: records_of(c, pids[0]), every=0.2, what="the death is recorded")
        assert len(records_of(c, pids[0])) == 1


@in_either_order
def test_stop_names_and_clean_ends_a_plugin_that_still_imports_when_circusd_is_killed(
    tmp_path: Path, priority: int
) -> None:
    """Given a plugin that imports slowly, when circusd is killed meanwhile, then `stop` fails and names it, and `clean`
    ends it; whether init becomes its parent, or a subreaper that is older than circusd."""
    with subreaper() as adopt, importing_slowly(tmp_path, priority) as (c, flag):
        for late in late_plugins(adopt, c, flag):
            stopped = c.run_cli("stop")
            assert (stopped.returncode, plugins(c)) == (1, {late}), stopped
            assert re.search(rf"\bpid {late}\b.*`xboard-circus clean` ends", stopped.stderr), stopped
            cleaned = c.run_cli("clean")

            assert cleaned.returncode == 0, cleaned
            assert f"stopping pid {late} " in cleaned.stdout + cleaned.stderr
            assert plugins(c) == set()


def records_of(c: Circusd, pid: int) -> list[object]:
    lines = c.run_cli("events", "--kind", "restart", "--since", "1h", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["pid"] == pid]
