"""What the page of operations tells a reader to type, and a checkout to type it in."""

import atexit
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from .free_ports import free_port
from .harness import eventually

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OPERATIONS, OPERATIONS_ZH = DOCS / "operations.md", DOCS / "operations.zh-CN.md"
BLOCK = re.compile(r"(?:<!-- runs in: (?P<place>[^>]+?) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)
HERE, ENGINE, SYSTEMD = "this host", "a container engine", "a host with systemd"
# `doctor` ends with 1 where the host itself has a fault, and this one may.
MAY_END_WITH = {"doctor": {0, 1}, "timeout": {124}}
NOT_OURS = "/etc/logrotate.d/xboard"
NEVER = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "*.db*")
NOT_AT_THE_TOP = {"build", "dist", "logs", "run", "site", "uploads"}


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return which *names* of *folder* no clone would have."""
    return NEVER(folder, names) | (NOT_AT_THE_TOP & set(names) if Path(folder) == ROOT else set())


@dataclass(frozen=True)
class Command:
    """One line of a page, and where it is meant to be run."""

    text: str
    place: str = HERE


def commands(page: Path, place: str | None = None) -> list[Command]:
    """Return the commands of *page*, in order; only those for *place* where it is given."""
    return [each for each in all_commands(page) if place in (None, each.place)]


def all_commands(page: Path) -> list[Command]:
    return [
        Command(line.removeprefix("$ "), block["place"] or HERE)
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
        for line in block["text"].splitlines()
        if line.startswith("$ ")
    ]


# As pip's editable install does: the packages of the checkout are found, and no other module in its folder.
FINDER = """\
import importlib.util, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        place = {{"xboard_circus": "xboard_circus", "circusweb": "xboard_circus/dashboard/circusweb"}}.get(name)
        if place is not None:
            folder = f"{folder}/{{place}}"
            file = f"{{folder}}/__init__.py"
            return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[folder])

sys.meta_path.append(Finder)
"""


class Checkout:
    """A copy of the checkout that is installed, with ports that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: dict[str, str] = {}  # to the environment of what is run
        self.enter: tuple[str, ...] = ()  # before its command line
        self.ports = {str(port): str(free_port()) for port in (5555, 5556, 5557, 8000, 8080)}
        shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)
        (folder / "logs").mkdir(exist_ok=True)
        # Not below *folder*: the path of a unix socket may have 107 bytes.
        self.runtime = tempfile.mkdtemp(prefix="xb-")
        ini = folder / "circus.ini"
        ini.write_text(self.moved(ini.read_text(encoding="utf-8")), encoding="utf-8")
        self._install()

    def moved(self, text: str) -> str:
        """Return *text* with our ports in the place of the usual ones."""
        text = text.replace(NOT_OURS, str(self.folder.with_name("logrotate.conf")))
        return re.sub(r"\b(?:5555|5556|5557|8000|8080)\b", lambda found: self.ports[found[0]], text)

    def environ(self) -> dict[str, str]:
        """Return the environment of what is run here."""
        # pytest-xdist exports a width of 80, at which `ps` cuts its lines; a person's shell exports none.
        inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return {
            **inherited,
            "XBOARD_RUNTIME_DIR": self.runtime,
            # Without it, circusctl asks at 5555.
            "CIRCUSCTL_ENDPOINT": f"tcp://127.0.0.1:{self.ports['5555']}",
            **self.added,
        }

    def stand_in(self, program: str, text: str) -> None:
        """Put a shell script before the *program* that this machine has, or has not."""
        folder = self.folder.with_name("stand-ins")
        folder.mkdir(exist_ok=True)
        (folder / program).write_text(f"#!/bin/sh\n{text}\n")
        (folder / program).chmod(0o755)
        self.added["PATH"] = f"{folder}:{os.environ['PATH']}"

    def run(self, command: Command, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run one command as a shell in the checkout would."""
        return subprocess.run(
            [*self.enter, "bash", "-c", self.moved(command.text)],
            cwd=self.folder,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def follow(self, command: Command) -> None:
        """Run one command, which has to end well."""
        if command.text.startswith("tail -f "):
            # It ends when its reader does. A person types slower than we do: what was begun is there by then.
            shown = Command(f"timeout 1 {command.text}")
            eventually(lambda: self.run(shown).stdout, every=0.2, what=command.text)
            return
        done = self.run(command)
        word = next((word for word in shlex.split(command.text) if word in MAY_END_WITH), "")
        allowed = MAY_END_WITH.get(word, {0})
        assert done.returncode in allowed, f"$ {command.text}\n{done.stdout}{done.stderr}exit code {done.returncode}"

    def monitors(self) -> list[psutil.Process]:
        """Return the monitors that were started here: those whose runtime folder is ours."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    "xboard_circus.monitor" in process.cmdline()
                    and process.environ().get("XBOARD_RUNTIME_DIR") == self.runtime
                ):
                    found.append(process)
        return found

    def _install(self) -> None:
        """Make a .venv that finds this copy, and all else where the tests' own Python finds it: no download."""
        venv = self.folder / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "checkout.pth").write_text(f"import checkout\n{sysconfig.get_path('purelib')}\n")
        (site / "checkout.py").write_text(FINDER.format(folder=self.folder))
        ours, theirs = "xboard_circus.__main__:main", "circus.circusctl:main"
        for name, where in {"xboard-circus": ours, "circusctl": theirs, "pip": "pip._internal.cli.main:main"}.items():
            module, _, function = where.partition(":")
            script = venv / "bin" / name
            script.write_text(
                f"#!{venv}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            script.chmod(0o755)
        (venv / ".place").write_text(f"{self.folder}\n")
        sums = subprocess.check_output(["cksum", "setup.cfg", "pyproject.toml"], cwd=self.folder)
        (venv / ".installed-").write_bytes(sums)


@cache
def small_checkout() -> Path:
    """Make a checkout with few files in its .venv, once in this process, at whose end it is deleted."""
    above = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp")).resolve()
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    above.chmod(0o755)
    made = Checkout(above / "checkout")
    shutil.rmtree(made.runtime)
    return made.folder
