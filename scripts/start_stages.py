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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT))  # after the folder of this script

from bench.starts import traced  # noqa: E402 - the path comes first

DESIGN = ROOT / "docs" / "design.md"
MARKS = "<!-- [starts] -->\n", "<!-- [end of starts] -->"


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f})"


def main() -> int:
    times = next((int(word) for word in sys.argv[1:] if word.isdigit()), 5)
    load = os.getloadavg()[0]
    found = [traced() for _ in range(times)]
    if "--json" in sys.argv:
        print(json.dumps([each._asdict() for each in found]))
        return 0
    rows = [["stage of a start", "ms, median (least)", "of that on a core, in that process"], ["---"] * 3]
    for title in found[0].stages:
        took, cpu = zip(*(each.stages[title] for each in found), strict=True)
        rows.append([title, shown(list(took)), "" if None in cpu else shown(list(cpu))])
    rows.append(["in all", shown([each.took for each in found]), ""])
    names = {name for each in found for name in each.spent}
    spent = {name: shown([each.spent.get(name, 0.0) for each in found]) for name in sorted(names)}
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
