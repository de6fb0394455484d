"""Trace starts of ours: the stages from the command to the first answer, one after the other."""

import time

from bench.rivals import OURS, RIVAL
from bench.running import Running, answer

STAGES = (
    ("python", 0, "circusd: Python begins"),
    ("xboard_circus.plugins.guard", 0, "circusd: Circus is imported, and reads its file"),
    ("uvicorn", 0, "forkserver: it is forked from circusd, and leaves what is circusd's"),
    ("fastapi", 0, "forkserver: uvicorn and our worker are imported, as our hook is in circusd"),
    ("os.fork", 2, "forkserver: FastAPI is imported, circusd has armed, and what a fork would share is looked for"),
    ("ready", 0, "worker: it is forked, and starts the app"),
)
"""Each ends with a record of `stages.py`, or of the app, by its place: circusd forks the forkserver and the plugins."""


def traced() -> dict[str, float]:
    """Start the plain app with two workers; return how many milliseconds each stage took. To trace it costs a few."""
    with Running(RIVAL[OURS], 2, start=False, traced=True) as it:
        before = it.start()
        it.until(lambda: answer(it.port) is not None, 60, "an answer", every=0.001)
        answered = time.monotonic()
        instants = {name: sorted(at for _, at in it.recorded(name)) for name, _, _ in STAGES}
    stages = {}
    for name, nth, title in STAGES:
        stages[title] = 1000 * (instants[name][nth] - before)
        before = instants[name][nth]
    return {**stages, "worker: it answers": 1000 * (answered - before)}
