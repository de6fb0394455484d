"""Load a rival: steadily beside an operation, or with as much as it answers.

Both are clients of this process; if wrk is installed it counts the requests a second, because the load client is slower
than what it measures.
"""

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections import Counter

from bench.measuring import Found
from tests.real.load import Load

TIMEOUT = 10.0
SECONDS = 5
CONNECTIONS = 32


class Loads:
    """300 requests a second: half on new connections, half kept alive, a third of those idle for a second between."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}/"
        self._kept = [Load(url, rate=rate, connections=n, timeout=TIMEOUT) for rate, n in ((100, 4), (50, 50))]
        self._new = [Load(url, rate=150, connections=None, timeout=TIMEOUT)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Loads":
        for load in (*self._kept, *self._new):
            self._stack.enter_context(load)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the answers to the sent requests."""
        self._stack.close()

    def lost(self) -> list[Found]:
        """Return what was lost of the kept-alive and of the new connections."""
        return [_lost(self._kept), _lost(self._new)]

    @property
    def worst(self) -> float:
        """Return the longest time of an answer, in seconds."""
        answered = [request for load in (*self._kept, *self._new) for request in load.requests if not request.lost]
        return max((request.latency for request in answered), default=0.0)


def _lost(loads: list[Load]) -> Found:
    requests = [request for load in loads for request in load.requests]
    outcomes = Counter(request.outcome for request in requests if request.lost)
    kinds = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    return Found(outcomes.total(), f"of {len(requests)}" + (f": {kinds}" if kinds else ""))


def requests_a_second(port: int, *, kept: bool) -> Found:
    """Return the figure, and the program that measured it or what went wrong."""
    url = f"http://127.0.0.1:{port}/"
    if not shutil.which("wrk"):
        load = Load(url, rate=2000, connections=CONNECTIONS if kept else None, seconds=SECONDS)
        asyncio.run(load.drive())
        return Found(load.answered / SECONDS, "load client at 2000/s, no wrk here")
    headers = [] if kept else ["-H", "Connection: close"]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *headers, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 30).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    errors = re.search(r"(Socket errors|Non-2xx)[^\n]*", text)
    return Found(float(rate[1]) if rate else 0.0, f"wrk; {errors[0]}" if errors else "wrk")
