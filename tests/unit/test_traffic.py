"""What a worker counts of its requests, and what is believed of it."""

import asyncio
import json
from typing import Any

import pytest

from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, LONGEST, MICROSECONDS, MOST_ROUTES, STRIDE, route_name
from xboard_circus.core.state_schema import parse_report
from xboard_circus.probe import BODY_LIMIT
from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.traffic import Traffic


def row(*, status: str = "2xx", microseconds: int, bucket: int) -> list[int]:
    found = [0] * STRIDE
    found[int(status[0]) - 2], found[MICROSECONDS], found[FIRST_BUCKET + bucket] = 1, microseconds, 1
    return found


def answered(traffic: Traffic, method: str, route: str, status: int, seconds: float) -> None:
    found = traffic.row(method, route)
    found.add(seconds)
    if status != 200:
        found.correct(status)


@pytest.mark.parametrize(
    ("status", "seconds", "expected"),
    [
        pytest.param(204, 0.001, row(microseconds=1000, bucket=0), id="fast"),
        pytest.param(200, 0.01, row(microseconds=10_000, bucket=BOUNDS.index(0.01)), id="a bound is of its bucket"),
        pytest.param(503, 0.3, row(status="5xx", microseconds=300_000, bucket=BOUNDS.index(0.5)), id="failed"),
        pytest.param(200, 99.0, row(microseconds=99_000_000, bucket=len(BOUNDS)), id="slower than all bounds"),
        pytest.param(999, 0.0, row(status="5xx", microseconds=0, bucket=0), id="a status that does not exist"),
        pytest.param(0, 0.0, row(microseconds=0, bucket=0), id="no status"),
    ],
)
def test_a_request_is_counted_by_status_and_latency(status: int, seconds: float, expected: list[int]) -> None:
    traffic = Traffic()

    answered(traffic, "GET", "/items/{id}", status, seconds)

    assert traffic.report(active=0) == {
        "active": 0,
        "routes": ["GET /items/{id}", "OTHER other"],
        "counts": [*expected, *[0] * STRIDE],
    }


def test_many_requests_are_counted_as_if_one_by_one() -> None:
    """Given requests of any latency and status, then counted at once they have the row that each alone has."""
    requests = [(status, 0.0007 * n * n) for n in range(250) for status in (200, 204, 302, 404, 500)]
    at_once, alone = Traffic(), Traffic()
    for status, seconds in requests:
        answered(at_once, "GET", "/", status, seconds)
        answered(alone, "GET", "/", status, seconds)
        alone.settle()

    counts, expected = at_once.report(active=0)["counts"], alone.report(active=0)["counts"]

    assert counts[:MICROSECONDS] + counts[FIRST_BUCKET:] == expected[:MICROSECONDS] + expected[FIRST_BUCKET:]
    assert counts[MICROSECONDS] == pytest.approx(expected[MICROSECONDS], abs=len(requests))  # fractions


def test_routes_without_end_are_counted_together() -> None:
    traffic = Traffic()
    for n in range(3 * MOST_ROUTES):
        answered(traffic, "GET", f"/{n}", 200, 0.001)

    report = traffic.report(active=0)

    assert (len(report["routes"]), report["counts"][-STRIDE]) == (MOST_ROUTES + 1, 2 * MOST_ROUTES)
    assert parse_report({"pid": 7, "traffic": report})["traffic"] == report


def test_methods_of_a_clients_invention_take_no_rows() -> None:
    traffic = Traffic()
    for n in range(3 * MOST_ROUTES):
        answered(traffic, f"BREW{n}", "/items/{id}", 405, 0.001)
        answered(traffic, f"BREW{n}", "other", 404, 0.001)
    answered(traffic, "GET", "/items/{id}", 200, 0.001)

    report = traffic.report(active=0)

    assert report["routes"] == ["GET /items/{id}", "OTHER /items/{id}", "OTHER other"]
    assert [report["counts"][n * STRIDE :][:4] for n in range(3)] == [[1, 0, 0, 0], *[[0, 0, 3 * MOST_ROUTES, 0]] * 2]


def test_the_largest_report_fits_into_a_probe() -> None:
    traffic = Traffic()
    for n in range(MOST_ROUTES):
        for status in (200, 300, 400, 500):
            answered(traffic, "OPTIONS", f"/{n}/" + "用" * LONGEST, status, 1e6)
    report = traffic.report(active=0)
    report["counts"] = [number + 10**12 for number in report["counts"]]

    assert len(json.dumps({"traffic": report})) < BODY_LIMIT * 3 / 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GET /items/{item_id:path}", "GET /items/{item_id:path}"),
        ("PROPFIND /dav", "OTHER /dav"),
        ('GET /a"b\\c\n\x1b[31m', "GET /a?b?c???31m"),
        ("GET /\ud800", "GET /?"),
        ("GET /用户/{id}", "GET /??/{id}"),
        ("GET /" + "x" * 9000, "GET /" + "x" * 99),
        ("GET", "GET other"),
    ],
)
def test_the_name_of_a_route_is_short_and_harmless(name: str, expected: str) -> None:
    assert route_name(name) == expected


GOOD: dict[str, Any] = {"active": 1, "routes": ["GET /"], "counts": [1] * STRIDE}


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param({**GOOD, "counts": [1] * (STRIDE - 1)}, id="a number is missing"),
        pytest.param({**GOOD, "counts": [1.5] * STRIDE}, id="fractions"),
        pytest.param({**GOOD, "counts": [float("nan")] * STRIDE}, id="no numbers"),
        pytest.param({**GOOD, "counts": [True] * STRIDE}, id="truths"),
        pytest.param({**GOOD, "counts": [-1] * STRIDE}, id="below 0"),
        pytest.param({**GOOD, "counts": [10**400] * STRIDE}, id="beyond every counter"),
        pytest.param({**GOOD, "active": -1}, id="fewer than no request in flight"),
        pytest.param({**GOOD, "active": None}, id="in flight is missing"),
        pytest.param({**GOOD, "routes": [7]}, id="a route that is no text"),
        pytest.param({"active": 0, "routes": ["GET /"] * 102, "counts": [0] * 102 * STRIDE}, id="too many routes"),
        pytest.param([GOOD], id="a list"),
    ],
)
def test_a_claim_that_no_worker_of_ours_makes_counts_as_missing(claim: Any) -> None:
    report = parse_report({"pid": 7, "lag": 0.5, "traffic": claim})

    assert (report["traffic"], report["lag"]) == (None, 0.5)


def test_a_claim_is_read() -> None:
    assert parse_report({"pid": 7, "traffic": GOOD})["traffic"] == GOOD


class Route:
    path = "/items/{id}"


def counted(*messages: Any, fails: bool = False, **scope: Any) -> dict[str, Any]:
    """Have an app send *messages*, and return what was counted of its one request."""
    traffic = Traffic()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/unknown"):
            scope["route"] = Route()
        for message in messages:
            await send(message)
        if fails:
            raise ZeroDivisionError

    async def ignore(*_: Any) -> Any:
        return {}

    record = RequestRecord(app, None, traffic=traffic)
    method = {} if "type" in scope else {"method": "GET"}
    call = record({"type": "http", **method, "path": "/items/7", "headers": [], **scope}, ignore, ignore)
    try:
        asyncio.run(call)
    except ZeroDivisionError:
        assert fails
    report = traffic.report(record.active())
    assert report["active"] == 0
    return {name: report["counts"][n * STRIDE :][:4] for n, name in enumerate(report["routes"][:-1])}


def start(status: int) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status}


END = {"type": "http.response.body", "body": b""}


def test_a_request_counts_for_the_template_of_its_route() -> None:
    assert counted(start(404), END) == {"GET /items/{id}": [0, 0, 1, 0]}
    assert counted(start(404), END, path="/unknown") == {"GET other": [0, 0, 1, 0]}


def test_of_an_app_that_names_no_route_paths_count_without_their_ids_once_they_were_answered() -> None:
    """Given an app of Django's or Quart's, then what a scanner asks for is not counted by its path."""
    assert counted(start(200), END, path="/unknown") == {"GET /unknown": [1, 0, 0, 0]}
    assert counted(start(201), END, path="/unknown/7") == {"GET /unknown/{id}": [1, 0, 0, 0]}
    assert counted(start(500), END, path="/unknown") == {"GET other": [0, 0, 0, 1]}
    assert counted(start(200), END, path="/unknown", path_template="/{name:str}") == {"GET /{name:str}": [1, 0, 0, 0]}


def test_an_app_that_raises_or_does_not_answer_has_failed() -> None:
    assert counted(fails=True) == {"GET /items/{id}": [0, 0, 0, 1]}
    assert counted() == {"GET /items/{id}": [0, 0, 0, 1]}
    assert counted(start(200), fails=True) == {"GET /items/{id}": [1, 0, 0, 0]}


def test_a_websocket_and_a_lifespan_are_no_requests() -> None:
    assert counted(type="websocket") == {}
    assert counted(type="lifespan") == {}
