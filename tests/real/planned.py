"""Measure what planned operations lose under load: ``.venv/bin/python -m tests.real.planned --rounds 20 --write``.

For each operation an open-loop client sends 200 requests a second, half of them on kept connections, while the
operation is repeated. Prints the requests, the lost ones, and the worst latency; with --write they go into
docs/planned.md, whose other rows stay. Ends with 1 if a request was lost, or took longer than LONGEST. Only what this
script started is touched.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .load import Load
from .operations import ROOT
from .processes import Process, script_folder
from .service_host import NAME, UNIT, UserManager, install, user_manager

DOCS = ROOT / "docs" / "planned.md"
HEAD = f"""# What planned operations lose

Written by `tests/real/planned.py --write`; do not edit. While each operation was done again and again on two workers,
an open-loop client sent 200 requests a second, half of them on kept connections, on {os.cpu_count()} cores. Latency
counts from when a request was due.

"""
LEAST = 10_000
LONGEST = 0.25
SOURCES = ("xboard_circus", "plugins")
COMMITS_BACK = 40  # of those that changed the product, for the upgrade
RATE = 100  # on new connections, and the same on kept ones
ENDS_WITHIN = 60.0


@dataclass(frozen=True)
class Result:
    """Results of the requests of one operation; *worst* is the longest latency in seconds."""

    rounds: int
    requests: int
    lost: int
    worst: float


def run(c: Circusd, *command: str, env: Mapping[str, str] | None = None) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(command, cwd=c.folder, env=env or c.environ(), capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def reconfigure(c: Circusd, sections: dict[str, dict[str, object]]) -> None:
    c.write_ini(**sections)
    c.do("reloadconfig", waiting=True, timeout=90)


def operations(folder: Path) -> dict[str, Callable[[Circusd, int], object]]:
    """Return the operations of each round, by name; each gets the number of the round."""
    more = dict(Watcher("api", numprocesses=1).sections(folder))
    (folder / "api").mkdir()
    return {
        "`xboard-circus restart`": lambda c, _: run(
            c, sys.executable, "-m", "xboard_circus", "restart", "-c", str(c.ini)
        ),
        "`start_backend.sh restart`": lambda c, _: run(
            c, str(ROOT / "scripts" / "start_backend.sh"), "restart", "-c", str(c.ini)
        ),
        'what "Restart all" on the page sends': lambda c, _: c.do(
            "restart", but=["plugin:xboard"], match="regex", waiting=True, timeout=90
        ),
        "`circusctl restart`": lambda c, _: c.do("restart", waiting=True, timeout=90),
        "`circusctl reloadconfig`, another backlog": lambda c, number: reconfigure(
            c, {"socket:web": {"backlog": 2000 + number}}
        ),
        "`circusctl reloadconfig`, a watcher more or less": lambda c, number: reconfigure(
            c, {} if number % 2 else more
        ),
    }


@dataclass(frozen=True)
class OnlyTheApp:
    """The environment of a circusd, in which Python finds only installed packages."""

    c: Circusd

    def environ(self) -> dict[str, str]:
        return {**self.c.environ(), "PYTHONPATH": str(ROOT / "tests" / "real")}


@contextlib.contextmanager
def service(folder: Path, packages: Path) -> Iterator[tuple[Circusd, UserManager]]:
    """Run a service of a ``systemd --user`` with *packages* as its .venv, and nothing of this checkout but the app."""
    folder.mkdir(exist_ok=True)
    with circusd(folder, plugins=BUNDLE, start=False) as c, user_manager(OnlyTheApp(c)) as manager:
        (c.folder / ".venv").symlink_to(packages)
        install(manager, c)
        c.wait_ready()
        yield c, manager


@contextlib.contextmanager
def restarted_service(folder: Path) -> Iterator[tuple[Circusd, Callable[[Circusd, int], object]]]:
    with service(folder, Path(sys.prefix)) as (c, manager):

        def restart(c: Circusd, _: int) -> None:
            run(c, "systemctl", "--user", "restart", UNIT, env=manager.environ)

        yield c, restart


@contextlib.contextmanager
def upgraded_service(folder: Path) -> Iterator[tuple[Circusd, Callable[[Circusd, int], object]]]:
    """A service with a .venv of its own, into which one commit is installed after the other: the newest, an older one.

    Both come from a clone, so that nothing is checked out under our feet.
    """
    clone, packages = folder / "clone", folder / "packages"
    for command in (
        ["git", "clone", "--quiet", str(ROOT), str(clone)],
        [sys.executable, "-I", "-m", "venv", str(packages)],
        [str(packages / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", str(clone)],
    ):
        subprocess.run(command, check=True, timeout=600)

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(clone), *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    older = git("log", f"-{COMMITS_BACK}", "--format=%H", "--", *SOURCES).split()[-1]
    with service(folder, packages) as (c, manager):

        def upgrade(c: Circusd, number: int) -> None:
            git("checkout", "--quiet", older if number % 2 == 0 else "-")
            words = ("--user", "--name", NAME, "--dir", str(c.folder))
            run(c, str(clone / "scripts" / "install_service.sh"), "upgrade", *words, env=manager.environ)
            [installed] = packages.glob("lib/*/site-packages")
            for module in (installed / "xboard_circus" / "core").glob("*.py"):
                if module.read_bytes() != (clone / module.relative_to(installed)).read_bytes():
                    raise RuntimeError(f"{module} is not that of the commit that was installed")

        yield c, upgrade


def another_python() -> str:
    """Return a Python of this host of another version than ours."""
    for name in ("python3.13", "python3.12", "python3.11", "python3.10"):
        asked = [name, "-I", "-c", "import ensurepip, sys; print(*sys.version_info[:2])"]
        if shutil.which(name) and name != "python{}.{}".format(*sys.version_info[:2]):
            if not subprocess.run(asked, capture_output=True, timeout=60).returncode:
                return name
    raise RuntimeError("there is no Python of another version here")


@contextlib.contextmanager
def moved_to_another_python(folder: Path) -> Iterator[tuple[Circusd, Callable[[Circusd, int], object]]]:
    """A backend of which each ``restart`` is that of another .venv: of another Python, and again of ours."""
    folder.mkdir()
    pythons = [sys.executable, another_python()]
    for number, each in enumerate(pythons):
        packages = folder / str(number)
        subprocess.run([each, "-I", "-m", "venv", str(packages)], check=True, timeout=60)
        pythons[number] = str(packages / "bin" / "python")
        clone = ["git", "clone", "--quiet", str(ROOT), str(packages / "clone")]
        pip = [pythons[number], "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (clone, [*pip, str(packages / "clone")]):
            subprocess.run(command, check=True, timeout=600)
    with circusd(folder, plugins=BUNDLE, start=False) as c:
        environ = OnlyTheApp(c).environ()

        def call(name: str, number: int) -> None:
            run(c, pythons[number % 2], "-m", "xboard_circus", name, "-c", str(c.ini), env=environ)
            program = Path(pythons[number % 2]).resolve()
            for pid in (c.state()["circusd"]["pid"], *c.wait_ready()):
                if (found := Path(f"/proc/{pid}/exe").resolve()) != program:
                    raise RuntimeError(f"pid {pid} runs {found}, not {program}")

        call("start", 0)
        yield c, lambda _, number: call("restart", number + 1)


def measure(c: Circusd, work: Callable[[Circusd, int], object], rounds: int) -> Result:
    """Do *work* in *rounds* under load, and go on until at least LEAST requests were sent."""
    with Load(c.url, rate=RATE) as new, Load(c.url, rate=RATE, connections=16) as kept:
        for number in range(rounds):
            before = c.processes()
            work(c, number)
            c.wait_ready()
            # Not the next one while workers of this round drain, so that each round begins as the first did.
            still = set(c.workers())
            old = [each for each in before if each.pid not in still and "xboard_circus.worker" in each.command]
            eventually(partial(_have_ended, old), timeout=ENDS_WITHIN)
        eventually(
            lambda: len(new.requests) + len(kept.requests) >= LEAST, timeout=LEAST / RATE, what="enough requests"
        )
    requests = [*new.requests, *kept.requests]
    if lost := Counter(each.outcome for each in requests if each.lost):
        print(f"lost: {dict(lost)}; the end of circusd's log:\n{c.log('circusd')[-5000:]}")
    return Result(rounds, len(requests), sum(lost.values()), max(each.latency for each in requests))


def _have_ended(processes: list[Process]) -> bool:
    return not any(each.alive for each in processes)


WITH_PACKAGES = {
    "`xboard-circus restart` with another Python, and back": moved_to_another_python,
    "`systemctl restart`": restarted_service,
    "`install_service.sh upgrade` to another commit, and back": upgraded_service,
}


TITLES = "| operation | rounds | requests | lost | worst latency | measured |\n|---|---|---|---|---|---|\n"


def row(name: str, each: Result) -> str:
    cells = (name, each.rounds, f"{each.requests:,}", each.lost, f"{each.worst:.2f} s", time.strftime("%Y-%m-%d"))
    return f"| {' | '.join(map(str, cells))} |"


def written(rows: Mapping[str, str], names: Iterable[str]) -> str:
    """Return the page with *rows*, and those of the other *names* as they were measured before."""
    before = DOCS.read_text(encoding="utf-8").splitlines()
    kept = {name: line for name in names for line in before if line.startswith(f"| {name} |")}
    return f"{HEAD}{TITLES}" + "".join(f"{rows.get(name, kept.get(name))}\n" for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="operations whose name has this in it")
    parser.add_argument("--write", action="store_true", help="write the table into docs/planned.md")
    options = parser.parse_args()
    results: dict[str, Result] = {}
    rows: dict[str, str] = {}

    def take(c: Circusd, name: str, work: Callable[[Circusd, int], object]) -> None:
        results[name] = measure(c, work, options.rounds)
        rows[name] = row(name, results[name])
        print(rows[name], flush=True)

    with script_folder() as folder:
        for name, work in (simple := operations(folder)).items():
            if options.only in name:
                with circusd(folder, plugins=BUNDLE) as c:
                    c.wait_ready()
                    take(c, name, work)
        for name, made in WITH_PACKAGES.items():
            if options.only in name:
                with made(folder / made.__name__) as (c, work):
                    take(c, name, work)
    print(
        f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end\n\n{TITLES}"
        + "\n".join(rows.values())
    )
    if options.write:
        DOCS.write_text(written(rows, [*simple, *WITH_PACKAGES]), encoding="utf-8")
    return 1 if any(each.lost or each.worst > LONGEST for each in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
