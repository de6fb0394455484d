"""Plugins: Circus starts them in a way of its own, and what it gets wrong with that is mended."""

import sys
import sysconfig
from pathlib import Path

from xboard_circus.host import procs

from .harness import BUNDLE, Circusd, circusd, eventually


def interpreter_in(folder: Path) -> Path:
    """Return a Python in *folder* that finds what ours finds."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    packages.parent.mkdir(parents=True)
    packages.symlink_to(sysconfig.get_path("purelib"))
    return python


def prober(c: Circusd, *, but: int = 0) -> int:
    """Return the pid of the plugin, another one than *but*, once it has reported."""

    def pid() -> int:
        return next((int(each["pid"]) for each in c.state()["probers"] if each["pid"] != but), 0)

    return eventually(pid, what="a report of the plugin")


def test_a_plugin_starts_from_a_folder_with_blanks_and_again_when_the_file_changes(tmp_path: Path) -> None:
    """Given a venv below "my app", when circusd starts and its plugin's section changes, then each plugin is ours."""
    python = interpreter_in(tmp_path / "my app")

    with circusd(tmp_path, numprocesses=1, plugins=BUNDLE, python=str(python)) as c:
        first = prober(c)
        c.write_ini(plugin__xboard={"ledger.keep_days": 3})
        c.do("reloadconfig", waiting=True)
        second = prober(c, but=first)

        assert (procs.environ(second) or {})["XBOARD_INSTANCE"] == c.instance
