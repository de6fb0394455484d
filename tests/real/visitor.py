"""Who visits the dashboard: a small client that keeps its session, and a dashboard of a test's own to visit."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from xboard_circus.core.state_schema import ProbeFigures
from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import Settings
from xboard_circus.dashboard.tokens import Role, load

from .harness import Watcher, eventually

APP = "xboard_circus.dashboard.served:app"


def page(**changes: Any) -> Watcher:
    """The dashboard as a watcher, as circus.ini has it."""
    options: dict[str, object] = {
        "graceful_timeout": 8,
        "health.live_path": "/healthz",
        "health.ready_path": "/healthz",
        **changes.pop("options", {}),
    }
    arguments = "--timeout-graceful-shutdown 3"
    return Watcher(name="dashboard", numprocesses=1, app=APP, arguments=arguments, options=options, **changes)


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visitor:
    """A browser as far as the server can tell; each request is a connection of its own."""

    port: int
    host: str = "127.0.0.1"
    root: str = ""
    session: str = ""

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """Send one request; header names have _ for -."""
        began = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            sent = {
                "Host": f"{self.host}:{self.port}",
                **{key.replace("_", "-"): value for key, value in headers.items()},
            }
            if self.session:
                sent["Authorization"] = f"Bearer {self.session}"
            # None sends no Content-Length, as a browser's GET does not.
            connection.request(method, self.root + path, body.encode() if method == "POST" else None, sent)
            answer = connection.getresponse()
            content = answer.read()
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, told, content, time.monotonic() - began)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def log_in(self, folder: Path, role: Role = "admin") -> "Visitor":
        """Log in with the token in *folder*, as the link of the command line does."""
        tokens = load(folder)
        answer = self.try_token(tokens.admin if role == "admin" else tokens.reader)
        assert answer.status == 200, answer
        self.session = answer.json["session"]
        return self

    def try_token(self, token: str, **headers: str) -> Answer:
        return self.ask("POST", "/login", json.dumps({"token": token}), **headers)

    def act(self, action: str, **details: Any) -> Answer:
        """Send an action as the page does."""
        body = json.dumps({"action": action, "server": "local", **details})
        return self.ask("POST", "/api/actions", body)

    def done(self, action: str, **details: Any) -> str:
        """Have something done that circusd may be too busy for at first."""

        def accepted() -> Answer | None:
            answer = self.act(action, **details)
            return answer if answer.status == 200 else None

        return str(eventually(accepted, what=f"{action} is accepted").json["message"])

    def server(self, server_id: str = "local") -> dict[str, Any]:
        """What the page is shown of one circusd."""
        for each in self.get("/api/state").json["servers"]:
            if each["id"] == server_id:
                return dict(each)
        raise LookupError(f"no server {server_id}")

    def watcher(self, name: str = "web") -> dict[str, Any]:
        for each in self.server()["watchers"]:
            if each["name"] == name:
                return dict(each)
        raise LookupError(f"no watcher {name}")

    @contextlib.contextmanager
    def stream(self, path: str = "/api/stream") -> Iterator[Iterator[tuple[str, Any]]]:
        """Open a stream of events; yields (name, data) of each, and ("", None) for one that only says it is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Host": f"{self.host}:{self.port}", "Authorization": f"Bearer {self.session}"}
            connection.request("GET", self.root + path, headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield _events(answer)
        finally:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    while line := answer.readline():
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if line.startswith(b":"):
            yield "", None
        elif key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


@contextlib.contextmanager
def served(settings: Settings, *, clock: Callable[[], float] = time.monotonic, **uvicorns: Any) -> Iterator[Visitor]:
    """Serve a dashboard in a thread; yields somebody who is not logged in."""
    with running(create_app(settings, clock=clock), **uvicorns) as (_, port):
        yield Visitor(port)


@contextlib.contextmanager
def running(
    app: Any, server_class: type[uvicorn.Server] = uvicorn.Server, **uvicorns: Any
) -> Iterator[tuple[uvicorn.Server, int]]:
    """Run uvicorn in a thread; yields it and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=1, **uvicorns
        )
        server = server_class(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started, what="the dashboard has started")
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(90)


def state(*watchers: dict[str, Any]) -> dict[str, Any]:
    """What a circusd tells that is not on this host, so that nothing is measured."""
    circusd = {"pid": 4_000_001, "started": 1, "version": "0", "endpoint": "tcp://h:1", "uptime": 3.0}
    return {"circusd": circusd, "probers": [], "watchers": list(watchers)}


def watcher(name: str = "web", *workers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    plain = unarmed_watcher(name=name, status="active", numprocesses=1, options={}, workers=[])
    told = {"armed": True, "probe": "private", "budget": {"used": 0, "limit": 5}, "workers": list(workers)}
    return {**plain, **told, **changes}


def worker(pid: int = 4_000_002, **changes: Any) -> dict[str, Any]:
    plain = unarmed_worker(pid=pid, started=7, wid=1, leaves=False, age=3.0)
    probe = {**dict.fromkeys(ProbeFigures.__annotations__), "latency": 0.001, "rss": 8_000_000}
    return {**plain, "health": "ok", "ready": True, "ready_for": 2.0, "latency": 0.001, "probe": probe, **changes}
