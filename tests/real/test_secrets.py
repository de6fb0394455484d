"""What clients and configuration hold secret is found nowhere in what we record, show or send."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import websockets.sync.client

from .alert_servers import HookServer, hook_server
from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .processes import open_files
from .test_alerts import QUICK, secret
from .test_dashboard import opened
from .test_why import why
from .visitor import Visitor, page

PLANTED: dict[str, str] = {}


def plant(where: str) -> str:
    """Return a new secret, and note where it is hidden."""
    return PLANTED.setdefault(where, f"Zq{len(PLANTED):02}-{os.urandom(4).hex()}-K7")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


QUERY = f"q={plant('a query value')}&token={plant('a token in a query')}&cc=4111-{plant('a card in a query')}"
COOKIES = f"theme=dark; sid={plant('a cookie')}; csrftoken={plant('a second cookie')}"
PLANTED["basic authorization, encoded"] = basic("app", plant("basic authorization")).removeprefix("Basic ")
HEADERS = {
    "Authorization": f"Bearer {plant('bearer')}",
    "Proxy-Authorization": basic("app", PLANTED["basic authorization"]),
    "X-API-Key": plant("X-API-Key"),
    "X-Auth-Token": plant("X-Auth-Token"),
    "X-Amz-Security-Token": plant("X-Amz-Security-Token"),
    "X-Tenant": plant("a header of the app's own"),
    "User-Agent": f"curl {plant('a user agent')}",
    "Referer": f"http://app:{plant('basic auth in a Referer')}@x/?back={plant('a query in a Referer')}",
    "Cookie": COOKIES,
}
FORM = f"user=ann&password={plant('a password in a form')}&note={plant('a field of a form')}"
DOCUMENT = json.dumps({"password": plant("a password in a body"), "note": plant("a note in a body")})
MULTIPART = (
    f'--x\r\nContent-Disposition: form-data; name="f"; filename="{plant("the name of a file")}"\r\n\r\n'
    f"{plant('a file')}\r\n--x--\r\n"
)
MESSAGES = [
    f"OperationalError: connection to postgresql://app:{plant('a URL in a message')}@db/x failed",
    f"LoginError: user='app' password='{plant('a password in a message')}'",
    f"KeyError: {{'api_key': '{plant('a key in a message')}', 'n': 1}}",
    f"no session for cookie: theme=dark; sid={plant('a cookie in a message')}",
    f"who knows {plant('a variable of the watcher in a message')} and {plant('an env file in a message')}?",
]
ENV = {"DB_PASSWORD": PLANTED["a variable of the watcher in a message"], "STRIPE_SECRET": plant("the watcher's [env:]")}
ENV_FILE = f"API_KEY={PLANTED['an env file in a message']}\nDSN=db://app:{plant('a URL in the env file')}@db/x\n"
LIVE_PATH = f"/answers?key={plant('the path of a probe')}"
HOOK_PATH = f"/services/T0/{plant('the address of a webhook')}?sign={plant('the query of a webhook')}"


def send(
    c: Circusd, stack: contextlib.ExitStack, target: str, body: str = DOCUMENT, kind: str = "application/json"
) -> None:
    """Send a request to *target* with all secrets that fit, and wait for no answer."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", c.watchers["web"].port), 30))
    headers = {"Host": "x", **HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"POST {target}?{QUERY} HTTP/1.1\r\n{head}\r\n{body}".encode())


@contextlib.contextmanager
def backend(folder: Path, hook: HookServer) -> Iterator[Circusd]:
    (folder / "web.env").write_text(ENV_FILE)
    web = Watcher(
        app="secretive_app:app",
        numprocesses=1,
        arguments="--access-log",
        options={
            **FAST_RESTARTS,
            "health.live_path": LIVE_PATH,
            "health.ready_path": "/ready",
            "health.period": 0.3,
            "health.timeout": 3,
            "health.failure_threshold": 3,
            "request.slow": 1,
            "worker.env_file": "web.env",
        },
        env={**ENV, "MESSAGES": json.dumps(MESSAGES)},
    )
    with circusd(folder, watchers=[web, page()], plugins=BUNDLE, check_delay=1, start=False) as c:
        url, signing = secret(folder, "url", hook.url + HOOK_PATH), secret(folder, "key", plant("a signing key"))
        section = {"type": "webhook", "url_file": url, "secret_file": signing, "timeout": 1}
        section["on"] = "restart, unhealthy"
        otlp = {
            f"alert__{kind}": {
                "type": "otlp",
                "url_file": secret(folder, f"otlp-{kind}", f"{hook.url}/{plant(f'the address of {kind}')}/v1/{kind}"),
                "min_severity": "info",
            }
            for kind in ("traces", "logs")
        }
        c.write_ini(alert__hook=section, plugin__xboard=QUICK, **otlp)
        c.start_again()
        yield c


def up(c: Circusd) -> int:
    eventually(lambda: c.words() == ["up"], what="the worker is up")
    return c.workers()[0]


def memory_of_requests(c: Circusd) -> Iterator[bytes]:
    """Yield the memory in which each worker notes its requests."""
    for descriptor, what in open_files(c.pid).items():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "xboard-requests" in what:
                yield Path(f"/proc/{c.pid}/fd/{descriptor}").read_bytes()


COMMANDS = ("status --json", "requests", "requests --json", "events --json")
MORE = ("status", "why", "why web --json", "events", "logs -n 1000", "alerts list", "check", "check --json", "doctor")


def shown_by(c: Circusd, visitor: Visitor, *more: str) -> dict[str, bytes]:
    """Return everything that we show of this circusd, by who shows it, and what *more* commands print.

    Not what circusd answers those who may command it: Circus's own `options` has the whole environment.
    """
    shown = {}
    for command in (*COMMANDS, *more):
        done = c.run_cli(*command.split())
        shown[command] = (done.stdout + done.stderr).encode()
    shown["xboard_events"] = json.dumps(c.call("xboard_events", after=0)).encode()
    shown["xboard_requests"] = json.dumps(c.call("xboard_requests")).encode()
    shown["bus"] = repr(c.events.all()).encode()
    paths = ["/api/state", "/api/events?limit=1000", "/api/why", "/api/why?watcher=web", "/api/logs", "/api/history"]
    paths += ["/api/traffic?watcher=web", "/metrics"]
    paths += [f"/api/logs/{each['id']}?lines=1000" for each in visitor.get("/api/logs").json["files"]]
    for path in paths:
        answer = visitor.get(path)
        assert answer.status == 200, (path, answer)
        shown[path] = answer.body
    return shown


def files_of(c: Circusd) -> dict[str, bytes]:
    """Return what is in our files: ledger, history, our logs and the runtime folder; not the app's own log."""
    found = [*c.folder.glob("*.db*"), *(c.folder / "logs").iterdir(), *c.runtime.rglob("*")]
    files = {}
    for each in found:
        with contextlib.suppress(FileNotFoundError):  # circusd goes on
            if each.is_file() and each.name != "web.log":
                files[str(each)] = each.read_bytes()
    return files


def leaks(found: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Return which secret is where, with what stands around it; the app's own log has whole paths."""
    return [
        (where, by, data[max(0, data.index(value.encode()) - 80) :][:160].decode(errors="replace"))
        for by, data in found.items()
        for where, value in PLANTED.items()
        if value.encode() in data and not ("logs" in by and where.startswith("a path"))
    ]


def test_no_secret_is_recorded_shown_or_sent(tmp_path: Path) -> None:
    """Given secrets in requests, messages, environment, options and addresses, when requests are slow, hang, fail and
    kill their worker, then none is in the record's memory, the files, the page, the logs, an answer or an alert."""
    with hook_server("500", "302") as hook, backend(tmp_path, hook) as c, contextlib.ExitStack() as stack:
        visitor = opened(c)
        pid = up(c)
        send(c, stack, f"/waits/{plant('a path of a route')}")
        send(c, stack, f"/waits/{PLANTED['a path of a route']}", FORM, "application/x-www-form-urlencoded")
        target = f"http://app:{plant('basic auth in a target')}@x/waits/1"
        send(c, stack, target, MULTIPART, "multipart/form-data; boundary=x")
        send(c, stack, f"/reset/{plant('a path of no route')}/confirm")
        port = c.watchers["web"].port
        client = stack.enter_context(
            websockets.sync.client.connect(
                f"ws://127.0.0.1:{port}/ws/{plant('a path of a WebSocket')}?q={plant('a query of a WebSocket')}",
                subprotocols=[plant("a subprotocol of a WebSocket")],  # type: ignore[list-item]
                additional_headers={"Authorization": HEADERS["Authorization"]},
            )
        )
        client.send(plant("a message of a WebSocket"))
        assert client.recv() == "taken"
        eventually(lambda: c.told("slow_request"), what="a slow request is reported")
        memory = {f"memory {number}": data for number, data in enumerate(memory_of_requests(c))}
        assert any(b"/waits/" in each for each in memory.values())
        in_flight = shown_by(c, visitor)
        assert b"POST /waits/{token}" in in_flight["requests"]

        send(c, stack, "/hangs/" + PLANTED["a path of a route"])
        record, text = why(c, pid)
        assert record["data"]["requests"][0]["route"] == "/hangs/{token}", text
        assert "in hangs" in text
        hung = shown_by(c, visitor)

        pid = up(c)
        send(c, stack, f"/fails/{PLANTED['a path of a route']}")
        eventually(lambda: "rejected ?" in c.log(), what="the app has failed")
        eventually(lambda: c.worker(pid)["ready"] is False, what="its ready path has failed")
        with contextlib.suppress(OSError):
            c.get("/exits")
        record, text = why(c, pid)
        assert record["data"]["exit_code"] == 7, text
        assert "LoginError" in text
        assert "does not take ***" in text

        def kinds() -> set[str]:
            return {json.loads(got.body)["kind"] for got in hook.taken if got.path == HOOK_PATH}

        eventually(lambda: {"restart", "unhealthy"} <= kinds())
        for end in ("/v1/traces", "/v1/logs"):

            def is_exported() -> bool:
                return any(got.path.endswith(end) and b"GET /exits" in got.body for got in hook.taken)  # noqa: B023

            eventually(is_exported)
        eventually(lambda: any(b"LoginError" in each.read_bytes() for each in tmp_path.glob("ledger.db*")))
        died = shown_by(c, visitor, *MORE)
        alerts = {f"alert {at}": got.body + str(got.headers).encode() for at, got in enumerate(hook.got)}
        files = files_of(c)

    assert len(PLANTED) >= 30
    assert {"ledger.db", "ledger-history.db"} <= {Path(each).name for each in files}
    found = leaks({**memory, **in_flight}) + leaks(hung) + leaks({**died, **files, **alerts})
    assert not found, "\n".join(map(str, found))
