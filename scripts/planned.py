#!/usr/bin/env python3
"""What planned operations lose under load: ``.venv/bin/python scripts/planned.py --rounds 20 --write``.

For each operation an open-loop client sends 200 requests a second, half of them on kept connections, while it is done
again and again. Prints the requests, those that were lost, and the worst latency; with --write the table goes
into docs/planned.md. Ends with 1 where a request was lost. Nothing but what this script started is touched.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(CHECKOUT))

from tests.real.harness import BUNDLE, Circusd, Watcher, circusd, eventually  # noqa: E402 - the path comes first
from tests.real.load import Load  # noqa: E402

DOCS = CHECKOUT / "docs" / "planned.md"
HEAD = """# What planned operations lose

Written by `scripts/planned.py --write`; do not edit. While each operation was done again and again on two workers, an
open-loop client sent 200 requests a second, half of them on kept connections. Latency counts from when a request was
due.

"""
LEAST = 10_000
RATE = 100  # on new connections, and the same on kept ones
ENDS_WITHIN = 60.0


@dataclass(frozen=True)
class Result:
    """What became of the requests of one operation; *worst* is the longest latency in seconds."""

    rounds: int
    requests: int
    lost: int
    worst: float


def run(c: Circusd, *command: str) -> None:
    """Run a program that has to end well."""
    done = subprocess.run(command, cwd=c.folder, env=c.environ(), capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def reconfigure(c: Circusd, sections: dict[str, dict[str, object]]) -> None:
    c.write_ini(**sections)
    c.do("reloadconfig", waiting=True, timeout=60)


def operations(folder: Path, python: str | None) -> dict[str, Callable[[Circusd, int], object]]:
    """Return what is done in each round, by name; it gets the number of the round."""
    more = dict(Watcher("api", numprocesses=1).sections(folder))
    (folder / "api").mkdir()
    found: dict[str, Callable[[Circusd, int], object]] = {
        "`xboard-circus restart`": lambda c, _: run(
            c, sys.executable, "-m", "xboard_circus", "restart", "-c", str(c.ini)
        ),
        "`start_backend.sh restart`": lambda c, _: run(
            c, str(CHECKOUT / "scripts" / "start_backend.sh"), "restart", "-c", str(c.ini)
        ),
        'what "Restart all" on the page sends': lambda c, _: c.do(
            "restart", but=["plugin:xboard"], match="regex", waiting=True, timeout=60
        ),
        "`circusctl restart`": lambda c, _: c.do("restart", waiting=True, timeout=60),
        "`circusctl reloadconfig`, another backlog": lambda c, number: reconfigure(
            c, {"socket:web": {"backlog": 100 + number}}
        ),
        "`circusctl reloadconfig`, a watcher more or less": lambda c, number: reconfigure(
            c, {} if number % 2 else more
        ),
    }
    if python is not None:
        found["`xboard-circus restart` from another installation, and back"] = lambda c, number: run(
            c, sys.executable if number % 2 else python, "-m", "xboard_circus", "restart", "-c", str(c.ini)
        )
    return found


def measure(c: Circusd, work: Callable[[Circusd, int], object], rounds: int) -> Result:
    """Do *work* in *rounds* under load, and go on until at least LEAST requests were sent."""
    with Load(c.url, rate=RATE) as new, Load(c.url, rate=RATE, connections=16) as kept:
        for number in range(rounds):
            before = c.processes()
            work(c, number)
            c.wait_ready()
            # Not the next one while workers of this round drain: each round begins as the first did.
            still = set(c.workers())
            old = [each for each in before if each.pid not in still and "xboard_circus.worker" in each.command]
            eventually(lambda old=old: not any(each.alive for each in old), timeout=ENDS_WITHIN)
        eventually(
            lambda: len(new.requests) + len(kept.requests) >= LEAST, timeout=LEAST / RATE, what="enough requests"
        )
    requests = [*new.requests, *kept.requests]
    return Result(rounds, len(requests), sum(each.lost for each in requests), max(each.latency for each in requests))


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
    parser.add_argument("--python", help="the Python of another installation of xboard-circus, for an upgrade and back")
    parser.add_argument("--write", action="store_true", help="write the table into docs/planned.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that all that was started is ended, too
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="xb-planned-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for what, work in operations(folder, options.python).items():
            if options.only not in what:
                continue
            with circusd(folder, plugins=BUNDLE) as c:
                c.wait_ready()
                results[what] = measure(c, work, options.rounds)
            print(table({what: results[what]}).splitlines()[-1], flush=True)
    text = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end, {time.strftime('%Y-%m-%d')}.\n\n"
    print(f"\n{text}{table(results)}")
    if options.write:
        DOCS.write_text(f"{HEAD}{text}{table(results)}", encoding="utf-8")
    return 1 if any(each.lost for each in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
