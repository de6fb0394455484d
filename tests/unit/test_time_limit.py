"""The time limit of a request without a server: what is sent, what is dropped, and what counts as the app's time."""

import asyncio
from typing import Any

import pytest

from xboard_circus.core.route_counts import STATUSES
from xboard_circus.dashboard.stream import transport_of
from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.time_limit import BODY, TimeLimit
from xboard_circus.worker.traffic import Traffic

SOON, LONG = 0.05, 600.0
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"late"}


def run(app: Any, *, receive: Any = None, seconds: float = SOON, kind: str = "http") -> tuple[list[Any], list[Any]]:
    """Call an app with a limit; return what was sent, and the stacks that were reported."""
    sent: list[Any] = []
    late: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def whole() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def main() -> None:
        limit = TimeLimit(app, seconds=seconds, on_late=lambda task, stack: late.append(stack))
        await asyncio.wait_for(asyncio.create_task(limit({"type": kind}, receive or whole, send)), 60)

    asyncio.run(main())
    return sent, late


def statuses(sent: list[Any]) -> list[int]:
    return [each["status"] for each in sent if "status" in each]


def test_an_app_that_is_in_time_is_left_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.sleep(3 * SOON)  # it has begun
        await send(END)

    assert run(app) == ([START, END], [])


def test_the_page_finds_the_connection_of_a_request_behind_the_limit() -> None:
    """Else it would believe what any client says in X-Forwarded-For."""

    class Cycle:
        transport = object()

        async def receive(self) -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(transport_of(receive))

    found: list[Any] = []
    run(app, receive=Cycle().receive)
    assert found == [Cycle.transport]


def test_a_late_app_is_answered_for_and_cancelled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(LONG)

    sent, late = run(app)
    assert statuses(sent) == [504]
    assert sent[1]["body"] == BODY
    assert len(late) == 1


@pytest.mark.parametrize("ending", ["return", "raise"])
def test_what_a_late_app_sends_goes_nowhere(ending: str) -> None:
    """Given an app that suppresses its cancellation, then it may await, and neither its answer nor error goes on."""
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(SOON)
        await send(START)
        await send(END)
        done.append("answered")
        if ending == "raise":
            raise RuntimeError

    assert statuses(run(app)[0]) == [504]
    assert done == ["answered"]


def test_an_error_in_time_is_uvicorns() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run(app)


def test_a_cancellation_by_the_server_is_passed_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(LONG)

    with pytest.raises(asyncio.CancelledError):
        run(app)


@pytest.mark.parametrize(("thinks", "status"), [(0.0, 200), (LONG, 504)])
def test_the_time_of_a_client_that_sends_does_not_count(thinks: float, status: int) -> None:
    """Given a body that comes slowly and whole, then the time counts from its last piece."""
    pieces = iter([True, True, True, False])

    async def receive() -> Any:
        await asyncio.sleep(2 * SOON)
        return {"type": "http.request", "body": b"x", "more_body": next(pieces)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await asyncio.sleep(thinks)
        await send(START)

    assert statuses(run(app, receive=receive)[0]) == [status]


def test_waiting_for_the_client_to_leave_counts() -> None:
    """Given an app that has the body and listens for the end of its client meanwhile, then its time counts."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        message = next(messages, None)
        if message is None:
            await asyncio.sleep(LONG)
        return message

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    assert statuses(run(app, receive=receive)[0]) == [504]


def test_a_websocket_has_no_limit() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3 * SOON)

    assert run(app, kind="websocket") == ([], [])


def test_a_late_request_is_counted_as_504() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(LONG)

    traffic = Traffic()
    limit = TimeLimit(app, seconds=SOON, on_late=lambda task, stack: None)
    record = RequestRecord(limit, None, traffic=traffic)

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "GET", "path": "/a", "headers": []}
    asyncio.run(record(scope, send, send))  # type: ignore[arg-type]

    report = traffic.report(active=0)
    assert report["active"] == 0
    assert report["counts"][: len(STATUSES)] == [0, 0, 0, 1]
