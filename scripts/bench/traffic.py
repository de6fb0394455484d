"""The load during a reload or a kill: three open-loop clients side by side, in threads of this process."""

import contextlib
from collections import Counter

from bench.result import Found
from tests.real.load import Load

TIMEOUT = 10.0


class Loads:
    """300 requests a second: half on new connections, half kept alive, a third of those idle for a second between."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}/"
        busy = Load(url, rate=100, connections=4, timeout=TIMEOUT)
        seldom = Load(url, rate=50, connections=50, timeout=TIMEOUT)
        self._kept = [busy, seldom]
        self._new = [Load(url, rate=150, connections=None, timeout=TIMEOUT)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Loads":
        for load in (*self._kept, *self._new):
            self._stack.enter_context(load)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the answers to what was sent."""
        self._stack.close()

    def lost(self) -> list[Found]:
        """What was lost of the kept-alive and of the new connections."""
        return [_lost(self._kept), _lost(self._new)]

    @property
    def worst(self) -> float:
        """The longest that an answer took, in seconds."""
        answered = [request for load in (*self._kept, *self._new) for request in load.requests if not request.lost]
        return max((request.latency for request in answered), default=0.0)


def _lost(loads: list[Load]) -> Found:
    requests = [request for load in loads for request in load.requests]
    outcomes = Counter(request.outcome for request in requests if request.lost)
    kinds = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    return Found(outcomes.total(), f"of {len(requests)}" + (f": {kinds}" if kinds else ""))
