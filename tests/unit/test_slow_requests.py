"""Slow requests: which a worker reports, how often, with what of their stacks, and which of them are published."""

import asyncio
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

import anyio
import pytest
from anyio import to_thread

from xboard_circus.core.health import Observation, Round
from xboard_circus.core.in_flight import MOST_SLOW, SeenRequest
from xboard_circus.core.state_schema import parse_report, watcher_entry
from xboard_circus.plugins._sightings import MOST, MOST_IN, ProbeRound, Sighting, SlowEvents
from xboard_circus.worker import task_stack
from xboard_circus.worker.request_record import MOST_OTHERS, RequestRecord
from xboard_circus.worker.slow_requests import LOOK_EVERY, MOST_LOOKED_AT, MOST_ROUTES, ONCE_IN, SlowRequests
from xboard_circus.worker.task_stack import place, shown, stack_of
from xboard_circus.worker.traffic import Traffic

WORKER = (7, 70)
LIMIT = 10.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200})
    await asyncio.sleep(600)


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Bench:
    """A worker's requests, and what is reported of them, by a clock that a test moves."""

    def __init__(self) -> None:
        self.record = RequestRecord(app, None, traffic=Traffic())
        self.clock = Clock()
        self.slow = SlowRequests(self.record, limit=LIMIT, app="tests", clock=self.clock)
        self.tasks: set[asyncio.Task[Any]] = set()

    async def begin(self, *paths: str, kind: str = "http") -> None:
        async def send(message: Any) -> None: ...

        for path in paths:
            method = {"method": "GET"} if kind == "http" else {}
            scope = {"type": kind, **method, "path": path, "headers": []}
            self.tasks.add(asyncio.ensure_future(self.record(scope, send, send)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def pass_seconds(self, seconds: float) -> list[str]:
        """Look once a second; return the routes that are reported meanwhile."""
        before = self.slow.reported()
        for _ in range(int(seconds)):
            self.clock.sleep(LOOK_EVERY)
            self.slow.look(self.tasks)
        return sorted(each["route"] for each in self.slow.reported() if each not in before)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose requests begin by its clock."""
    bench = Bench()
    monkeypatch.setattr("xboard_circus.worker.request_record.monotonic", bench.clock)
    return bench


def test_each_route_is_reported_once_in_a_minute(old: Bench) -> None:
    async def main() -> None:
        await old.begin("/a", "/a", "/b")
        assert old.pass_seconds(LIMIT - 1) == []
        assert old.pass_seconds(2) == ["/a", "/b"]
        assert old.pass_seconds(ONCE_IN - 3) == []
        assert old.pass_seconds(5) == ["/a"]  # the other one
        assert old.pass_seconds(3 * ONCE_IN) == []

    asyncio.run(main())


def test_a_websocket_and_an_answer_that_has_begun_are_not_slow(old: Bench) -> None:
    async def main() -> None:
        await old.begin("/ws", kind="websocket")
        await old.begin("/begun")
        assert old.pass_seconds(3 * LIMIT) == []

    asyncio.run(main())


def test_what_waited_for_a_loop_that_was_held_gets_a_moment(old: Bench) -> None:
    """Given a loop that was held, then nothing is reported at its first tick; one that stays late is no excuse."""

    async def main() -> None:
        await old.begin("/a")
        old.pass_seconds(1)
        for reported in ([], ["/a"]):
            old.clock.sleep(2 * LIMIT)
            old.slow.look(old.tasks)
            assert [each["route"] for each in old.slow.reported()] == reported

    asyncio.run(main())


def test_a_request_that_began_in_a_loop_that_was_late_is_as_old_as_it_is(old: Bench) -> None:
    """Given a loop held for longer than the limit by several requests, then that which runs is slow by its own age."""

    async def main() -> None:
        await old.begin("/a")
        for age in (LIMIT - 1, LIMIT + 1):
            old.clock.now = 1000.0 + age
            old.slow.look_at_held(1, sys._getframe(), held=2 * LIMIT)
            assert len(old.slow.reported()) == (age > LIMIT)

    asyncio.run(main())


def test_reports_are_few(old: Bench) -> None:
    frames = [sys._getframe()]
    requests = [SeenRequest(n, 0.0, "GET", f"/{n}", "id") for n in range(2 * MOST_ROUTES)]
    assert sum(old.slow.report(each, frames, "waits") for each in requests) == MOST_ROUTES
    assert len(old.slow.reported()) == MOST_SLOW


def test_of_thousands_that_wait_a_few_are_looked_at_and_each_in_its_turn(
    old: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given very many connections whose requests last, as of clients that send half a body, then a look takes no longer
    for them, and each is looked at within so many looks: 5,000 took 0.9 s of the event loop in each second."""
    looked_at: list[asyncio.Task[Any]] = []

    def suspended(task: "asyncio.Task[Any]") -> Any:
        looked_at.append(task)
        return task_stack.suspended(task)

    async def main() -> None:
        monkeypatch.setattr("xboard_circus.worker.slow_requests.suspended", suspended)
        await old.begin(*["/a"] * (3 * MOST_LOOKED_AT))
        old.pass_seconds(LIMIT - 2)
        for looks in range(1, 7):
            old.pass_seconds(1)
            assert len(looked_at) <= looks * MOST_LOOKED_AT
        assert set(looked_at) == old.tasks

    asyncio.run(main())


def test_of_thousands_a_few_are_asked_whether_they_wait_for_the_task_that_runs(
    old: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a late loop in a task of no request, then few of very many requests are looked through, by a thread that
    the loop waits for meanwhile."""
    looked_at: list[asyncio.Task[Any]] = []

    def stack_of(task: "asyncio.Task[Any]") -> Any:
        looked_at.append(task)
        return task_stack.stack_of(task)

    async def main() -> None:
        monkeypatch.setattr("xboard_circus.worker.request_record.TELLS_CONTEXT", False)  # as up to Python 3.11
        monkeypatch.setattr("xboard_circus.worker.request_record.stack_of", stack_of)
        await old.begin(*["/a"] * (3 * MOST_OTHERS))
        assert old.record.show_running(asyncio.get_running_loop(), sys._getframe()) == 0
        assert 0 < len(looked_at) <= MOST_OTHERS

    asyncio.run(main())


def names(task: "asyncio.Task[Any]") -> list[str]:
    return [frame.f_code.co_name for frame in stack_of(task).frames]


async def innermost() -> None:
    await asyncio.sleep(600)


async def steps() -> Any:
    await innermost()
    yield 1


async def by_iteration() -> None:
    async for _ in steps():
        pass


async def by_task() -> None:
    await asyncio.create_task(innermost())


async def by_gather() -> None:
    await asyncio.gather(asyncio.sleep(0), innermost())


async def by_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(innermost)


@pytest.mark.parametrize("work", [innermost, by_iteration, by_task, by_gather, by_group])
def test_a_stack_reaches_where_a_task_waits(work: Callable[[], Any]) -> None:
    async def main() -> list[str]:
        task = asyncio.ensure_future(work())
        for _ in range(4):
            await asyncio.sleep(0)
        return names(task)

    found = asyncio.run(main())
    assert found[0] == work.__name__
    assert found[-2:] == ["innermost", "sleep"]


def test_a_stack_goes_on_in_the_thread_that_a_task_waits_for() -> None:
    release, begun = threading.Event(), threading.Event()

    def in_thread() -> None:
        begun.set()
        release.wait(60)

    async def main() -> bool:
        task = asyncio.ensure_future(to_thread.run_sync(in_thread))
        while not begun.is_set():
            await asyncio.sleep(0)
        try:
            stack = stack_of(task)
            assert "in_thread" in [frame.f_code.co_name for frame in stack.frames]
        finally:
            release.set()
        await task
        return stack.in_thread

    assert asyncio.run(main())


def frame_of(package: str, file: str, function: str) -> Any:
    found: list[Any] = []
    code = compile("look()", file, "exec")
    named: CodeType = code.replace(co_name=function)
    exec(named, {"__name__": package, "look": lambda: found.append(sys._getframe(1))})
    return found[0]


def test_frames_of_the_app_come_first_and_the_others_in_one_line() -> None:
    libraries = "/srv/venv/lib/python3.11/site-packages"
    frames = [
        frame_of("uvicorn.server", f"{libraries}/uvicorn/server.py", "serve"),
        frame_of("shop.main", f"{libraries}/shop/main.py", "basket"),
        frame_of("models", "/srv/app/models.py", "load"),
        frame_of("asyncio.tasks", asyncio.tasks.__file__, "sleep"),
    ]

    lines = shown(frames, "shop")
    assert lines[0] == '  File "/srv/app/models.py", line 1 in load'
    assert lines[1] == f'  File "{libraries}/shop/main.py", line 1 in basket'
    assert lines[2].startswith("  ... 2 frames of python, uvicorn, the last one File ")
    assert lines[2].endswith("in sleep")
    assert place(frames, "shop") == "load (models.py:1)"
    assert place(frames[:1], "shop") == "serve (server.py:1)"


# What the prober makes of it


def slow(at: float, **more: Any) -> dict[str, Any]:
    return {"method": "GET", "route": "/a", "id": "id-1", "age": 12.0, "at": at, "where": "load (models.py:1)", **more}


def a_round(*told: dict[str, Any]) -> ProbeRound:
    report = parse_report({"pid": 7, "slow": [*told]})
    seen = {WORKER: Sighting(Observation(answered=True), 1.0, report=report)}
    return ProbeRound(watcher_entry(name="web", workers=[]), seen, Round({}, {}, frozenset(), (), ()))


def test_each_slow_request_is_published_once() -> None:
    """Given a report again and again, then its event comes once; what is older than the prober was published before."""
    events = SlowEvents(100.0)
    found = [[*events.of(a_round(slow(90.0), slow(101.0)), now)] for now in (102.0, 104.0)]

    assert [len(each) for each in found] == [1, 0]
    ((worker, sentence),) = found[0]
    assert worker == WORKER
    assert sentence == "no answer yet: GET /a, for 12 s (request id-1); it is in load (models.py:1)"
    assert len([*events.of(a_round(slow(103.0)), 106.0)]) == 1


def test_a_worker_that_reports_very_many_gets_few_published() -> None:
    events = SlowEvents(0.0)
    count = sum(len([*events.of(a_round(*(slow(n + i / 10) for i in range(9))), n)]) for n in range(1, 50))

    assert count == MOST
    assert len([*events.of(a_round(slow(1e9)), 60 + MOST_IN)]) == 1


def test_a_slow_request_of_a_report_is_a_claim() -> None:
    odd = slow(1.0, route="/\x1b[2J" + "x" * 999, id="a\nb" * 99, where="\x1b" + "y" * 999, method="get it")
    (found,) = parse_report({"slow": [odd, {"at": 1.0}, "text", slow(float("inf"))]})["slow"]

    assert found["method"] == "OTHER"
    assert all(len(each) <= 200 and each.isprintable() for each in map(str, found.values()))
    assert parse_report({"slow": {"a": 1}})["slow"] == []
    assert len(parse_report({"slow": [slow(1.0)] * 99})["slow"]) == MOST_SLOW
