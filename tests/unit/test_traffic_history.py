"""The history that is made of what workers report: rates that are never below 0, whatever ends or begins anew."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from xboard_circus.core.history import (
    FIGURES,
    LONGEST_PAUSE,
    MOST_SHOWN,
    SHOWN,
    STEPS,
    WHOLE_WATCHER,
    Figures,
    Point,
    WatcherHistory,
    Worker,
    curves,
    filling,
    kept_points,
    percentile,
    step_for,
)
from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, MICROSECONDS, MOST_ROUTES, OTHER, STRIDE
from xboard_circus.core.state_schema import WorkerReport, parse_report

A, B = (1, 10), (2, 20)


def row(good: int = 0, failed: int = 0, *, bucket: int = BOUNDS.index(0.01)) -> list[int]:
    found = [0] * STRIDE
    found[0], found[3], found[MICROSECONDS] = good, failed, 4000 * (good + failed)
    found[FIRST_BUCKET + bucket] = good + failed
    return found


def report(rows: Mapping[str, list[int]] | None = None, *, uptime: float = 0.0, **more: Any) -> WorkerReport:
    counts = [number for each in (rows or {}).values() for number in each]
    traffic = {"active": 1, "routes": list(rows or {}), "counts": counts}
    return parse_report({"pid": 1, "uptime": uptime, "lag": 0.1, "rss": 100, "cpu": 1.0, "traffic": traffic} | more)


class Rounds:
    """Rounds of probes, 2 s apart."""

    def __init__(self, *, totals: Any = None, until: float | None = None, at: float = 1e9) -> None:
        self.now, self.at = 50.0, at
        stored = report(totals)["traffic"] if totals else None
        self.history = WatcherHistory(now=self.now, totals=stored, until=self.now if until is None else until)
        self.points: list[Point] = []

    def round(self, reports: Mapping[Worker, WorkerReport], *, alive: Any = (), slots: Any = None) -> None:
        self.now += 2
        self.at += 2
        placed = {worker: ((slots or {A: 1, B: 2})[worker], each) for worker, each in reports.items()}
        self.points += self.history.take(placed, alive={*placed, *alive}, now=self.now, at=self.at)

    def figures(self, slot: int = WHOLE_WATCHER, step: int = 2) -> list[dict[str, float | None]]:
        """The figures of every point of *slot*, also of the one that is not complete."""
        points = [*self.points, *self.history.close()]
        return [shown(each.figures[slot]) for each in points if each.step == step and slot in each.figures]


def shown(figures: Figures) -> dict[str, float | None]:
    return dict(zip(FIGURES, figures, strict=True))


def test_a_rate_is_the_growth_of_a_counter_between_two_rounds() -> None:
    rounds = Rounds()
    rounds.round({A: report({"GET /": row(0)}, uptime=100)})
    rounds.round({A: report({"GET /": row(6, 2)}, uptime=102, cpu=1.5)})
    rounds.round({A: report({"GET /": row(6, 2)}, uptime=104, cpu=1.5, lag=None)})

    first, second, third = rounds.figures()

    assert (first["2xx"], first["p50"], first["rss"], first["active"]) == (None, None, 100, 1)
    assert (second["2xx"], second["5xx"], second["cpu"]) == (3.0, 1.0, 0.25)
    assert [second["p50"], second["p99"]] == pytest.approx([0.0075, 0.00995])
    assert (third["2xx"], third["p50"], third["cpu"], third["lag"]) == (0.0, None, 0.0, 0.0)


def test_a_lost_probe_loses_nothing() -> None:
    rounds = Rounds()
    rounds.round({A: report({"GET /": row(0)}, uptime=100)})
    rounds.round({}, alive={A})
    rounds.round({A: report({"GET /": row(8)}, uptime=104)})

    assert rounds.history.totals["GET /"][0] == 8
    assert rounds.figures()[-1]["2xx"] == 4.0


def test_a_report_without_traffic_is_a_lost_probe() -> None:
    rounds = Rounds()
    rounds.round({A: report({"GET /": row(5)}, uptime=1)})
    rounds.round({A: report(traffic=None, uptime=3)})
    rounds.round({A: report({"GET /": row(9)}, uptime=5)})

    assert rounds.history.totals["GET /"][0] == 9


@pytest.mark.parametrize(
    ("reports", "total"),
    [
        pytest.param([{A: (50, 100)}, {A: (60, 102)}], 10, id="what it counted before us was counted by another"),
        pytest.param([{}, {A: (5, 1.0)}], 5, id="what it counted since it began, when we were there"),
        pytest.param([{A: (5, 1.0)}, {A: (7, 3.0)}, {B: (4, 1.0)}], 11, id="it ended, and its successor begins at 0"),
        pytest.param([{A: (5, 1.0)}, {A: (3, 1.0)}], 8, id="it counts less than before: it is another"),
        pytest.param([{A: (5, 1.0)}, {A: (5, 3.0)}], 5, id="nothing new"),
    ],
)
def test_totals_never_go_down(reports: list[dict[Worker, tuple[int, float]]], total: int) -> None:
    rounds, before = Rounds(), 0
    for each in reports:
        rounds.round({worker: report({"GET /": row(count)}, uptime=up) for worker, (count, up) in each.items()})
        now = rounds.history.totals.get("GET /", row())[0]
        assert now >= before
        before = now

    assert before == total
    assert all((rate or 0) >= 0 for figures in rounds.figures() for rate in figures.values())


def test_totals_go_on_after_a_restart_of_ours() -> None:
    rounds = Rounds(totals={"GET /": row(1000)})
    rounds.round({A: report({"GET /": row(70)}, uptime=100)})
    rounds.round({A: report({"GET /": row(72)}, uptime=102)})

    assert rounds.history.totals["GET /"][0] == 1002
    assert [each["2xx"] for each in rounds.figures()] == [None, 1.0]


@pytest.mark.parametrize(
    ("until", "total"),
    [
        pytest.param(-math.inf, 15, id="nobody has counted before"),
        pytest.param(20.0, 15, id="it began after the last one had counted"),
        pytest.param(50.0, 5, id="the last one has counted it until now"),
        pytest.param(90_000.0, 15, id="before the host started anew"),
    ],
)
def test_what_a_worker_counted_before_us_counts_unless_another_has_counted_it(until: float, total: int) -> None:
    rounds = Rounds(until=until)
    rounds.round({A: report({"GET /": row(10)}, uptime=30)})
    rounds.round({A: report({"GET /": row(15)}, uptime=32)})

    assert rounds.history.totals["GET /"][0] == total


def test_each_slot_has_its_own_figures_and_the_watcher_those_of_all() -> None:
    rounds = Rounds()
    rounds.round({A: report({"GET /": row(0)}, uptime=1), B: report({"GET /": row(0)}, uptime=1)})
    rounds.round({A: report({"GET /": row(2)}, uptime=3), B: report({"GET /": row(4)}, uptime=3, lag=0.7, rss=300)})
    last = next(each for each in rounds.history.close() if each.step == 2)
    found = {slot: shown(each) for slot, each in last.figures.items()}

    assert {slot: (each["2xx"], each["rss"], each["lag"], each["active"]) for slot, each in found.items()} == {
        0: (3.0, 400, 0.7, 2),
        1: (1.0, 100, 0.1, 1),
        2: (2.0, 300, 0.7, 1),
    }


def test_a_watcher_that_was_stopped_for_an_hour_had_no_requests_meanwhile() -> None:
    rounds = Rounds()
    rounds.round({A: report({"GET /": row(0)}, uptime=1)})
    rounds.now += 3600
    rounds.round({B: report({"GET /": row(10)}, uptime=5)})

    assert rounds.figures()[-1]["2xx"] == 2.0


def test_routes_without_end_are_counted_together() -> None:
    rounds, workers = Rounds(), [(n, n) for n in range(3)]
    for n in range(3):
        reports = {(n, n): report({f"GET /{n}/{k}": row(1) for k in range(90)}, uptime=1)}
        rounds.round(reports, slots={(n, n): 1}, alive=workers)

    totals = rounds.history.totals

    assert (len(totals), totals[OTHER][0], sum(each[0] for each in totals.values())) == (MOST_ROUTES + 1, 170, 270)


def test_routes_of_earlier_code_make_room() -> None:
    """Given totals of as many routes as are kept, then one that no worker reports any more is dropped for another."""
    rounds = Rounds(totals={f"GET /v1/{n}": row(1) for n in range(MOST_ROUTES)})
    rounds.round({A: report({"GET /v1/0": row(1), "GET /v2/0": row(1)}, uptime=1)})

    totals = rounds.history.totals

    assert (totals["GET /v1/0"][0], totals["GET /v2/0"][0], len(totals)) == (2, 1, MOST_ROUTES)


@pytest.mark.parametrize("jump", [-31_536_000.0, 31_536_000.0, -3600.0, 0.5])
def test_a_clock_that_is_set_changes_no_rate(jump: float) -> None:
    rounds = Rounds()
    for n in range(60):
        rounds.at += jump if n == 30 else 0.0
        rounds.round({A: report({"GET /": row(2 * n)}, uptime=100 + 2 * n)})

    for step in STEPS:
        rates = [figures["2xx"] for figures in rounds.figures(step=step)]
        assert [rate for rate in rates if rate is not None] == pytest.approx([1.0] * (len(rates) - rates.count(None)))


def test_points_of_a_step_cover_it() -> None:
    rounds = Rounds(at=1_000_000_020.0 - 2)
    for n in range(61):
        rounds.round({A: report({"GET /": row(2 * n)}, uptime=100 + 2 * n)})

    times = {step: [each.time for each in rounds.points if each.step == step] for step in STEPS}

    assert times[10] == [1_000_000_020 + 10 * n for n in range(12)]
    assert times[60] == [1_000_000_020, 1_000_000_080]
    assert [each["2xx"] for each in rounds.figures(step=10)] == pytest.approx([1.0] * 13)


def test_percentiles() -> None:
    buckets = [0] * (len(BOUNDS) + 1)
    assert percentile(buckets, 0.5) is None
    buckets[BOUNDS.index(0.1)] = 100  # 0.05 to 0.1 s
    assert percentile(buckets, 0.5) == pytest.approx(0.075)
    buckets[-1] = 100  # slower than all bounds: the last one is all that is known
    assert percentile(buckets, 0.99) == BOUNDS[-1]


def test_slots_beyond_four_are_kept_for_a_shorter_time() -> None:
    assert [kept_points(60, slots) for slots in (0, 1, 4, 8, 200)] == [10080, 10080, 10080, 5040, 201]
    assert [kept_points(2, slots) for slots in (0, 8, 40, 41)] == [300, 150, 30, 0]


# What the page is shown


def figures(**known: float | None) -> Figures:
    return tuple(known.get(name) for name in FIGURES)


@pytest.mark.parametrize("span", [300, 3600, 21_600, 86_400, 604_800])
def test_a_curve_has_no_more_points_than_can_be_seen(span: int) -> None:
    step = step_for(span)
    points = [(time, figures(p95=0.1, rss=time)) for time in range(0, span, step)]

    found = curves(points, step=step, span=span)

    assert {len(curve) for curve in found.values()} == {len(found["t"])}
    assert MOST_SHOWN / 3 < len(found["t"]) <= MOST_SHOWN
    assert set(found) == {"t", *SHOWN}


def test_of_points_that_are_shown_as_one_rates_are_averaged_and_the_worst_of_the_rest_is_shown() -> None:
    one = figures(**{"2xx": 2.0, "5xx": 1.0}, p95=0.1, active=1, lag=0.0, rss=100, cpu=0.5, disk=9e9)
    other = figures(**{"2xx": 5.0, "5xx": 0.0}, p95=0.9, active=7, lag=0.2, rss=300, cpu=0.7, disk=0.0)

    found = curves([(0, one), (60, other)], step=60, span=604_800)

    assert {name: curve[0] for name, curve in found.items()} == {
        "t": 0,
        "requests": 4.0,
        "errors": 0.5,
        "p50": None,
        "p95": 0.9,
        "p99": None,
        "active": 7.0,
        "lag": 0.2,
        "rss": 200.0,
        "cpu": 0.6,
        "disk": 0.0,
    }


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ([(0, 9e9), (3600, 6e9)], {"lost": 3e9, "within": 3600, "full_in": 7200.0}),
        ([(0, 9e9), (3600, 0.0)], {"lost": 9e9, "within": 3600, "full_in": 0.0}),
        (
            [(0, None), (60, 9e9), (1800, 7e9), (3660, 6e9), (3670, None)],
            {"lost": 3e9, "within": 3600, "full_in": 7200},
        ),
        ([(0, 9e9), (3600, 8.8e9)], None),
        ([(0, 9e9), (60, 1e9)], None),
        ([(0, 6e9), (3600, 9e9)], None),
        ([(0, 0.0), (3600, 0.0)], None),
        ([], None),
    ],
    ids=["fills", "is full", "with gaps", "full in two days", "a minute alone", "empties", "was full", "not known"],
)
def test_the_pace_at_which_a_disk_fills(
    free: list[tuple[int, float | None]], expected: dict[str, float] | None
) -> None:
    assert filling((time, figures(disk=each)) for time, each in free) == expected


def test_a_time_without_points_is_a_gap_and_a_long_period_is_none() -> None:
    long, gap = curves([(0, figures(lag=1)), (30, figures(lag=2))], step=2, span=300), LONGEST_PAUSE + 2

    assert long["lag"] == [1, 2]
    assert curves([(0, figures(lag=1)), (gap, figures(lag=2))], step=2, span=300)["lag"] == [1, None, 2]
