"""The last minutes of each worker, in rings that stay small."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

SECONDS = 300.0
STEP = 2.0
_LENGTH = int(SECONDS / STEP)
Point = tuple[float, float | None, int | None, float | None]


class History:
    """Processor use, memory and probe latency of each worker of one circusd, every 2 s for 5 minutes."""

    def __init__(self) -> None:
        self._rings: dict[str, deque[Point]] = {}
        self._taken_at = float("-inf")

    def take(self, watchers: Iterable[Mapping[str, Any]], *, now: float, at: float) -> None:
        """Take a point of each worker where it is time; *now* is monotonic, *at* the wall time that is shown."""
        if now - self._taken_at < STEP - 0.1:
            return
        self._taken_at = now
        for watcher in watchers:
            for worker in watcher["workers"]:
                ring = self._rings.setdefault(f"{worker['pid']}:{worker['started']}", deque(maxlen=_LENGTH))
                ring.append((round(at, 1), worker["cpu"], worker["rss"], worker["latency"]))
        for key in [key for key, ring in self._rings.items() if ring[-1][0] < at - SECONDS]:
            del self._rings[key]

    def view(self) -> dict[str, Any]:
        """Return the JSON of ``/api/history``."""
        names = ("t", "cpu", "rss", "latency")
        workers = {
            key: dict(zip(names, map(list, zip(*points, strict=True)), strict=True))
            for key, points in [(key, list(ring)) for key, ring in list(self._rings.items())]
        }
        return {"step": STEP, "workers": workers}
