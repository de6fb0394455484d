#!/usr/bin/env python3
"""Show where the time of a start goes: ``.venv/bin/python scripts/start_stages.py [TIMES] [--write | --json]``.

Starts the plain app of the benchmark with two workers, from the command to the first answer, that many times. Prints
the time of each stage and the processor time of its process, and what each process took until then: medians (least).
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT))  # after the folder of this script

from bench.rivals import OURS, RIVAL  # noqa: E402 - the path comes first
from bench.running import Running, answer  # noqa: E402

from tests.real.processes import read_stat  # noqa: E402

DESIGN = ROOT / "docs" / "design.md"
MARKS = "<!-- [starts] -->\n", "<!-- [end of starts] -->"
STAGES = (
    ("python", 0, "circusd: Python begins"),
    ("xboard_circus.plugins.guard", 0, "circusd: Circus is imported, and reads its file"),
    ("socket.bind", 0, "circusd: our hook is imported"),
    ("subprocess.Popen", 0, "circusd: it binds, arms the watcher and starts the forkserver"),
    ("python", 1, "forkserver: the launcher, then Python begins"),
    ("uvicorn", 0, "forkserver: our worker is found"),
    ("fastapi", 0, "forkserver: uvicorn and our worker are imported"),
    ("os.fork", 0, "forkserver: FastAPI is imported, and what a fork would share is looked for"),
    ("ready", 0, "worker: it is forked, and starts the app"),
)
"""Each ends with a record of `stages.py`, or of the app, by its place."""
TICK = 1000 / os.sysconf("SC_CLK_TCK")


def kind_of(command: str) -> str:
    return "forkserver" if "forkserver" in command else "plugin"


def start() -> dict[str, Any]:
    """Start it once; return the instants of the stages, and the processor time of each, in ms."""
    with Running(RIVAL[OURS], 2, start=False, traced=True) as it:
        at = it.start()
        it.until(lambda: answer(it.port) is not None, 60, "an answer", every=0.001)
        answered = time.monotonic()
        spent = [(each.pid, each.command, read_stat(each.pid)) for each in it.processes()]
        marks = {name: sorted(map(tuple, it.marks(name)), key=lambda mark: mark[1]) for name, _, _ in STAGES}
        workers = {pid for pid, _ in it.recorded("ready")}
        circusd = it.supervisor.pid
    stages, before, used = {}, at, {}
    for name, nth, title in STAGES:
        pid, instant, cpu = marks[name][nth]
        stages[title] = 1000 * (instant - before), 1000 * (cpu - used.get(pid, 0.0))
        before, used[pid] = instant, cpu
    stages["worker: it answers"] = 1000 * (answered - before), None
    processes: dict[str, float] = {}
    for pid, command, stat in spent:
        if stat:
            name = "circusd" if pid == circusd else "workers" if pid in workers else kind_of(command)
            processes[name] = processes.get(name, 0.0) + (int(stat[11]) + int(stat[12])) * TICK
    return {"all": 1000 * (answered - at), "stages": stages, "processes": processes}


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f})"


def main() -> int:
    times = next((int(word) for word in sys.argv[1:] if word.isdigit()), 5)
    load = os.getloadavg()[0]
    found = [start() for _ in range(times)]
    if "--json" in sys.argv:
        print(json.dumps(found))
        return 0
    rows = [["stage of a start", "ms, median (least)", "of that on a core, in that process"], ["---"] * 3]
    for title in found[0]["stages"]:
        took, cpu = zip(*(each["stages"][title] for each in found), strict=True)
        rows.append([title, shown(list(took)), "" if None in cpu else shown(list(cpu))])
    rows.append(["in all", shown([each["all"] for each in found]), ""])
    names = {name for each in found for name in each["processes"]}
    spent = {name: shown([each["processes"].get(name, 0.0) for each in found]) for name in sorted(names)}
    text = (
        f"{times} starts, {os.cpu_count()} cores, load average {load:.0f} before, {time.strftime('%Y-%m-%d')}. On a "
        f"core until the first answer, ms: {', '.join(f'{name} {took}' for name, took in spent.items())}.\n\n"
    )
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(text)
    if "--write" in sys.argv:
        before, begin, rest = DESIGN.read_text(encoding="utf-8").partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        DESIGN.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
