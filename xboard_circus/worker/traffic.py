"""Count the requests of this worker by route: statuses, latencies, and requests in flight."""

from bisect import bisect_left
from typing import Any

from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, MICROSECONDS, MOST_ROUTES, OTHER, STRIDE, route_name


class Traffic:
    """Count requests; to be called from the event loop alone. Each call takes less than a microsecond.

    >>> traffic = Traffic()
    >>> traffic.begun(), traffic.begun(), traffic.ended("GET", "/items/{id}", 200, 0.004)
    (None, None, None)
    >>> traffic.report()["active"], traffic.report()["routes"]
    (1, ['GET /items/{id}', 'OTHER other'])
    """

    def __init__(self) -> None:
        self._active = 0
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._other = [0] * STRIDE

    def begun(self) -> None:
        """Count a request as in flight."""
        self._active += 1

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request as answered; *route* is the template of its path."""
        self._active -= 1
        counts = self._counts.get((method, route)) or self._new(method, route)
        counts[min(max(status // 100, 2), 5) - 2] += 1
        counts[MICROSECONDS] += int(seconds * 1_000_000)
        counts[FIRST_BUCKET + bisect_left(BOUNDS, seconds)] += 1

    def _new(self, method: str, route: str) -> list[int]:
        if len(self._counts) >= MOST_ROUTES:
            return self._other
        return self._counts.setdefault((method, route), [0] * STRIDE)

    def report(self) -> dict[str, Any]:
        """Return a `TrafficReport` for the prober: all counts since this worker began."""
        rows = sorted((route_name(f"{method} {route}"), row) for (method, route), row in self._counts.items())
        rows.append((OTHER, self._other))
        # In the same order in all workers, whichever route was called first, so that the prober adds them up at once.
        return {
            "active": self._active,
            "routes": [name for name, _ in rows],
            "counts": [n for _, row in rows for n in row],
        }
