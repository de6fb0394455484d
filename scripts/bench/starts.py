"""Trace starts of ours: the stages from the command to the first answer, one after the other."""

import os
import time
from typing import NamedTuple

from bench.rivals import OURS, RIVAL
from bench.running import Running, answer
from tests.real.processes import read_stat

STAGES = (
    ("python", 0, "circusd: Python begins"),
    ("xboard_circus.plugins.guard", 0, "circusd: Circus is imported, and reads its file"),
    ("uvicorn", 0, "forkserver: it is forked from circusd, and leaves what is circusd's"),
    ("fastapi", 0, "forkserver: uvicorn and our worker are imported, as our hook is in circusd"),
    ("os.fork", 2, "forkserver: FastAPI is imported, circusd has armed, and what a fork would share is looked for"),
    ("ready", 0, "worker: it is forked, and starts the app"),
)
"""Each ends with a record of `stages.py`, or of the app, by its place: circusd forks the forkserver and the plugins."""
TICK = 1000 / os.sysconf("SC_CLK_TCK")


class Start(NamedTuple):
    """A start that was traced, which costs a few ms. Times are in milliseconds.

    Attributes:
        took: From the command to the first answer.
        stages: How long each took, and the time on a core of the process that ends it; None where that is not known.
        spent: The time on a core of each kind of process until the answer.
    """

    took: float
    stages: dict[str, tuple[float, float | None]]
    spent: dict[str, float]


def traced() -> Start:
    """Start the plain app with two workers, and trace that."""
    with Running(RIVAL[OURS], 2, start=False, traced=True) as it:
        at = it.start()
        it.until(lambda: answer(it.port) is not None, 60, "an answer", every=0.001)
        answered = time.monotonic()
        seen = [(each.pid, each.command, read_stat(each.pid)) for each in it.processes()]
        marks = {name: sorted(it.marks(name), key=lambda mark: mark[1]) for name, _, _ in STAGES}
        workers = {pid for pid, _ in it.recorded("ready")}
        circusd = it.supervisor.pid
    stages: dict[str, tuple[float, float | None]] = {}
    before, used = at, dict[int, float]()
    for name, nth, title in STAGES:
        pid, instant, cpu = marks[name][nth]
        stages[title] = 1000 * (instant - before), 1000 * (cpu - used.get(pid, 0.0))
        before, used[pid] = instant, cpu
    stages["worker: it answers"] = 1000 * (answered - before), None
    spent: dict[str, float] = {}
    for pid, command, stat in seen:
        if stat:
            rest = "forkserver" if "forkserver" in command else "plugin"
            kind = "circusd" if pid == circusd else "workers" if pid in workers else rest
            spent[kind] = spent.get(kind, 0.0) + (int(stat[11]) + int(stat[12])) * TICK
    return Start(1000 * (answered - at), stages, spent)
