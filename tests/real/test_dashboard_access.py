"""Who gets in to the dashboard, and what it lets nobody do: over real HTTP, with a stand-in for circusd."""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import http.client
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_circusd import FakeCircusd, always, in_turn
from fastapi import FastAPI
from starlette.responses import Response

from xboard_circus.config import load
from xboard_circus.core.logins import LONGEST_WAIT
from xboard_circus.core.reason import with_say
from xboard_circus.dashboard import metrics
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.routes import METRICS_EVERY, create_app
from xboard_circus.dashboard.security import Guarded
from xboard_circus.dashboard.settings import Settings, of_config
from xboard_circus.dashboard.stream import EventStream
from xboard_circus.dashboard.tokens import load as tokens_of
from xboard_circus.dashboard.tokens import load_or_make
from xboard_circus.ledger import LedgerStore, Record
from xboard_circus.worker import server

from .harness import PATIENCE, eventually
from .visitor import Visitor, running, served, state, watcher, worker

SCRIPT = "<script>alert(1)</script>"
OK: dict[str, Any] = {"status": "ok"}
INI = """\
[circus]
endpoint = {endpoint}
multicast_endpoint =

[watcher:web]
cmd = sleep 1000
stderr_stream.class = FileStream
stderr_stream.filename = logs/web.log

[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""
ACTIONS = [
    *("start", "stop", "restart", "reload", "incr", "decr", "start_all", "stop_all", "restart_all", "kill", "replace"),
    *("retry", "add_watcher", "add_server", "remove_server", "reload_config"),
]


@pytest.fixture
def circusd() -> Iterator[FakeCircusd]:
    told = state(
        watcher(
            "web",
            worker(reason=f"{SCRIPT} DB_PASSWORD=hunter2"),
            options={"cmd": "run --api-key hunter2", "smtp_secret": "hunter2"},
        ),
        watcher(SCRIPT, worker(4_000_003, probe={"body": SCRIPT}), armed=False),
    )
    answers = {"xboard_state": always(told), "listsockets": always({"sockets": []}), "stats": always({"infos": {}})}
    with FakeCircusd(
        {**answers, **dict.fromkeys(("stop", "add", "kill", "xboard_replace", "xboard_retry"), always(OK))}
    ) as fake:
        yield fake


@pytest.fixture
def settings(tmp_path: Path, circusd: FakeCircusd) -> Settings:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web.log").write_text(f"one\n{SCRIPT}\npassword=hunter2\n")
    (tmp_path / "secret.txt").write_text("nobody's business")
    (tmp_path / "circus.ini").write_text(INI.format(endpoint=circusd.endpoint))
    return dataclasses.replace(of_config(load(tmp_path / "circus.ini")), poll=0.2, idle=0.2)


@pytest.fixture
def stranger(settings: Settings) -> Iterator[Visitor]:
    """Somebody who is not logged in to a dashboard that has asked circusd already."""
    with served(settings) as visitor:
        yield visitor


@pytest.fixture
def admin(stranger: Visitor, settings: Settings) -> Visitor:
    visitor = Visitor(stranger.port).log_in(settings.folder)
    eventually(lambda: visitor.server()["reachable"])
    return visitor


@pytest.fixture
def reader(stranger: Visitor, settings: Settings, admin: Visitor) -> Visitor:
    return Visitor(stranger.port).log_in(settings.folder, "reader")


# --- without a token ---


@pytest.mark.parametrize(
    "path",
    [
        "/api/state",
        "/api/stream",
        "/api/history",
        "/api/traffic?watcher=web",
        "/api/events",
        "/api/why?watcher=web",
        "/api/reloads?watcher=web",
        "/api/options",
        "/api/logs",
        "/api/logs/web",
        "/api/logs/web/stream",
        "/metrics",
    ],
)
def test_without_a_token_nothing_is_told(stranger: Visitor, path: str) -> None:
    answer = stranger.get(path)

    assert answer.status == 401
    assert b"web" not in answer.body


def test_the_page_itself_is_the_same_for_everybody(stranger: Visitor, admin: Visitor) -> None:
    shown = [each.get(path).text for path in ("/", "/login") for each in (stranger, admin)]

    assert (shown[0], shown[2]) == (shown[1], shown[3])


def test_whether_it_lives_is_told_to_everybody_and_nothing_else(stranger: Visitor) -> None:
    answer = stranger.get("/healthz")

    assert (answer.status, answer.text) == (200, "ok\n")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_nobody_is_told_what_there_is(stranger: Visitor, path: str) -> None:
    assert stranger.get(path).status == 404


def test_without_a_token_nothing_is_done(stranger: Visitor, circusd: FakeCircusd) -> None:
    answers = [stranger.act(action, watcher="web").status for action in ACTIONS]

    assert set(answers) == {401}
    assert "stop" not in circusd.commands()


def test_a_wrong_token_is_refused(stranger: Visitor) -> None:
    answers = [stranger.try_token(token).status for token in ("", "x" * 43, "é")]

    assert answers == [401, 401, 401]


def test_a_changed_session_is_none(admin: Visitor) -> None:
    admin.session = admin.session[:-2] + "00"

    assert admin.get("/api/state").status == 401


def test_a_session_is_no_cookie(stranger: Visitor, settings: Settings) -> None:
    """Given a login, then no cookie is set, and what a cookie says opens nothing: it would go to every port."""
    answer = stranger.try_token(tokens_of(settings.folder).admin)
    session = answer.json["session"]

    assert "set-cookie" not in answer.headers
    names = ("session", "xboard_session", "Authorization", "token")
    cookies = "; ".join(f"{name}={session}" for name in names)
    assert [stranger.get(path, Cookie=cookies).status for path in ("/api/state", "/api/stream", "/metrics")] == [
        401
    ] * 3
    assert stranger.get(f"/api/state?session={session}&token={session}").status == 401


def test_logging_out_makes_the_session_void(admin: Visitor) -> None:
    assert admin.ask("POST", "/logout").status == 200
    assert admin.get("/api/state").status == 401


def test_logging_somebody_else_out_is_refused(admin: Visitor, reader: Visitor) -> None:
    assert Visitor(admin.port).ask("POST", "/logout").status == 401
    assert reader.ask("POST", "/logout").status == 200
    assert admin.get("/api/state").status == 200


# --- a login that is no login ---


@pytest.mark.parametrize(("end", "status"), [("gone", 400), ("silent", 408)])
def test_a_login_that_the_client_does_not_finish_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, end: str, status: int
) -> None:
    """Given a client that goes, or falls silent, before its body has come, then it is refused, with the headers."""
    monkeypatch.setattr("xboard_circus.dashboard.routes.BODY_WITHIN", 0.2 if end == "silent" else 30.0)
    messages = iter([{"type": "http.request", "body": b"tok", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []
    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/login", "headers": headers, "query_string": b""}

    async def receive() -> Any:
        message: Any = next(messages)
        await asyncio.sleep(60 if end == "silent" and message["type"] == "http.disconnect" else 0)
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(settings)(scope, receive, send))

    assert sent[0]["status"] == status
    assert {b"content-security-policy", b"x-content-type-options"} <= {name for name, _ in sent[0]["headers"]}


@pytest.mark.parametrize(
    "body", ["", "token=x", "[]", "[" * 60_000, '{"token": 5}', '{"tokens": ""}', "NaN", '"\\ud800"']
)
def test_a_login_that_is_no_json_is_a_bad_request(
    stranger: Visitor, capfd: pytest.CaptureFixture[str], body: str
) -> None:
    answer = stranger.ask("POST", "/login", body)

    assert answer.status == 400
    assert "content-security-policy" in answer.headers
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_of_our_own_carries_the_policy_as_well(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xboard_circus.dashboard.hub.Hub.state", lambda *_: 1 / 0)
    with served(settings) as visitor:
        answer = visitor.log_in(settings.folder).get("/api/state")

    assert (answer.status, "content-security-policy" in answer.headers) == (500, True)


# --- thousands of tries ---


def test_two_thousand_tries_are_refused_cheaply_and_the_owner_comes_in(settings: Settings) -> None:
    """Given 2,000 wrong tokens from the owner's own address, when they end, then the owner comes in at once."""
    token = load_or_make(settings.folder).admin
    with served(settings) as visitor:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", visitor.port, timeout=60)) as connection:
            used_before = time.process_time()
            counted = Counter(wrong_token(connection, number) for number in range(2000))
            each = (time.process_time() - used_before) / 2000
        limited = visitor.try_token("wrong")
        let_in = visitor.try_token(token)

    assert counted[401] < 30
    assert counted[429] == 2000 - counted[401]
    assert each < 0.005  # processor seconds of server and client together: a render of the page alone would be as much
    assert (limited.status, int(limited.headers["retry-after"]) <= LONGEST_WAIT) == (429, True)
    assert let_in.status == 200


def test_wrong_tokens_from_the_same_address_keep_no_right_token_out(settings: Settings) -> None:
    """Given three threads that send wrong tokens from this host, when the owner logs in, then always at once."""
    token, over = load_or_make(settings.folder).admin, threading.Event()
    refused: Counter[int] = Counter()

    def attack(port: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            while not over.is_set():
                refused[wrong_token(connection, 0)] += 1

    with served(settings) as visitor:
        attackers = [threading.Thread(target=attack, args=(visitor.port,)) for _ in range(3)]
        for attacker in attackers:
            attacker.start()
        eventually(lambda: refused[429] > 100, what="the attackers are limited")
        answers = [visitor.try_token(token).status for _ in range(20)]
        over.set()
        for attacker in attackers:
            attacker.join()

    assert answers == [200] * 20


@pytest.mark.parametrize("forged", ["8.8.{0}.{1}", "8.8.{0}.{1}:5", "8.8.{0}.{1}, 127.0.0.1"])
def test_a_forwarded_address_neither_evades_the_limit_nor_forges_the_record(
    admin: Visitor, circusd: FakeCircusd, forged: str
) -> None:
    """Given no proxy in the ini file, when a client claims other addresses, then its own one counts."""
    answers = [
        admin.try_token("wrong", X_Forwarded_For=forged.format(number // 9, number)).status for number in range(9)
    ]
    body = '{"action": "stop", "watcher": "web"}'

    assert answers.count(429) > 0
    assert admin.ask("POST", "/api/actions", body, X_Forwarded_For=forged.format(8, 8)).status == 200
    assert [each["properties"]["by"] for each in circusd.asked if each["command"] == "stop"] == [
        "dashboard: admin from 127.0.0.1"
    ]


def test_behind_a_proxy_of_the_ini_the_record_names_the_client(settings: Settings, circusd: FakeCircusd) -> None:
    with served(dataclasses.replace(settings, hosts=("ops.example",))) as visitor:
        visitor.log_in(settings.folder)
        eventually(lambda: visitor.server()["reachable"])
        body = '{"action": "stop", "watcher": "web"}'
        visitor.ask("POST", "/api/actions", body, X_Forwarded_For="8.8.8.8")

    assert "dashboard: admin from 8.8.8.8" in [each["properties"].get("by") for each in circusd.asked]


def wrong_token(connection: http.client.HTTPConnection, number: int) -> int:
    connection.request("POST", "/login", f'{{"token": "wrong{number}"}}')
    answer = connection.getresponse()
    answer.read()
    return answer.status


# --- from elsewhere ---


@pytest.mark.parametrize("path", ["/api/state", "/api/actions", "/login", "/logout"])
def test_no_other_site_s_page_may_send_a_session_or_read_an_answer(admin: Visitor, path: str) -> None:
    """Given a page of another origin, when its browser asks whether it may send our header, then it is not told so."""
    asked = {"Origin": "http://127.0.0.1:1", "Access_Control_Request_Headers": "authorization"}
    answers = [
        admin.ask("OPTIONS", path, Access_Control_Request_Method="POST", **asked),
        admin.get(path, **asked),
        admin.ask("POST", path, "{}", **asked),
    ]

    assert answers[0].status == 405
    assert not any(name.startswith("access-control") for each in answers for name in each.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_a_post_changes_anything(admin: Visitor, circusd: FakeCircusd, method: str) -> None:
    for path in ("/api/actions?action=stop&watcher=web", "/logout"):
        assert admin.ask(method, path).status == 405
    assert "stop" not in circusd.commands()
    assert admin.get("/api/state").status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a b", ""])
def test_a_name_that_somebody_points_here_is_refused(admin: Visitor, host: str) -> None:
    for path in ("/", "/login", "/api/state", "/healthz"):
        assert admin.get(path, Host=host).status in (400, 421)


def test_a_name_of_the_ini_is_taken(settings: Settings) -> None:
    with served(dataclasses.replace(settings, hosts=("ops.example",))) as visitor:
        visitor.host = "ops.example"
        assert visitor.log_in(settings.folder).get("/api/state").status == 200


def test_every_answer_carries_the_policy(admin: Visitor) -> None:
    answers = [admin.get(path) for path in ("/", "/login", "/api/state", "/nothing", "/static/main.js", "/healthz")]
    answers += [admin.get("/", Host="evil.example"), admin.act("nothing"), Visitor(admin.port).get("/")]

    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


def test_the_page_has_one_script_inline_known_by_its_hash_and_nothing_from_other_hosts(admin: Visitor) -> None:
    for path in ("/", "/login"):
        answer = admin.get(path)
        own = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in own]
        scripts = re.search(r"script-src ([^;]*);", answer.headers["content-security-policy"])
        assert len(own) == 1
        assert scripts is not None
        assert scripts[1].split() == ["'self'", f"'sha256-{hashes[0]}'"]
        text = answer.text.replace(f"<script>{own[0]}</script>", "")
        assert re.findall(r"<script(?![^>]*(?:src=|application/json))|<style|\son\w+=|\sstyle=|javascript:", text) == []
        assert re.findall(r"(?:src|href|action)=[\"']?(?:https?:)?//", text) == []


# --- what may be asked for ---


@pytest.mark.parametrize("action", ACTIONS)
def test_a_reader_can_only_look(reader: Visitor, circusd: FakeCircusd, action: str) -> None:
    answer = reader.act(action, watcher="web", pid=4_000_002, name="x", cmd="true", endpoint="tcp://h:1", id="s1")

    assert (answer.status, answer.json) == (403, {"ok": False, **with_say(Answer.ONLY_LOOKS(), "message")})
    assert set(circusd.commands()) <= {"xboard_state", "listsockets", "stats"}


@pytest.mark.parametrize(
    "body", ["", "[]", "{", "null", '{"action": 3}', '{"action": "quit"}', '{"action": "__class__"}', "\x00"]
)
def test_what_is_no_action_is_refused(admin: Visitor, body: str) -> None:
    assert admin.ask("POST", "/api/actions", body).status == 400


@pytest.mark.parametrize(
    ("action", "details", "status"),
    [
        pytest.param("stop", {}, 400, id="no watcher"),
        pytest.param("stop", {"watcher": "nobody"}, 404, id="a watcher that there is not"),
        pytest.param("stop", {"watcher": "*"}, 404, id="a pattern"),
        pytest.param("stop", {"watcher": ["web"]}, 400, id="a list"),
        pytest.param("stop", {"watcher": "web", "server": "elsewhere"}, 404, id="a server that there is not"),
        pytest.param("kill", {"watcher": "web", "pid": 1}, 404, id="a process that is no worker"),
        pytest.param("kill", {"watcher": "web", "pid": "1"}, 400, id="no number"),
        pytest.param("kill", {"watcher": "web", "pid": True}, 400, id="no number either"),
        pytest.param("kill", {"watcher": "web", "pid": 4_000_002, "started": 8}, 404, id="another with that pid"),
        pytest.param("replace", {"watcher": SCRIPT, "pid": 4_000_003, "started": 7}, 409, id="a watcher not armed"),
        pytest.param("add_watcher", {"name": "x", "cmd": "true"}, 403, id="adding is off"),
        pytest.param("add_server", {"endpoint": "http://h:1"}, 400, id="no endpoint"),
        pytest.param("add_server", {"endpoint": "inproc://x"}, 400, id="no endpoint of circusd's"),
        pytest.param("add_server", {"endpoint": "tcp://h:1", "label": "a\nb"}, 400, id="no label"),
        pytest.param("remove_server", {"id": "local"}, 404, id="the server beside us"),
    ],
)
def test_what_cannot_be_done_is_told(admin: Visitor, action: str, details: dict[str, Any], status: int) -> None:
    answer = admin.act(action, **details)

    assert (answer.status, answer.json["ok"]) == (status, False)
    assert answer.json["message"]


def test_an_order_says_who_gave_it(admin: Visitor, circusd: FakeCircusd) -> None:
    answer = admin.act("stop", watcher="WEB")

    assert (answer.status, answer.json) == (200, {"ok": True, **with_say(Answer.STOPS(watchers="web"), "message")})
    (sent,) = [each["properties"] for each in circusd.asked if each["command"] == "stop"]
    assert sent.pop("by_say")["key"] == "BY_PAGE"
    assert sent == {"name": "web", "match": "simple", "waiting": False, "by": "dashboard: admin from 127.0.0.1"}


def test_stop_all_is_one_order_that_leaves_circus_s_own_alone(admin: Visitor, circusd: FakeCircusd) -> None:
    assert admin.act("stop_all").status == 200

    (sent,) = [each["properties"] for each in circusd.asked if each["command"] == "stop"]
    assert (sent["match"], re.match(sent["name"], "web") is not None) == ("regex", True)
    assert not any(re.match(sent["name"], name) for name in ("plugin:xboard", "webber", "circushttpd", "dashboard"))


def test_restart_all_is_the_order_under_which_planned_operations_are_measured(
    admin: Visitor, circusd: FakeCircusd
) -> None:
    assert admin.act("restart_all").status == 200

    (sent,) = [each["properties"] for each in circusd.asked if each["command"] == "restart"]
    assert (sent["match"], "name" in sent, "web" in sent["but"]) == ("regex", False, False)


def test_adding_a_watcher_is_possible_where_the_ini_allows_it(settings: Settings, circusd: FakeCircusd) -> None:
    with served(dataclasses.replace(settings, allow_add=True)) as visitor:
        admin = visitor.log_in(settings.folder)
        eventually(lambda: admin.server()["reachable"])
        good: dict[str, Any] = {"name": "extra", "cmd": "sleep 5", "numprocesses": 2, "working_dir": "/srv"}
        wrong: list[dict[str, Any]] = [
            {"name": "a.b"},
            {"name": "../x"},
            {"cmd": "a\nb"},
            {"numprocesses": 1000},
            {"working_dir": "srv"},
        ]

        assert [admin.act("add_watcher", **{**good, **each}).status for each in wrong] == [400] * len(wrong)
        assert admin.act("add_watcher", **good).status == 200
        (sent,) = [each["properties"] for each in circusd.asked if each["command"] == "add"]
        assert sent["options"] == {"numprocesses": 2, "copy_env": True, "working_dir": "/srv"}
        assert (sent["name"], sent["cmd"], sent["start"]) == ("extra", "sleep 5", True)


def test_a_body_that_is_too_large_is_refused(admin: Visitor) -> None:
    assert admin.ask("POST", "/api/actions", " " * 70_000).status == 413


# --- paths ---


@pytest.mark.parametrize(
    "log",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "..%252fsecret.txt",
        "logs/web.log",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "web%00",
        "web/../../secret.txt",
        "dashboard.token",
        "circus.ini",
        "nothing",
    ],
)
def test_a_log_is_chosen_and_never_a_path(admin: Visitor, log: str) -> None:
    for path in (f"/api/logs/{log}", f"/api/logs/{log}/stream", f"/static/{log}", f"/static/../{log}"):
        answer = admin.get(path)
        assert answer.status == 404
        assert b"nobody's business" not in answer.body
        assert b"root:" not in answer.body


def test_a_number_that_nothing_can_have_finds_nothing(admin: Visitor) -> None:
    assert admin.get(f"/api/events?after={'9' * 23}").status < 500
    assert admin.get(f"/api/why?pid={'9' * 23}").status < 500


def test_of_another_host_there_are_no_files(admin: Visitor) -> None:
    paths = ("logs?", "events?", "why?", "history?", "traffic?watcher=web&")
    for path in (f"/api/{each}server=s1" for each in paths):
        assert admin.get(path).status == 404


# --- who is here no more, or is one too many ---


@pytest.mark.parametrize("path", ["/api/stream", "/api/logs/web/stream"])
def test_a_stream_ends_when_its_session_does(admin: Visitor, path: str) -> None:
    with admin.stream(path) as events:
        next(events)
        assert admin.ask("POST", "/logout").status == 200
        began = time.monotonic()

        for _ in events:
            assert time.monotonic() - began < 60


@pytest.mark.parametrize("path", ["/api/stream", "/api/logs/web/stream"])
def test_one_page_too_many_is_refused(settings: Settings, path: str) -> None:
    with served(dataclasses.replace(settings, most_pages=1, most_followed=1)) as visitor:
        visitor.log_in(settings.folder)
        with visitor.stream(path) as events:
            next(events)
            assert visitor.get(path).status == 503

        with contextlib.closing(eventually(lambda: Admitted(visitor, path))):
            pass  # there is room again


@pytest.mark.parametrize("path", ["/api/stream", "/api/logs/web/stream"])
def test_readers_take_no_place_of_an_administrator(settings: Settings, path: str) -> None:
    """Given a reader with as many streams as there may be, when an administrator opens one, then it is served."""
    with served(dataclasses.replace(settings, most_pages=2, most_followed=2)) as visitor:
        visitor.log_in(settings.folder, "reader")
        admin = Visitor(visitor.port).log_in(settings.folder)
        with visitor.stream(path) as first, visitor.stream(path) as second:
            next(first), next(second)
            assert visitor.get(path).status == 503
            with admin.stream(path) as events:
                next(events)


def test_of_clients_that_do_not_read_long_answers_there_are_few(settings: Settings, tmp_path: Path) -> None:
    """Given as many clients of a reader as may have long answers unread, when it asks for one more, then it is refused,
    an administrator is answered, and the reader is when they have gone."""
    web = next(path for path in tmp_path.rglob("web.log"))
    web.write_text(f"{'x' * 4000}\n" * 600)
    path = "/api/logs/web?lines=2000"
    with served(dataclasses.replace(settings, most_followed=2)) as visitor, contextlib.ExitStack() as unread:
        visitor.log_in(settings.folder, "reader")
        admin = Visitor(visitor.port).log_in(settings.folder)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n"
        asked = f"{head}Authorization: Bearer {visitor.session}\r\n\r\n"
        for _ in range(2):
            client = unread.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", visitor.port))
            client.sendall(asked.encode() * 20)

        eventually(lambda: visitor.get(path).status == 503, what="more than the kernel holds is unread")
        assert admin.get(path).status == 200
        unread.close()
        eventually(lambda: visitor.get(path).status == 200)


def test_what_a_reader_lets_the_page_read_takes_two_threads_and_no_administrators_turn(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a reader who asks for a log twelve times at once, then two at a time are read, and an admin's too."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slowly(logs: object, lines: int) -> dict[str, object]:
        begun.release()
        assert go_on.wait(60)
        return {}

    monkeypatch.setattr("xboard_circus.dashboard.log_pages.last_page", slowly)
    with served(settings) as visitor, ThreadPoolExecutor(13) as threads:
        reader, admin = visitor.log_in(settings.folder, "reader"), Visitor(visitor.port).log_in(settings.folder)
        try:
            asked = [threads.submit(reader.get, "/api/logs/web") for _ in range(12)]
            assert all(begun.acquire(timeout=60) for _ in range(2))
            assert not begun.acquire(timeout=1)

            asked.append(threads.submit(admin.get, "/api/logs/web"))
            assert begun.acquire(timeout=60)
            assert admin.get("/api/state").status == 200
        finally:
            go_on.set()
        assert [each.result().status for each in asked] == [200] * 13


def test_the_metrics_of_many_who_scrape_at_once_are_made_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Hub] = []

    def exposition(hub: Hub) -> bytes:
        made.append(hub)
        return b""

    monkeypatch.setattr(metrics, "exposition", exposition)
    with served(settings) as visitor, ThreadPoolExecutor(13) as threads:
        reader = visitor.log_in(settings.folder, "reader")
        began = time.monotonic()
        asked = [threads.submit(reader.get, "/metrics") for _ in range(60)]

        assert {each.result().status for each in asked} == {200}
        assert len(made) <= 1 + (time.monotonic() - began) / METRICS_EVERY


class Admitted:
    """A stream that was not refused; AssertionError where it was."""

    def __init__(self, visitor: Visitor, path: str) -> None:
        self._stack = contextlib.ExitStack()
        next(self._stack.enter_context(visitor.stream(path)))

    def close(self) -> None:
        self._stack.close()


def test_a_body_without_its_length_is_refused(admin: Visitor) -> None:
    headers = {"Host": f"127.0.0.1:{admin.port}", "Authorization": f"Bearer {admin.session}"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin.port, timeout=20)) as connection:
        connection.request("POST", "/api/actions", iter([b'{"action": "stop"}']), headers, encode_chunked=True)

        assert connection.getresponse().status == 411


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_the_connection_of_a_client_that_does_not_read_is_cut_off(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a stream, when its client stops reading, then the connection is dropped with what is held for it."""
    monkeypatch.setattr(server, "STUCK_AFTER", 0.2)
    pytest.importorskip(http)
    app = FastAPI()
    opened, closed = threading.Event(), threading.Event()

    async def flood() -> AsyncGenerator[bytes, None]:
        opened.set()
        try:
            while True:
                yield b"x" * 65_536
                await asyncio.sleep(0)  # as each source of ours waits for something
        finally:
            closed.set()

    @app.get("/")
    async def stream() -> Response:
        return EventStream(flood())

    with (
        running(Guarded(app), server.SheddingServer, http=http) as (serving, port),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert opened.wait(PATIENCE), "the stream is not open"

        eventually(lambda: not serving.server_state.connections, what="the connection is dropped")
        assert closed.wait(PATIENCE), "its source is closed"


# --- what is shown ---


def test_a_script_comes_as_text(admin: Visitor) -> None:
    texts = [admin.get(path) for path in ("/api/state", "/api/logs/web")]

    for answer in texts:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert SCRIPT in texts[0].json["servers"][0]["watchers"][0]["workers"][0]["reason"]
    assert SCRIPT in [each["name"] for each in texts[0].json["servers"][0]["watchers"]]
    assert b"<script" not in texts[0].body
    assert [None, 20, None, SCRIPT] in texts[1].json["lines"]


def test_only_a_held_slot_is_retried(admin: Visitor, circusd: FakeCircusd) -> None:
    """Given a worker that is held and one that is up, when both are to be retried, then circusd gets one order."""
    shown = watcher("web", worker(slot=1), worker(4_000_005, slot=2, phase="held", held_by="cooldown"))
    circusd.answers["xboard_state"] = always(state(shown))
    eventually(lambda: len(admin.watcher()["workers"]) == 2)

    answers = [admin.act("retry", watcher="web", slot=slot) for slot in (1, 2, "2", None)]
    answers.append(admin.act("retry_all", watcher="web"))
    circusd.answers["xboard_state"] = always(state(watcher("web", worker(slot=1))))
    eventually(lambda: len(admin.watcher()["workers"]) == 1)
    answers.append(admin.act("retry_all", watcher="web"))

    assert [each.status for each in answers] == [409, 200, 400, 400, 200, 409]
    assert answers[0].json["message"] == "#1 of web is not held any more"
    assert answers[4].json["message"] == "starts all held workers of web now"
    assert answers[5].json["message"] == "no worker of web is held any more"
    orders = [each["properties"] for each in circusd.asked if each["command"] == "xboard_retry"]
    assert [(order["name"], order.get("slot")) for order in orders] == [("web", 2), ("web", None)]


def test_a_slot_without_a_process_is_none_that_can_be_killed(admin: Visitor, circusd: FakeCircusd) -> None:
    """Given a slot that is held without a process, when pid 0 is to be killed, then circusd gets no order: Circus would
    take that for all of the watcher's."""
    shown = watcher("web", worker(slot=1), worker(0, slot=2, started=None, phase="held", held_by="cooldown"))
    circusd.answers["xboard_state"] = always(state(shown))
    eventually(lambda: len(admin.watcher()["workers"]) == 2)

    answers = [admin.act(what, watcher="web", pid=0) for what in ("kill", "replace")]

    assert [each.status for each in answers] == [404, 404]
    assert [each["command"] for each in circusd.asked if each["command"] in ("kill", "xboard_replace")] == []


def test_secrets_are_masked(admin: Visitor) -> None:
    shown = admin.get("/api/state").text + admin.get("/api/logs/web").text

    assert "hunter2" not in shown
    assert "DB_PASSWORD=***" in shown
    assert admin.watcher()["options"]["cmd"] == "run --api-key ***"


def test_options_are_shown_with_their_places_and_without_secrets(
    reader: Visitor, circusd: FakeCircusd, settings: Settings
) -> None:
    """Given options of circusd and of a watcher, then everybody who is logged in reads them, masked."""
    live = {"numprocesses": 3, "env": {"DB": "hunter2"}, "cmd": "sleep --token hunter2"}
    circusd.answers["options"] = always({**OK, "options": live})
    circusd.answers["globaloptions"] = always({**OK, "options": {"check_delay": 7.0}})
    with (settings.folder / "circus.ini").open("a") as ini:
        ini.write("[env:web]\nSECRET = hunter2\n")

    of_web, of_circusd = (reader.get(f"/api/options{of}").json["options"] for of in ("?watcher=WEB", ""))

    found = {each["name"]: (each["value"], each["place"]) for each in of_web}
    assert found["numprocesses"] == ("3", "in force; the default has 1")
    assert found["environment SECRET"] == ("***", "circus.ini:13")
    assert found["cmd"] == ("run --api-key ***", "in force; circus.ini:6 has sleep 1000")
    assert {"name": "check_delay", "value": "7", "place": "in force; the default has 5"} in of_circusd
    assert {"name": "multicast_endpoint", "value": "", "place": "circus.ini:3"} in of_circusd
    assert "hunter2" not in str([of_web, of_circusd])
    assert reader.get("/api/options?watcher=nobody").status == 404


def test_the_options_of_another_host_s_circusd_are_masked_too(admin: Visitor, circusd: FakeCircusd) -> None:
    live = {"numprocesses": 3, "env": {"DB": "hunter2"}, "cmd": "sleep --token hunter2", "hooks.x": "a.b"}
    with FakeCircusd({**circusd.answers, "options": always({**OK, "options": live})}) as other:
        assert admin.act("add_server", endpoint=other.endpoint, label="other").status == 200
        found = next(each for each in admin.get("/api/state").json["servers"] if each["label"] == "other")
        eventually(lambda: admin.server(found["id"])["reachable"])

        rows = admin.get(f"/api/options?server={found['id']}&watcher=web").json["options"]

    assert {each["name"]: each["value"] for each in rows} == {
        "numprocesses": "3",
        "env": "***",
        "cmd": "sleep --token ***",
        "hooks.x": "a.b",
    }


def test_the_configuration_is_reloaded_or_the_refusal_shown(admin: Visitor, circusd: FakeCircusd) -> None:
    circusd.answers["reloadconfig"] = in_turn(OK, {"status": "error", "reason": "circus.ini has errors", "errno": 2})

    done, refused = admin.act("reload_config"), admin.act("reload_config")

    assert (done.status, refused.status) == (200, 409)
    assert "circus.ini has errors" in refused.text


def test_what_is_not_seen_or_turns_text_around_is_shown_as_a_question_mark(
    admin: Visitor, circusd: FakeCircusd, settings: Settings
) -> None:
    """Given names and lines with direction and zero-width characters, when the page has them, then as ? each."""
    (settings.folder / "logs" / "web.log").write_text("GET /photo_\u202egpj.exe\u200b\x1b[31m\r\n")
    circusd.answers["xboard_state"] = always(state(watcher("web", worker(reason="taken by \u2067xnign\u2069"))))

    eventually(lambda: admin.watcher()["workers"][0]["reason"] == "taken by ?xnign?")
    assert [row[3] for row in admin.get("/api/logs/web").json["lines"]] == ["GET /photo_?gpj.exe?\x1b[31m"]


def test_a_log_is_followed(admin: Visitor, settings: Settings) -> None:
    with admin.stream("/api/logs/web/stream") as events, (settings.folder / "logs" / "web.log").open("a") as log:
        assert next(events) == ("begun", None)  # from here on what is written is new
        log.write(f"{SCRIPT} token=hunter2\n")
        log.flush()
        name, data = next(each for each in events if each[0])
        assert (name, data["lines"]) == ("lines", [[None, 20, None, f"{SCRIPT} token=***"]])


def test_the_middle_of_a_flood_is_left_out_and_told_beside_the_log(admin: Visitor, settings: Settings) -> None:
    with admin.stream("/api/logs/web/stream") as events:
        next(events)
        with (settings.folder / "logs" / "web.log").open("ab", buffering=0) as log:  # all of it at once
            log.write("".join(f"number {number}\n" for number in range(5000)).encode())

        told = next(data for name, data in events if name == "note")
        last = next(row for name, data in events if name == "lines" and (row := data["lines"][-1])[3] == "number 4999")

    assert told["reason"] == f"[{told['left_out']} lines left out: more than a page can show]"
    assert last == [None, 20, None, "number 4999"]


# --- behind a proxy ---


@pytest.mark.parametrize("prefix", ["", "/ops"], ids=["cut off by the proxy", "left on"])
def test_the_page_works_below_a_prefix(settings: Settings, prefix: str) -> None:
    with served(dataclasses.replace(settings, root_path="/ops")) as visitor:
        visitor.root = prefix
        admin = visitor.log_in(settings.folder)

        assert [admin.get(path).status for path in ("/", "/login")] == [200, 200]
        assert admin.get("/api/state").status == 200
        assert admin.get("/static/main.js").status == 200
        assert admin.act("stop_all").status in (200, 409)


def test_the_prefix_without_its_slash_leads_to_the_page(settings: Settings) -> None:
    with served(dataclasses.replace(settings, root_path="/ops")) as visitor:
        answer = visitor.get("/ops")

    assert (answer.status, answer.headers["location"]) == (308, "/ops/")


def test_uvicorn_s_own_prefix_does_as_well(settings: Settings) -> None:
    with served(settings, root_path="/ops") as visitor:
        assert visitor.get("/ops").headers["location"] == "/ops/"
        assert visitor.log_in(settings.folder).get("/api/state").status == 200


def test_no_secret_of_the_ledger_is_shown(admin: Visitor, settings: Settings) -> None:
    told = Record(
        time=time.time(),
        watcher="web",
        kind="restart",
        pid=7,
        cause="crash",
        reason="exited: password=hunter2",
        data={"log": "API_TOKEN=hunter2\n", "lived": 1.0, "by": "ops token=hunter2"},
    )
    with contextlib.closing(LedgerStore(settings.folder / "ledger.db")) as store:
        store.append([told])

    events, why = admin.get("/api/events").text, admin.get("/api/why?watcher=web").text

    assert "exited" in events
    assert "exited" in why
    assert "hunter2" not in events + why


def test_no_secret_in_a_refusal_of_circusd_is_shown(admin: Visitor, circusd: FakeCircusd) -> None:
    circusd.answers["stop"] = always({"status": "error", "reason": "no: DB_PASSWORD=hunter2", "errno": 2})

    answer = admin.act("stop", watcher="web")

    assert answer.status >= 400
    assert "DB_PASSWORD" in answer.text
    assert "hunter2" not in answer.text


# --- the start ---


def test_who_is_ready_knows_what_circusd_tells(settings: Settings, circusd: FakeCircusd) -> None:
    """Given a circusd that takes a moment, when the page is first seen, then with figures: an older one had them."""
    told = circusd.answers["xboard_state"]

    def slowly(asked: dict[str, Any]) -> Any:
        time.sleep(0.3)
        return told(asked)

    circusd.answers["xboard_state"] = slowly
    with served(settings) as visitor:
        visitor.log_in(settings.folder)

        assert (visitor.server()["error"], visitor.server()["circusd"]["pid"]) == (None, 4_000_001)


def test_a_circusd_that_is_silent_does_not_keep_the_page_from_starting(
    settings: Settings, circusd: FakeCircusd
) -> None:
    circusd.answers["xboard_state"] = lambda asked: None
    with served(dataclasses.replace(settings, deadline=20)) as visitor:
        visitor.log_in(settings.folder)

        assert (visitor.server()["error"], visitor.server()["reachable"]) == ("not polled yet", False)
