"""The streams of the dashboard: nobody is waited for, and nobody stays counted who has gone."""

import asyncio
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from fake_circusd import FakeCircusd, always
from starlette.types import Message
from state_views import state_view, watcher_view

from xboard_circus.dashboard.access import network_of
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.poller import MOST_WORKERS, History, Server
from xboard_circus.dashboard.sessions import Session
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.dashboard.stream import EventStream, StreamBoard, json_text


def test_all_is_fine_since_the_trouble_that_has_just_ended(tmp_path: Path) -> None:
    """Given an outage whose end the ledger does not have yet, then "last trouble 13 min ago" is not what is shown."""
    now, troubled = [100.0], ["web"]
    settings = Settings(folder=tmp_path, endpoint="tcp://127.0.0.1:1", label="here", config=None, deadline=0.1)
    hub = Hub(settings, clock=lambda: now[0])
    server = SimpleNamespace(troubled=lambda: troubled, headlines=lambda _: [])
    hub.servers = {LOCAL: cast(Server, server)}
    hub.recent = {"watchers": {}, "trouble_age": 780.0}

    hub.note_trouble()
    during = hub.all_fine()
    troubled.clear()
    now[0] += 3
    hub.note_trouble()
    hub.recent = {"watchers": {}, "trouble_age": 790.0}

    assert (during, hub.all_fine()) == (None, {"watchers": {}, "trouble_age": 3.0})


def test_of_streams_that_are_asked_for_at_once_no_more_are_open_than_may_be(tmp_path: Path) -> None:
    """Given a burst of requests, each let in before another's stream has begun, when they begin, then some end."""
    settings = Settings(folder=tmp_path, endpoint="tcp://127.0.0.1:1", label="here", most_pages=2, most_followed=3)
    hub, reader = Hub(settings), Session("reader-1", expires=math.inf)

    async def open_at_once() -> list[int]:
        hub.reading = {"reader": anyio.CapacityLimiter(1)}
        opened = []
        for streams in ([hub.follow(reader) for _ in range(9)], [hub.follow_logs(reader, {}) for _ in range(9)]):
            opened.append(sum([bool(await anext(each, b"")) for each in streams]))
            for each in streams:
                await each.aclose()
        return opened

    assert asyncio.run(open_at_once()) == [2, 3]
    assert hub.board.viewers.total() == hub.followers.total() == 0


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_client_that_goes_in_the_moment_of_a_message_is_not_counted_any_more() -> None:
    async def story() -> list[int]:
        board, counts = StreamBoard(), []
        for turns in range(8):
            gone = asyncio.Event()

            async def receive(gone: asyncio.Event = gone) -> Message:
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                await asyncio.sleep(0)

            source = board.follow("admin", lambda: b"first", holds=lambda: True, most=1)
            stream = EventStream(source)
            open_one = asyncio.create_task(stream({"type": "http"}, receive, send))
            while not board.viewers.total():
                await asyncio.sleep(0)
            for _ in range(6):
                await asyncio.sleep(0)
            board.publish({"admin": b"second"})
            for _ in range(turns):
                await asyncio.sleep(0)
            gone.set()
            await asyncio.wait_for(open_one, 60)
            for _ in range(20):  # until a source that nobody holds any more is closed
                await asyncio.sleep(0)
            counts.append(board.viewers.total())
        return counts

    assert asyncio.run(story()) == [0] * 8


@pytest.mark.parametrize(
    ("client", "sender"),
    [
        pytest.param("10.0.0.7", "10.0.0.7", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="one customer's IPv6"),
        pytest.param("::1", "::1", id="this host"),
        pytest.param("", "unknown", id="nobody knows"),
    ],
)
def test_what_counts_as_one_sender(client: str, sender: str) -> None:
    assert network_of(client) == sender


def test_of_workers_without_number_that_another_users_circusd_names_no_history_is_kept() -> None:
    history, figures = History(), {"started": 1, "cpu": 1.0, "rss": 1, "latency": 0.1}
    for poll in range(3):
        workers = [{"pid": pid, **figures} for pid in (1, *range(2 + poll * MOST_WORKERS, (poll + 1) * MOST_WORKERS))]
        history.take([{"workers": workers}], now=2.0 * poll, at=2.0 * poll)

    kept = history.view()["workers"]
    assert (len(kept), kept["1:1"]["t"]) == (MOST_WORKERS, [0.0, 2.0, 4.0])


def test_no_answer_of_another_users_circusd_is_json_that_no_browser_reads() -> None:
    """Given a circusd that says NaN, Infinity and shapes of its own, then the page of all circusds can be parsed."""
    ok: Any = {"status": "ok", "time": 1.0}
    shown = watcher_view(
        "up", verdict={**watcher_view("up")["verdict"], "cause_say": {"key": "X", "fields": {"n": math.inf}}}
    )
    sockets = [{"name": "web\u202e", "host": ["h"], "port": math.nan, "path": {"a": math.inf}, "fd": 3}]
    answers = {"xboard_state": {**ok, **state_view(shown)}, "listsockets": {**ok, "sockets": sockets}}
    with FakeCircusd({name: always(each) for name, each in {**answers, "stats": {**ok, "infos": {}}}.items()}) as fake:
        server = Server("theirs", "theirs", fake.endpoint, deadline=5)
        server._poll()
        server._queries.client.close()  # of this thread
        server.close()

    found = json.loads(json_text(server.view()), parse_constant=pytest.fail)

    assert found["sockets"] == [{"name": "web?", "host": None, "port": None, "path": None, "fd": 3}]
    assert found["watchers"][0]["verdict"]["cause_say"]["fields"] == {"n": None}
