"""Which dependency is down: what the app answers on a health path names it, and is a claim."""

import asyncio
import json
from typing import Any

import pytest

from xboard_circus.core.failed_checks import MOST, failed_checks
from xboard_circus.core.reason import with_say
from xboard_circus.plugins._sightings import worker_sighting
from xboard_circus.probe import Outcome, WorkerAnswer
from xboard_circus.worker.app_calls import MAX_REASON, AppAnswer, AppCalls, Asker


def answer_of(body: bytes, status: int = 503) -> AppAnswer:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def call() -> AppAnswer:
        calls = AppCalls(app, Asker(), state={}, root_path="")
        return await calls.ask("/health", timeout=30)

    return asyncio.run(call())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"checks": {"database": "no such file", "disk": "ok"}}, 'status 503, "database: no such file"'),
        ({"detail": "redis: connection refused"}, 'status 503, "redis: connection refused"'),
        ({"error": "postgres://app:hunter2@db refuses"}, 'status 503, "postgres://app:***@db refuses"'),
        ({"checks": {"token": "s3cr3t-and-long"}}, 'status 503, "token: ***"'),
        ({"checks": {"database": "ok"}}, "status 503"),
        ({"checks": 7, "detail": [{"msg": "no text"}]}, "status 503"),
    ],
)
def test_the_reason_names_what_is_down_without_secrets(body: Any, reason: str) -> None:
    assert answer_of(json.dumps(body).encode()).reason == reason


@pytest.mark.parametrize("body", [b"", b"<html>down", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 10_000, b"NaN", b'"ok"'])
def test_an_answer_that_names_nothing_leaves_its_status(body: bytes) -> None:
    assert answer_of(body).reason == "status 503"


def test_what_an_app_names_has_a_bound() -> None:
    """Given a thousand failing checks, and a text of 3 KiB with control characters, then the reason is a short line."""
    many = failed_checks({"checks": {f"check{number}": "down" for number in range(1000)}})
    long = answer_of(json.dumps({"detail": "\x1b[31m\n" + "x" * 3000}).encode()).reason

    assert many.split("; ") == [*(f"check{number}: down" for number in range(MOST)), "..."]
    assert (len(long), long.isprintable()) == (MAX_REASON, True)


@pytest.mark.parametrize(
    ("checks", "found"),
    [
        (
            {"checks": {"db:time": [{"status": "fail", "output": "timed out"}], "cpu": [{"status": "warn"}]}},
            "db:time: timed out",
        ),
        ({"entries": {"sql": {"status": "Unhealthy", "description": "login failed"}}}, "sql: login failed"),
        ({"checks": [{"name": "queue", "status": "DOWN"}, {"name": 7, "status": "DOWN"}, "text"]}, "queue: DOWN"),
        ({"services": {"smtp": False, "web": True, "odd": None, "none": {}, "empty": []}}, "smtp"),
    ],
)
def test_the_usual_shapes_of_health_answers_are_known(checks: Any, found: str) -> None:
    assert failed_checks(checks) == found


def test_a_live_path_that_says_no_more_has_its_reason_from_the_ready_path() -> None:
    def path(body: bytes) -> dict[str, Any]:
        answer = answer_of(body)
        return {"ok": False, "refused": False, "status": 503, "body": "", **with_say(answer.reason)}

    report: Any = {"pid": 7, "live": path(b""), "ready": path(b'{"detail": "database: gone"}')}

    seen = worker_sighting(WorkerAnswer(Outcome.REPORT, "", 0.0, 0.1, report=report)).observation

    assert (seen.live, seen.reason) == (False, 'status 503, "database: gone"')
