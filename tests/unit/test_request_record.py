"""What a worker notes of its requests in flight, and what is read of that, whatever stands there."""

import asyncio
import fcntl
import itertools
import math
import os
import weakref
from collections.abc import Awaitable, Callable
from string import ascii_lowercase
from typing import Any

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from xboard_circus.core.in_flight import MOST_KEPT, NO_REQUEST, SeenRequest, SeenRequests, listed, sentence
from xboard_circus.core.masked_path import LONGEST_PATH, masked_path
from xboard_circus.core.route_counts import STRIDE
from xboard_circus.host import request_slots
from xboard_circus.host.request_slots import FIRST, HEADER, MAGIC, OVERWRITTEN, SIZE, SLOT, SLOTS, VERSION, Unreadable
from xboard_circus.ledger import Record
from xboard_circus.ledger.explain import story_of, text_of
from xboard_circus.worker.forkserver import place
from xboard_circus.worker.refusal import Refusal, encoded
from xboard_circus.worker.request_record import (
    FORWARDED,
    LONGEST_METHOD,
    MOST_PATHS,
    SERIAL,
    RequestRecord,
)
from xboard_circus.worker.route_names import name_routes
from xboard_circus.worker.server import Surroundings, WorkerServer
from xboard_circus.worker.traffic import Traffic

SECRETS = [f"{kind}-{number}-Sk7qP2" for number in range(6) for kind in ("body", "query", "cookie", "auth", "path")]
HEAD = HEADER.pack(MAGIC, VERSION, SLOTS, 0, 0, b"abcdef01", 0.0).ljust(FIRST, b"\0")


class Shared:
    """The memory of one worker as both sides have it, and the record in which its requests are noted."""

    def __init__(self, app: Any, refusal: Refusal | None = None) -> None:
        self.file = request_slots.make()
        weakref.finalize(self, self.file.close)
        memory = request_slots.mapped(str(os.dup(self.file.fileno())))
        assert memory is not None
        self.traffic = Traffic()
        self.record = RequestRecord(app, memory, header="X-Request-ID", traffic=self.traffic, refusal=refusal)

    def seen(self) -> SeenRequests:
        return request_slots.read(self.file)

    def shown(self) -> list[tuple[str, str]]:
        return [(each.method, each.route) for each in self.seen().requests]

    async def call(self, path: str, kind: str = "http", **more: Any) -> list[dict[str, Any]]:
        """Send one request; return what was answered."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        method = {"method": "GET"} if kind == "http" else {}
        scope = {"type": kind, **method, "path": path, "root_path": "", "query_string": b"", "headers": [], **more}
        await asyncio.create_task(self.record(scope, receive, send))
        return sent


@pytest.mark.parametrize(("given_", "is_plain"), [("", False), ("0", True)])
def test_without_a_record_nothing_of_ours_is_called(given_: str, is_plain: bool) -> None:
    """Given request.record = False, then uvicorn calls the app itself."""
    shared = Shared(None)
    config = uvicorn.Config(routed()[0], lifespan="off", log_config=None)
    config.load()
    environ = {"XBOARD_REQUESTS": str(os.dup(shared.file.fileno())), "XBOARD_REQUEST_RECORD": given_}
    server, app = WorkerServer(config, Surroundings(environ), None), config.loaded_app

    async def main() -> None:
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[])

    asyncio.run(main())

    assert (config.loaded_app is app) == is_plain


@pytest.fixture
def held() -> tuple[Shared, asyncio.Event]:
    """A record of an app whose requests wait for an event."""
    event = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await event.wait()

    shared = Shared(app)
    return shared, event


def in_flight(shared: Shared, event: asyncio.Event, look: Callable[[], Any], *requests: tuple[str, str]) -> Any:
    """Return what *look* finds while *requests*, each a path and its kind, are in flight; all end after it."""

    async def main() -> Any:
        tasks = [asyncio.create_task(shared.call(path, kind)) for path, kind in requests]
        for _ in range(3):
            await asyncio.sleep(0)
        found = look()
        event.set()
        await asyncio.gather(*tasks)
        return found

    return asyncio.run(main())


def test_of_very_many_the_oldest_and_the_newest_are_there(held: tuple[Shared, asyncio.Event]) -> None:
    """Given more requests than there are slots, then the first and the last are noted, and the others counted."""
    shared, event = held
    count = 3 * SLOTS

    seen = in_flight(shared, event, shared.seen, *((f"/p/{chr(97 + n % 26)}", "http") for n in range(count)))

    serials = sorted(each.serial for each in seen.requests)
    oldest = SLOTS - OVERWRITTEN
    assert serials == [*range(1, oldest + 1), *range(count - OVERWRITTEN + 1, count + 1)]
    assert len(serials) + seen.beyond == count
    assert shared.seen()[:3] == ([], 0, 0)


def test_the_routes_answered_last_are_known(held: tuple[Shared, asyncio.Event]) -> None:
    """Given more requests than slots, one after the other, then the last ones are known, and none in flight is one."""
    shared, event = held
    event.set()

    async def main() -> None:
        await shared.call("/first")
        for _ in range(SLOTS - OVERWRITTEN - 1):
            await shared.call("/later")
        assert sorted(shared.seen().answered) == ["GET /first", *["GET /later"] * (SLOTS - OVERWRITTEN - 1)]
        event.clear()
        task = asyncio.create_task(shared.call("/now"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert shared.seen().answered == ["GET /later"] * (SLOTS - OVERWRITTEN - 1)
        event.set()
        await task

    asyncio.run(main())


def test_websockets_leave_room_for_requests(held: tuple[Shared, asyncio.Event]) -> None:
    shared, event = held

    seen = in_flight(shared, event, shared.shown, *[("/ws", "websocket")] * 90, *[("/late", "http")] * 20)

    assert seen.count(("GET", "/late")) == 20


def test_a_child_writes_nowhere(held: tuple[Shared, asyncio.Event]) -> None:
    """Given a request in flight, when a child that was forked goes on with it and takes others, then none is noted."""
    shared, event = held

    def let_go() -> list[tuple[str, str]]:
        shared.record.let_go()
        return shared.shown()

    assert in_flight(shared, event, let_go, ("/parent", "http")) == [("GET", "/parent")]
    assert shared.shown() == [("GET", "/parent")]


def routed() -> tuple[FastAPI, list[list[tuple[str, str]]]]:
    """An app of each kind of route, which notes what is seen of its own request meanwhile."""
    app, router, sub = FastAPI(), APIRouter(), FastAPI()
    looks: list[list[tuple[str, str]]] = []

    def look() -> None:
        looks.append(app.state.shared.shown())

    app.get("/fixed/2fa")(look)
    app.get("/reports/{id}")(look)
    router.get("/things/{number:int}")(look)
    app.include_router(router, prefix="/api/{tenant}")
    sub.get("/inner/{rest:path}")(look)
    app.mount("/sub", sub)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        look()

    app.mount("/files", plain)
    app.mount("/tenants/{tenant}", sub)

    async def answered(_: Any) -> Response:
        look()
        return Response()

    deep = Mount("/deep/{name}", routes=[Route("/x", answered)])
    app.mount("/of/{tenant}", Starlette(routes=[deep]))
    app.router.routes.append(Route("/old/{x}", lambda request: look()))
    return app, looks


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        pytest.param("/fixed/2fa", "/fixed/2fa", id="no parameter, though it looks like an id"),
        pytest.param("/reports/alice", "/reports/{id}", id="a parameter"),
        pytest.param("/api/acme/things/7", "/api/{tenant}/things/{number}", id="a router that is included"),
        pytest.param("/sub/inner/a/b", "/sub/inner/{rest}", id="an app that is mounted"),
        pytest.param("/files/secret.pdf", "/files/{path}", id="another kind of app that is mounted"),
        pytest.param("/tenants/alice/inner/a/b", "/tenants/{tenant}/inner/{rest}", id="mounted at a parameter"),
        pytest.param("/of/alice/deep/secret/x", "/of/{tenant}/deep/{name}/x", id="mounted in what is mounted"),
    ],
)
def test_a_route_is_named_by_its_template(path: str, shown: str) -> None:
    """Given a request of any kind of route, then its template is there while the endpoint runs, each time anew."""
    app, looks = routed()
    shared = app.state.shared = Shared(app)
    name_routes(shared.record)

    async def main() -> None:
        for _ in range(2):
            await shared.call(path)

    asyncio.run(main())

    assert looks == [[("GET", shown)]] * 2
    assert shared.shown() == []


def test_methods_that_no_route_takes_have_no_row_of_their_own() -> None:
    """Given a client that sends each method to each route, then rows are left for those that are called later."""
    app, _ = routed()
    shared = app.state.shared = Shared(app)
    name_routes(shared.record)

    async def main() -> None:
        for method in ("DELETE", "PATCH", "POST", "PUT"):
            for path in ("/fixed/2fa", "/reports/7", "/nothing"):
                await shared.call(path, method=method)
        await shared.call("/reports/7")

    asyncio.run(main())
    routes = shared.traffic.report(active=0)["routes"]

    assert routes == ["DELETE other", "GET /reports/{id}", "PATCH other", "POST other", "PUT other", "OTHER other"]


def test_a_route_is_looked_at_once() -> None:
    """Given a route of FastAPI's, whose class goes on to Starlette's, then only one of the two looks for it."""
    looks = 0

    class Scope(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            nonlocal looks
            looks += name == SERIAL
            return super().get(name, default)

    app, shown = routed()
    shared = app.state.shared = Shared(app)
    name_routes(shared.record)

    async def main() -> None:
        scope = Scope(type="http", method="GET", path="/reports/7", root_path="", query_string=b"", headers=[])
        await shared.record(scope, never, never)

    async def never(*_: Any) -> Any: ...

    asyncio.run(main())
    handle: Any = APIRoute.handle
    named = 0
    while (handle := getattr(handle, "__wrapped__", None)) is not None:  # other tests have named routes too
        named += 1

    assert shown == [[("GET", "/reports/{id}")]]
    assert looks == named


def test_routes_whose_paths_have_the_same_words_are_kept_apart() -> None:
    """Given two routes that differ by the kind of an id alone, then each request is noted and counted as its own."""
    app, seen = FastAPI(), []

    async def look() -> None:
        await asyncio.sleep(0)
        seen.append(sorted(route for _, route in shared.shown()))

    app.get("/x/{number:int}")(look)
    app.get("/x/{name}")(look)
    shared = Shared(app)
    name_routes(shared.record)

    async def main() -> None:
        await shared.call("/x/1")
        await asyncio.gather(*map(shared.call, ("/x/2", "/x/a-2", "/x/3")))

    asyncio.run(main())
    report = shared.traffic.report(active=0)

    assert max(seen, key=len) == ["/x/{name}", "/x/{number}", "/x/{number}"]
    assert dict(zip(report["routes"], report["counts"][::STRIDE], strict=True)) == {
        "GET /x/{name}": 1,
        "GET /x/{number}": 3,
        "OTHER other": 0,
    }


@pytest.mark.parametrize("path", ["/reports/alice", "/files/secret.pdf", "/sub/inner/a/b", "/fixed/2fa"])
def test_a_route_is_refused_before_the_app_is_called(path: str) -> None:
    """Given routes that are poison, then each request is refused, with why, and none of them counts as answered."""
    app, looks = routed()
    templates = ("/reports/{id}", "/files/{path}", "/sub/inner/{rest}")
    refusal = Refusal(encoded(503, {f"GET {each}": math.inf for each in templates} | {"GET /fixed/2fa": 0.0}))
    shared = app.state.shared = Shared(app, refusal)
    name_routes(shared.record)

    async def main() -> list[dict[str, Any]]:
        await shared.call(path)
        return await shared.call(path)

    head, body = asyncio.run(main())[:2]

    if path == "/fixed/2fa":  # its ten minutes are over
        assert (head["status"], len(looks)) == (200, 2)
        return
    assert (head["status"], looks, shared.seen()) == (503, [], ([], 0, 0, []))
    assert b"request.refuse_poison" in body["body"]


@pytest.mark.parametrize("path", [f"/p/{secret}" for secret in SECRETS] + ["/a\nb", "no path", "/x/" + "y" * 9999])
def test_of_a_path_without_a_route_only_words_are_noted(path: str) -> None:
    assert masked_path(path) in ("/p/{id}", "/{id}", "/x/{id}")


@pytest.mark.parametrize("path", ["/reports/7", "/7", "/v1/7/007", "/Ab3/7", "/x" * 160 + "/7", "no/7"])
def test_a_number_is_masked_the_same_each_time(held: tuple[Shared, asyncio.Event], path: str) -> None:
    """Given a path that ends with a number, then it is noted as it is masked, also where its like was noted before."""
    shared, event = held
    event.set()

    asyncio.run(shared.call(path))
    event.clear()
    noted = in_flight(shared, event, shared.shown, (path, "http"), (path, "http"))

    assert noted == [("GET", masked_path(path)[:156])] * 2


def test_no_secret_of_a_request_is_in_the_memory() -> None:
    """Given thirty secrets in bodies, queries, cookies, authorization and paths, then none is ever in the memory."""
    written = b""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal written
        written += os.pread(shared.file.fileno(), SIZE, 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    shared = Shared(app)

    async def main() -> None:
        for secret in map(str.encode, SECRETS):
            headers = [(b"cookie", secret), (b"authorization", secret), (b"x-request-id", b"id " + secret)]
            await shared.call(f"/reset/{secret.decode()}", query_string=secret, headers=headers)

    asyncio.run(main())

    # Those that were answered before stay in their slots for a while.
    assert written.count(b"/reset/{id}") == sum(range(1, len(SECRETS) + 1))
    assert not any(secret.encode() in written for secret in SECRETS)


def test_what_is_kept_of_paths_is_bounded() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    shared = Shared(app)

    async def main() -> None:
        for number in range(2 * MOST_PATHS):
            await shared.call(f"/reports/{number}")
        assert len(shared.record.paths) == 1  # with ids a path would never be found again
        for word in itertools.islice(itertools.product(ascii_lowercase, repeat=3), 2 * MOST_PATHS):
            await shared.call("/" + "".join(word))
        await shared.call("/" + "/x" * LONGEST_PATH)
        await shared.call("/brewed", method="BREW" * 999)

    asyncio.run(main())

    assert len(shared.record.paths) <= MOST_PATHS
    assert max(map(len, shared.record.paths)) <= LONGEST_METHOD + 1 + LONGEST_PATH


@pytest.mark.parametrize(
    ("given_", "headers", "sent"),
    [
        pytest.param(b"abc-1", [], [b"abc-1"], id="that of the request"),
        pytest.param(b"a b", [], None, id="one that is made, for no sane word"),
        pytest.param(b"", [(b"x-request-id", b"own")], [b"own"], id="that of the app"),
    ],
)
def test_an_answer_carries_one_id(given_: bytes, headers: list[tuple[bytes, bytes]], sent: list[bytes] | None) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": headers}

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send(message)

    shared = Shared(app)
    (answer,) = asyncio.run(shared.call("/", headers=[(b"x-request-id", given_)]))

    ids = [value for name, value in answer["headers"] if name == b"x-request-id"]
    assert ids == sent or (sent is None and len(ids) == 1 and ids[0].endswith(b"-1"))
    assert message["headers"] is headers  # an app may send the same one each time
    assert len(headers) <= 1


def test_of_thousands_of_ids_the_last_counts_and_they_are_looked_through_once() -> None:
    """Given a request that brings an id 2,000 times, then its headers are gone through twice: 33 KB took 0.5 s."""
    times = list[None]()

    class Headers(list[tuple[bytes, bytes]]):
        def __iter__(self) -> Any:
            times.append(None)
            return super().__iter__()

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = Headers([(b"x-request-id", b"first")] * 2_000 + [(b"x-request-id", b"last")])
    (answer,) = asyncio.run(Shared(app).call("/", headers=headers))

    assert answer["headers"] == [(b"x-request-id", b"last")]
    assert len(times) == 2


def slot(serial: int = 1, began: float = 5.0, method: bytes = b"GET", id_: bytes = b"", route: bytes = b"/") -> bytes:
    return SLOT.pack(int(serial > 0), method, id_, route, 0, serial, began)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(bytes(SIZE), 0, id="nothing: the worker never came so far"),
        pytest.param(HEAD + slot() + bytes(SIZE - FIRST - SLOT.size), 1, id="one request"),
        pytest.param(HEAD + (slot() + slot(2, method=b"\x1b[2J")).ljust(SIZE - FIRST, b"\0"), 1, id="one half written"),
    ],
)
def test_what_is_read(data: bytes, found: int) -> None:
    assert len(request_slots.parse(data).requests) == found


@pytest.mark.parametrize(
    ("noted_at", "running"),
    [
        pytest.param(0.0, 1, id="by a worker that notes no time"),
        pytest.param(5.5, 1, id="nothing has begun since"),
        pytest.param(4.5, 0, id="another has begun since, so the loop has turned"),
    ],
)
def test_a_request_runs_no_more_once_another_has_begun(noted_at: float, running: int) -> None:
    """Given a request that the loop was seen to run, when another one begins and kills the worker, then the first is
    not blamed, although nobody has looked again."""
    head = HEADER.pack(MAGIC, VERSION, SLOTS, 1, 0, b"abcdef01", noted_at).ljust(FIRST, b"\0")
    data = head + (slot(1, began=1.0) + slot(2, began=5.0)).ljust(SIZE - FIRST, b"\0")

    assert request_slots.parse(data).running == running


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(os.urandom(SIZE), id="random bytes"),
        pytest.param(HEAD[:4] + b"\x63\0" + HEAD[6:] + bytes(SIZE - FIRST), id="another version"),
        pytest.param(HEAD + slot(began=float("nan")) * SLOTS, id="times that are none"),
        pytest.param(HEAD + slot(route=b"/\x1b[2J") * SLOTS, id="routes that move the cursor"),
        pytest.param(HEAD + slot(id_=b"a b") * SLOTS, id="ids that are none"),
    ],
)
def test_what_no_worker_of_ours_writes_is_not_believed(data: bytes) -> None:
    with pytest.raises(Unreadable):
        request_slots.parse(data)


def test_nobody_makes_the_memory_shorter_or_longer() -> None:
    """Given the memory, then a worker can neither truncate it nor have it grow, and there is no path to remove."""
    shared = Shared(None)
    for size in (0, SIZE - 1, SIZE + 1, 4 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(shared.file.fileno(), size)
    with pytest.raises(PermissionError):
        os.pwrite(shared.file.fileno(), b"x", SIZE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(shared.file.fileno(), fcntl.F_ADD_SEALS, 0)

    assert shared.seen() == ([], 0, 0, [])
    assert os.readlink(f"/proc/self/fd/{shared.file.fileno()}").endswith("(deleted)")


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=SLOT.size, max_size=4 * SLOT.size), st.integers(0, 1 << 32), st.integers(0, 2**64 - 1))
def test_whatever_is_written_there_is_read_or_refused(slots: bytes, over: int, running: int) -> None:
    """Given any bytes behind a sound head, then what is read of them is text, and can be told."""
    head = HEADER.pack(MAGIC, VERSION, SLOTS, running, over, b"abcdef01", 0.0).ljust(FIRST, b"\0")
    try:
        seen = request_slots.parse((head + slots).ljust(SIZE, b"\0"))
    except Unreadable:
        return
    told = listed(seen, 10.0, blames_last=True)
    text = sentence({"requests": told["requests"], "requests_others": told["others"]})
    assert text.isprintable()


def a_death(seen: SeenRequests, **more: bool) -> str:
    told = listed(seen, 10.0, blames_last=True)
    data = {"requests": told["requests"], "requests_others": told["others"], **more}
    record = Record(1.0, "web", "restart", pid=7, wid=1, cause="crash", reason="died", data=data, id=1)
    return text_of(story_of(record, [record], now=2.0))


def test_of_a_loop_that_ran_no_request_none_is_blamed() -> None:
    request = SeenRequest(1, 5.0, "WEBSOCKET", "/ws", "id1")

    told = listed(SeenRequests([request], running=NO_REQUEST, beyond=0), 10.0, blames_last=True)

    assert (told["requests"][0]["state"], told["ran_none"]) == ("in flight", True)
    data = {"requests": told["requests"], "requests_ran_none": True}
    ran = "its event loop ran no request, but a background task or callback"
    assert sentence(data) == f"{ran}; in flight: WEBSOCKET /ws, for 5 s (request id1)"


def test_a_death_names_the_request_that_ran_first() -> None:
    requests = [SeenRequest(n, 0.1 * n, "GET", f"/r{n}", f"id{n}") for n in range(1, MOST_KEPT + 3)]

    told = a_death(SeenRequests(requests, running=9, beyond=5))

    assert "its event loop ran GET /r9, for 9.1 s (request id9); others in flight: 30" in told
    assert "    GET /r1, for 9.9 s (request id1)" in told
    assert "/r25" not in told


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([(b"content-length", b"5000000"), (b"x-request-id", b"abc")], 5_000_000, id="that of the header"),
        pytest.param([(b"content-length", b"-1")], 0, id="no number"),
        pytest.param([(b"content-length", b"9" * 99)], 0, id="more than there is"),
    ],
)
def test_the_size_of_a_body_is_noted_also_once_its_route_is_known(
    headers: list[tuple[bytes, bytes]], size: int
) -> None:
    app, sizes = FastAPI(), list[tuple[str, int]]()

    @app.post("/uploads/{name}")
    async def upload(name: str) -> None:
        sizes.extend((each.route, each.size) for each in shared.seen().requests)

    shared = Shared(app)
    name_routes(shared.record)

    async def main() -> None:
        for _ in range(2):
            await shared.call("/uploads/x", method="POST", headers=headers)

    asyncio.run(main())

    assert sizes == [("/uploads/{name}", size)] * 2


def test_for_want_of_memory_the_largest_comes_behind_the_oldest() -> None:
    sizes = (0, 3 << 20, 0, 9 << 20, 5)
    requests = [SeenRequest(n, 0.1 * n, "PUT", f"/r{n}", f"id{n}", size) for n, size in enumerate(sizes, 1)]

    found = listed(SeenRequests(requests, running=0, beyond=0), 10.0, blames_last=False)
    told = sentence({"requests": found["requests"], "requests_others": 2})

    assert [(each["route"], each["state"]) for each in found["requests"]] == [
        ("/r1", "in flight"),
        ("/r4", "largest"),
        *((f"/r{n}", "in flight") for n in (2, 3, 5)),
    ]
    assert told == (
        "in flight: PUT /r1, for 9.9 s (request id1); with the largest body PUT /r4 with 9 MiB, for 9.6 s "
        "(request id4); others in flight: 5"
    )
    small = listed(SeenRequests(requests[-1:], running=0, beyond=0), 10.0, blames_last=False)
    assert [each["state"] for each in small["requests"]] == ["in flight"]


def test_a_death_without_a_request_says_nothing_of_requests() -> None:
    assert "request" not in a_death(SeenRequests([], 0, 0))
    assert "is unreadable" in a_death(SeenRequests([], 0, 0), requests_unreadable=True)


def test_a_forked_worker_finds_a_number_for_it() -> None:
    """Given descriptors with and without a number of their own, then each is where it should be, none is lost, and a
    file that the app has open stays, whatever its number."""
    ends = [os.open(os.devnull, os.O_RDONLY), os.open(__file__, os.O_RDONLY)]
    wanted = ends[1]  # what is given as one number has to move for the other
    folder = os.open("/", os.O_RDONLY)
    apps = [folder, *(fcntl.fcntl(folder, fcntl.F_DUPFD_CLOEXEC, wanted + 1) for _ in range(4))]

    first, second = place([*ends], [wanted, -1])
    try:
        assert first == wanted
        assert os.path.samestat(os.fstat(second), os.stat(__file__))
        assert os.path.samestat(os.fstat(first), os.stat(os.devnull))
        assert all(os.path.samestat(os.fstat(number), os.stat("/")) for number in apps)
    finally:
        for number in (first, second, *apps):
            os.close(number)


@pytest.mark.parametrize("header", [b"x-forwarded-for", b"x-forwarded-proto", b"accept", b"x-request-id"])
@pytest.mark.parametrize("refusal", [None, Refusal(encoded(503, {}))])
def test_a_request_without_forwarded_headers_passes_no_middleware(header: bytes, refusal: Refusal | None) -> None:
    """Given uvicorn's middleware around the app, then the app sees of each request what it sees behind it."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append([scope["client"], scope["scheme"]])

    middleware = ProxyHeadersMiddleware(app, trusted_hosts="127.0.0.1")
    facts: dict[str, Any] = {"client": ("127.0.0.1", 5), "scheme": "http", "headers": [(header, b"https")]}
    asyncio.run(Shared(middleware, refusal).call("/x", **facts))
    asyncio.run(middleware({"type": "http", **facts}, None, None))  # type: ignore[arg-type]

    assert seen[0] == seen[1]


def test_uvicorns_middleware_looks_at_no_other_headers() -> None:
    constants = ProxyHeadersMiddleware.__call__.__code__.co_consts
    assert {each for each in constants if isinstance(each, bytes) and each.startswith(b"x-")} <= FORWARDED
