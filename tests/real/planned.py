"""Measure what planned operations lose under load: ``.venv/bin/python -m tests.real.planned --rounds 20 --write``.

For each operation an open-loop client sends 200 requests a second, half of them on kept connections, while the
operation is repeated. Prints the requests, the lost ones, and the worst latency; with --write the table goes into
docs/planned.md. Ends with 1 if a request was lost, or took longer than LONGEST. Only what this script started is
touched.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .load import Load
from .processes import Process, script_folder
from .service_host import NAME, ROOT, UNIT, UserManager, install, user_manager

DOCS = ROOT / "docs" / "planned.md"
HEAD = """# What planned operations lose

Written by `tests/real/planned.py --write`; do not edit. While each operation was done again and again on two workers,
an open-loop client sent 200 requests a second, half of them on kept connections. Latency counts from when a request was
due.

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
            c, {"socket:web": {"backlog": 100 + number}}
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


SERVICES = {
    "`systemctl restart`": restarted_service,
    "`install_service.sh upgrade` to another commit, and back": upgraded_service,
}


def table(results: dict[str, Result]) -> str:
    head = "| operation | rounds | requests | lost | worst latency |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {name} | {each.rounds} | {each.requests:,} | {each.lost} | {each.worst:.2f} s |\n"
        for name, each in results.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="operations whose name has this in it")
    parser.add_argument("--write", action="store_true", help="write the table into docs/planned.md")
    options = parser.parse_args()
    results: dict[str, Result] = {}
    with script_folder() as folder:
        for what, work in operations(folder).items():
            if options.only not in what:
                continue
            with circusd(folder, plugins=BUNDLE) as c:
                c.wait_ready()
                results[what] = measure(c, work, options.rounds)
            print(table({what: results[what]}).splitlines()[-1], flush=True)
        for what, made in SERVICES.items():
            if options.only in what:
                with made(folder / made.__name__) as (c, work):
                    results[what] = measure(c, work, options.rounds)
                print(table({what: results[what]}).splitlines()[-1], flush=True)
    text = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end, {time.strftime('%Y-%m-%d')}.\n\n"
    print(f"\n{text}{table(results)}")
    if options.write:
        DOCS.write_text(f"{HEAD}{text}{table(results)}", encoding="utf-8")
    return 1 if any(each.lost or each.worst > LONGEST for each in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
