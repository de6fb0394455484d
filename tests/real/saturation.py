"""Measure what saturation does to two workers: ``.venv/bin/python -m tests.real.saturation``.

At the default options 128 connections send requests for 20 s: to a fast route, to one that computes 0.2 s in the event
loop, and to one that fills the thread pool; then all again while other processes burn every core. Prints how many
workers were killed, after how many seconds the overload was shown, and how long after the last answer it was gone. Ends
with 1 if a worker was killed, or 10 s did not suffice.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .processes import script_folder
from .test_overload import OVERLOADED, ROUTES, is_well, saturated, shows

SECONDS, WITHIN = 20.0, 10.0


@contextlib.contextmanager
def burnt_cores() -> Iterator[None]:
    """Have one process for each core compute."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def measure(c: Circusd, name: str, path: str) -> bool:
    """Print the figures of one route; return whether they are good."""
    pids, began, shown = c.wait_ready(), time.monotonic(), None
    with saturated(c, path) as load:
        while (now := time.monotonic()) < began + SECONDS:
            if shown is None and OVERLOADED[name] and shows(c, OVERLOADED[name]):
                shown = now - began
            time.sleep(0.1)
    ended = time.monotonic()
    eventually(lambda: is_well(c), what="well again")
    gone, killed = time.monotonic() - ended, len(set(pids) - set(c.workers()))
    told = "not shown" if shown is None else f"shown after {shown:.1f} s"
    print(f"{name}: {load.answered} requests, {killed} killed, {told}, well {gone:.1f} s after the last", flush=True)
    return not killed and gone < WITHIN and (not OVERLOADED[name] or (shown is not None and shown < WITHIN))


def main() -> int:
    are_good = []
    with (
        script_folder() as folder,
        circusd(folder, watchers=[Watcher(options={"health.live_path": "/health/live"})], plugins=BUNDLE) as c,
    ):
        eventually(lambda: is_well(c), what="the workers were probed")
        for others in (contextlib.nullcontext, burnt_cores):
            with others():
                print("beside other processes that burn every core" if others is burnt_cores else "alone")
                are_good += [measure(c, name, path.format(s=0.2)) for name, path in ROUTES.items()]
    return 0 if all(are_good) else 1


if __name__ == "__main__":
    sys.exit(main())
