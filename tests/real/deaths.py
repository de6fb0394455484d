"""Measure how the memory of circusd and of the plugin grows with deaths of workers.

From the checkout: ``scripts/deaths.sh``.

Kills workers, each when its slot is filled again, until enough have died in one life of circusd, and prints the
resident memory per 1,000. The last lines are the result: the growth in the second half, per 1,000 deaths. Exits with 1
where that is more than `MOST`, from 5,000 deaths on: fewer are the beginning, in which memory always grows. The workers
are `sleep`, which costs little to start; ``--real`` takes our own worker in their place.
"""

import argparse
import signal
import sys
import time
from contextlib import suppress
from statistics import linear_regression
from typing import Any

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .processes import Process, process, script_folder

MIB = 1 << 20
MOST, ENOUGH = 0.5, 5000  # MiB per 1,000 deaths; deaths
SAMPLES = 100
WITHOUT_LIMIT = {
    "restart.burst": 10_000,
    "restart.delay": 0.05,
    "restart.delay_max": 0.05,
    "restart.window": 700,
    "restart.cooldown": 0.1,
}


def kill_all(c: Circusd, most: int) -> int:
    """Kill the running workers, *most* at most; return how many."""
    pids = c.workers()[:most]
    for pid in pids:
        with suppress(ProcessLookupError):
            process(pid).signal(signal.SIGKILL)
    return len(pids)


def died(c: Circusd) -> int:
    """Return how many deaths circusd has counted."""
    return int(c.watcher()["restarts"])


def per_thousand(samples: list[tuple[int, float]]) -> float:
    """Return how much a figure grows per 1,000 deaths: the slope of the line through *samples*.

    >>> per_thousand([(0, 10.0), (500, 11.0), (1000, 12.0)])
    2.0
    """
    deaths, figures = zip(*samples, strict=True)
    return 1000 * linear_regression(deaths, figures).slope if len(set(deaths)) > 1 else 0.0


def measure(c: Circusd, deaths: int) -> dict[str, list[tuple[int, float]]]:
    """Cause *deaths*; return the memory of each process in MiB, with the number of deaths at that time."""
    watched: dict[str, Process] = {"circusd": process(c.pid), "plugin": c.plugin("xboard")}
    samples: dict[str, list[tuple[int, float]]] = {name: [] for name in watched}
    started, number, printed = time.monotonic(), 0, 0
    while True:
        for name, of in watched.items():
            if not of.alive:
                raise SystemExit(f"{name} (pid {of.pid}) has ended after {number} deaths: this is not one life")
            samples[name].append((number, of.memory / MIB))
        if number >= printed or number >= deaths:
            figures = ", ".join(f"{name} {taken[-1][1]:.1f} MiB" for name, taken in samples.items())
            print(f"{number:>7} deaths, {time.monotonic() - started:5.0f} s: {figures}", flush=True)
            printed += 1000
        if number >= deaths:
            return samples
        wanted = min(deaths, number + max(1, deaths // SAMPLES))
        while number < wanted:
            kill_all(c, wanted - number)
            # A kill of a launcher in waiting, or a second kill, is not counted twice.
            eventually(lambda: len(c.workers()) == c.watcher()["numprocesses"], every=0.01, what="all are back")
            number = died(c)


def main() -> int:
    parser = argparse.ArgumentParser(
        "scripts/deaths.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deaths", type=int, default=5000, help="in one life of circusd (default 5000)")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--real", action="store_true", help="our own worker in place of sleep: half an hour for 5000")
    options = parser.parse_args()
    sleepers: dict[str, Any] = {} if options.real else {"command": "sleep 600", "listens": False}
    watcher = Watcher(numprocesses=options.workers, options=WITHOUT_LIMIT, **sleepers)
    with (
        script_folder() as folder,
        circusd(folder, watchers=[watcher], plugins=BUNDLE, check_delay=1) as c,
    ):
        eventually(lambda: len(c.workers()) == options.workers, what="all workers are there")
        eventually(lambda: c.state()["probers"], what="the plugin reports")
        samples = measure(c, options.deaths)
    grown = 0.0
    for name, taken in samples.items():
        slope = per_thousand([sample for sample in taken if sample[0] >= options.deaths / 2])
        print(f"{name}: {slope:+.2f} MiB per 1,000 deaths in the second half")
        grown = max(grown, slope)
    return int(options.deaths >= ENOUGH and grown > MOST)


if __name__ == "__main__":
    sys.exit(main())
