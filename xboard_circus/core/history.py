"""Make the history of a watcher out of what its probes report: points of rates and gauges, by slot and for all.

Workers report counters; a rate is their growth between two rounds over the seconds of the monotonic clock between them,
so that neither a lost probe nor a clock that is set shows. The wall clock only names the point that a round belongs to.
"""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, MOST_ROUTES, OTHER, STATUSES, STRIDE
from xboard_circus.core.state_schema import MOST_SLOTS, Counts, RouteNames, TrafficReport, WorkerReport

STEPS = {2: 300, 10: 2160, 60: 10080}
"""Seconds of a point, and how many points are kept: 10 minutes, 6 hours, 7 days."""

FIGURES = (*STATUSES, "p50", "p95", "p99", "active", "lag", "rss", "cpu", "disk")
"""Figures of a point: requests a second by status, percentiles of latency and loop lag in seconds, requests in flight,
bytes, cores of the processor, and of the whole watcher the bytes that are free on the disk of its log."""

SHOWN = ("requests", "errors", "p50", "p95", "p99", "active", "lag", "rss", "cpu", "disk")
MOST_SHOWN = 400
"""Figures that a page shows as curves, and how many points each curve has at most."""

MARKS = {
    "restart": "crash",
    "circusd_lost": "crash",
    "cooldown": "cooldown",
    "reload_begin": "reload",
    "replace": "reload",
    "start": "restart",
    "command": "operator",
}
"""Events that the curves mark, and as what."""

_AVERAGED = {"requests", "errors", "rss", "cpu"}  # of the others the worst is shown

PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
WHOLE_WATCHER = 0
"""Stands for all slots, whose numbers begin with 1."""

FULL_SLOTS = 4
"""With so many slots the figures of each are kept as long as those of the watcher, with more of them shorter."""

_NOTHING = [0] * STRIDE

LONGEST_PAUSE = 60
"""Seconds between two points of a curve without a gap; `health.period` may be long."""

FEWEST_POINTS = 30
"""With fewer there is no curve to see."""

PACE = 3600
"""Seconds from which the pace is taken at which a disk fills."""

SHORTEST_PACE, SOON_FULL = 300, 86_400
"""Seconds that have to be known for it, and within which a disk that fills is news."""

Worker = tuple[int, int]
Reports = Mapping[Worker, tuple[int, WorkerReport]]
Figures = tuple[float | None, ...]


class Point(NamedTuple):
    """The figures of a watcher by slot in the *step* seconds from *time* on, a multiple of *step*."""

    step: int
    time: int
    figures: Mapping[int, Figures]


def mark_of(kind: str, cause: str | None) -> str | None:
    """Return how the curves mark an event; None where they do not.

    >>> mark_of("restart", "crash"), mark_of("restart", "commanded"), mark_of("replace", None), mark_of("spawn", None)
    ('crash', None, 'reload', None)
    """
    return None if kind == "restart" and cause == "commanded" else MARKS.get(kind)


def kept_points(step: int, slots: int = 0) -> int:
    """Return how many points of that step are kept, of a watcher or of each of its *slots*: 2 MB a watcher at most."""
    kept = STEPS[step] * FULL_SLOTS // max(FULL_SLOTS, slots)
    return kept if kept >= FEWEST_POINTS else 0


def step_for(span: float) -> int:
    """Return the finest step that is kept for *span* seconds.

    >>> [step_for(span) for span in (300, 3600, 86_400, 10**9)]
    [2, 10, 60, 60]
    """
    return next((step for step, count in STEPS.items() if step * count >= span), max(STEPS))


def curves(points: Iterable[tuple[int, Figures]], *, step: int, span: float) -> dict[str, list[float | None]]:
    """Return the curves of a page: a list for each of `SHOWN` and one for the times, with a gap where nothing was."""
    width = step * max(1, math.ceil(span / step / MOST_SHOWN))
    groups = groupby(points, key=lambda point: point[0] // width * width)
    found: dict[str, list[float | None]] = {name: [] for name in ("t", *SHOWN)}
    last = math.inf
    for time, group in groups:
        if time - last > max(5 * width, LONGEST_PAUSE):
            for name, curve in found.items():
                curve.append(last + width if name == "t" else None)
        found["t"].append(time)
        rows = [shown(figures) for _, figures in group]
        for name in SHOWN:
            known = [value for row in rows if (value := row[name]) is not None]
            worst = min if name == "disk" else max
            merged = sum(known) / len(known) if known and name in _AVERAGED else worst(known, default=None)
            found[name].append(merged if merged is None else float(f"{merged:.4g}"))
        last = time
    return found


def shown(figures: Figures) -> dict[str, float | None]:
    """Return the figures by name, with all requests and those that failed."""
    known = dict(zip(FIGURES, figures, strict=True))
    rates = [rate for status in STATUSES if (rate := known[status]) is not None]
    return {**known, "requests": sum(rates) if rates else None, "errors": known["5xx"]}


def filling(points: Iterable[tuple[int, Figures]]) -> dict[str, float] | None:
    """Return by how many bytes a disk has filled in how many seconds, and in how many it is full at that pace.

    None where it does not fill, or not within a day.

    >>> figures = [(0.0,) * (len(FIGURES) - 1) + (free,) for free in (9e9, 6e9, 3e9)]
    >>> filling(enumerate(figures)), filling(zip((0, 1800, 3600), figures))
    (None, {'lost': 6000000000.0, 'within': 3600, 'full_in': 1800.0})
    """
    known = [(time, free) for time, figures in points if (free := figures[-1]) is not None]
    if not known or known[-1][0] - known[0][0] < SHORTEST_PACE:
        return None
    lost, within = known[0][1] - known[-1][1], known[-1][0] - known[0][0]
    full_in = known[-1][1] / lost * within if lost > 0 else math.inf
    return {"lost": lost, "within": within, "full_in": full_in} if full_in < SOON_FULL else None


def percentile(buckets: Sequence[int], part: float) -> float | None:
    """Return the latency that *part* of all requests did not exceed, interpolated within its bucket.

    >>> percentile([0, 0, 0, 10] + [0] * 11, 0.5)
    0.0075
    """
    rank, below = part * sum(buckets), 0
    for place, count in enumerate(buckets):
        if count and below + count >= rank:
            low, high = (0.0, *BOUNDS)[place], (*BOUNDS, BOUNDS[-1])[place]
            return low + (high - low) * (rank - below) / count
        below += count
    return None


@dataclass(slots=True)
class _Sum:
    """What was seen of a slot, or of all, in one round or one point; *rounds* is how many added to it."""

    counts: list[int] = field(default_factory=lambda: [0] * STRIDE)
    cpu: float = 0.0
    rss: float = 0.0
    active: int = 0
    lag: float = 0.0
    disk: float | None = None
    rounds: int = 0

    def add(self, other: "_Sum", *, beside: bool = False) -> None:
        """Add a worker *beside* others of this round, or a further round."""
        self.counts = _added(self.counts, other.counts)
        self.cpu += other.cpu
        self.rss += other.rss
        self.active = self.active + other.active if beside else max(self.active, other.active)
        self.lag = max(self.lag, other.lag)
        self.disk = self.disk if other.disk is None else other.disk
        self.rounds += other.rounds

    def figures(self, seconds: float) -> Figures:
        """Return the figures of a point whose rounds took *seconds* together; no rates where that is 0."""
        buckets = self.counts[FIRST_BUCKET:]
        rates = [count / seconds if seconds else None for count in self.counts[: len(STATUSES)]]
        latencies = [percentile(buckets, part) for part in PARTS.values()]
        cpu = self.cpu / seconds if seconds else None
        return (*rates, *latencies, self.active, self.lag, self.rss / self.rounds, cpu, self.disk)


@dataclass(slots=True)
class _Open:
    """A point that further rounds may belong to."""

    time: int
    seconds: float = 0.0
    sums: dict[int, _Sum] = field(default_factory=dict)

    def add(self, sums: Mapping[int, _Sum], seconds: float) -> None:
        self.seconds += seconds
        for slot, each in sums.items():
            self.sums.setdefault(slot, _Sum()).add(each)

    def closed(self, step: int) -> Point:
        return Point(step, self.time, {slot: each.figures(self.seconds) for slot, each in self.sums.items()})


@dataclass(slots=True)
class _Known:
    """What a worker had counted when it was seen last."""

    routes: list[str]
    counts: list[int]
    cpu: float

    def counted(self, routes: list[str]) -> list[int] | None:
        """Return the counts in the order of *routes*, None where one of its own is not among them."""
        if routes == self.routes:
            return self.counts
        rows = _rows(self.routes, self.counts)
        found = [number for name in routes for number in rows.pop(name, _NOTHING)]
        return None if rows else found


class WatcherHistory:
    """Take the reports of a watcher's workers, round by round; give back each point that is complete.

    Attributes:
        totals: What all workers have counted by route, also those that have ended: numbers that never go down.
    """

    def __init__(self, *, now: float, totals: TrafficReport | None = None, until: float = -math.inf) -> None:
        """*totals* are those of an earlier process of ours, which counted *until* that moment."""
        self.totals = rows_of(totals) if totals is not None else {}
        # In another start of the host the clock began anew, and all that runs was started since.
        self._counted_until = until if until <= now else -math.inf
        self._taken_at: float | None = None
        self._known: dict[Worker, _Known] = {}
        self._open: dict[int, _Open] = {}
        self._round: dict[tuple[str, ...], list[int]] = {}  # by the routes that workers have in common

    def take(
        self, reports: Reports, *, alive: Iterable[Worker], now: float, at: float, disk: float | None = None
    ) -> list[Point]:
        """Take a round: by worker its slot and report.

        Args:
            alive: Those that are still known.
            at: Wall time.
            disk: The bytes that are free on the disk of their log.
        """
        sums = {WHOLE_WATCHER: _Sum(disk=disk, rounds=1)}
        for worker, (slot, report) in reports.items():
            counts, cpu = self._grown(worker, report, now)
            traffic, lag = report.get("traffic"), report.get("lag") or 0.0
            active = traffic["active"] if traffic is not None else 0
            of_worker = _Sum(counts, cpu, report.get("rss") or 0, active, lag)
            of_slot = [sums.setdefault(slot, _Sum(rounds=1))] if 0 < slot <= MOST_SLOTS else []
            for each in (sums[WHOLE_WATCHER], *of_slot):
                each.add(of_worker, beside=True)
        self._add_to_totals()
        remembered = {*alive}
        self._known = {worker: known for worker, known in self._known.items() if worker in remembered}
        # No longer than any of them has run: a watcher that was stopped for an hour has had no request meanwhile.
        oldest = max((report.get("uptime") or 0.0 for _, report in reports.values()), default=0.0)
        seconds = 0.0 if self._taken_at is None else min(now - self._taken_at, oldest)
        self._taken_at = now
        return [point for step in STEPS if reports and (point := self._add(step, sums, seconds, at))]

    def as_report(self) -> TrafficReport:
        """Return the totals in the form in which a worker reports its own."""
        counts = [number for row in self.totals.values() for number in row]
        return {"active": 0, "routes": RouteNames([*self.totals]), "counts": Counts(counts)}

    def close(self) -> list[Point]:
        """Return the points that are not complete."""
        points = [each.closed(step) for step, each in self._open.items()]
        self._open = {}
        return points

    def _add(self, step: int, sums: Mapping[int, _Sum], seconds: float, at: float) -> Point | None:
        time, before = int(at // step * step), self._open.get(step)
        point = None
        if before is None or before.time != time:
            point = before.closed(step) if before is not None else None
            before = self._open[step] = _Open(time)
        is_by_slot = kept_points(step, len(sums) - 1) > 0
        before.add(sums if is_by_slot else {WHOLE_WATCHER: sums[WHOLE_WATCHER]}, seconds)
        return point

    def _grown(self, worker: Worker, report: WorkerReport, now: float) -> tuple[list[int], float]:
        """Return by how much the counters of a worker have grown since it was seen last, and add that to the totals.

        By all routes at once, and not row by row: 200 busy workers have 80,000 numbers in a round.
        """
        known, traffic, cpu = self._known.get(worker), report.get("traffic"), report.get("cpu") or 0.0
        if traffic is not None:
            routes, counts = [*traffic["routes"]], [*traffic["counts"]]
        else:
            routes, counts = (known.routes, known.counts) if known is not None else ([], [])
        if known is None and (report.get("uptime") or 0.0) > now - self._counted_until:
            known = _Known(routes, counts, cpu)  # what it has counted is in the totals already, or most of it
        before = known.counted(routes) if known is not None and cpu >= known.cpu else None
        change = counts if before is None else [*map(operator.sub, counts, before)]
        grown = [sum(change[place::STRIDE]) for place in range(STRIDE)]
        if before is None or known is None or min(grown) < 0:
            change = counts  # of another worker, or of one that began anew
            grown, known = [sum(change[place::STRIDE]) for place in range(STRIDE)], None
        self._known[worker] = _Known(routes, counts, cpu)
        if any(grown):
            names = tuple(routes)
            self._round[names] = _added(self._round[names], change) if names in self._round else change
        return grown, cpu if known is None else cpu - known.cpu

    def _add_to_totals(self) -> None:
        for routes, change in self._round.items():
            for name, row in _rows(routes, change).items():
                if any(row):
                    kept = name if name in self.totals or self._has_room() else OTHER
                    grown = [max(0, count) for count in row]  # a worker that reports nonsense takes nothing away
                    self.totals[kept] = _added(self.totals.get(kept, _NOTHING), grown)
        self._round = {}

    def _has_room(self) -> bool:
        """Return whether one more route can be kept, and for that drop one of earlier code, which no worker reports."""
        if len(self.totals) >= MOST_ROUTES:
            reported = {OTHER}.union(*(known.routes for known in self._known.values()))
            self.totals.pop(next((name for name in self.totals if name not in reported), ""), None)
        return len(self.totals) < MOST_ROUTES


def rows_of(traffic: TrafficReport) -> dict[str, list[int]]:
    """Return the numbers of each route."""
    return _rows(traffic["routes"], traffic["counts"])


def by_route(traffic: TrafficReport) -> list[dict[str, Any]]:
    """Return of each route how often it was answered, by status, and its percentiles of latency; the busiest first.

    >>> row = [9, 0, 0, 1, 90_000, *[0] * 3, 10, *[0] * 11]
    >>> by_route(TrafficReport(active=0, routes=RouteNames(["GET /"]), counts=Counts(row)))[0]["p50"]
    0.0075
    """
    found = []
    for name, row in rows_of(traffic).items():
        counted = {"route": name, "requests": sum(row[: len(STATUSES)]), **dict(zip(STATUSES, row, strict=False))}
        found.append(counted | {each: percentile(row[FIRST_BUCKET:], part) for each, part in PARTS.items()})
    return sorted(found, key=lambda each: -each["requests"])


def _rows(routes: Sequence[str], counts: list[int]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for place, name in enumerate(routes):
        row = counts[place * STRIDE : (place + 1) * STRIDE]
        rows[name] = _added(rows[name], row) if name in rows else row
    return rows


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [*map(operator.add, one, other)]
