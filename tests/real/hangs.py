"""Measure how soon a hung worker has a successor, and is killed: ``.venv/bin/python -m tests.real.hangs [PERIOD]``.

At the default options, or with `health.period` = *PERIOD*, the only worker of a watcher hangs in each way, ten times.
Prints the seconds from then until the next worker was up, and until the hung one was killed: median (least to most).
Then a loop is blocked for 4 s, ten times, which is to cost nothing. Ends with 1 if a successor came late, if a worker
was killed that came back, or if a request of that one was lost.
"""

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGSTOP

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .processes import script_folder
from .test_health import probed

DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
MARKS = "<!-- [hangs] -->\n", "<!-- [end of hangs] -->"
HANGS = {  # but for the first: see backend.py
    "SIGSTOP": "SIGSTOP",
    "sleep": "sleep",
    "spin": "endless loop",
    "deadlock": "deadlock",
    "regex": "regular expression, which holds the GIL",
}
PERIODS = {"defaults": 2.0, "`health.period = 1`": 1.0}
TIMES, BLOCK = 10, 4.0


def hang(c: Circusd, how: str) -> tuple[float, float]:
    """Have the only worker hang; return after how many seconds the next one was up, and this one's death counted."""
    (old,) = probed(c)
    before, began = c.last_told(), time.monotonic()
    # Not always at the same moment of the prober's period.
    time.sleep(began % 1)
    wall = time.time()
    if how == "SIGSTOP":
        kill(old, SIGSTOP)
    else:
        c.tell(old, f"hang {how}")

    def at(kind: str, **facts: object) -> float | None:
        found = [e.message for e in c.told(kind, after=before) if facts.items() <= e.message.items()]
        return float(str(found[0]["time"])) - wall if found else None

    killed = eventually(lambda: at("restart", pid=old, cause="unhealthy"))
    return eventually(lambda: at("ready", follows=old)), killed


def block(c: Circusd) -> bool:
    """Block the loop of the only worker, which has another request; return whether both are answered by it."""
    (old,) = probed(c)
    held = c.hold_each([old])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(c.get, f"/block?s={BLOCK:g}", timeout=60)
        answered = answer.result() == str(old)
    c.finish(held)
    eventually(lambda: old not in c.workers(), what="it has drained")
    return answered and c.failures() == []


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


def main() -> int:
    is_good, lost, loads = True, 0, []
    rows = {how: [name] for how, name in HANGS.items()}
    for period in PERIODS.values():
        options = {"health.period": period, "health.live_path": "/health/live", "restart.cooldown": 0.2}
        web = Watcher(numprocesses=1, options={**FAST_RESTARTS, **options})
        for how, row in rows.items():
            with script_folder() as folder, circusd(folder, watchers=[web], plugins=BUNDLE) as c:
                ups, deaths = map(list, zip(*(hang(c, how) for _ in range(TIMES)), strict=True))
            is_good &= max(ups) <= 2 * period
            loads.append(os.getloadavg()[0])
            row.append(f"{shown(ups)}; {shown(deaths)}")
            print(*row, sep=" | ", flush=True)
        with script_folder() as folder, circusd(folder, watchers=[web], plugins=BUNDLE) as c:
            lost += [block(c) for _ in range(TIMES)].count(False)
    text = (
        f"{os.cpu_count()} cores, load averages of {min(loads):.0f} to {max(loads):.0f}, {time.strftime('%Y-%m-%d')}. "
        f"A loop blocked for {BLOCK:g} s with another request in flight, {TIMES * len(PERIODS)} times: {lost} with a "
        "request lost or a worker killed.\n\n"
    )
    head = ["seconds until the next one is up; until the hung one is killed", *PERIODS]
    text += "".join(f"| {' | '.join(each)} |\n" for each in (head, ["---"] * len(head), *rows.values()))
    print(f"\n{text}")
    if "--write" in sys.argv:
        before, begin, rest = DESIGN.read_text(encoding="utf-8").partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        DESIGN.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return 0 if is_good and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
