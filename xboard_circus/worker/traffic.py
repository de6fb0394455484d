"""Count the requests of this worker by route: statuses, latencies, and requests in flight."""

from bisect import bisect_right
from math import inf
from typing import Any

from xboard_circus.core import route_counts
from xboard_circus.core.route_counts import METHODS, MOST_ROUTES, OTHER, route_name


class RouteCounts:
    """Count the requests of one route.

    `add` takes the seconds of a request that is answered 200 and does no more than keep them; all are
    counted later, at once.
    """

    def __init__(self) -> None:
        self.counts = [0] * route_counts.STRIDE
        self._seconds: list[float] = []
        self.add = self._seconds.append

    def correct(self, status: int) -> None:
        """Count the last request by a status other than 200."""
        self.counts[0] -= 1
        self.counts[min(max(status // 100, 2), 5) - 2] += 1

    def settle(self) -> None:
        """Count what was added."""
        seconds, counts, at = self._seconds, self.counts, 0
        if not seconds:
            return
        counts[0] += len(seconds)
        counts[route_counts.MICROSECONDS] += int(sum(seconds) * 1_000_000)
        seconds.sort()
        for bucket, bound in enumerate((*route_counts.BOUNDS, inf), route_counts.FIRST_BUCKET):
            end = bisect_right(seconds, bound, at)
            counts[bucket] += end - at
            at = end
        seconds.clear()


class Traffic:
    """Count requests; to be called from the event loop alone.

    >>> traffic = Traffic()
    >>> traffic.row("GET", "/items/{id}").add(0.004)
    >>> traffic.report(active=1)["active"], traffic.report(active=1)["routes"]
    (1, ['GET /items/{id}', 'OTHER other'])
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], RouteCounts] = {}
        self._other = RouteCounts()

    def row(self, method: str, route: str) -> RouteCounts:
        """Return the row of a route, which is the template of a path; methods of a client's invention share one."""
        method = method if method in METHODS else "OTHER"
        if (row := self._rows.get((method, route))) is not None:
            return row
        if len(self._rows) >= MOST_ROUTES or f"{method} {route}" == OTHER:
            return self._other
        return self._rows.setdefault((method, route), RouteCounts())

    def settle(self) -> None:
        """Count what was answered since the last call, which each tick of the loop makes."""
        for row in (*self._rows.values(), self._other):
            row.settle()

    def report(self, active: int) -> dict[str, Any]:
        """Return a `TrafficReport` for the prober: all counts since this worker began, and the requests in flight."""
        self.settle()
        rows = sorted((route_name(f"{method} {route}"), row.counts) for (method, route), row in self._rows.items())
        rows.append((OTHER, self._other.counts))
        # In the same order in all workers, whichever route was called first, so that the prober adds them up at once.
        return {"active": active, "routes": [name for name, _ in rows], "counts": [n for _, row in rows for n in row]}
