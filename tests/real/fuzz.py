"""Send random requests to everything that a stranger or a client can reach.

From the checkout: ``.venv/bin/python -m tests.real.fuzz --requests 20000``.

The targets are the page (without a session, as a reader, as an administrator), the workers' private sockets, circusd's
endpoint and its event bus, and the sample app. The seed is printed first, and the same seed sends the same requests. No
answer may be a 5xx, no log may have a traceback, no process may have ended, and circusd has to answer; otherwise it
ends with 1 and prints the requests since the last look. ``--write`` puts the result into docs/security.md and its twin.

No request may end a process: an order that circusd or the page would carry out names no real watcher.
"""

import argparse
import json
import os
import re
import select
import socket
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import zmq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from xboard_circus.dashboard.tokens import load

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually
from .processes import script_folder

LOOK_EVERY = 100
ANSWER_WITHIN = 20.0
MOMENT = 0.1
PAGE = "xboard_circus.dashboard.served:app"
MARKS = "<!-- [fuzz] -->\n", "<!-- [end of fuzz] -->"
HEALTH = {"health.live_path": "/health/live", "health.ready_path": "/health/ready"}
OUR_COMMANDS = ("state", "report", "replace", "reload", "retry", "event", "events", "nosuch")
HARMLESS = ("dstats", "get", "globaloptions", "list", "listsockets", "numprocesses", "numwatchers", "options", "stats")
ON_A_NAME = ("decr", "incr", "kill", "reload", "restart", "rm", "set", "signal", "start", "stop", "status")

# Requests

texts = st.text(max_size=40) | st.sampled_from(
    ["", "web", "\0", "..", "%00", "a" * 5000, "\u202e", "\ud800", "1e999", "*"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
# No watcher has such a name: only these get requests that would end a worker.
no_watcher = junk.filter(lambda it: str(it).strip().lower() not in ("web", "page", "plugin:xboard", "*", "", "none"))
documents = junk.map(lambda it: json.dumps(it).encode("utf-8", "surrogatepass"))
blobs = st.binary(max_size=200) | documents | st.just(b"[" * 50_000) | st.just(b"x" * 70_000)
segments = texts.map(lambda it: quote(it.encode("utf-8", "surrogatepass"), safe="")) | st.text(
    "/.%?#;&=\\:@ é", max_size=9
)
methods = st.sampled_from(
    ["GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get", "TRACE", "X"]
)
header_names = [
    "Host",
    "Cookie",
    "Authorization",
    "Accept-Language",
    "X-Forwarded-For",
    "Range",
    "Content-Type",
    "Origin",
]
header_names += ["Transfer-Encoding", "Content-Length", "Expect", "Upgrade", "If-Modified-Since", "Accept", "X"]
odd_values = [
    b"chunked",
    b"0-",
    b"bytes=0-0,-1,5-",
    b"100-continue",
    b"websocket",
    b"-1",
    b"9" * 50,
    b"application/json",
]
odd_values += [b"Bearer x", b"zh;q=x", b"xboard_language=\xff", b"127.0.0.1:1"]
values = st.binary(max_size=30) | st.sampled_from(odd_values)
headers: st.SearchStrategy[Any] = (
    st.just([]) | st.just([]) | st.lists(st.tuples(st.sampled_from(header_names), values), max_size=2)
)


def paths(*known: str) -> st.SearchStrategy[str]:
    """Return addresses: known ones, with anything in place of each ``{}``, with anything after them."""
    filled = st.tuples(st.sampled_from(known), segments).map(lambda it: it[0].replace("{}", it[1]))
    queries = st.dictionaries(st.sampled_from(["limit", "offset", "after", "watcher", "pid", "server", "lines"]), texts)
    asked = queries.map(lambda it: f"?{urlencode(it, errors='surrogatepass')}" if it else "")
    return st.tuples(filled, st.sampled_from(["", "", "", "/", "x"]) | segments, asked).map("".join)


def http(known: st.SearchStrategy[str], bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(methods, known, headers, bodies)


PAGE_ACTIONS = (
    *("start", "stop", "restart", "reload", "incr", "decr", "kill", "retry", "replace"),
    *("add_watcher", "add_server", "remove_server", "nosuch"),
)
orders = st.fixed_dictionaries(
    {"action": st.sampled_from(PAGE_ACTIONS) | junk},
    optional={
        **dict.fromkeys(("watcher", "server", "name"), no_watcher),
        **dict.fromkeys(
            ("pid", "slot", "started", "numprocesses", "label", "id", "cmd", "working_dir", "reason"), junk
        ),
        "endpoint": junk | st.just("tcp://127.0.0.1:1"),
    },
)
page_requests: st.SearchStrategy[Any] = http(
    paths(*("/", "/login", "/logout", "/healthz", "/metrics", "/static/{}", "/api/{}", "/{}", "/api/logs/{}"))
    | paths(*("/api/state", "/api/history", "/api/events", "/api/why", "/api/logs", "/api/logs/web", "/api/actions")),
    blobs | documents | orders.map(lambda it: json.dumps(it).encode("utf-8", "surrogatepass")),
) | st.tuples(st.just("POST"), st.just("/api/actions"), st.just([]), orders.map(lambda it: json.dumps(it).encode()))
app_requests = http(
    paths("/", "/boards", "/boards/{}", "/uploads", "/uploads/{}", "/health", "/docs", "/openapi.json", "/{}"),
    blobs
    | st.fixed_dictionaries({"name": junk}, optional={"description": junk}).map(lambda it: json.dumps(it).encode()),
)
private_requests = st.binary(max_size=300) | st.tuples(
    st.sampled_from(["GET /-/worker", "POST /-/serve", "POST /-/handover", "GET /-/serve", "X", "GET /"]),
    st.dictionaries(st.sampled_from(["live", "ready", "timeout", "instance"]), texts | st.sampled_from(["/", "1"])),
    st.sampled_from([" HTTP/1.0\r\n\r\n", "\r\n\r\n", "\r\n", "\n\n", " HTTP/1.0\r\nx: " + "y" * 9000 + "\r\n\r\n"]),
).map(lambda it: f"{it[0]}?{urlencode(it[1], errors='surrogatepass')}{it[2]}".encode())
_NAMES = ("plugin", "pid", "started", "workers", "kind", "probed_at", "reason", "slot", "event", "by", "by_say", "say")
anything = st.dictionaries(
    st.sampled_from((*_NAMES, "name", "after", "state", "cause", "wid", "waiting")) | texts, junk
)
reports = st.fixed_dictionaries(
    {"plugin": junk, "pid": junk, "started": junk, "workers": junk}
) | st.fixed_dictionaries(
    {
        "name": st.just("web"),
        "event": st.sampled_from(["unhealthy", "recovered", "restart", "cooldown"]),
        "reason": junk,
    },
    optional=dict.fromkeys(("pid", "wid", "cause", "say"), junk),
)
no_name = {"name": no_watcher}
commands = (
    st.tuples(
        st.sampled_from(OUR_COMMANDS).map("xboard_{}".format), st.tuples(anything, st.fixed_dictionaries(no_name))
    )
    | st.tuples(st.sampled_from(["xboard_report", "xboard_event"]), st.tuples(reports, st.just({})))
    | st.tuples(st.sampled_from(HARMLESS), st.tuples(anything, st.just({})))
    | st.tuples(st.sampled_from(ON_A_NAME), st.tuples(anything, st.fixed_dictionaries(no_name)))
)
messages = (
    st.lists(blobs, max_size=3)
    | documents.map(lambda it: [it])
    | st.fixed_dictionaries({}, optional={"command": texts, "properties": junk, "id": junk, "msg_type": junk}).map(
        lambda it: [json.dumps(it).encode()]
    )
    | st.tuples(commands, junk).map(
        lambda it: [
            json.dumps({"command": it[0][0], "properties": {**it[0][1][0], **it[0][1][1]}, "id": it[1]}).encode()
        ]
    )
)


class Harm(Exception):
    """A forbidden finding in an answer, a log or a process."""


class Fuzz:
    """One circusd with the page and the sample app, and the requests to each target."""

    def __init__(self, c: Circusd) -> None:
        self.c = c
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self._sent: deque[tuple[str, Any]] = deque(maxlen=LOOK_EVERY)
        self._read: dict[Path, int] = {}
        self._sessions: dict[str, str] = {}
        self._context = zmq.Context()
        self._endpoint = self._context.socket(zmq.DEALER)
        self._endpoint.connect(c.endpoint)
        self._alive = self._processes()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def send(self, target: str, what: Any) -> None:
        """Send one request; raise Harm for a forbidden answer."""
        self.counts[target] += 1
        self._sent.append((target, what))
        TARGETS[target][1](self, what)
        if self.counts.total() % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Raise Harm if a log has a traceback, a process has ended or circusd does not answer."""
        # After all that this socket has sent, so that circusd has read that.
        self._endpoint.send(b'{"command": "xboard_state", "id": "last"}')
        deadline = time.monotonic() + ANSWER_WITHIN
        while True:
            if not self._endpoint.poll(int(max(0.0, deadline - time.monotonic()) * 1000)):
                raise Harm("circusd does not answer")
            with suppress(ValueError):
                answer = json.loads(self._endpoint.recv_multipart()[-1])
                if answer.get("id") == "last":
                    break
        alive = self._processes()
        if alive != self._alive:
            raise Harm(f"processes before {self._alive}, now {alive}")
        for path in sorted((self.c.folder / "logs").iterdir()):
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                fresh = log.read()
                self._read[path] = log.tell()
            if b"Traceback" in fresh:
                raise Harm(f"a traceback in {path.name}:\n{fresh.decode(errors='replace')[-6000:]}")

    def report(self) -> str:
        """Return the requests since the last look."""
        return "\n".join(f"{target}: {what!r:.2000}" for target, what in self._sent)

    def _processes(self) -> dict[str, list[int]]:
        names = self.c.call("list", timeout=ANSWER_WITHIN)["watchers"]
        pids = {name: sorted(self.c.call("list", timeout=ANSWER_WITHIN, name=name)["pids"]) for name in names}
        return {**pids, "circusd": [self.c.pid]}

    def http(self, name: str, request: tuple[Any, ...], bearer: str = "") -> None:
        method, target, given, body = request
        lines = [("Host", b"127.0.0.1"), ("Content-Length", b"%d" % len(body)), ("Connection", b"close")]
        wanted = dict([*lines, *given])
        if bearer:
            wanted["Authorization"] = f"Bearer {bearer}".encode()
        head = b"".join(b"%s: %s\r\n" % (key.encode(), value) for key, value in wanted.items())
        start = f"{method} {target} HTTP/1.1\r\n".encode("utf-8", "surrogatepass")
        where = ("127.0.0.1", self.c.watchers[name].port)
        answer = self._talk(socket.create_connection(where), start + head + b"\r\n" + body, moment=MOMENT, first=True)
        status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
        self.statuses[status[1].decode() if status else "none"] += 1
        if status and status[1] >= b"500":
            raise Harm(f"{name} answered {answer[:500]!r}")

    def _talk(self, connection: socket.socket, request: bytes, *, moment: float = 0, first: bool = False) -> bytes:
        """Return the answer to some bytes, or its *first* part; a partial request ends after a *moment*."""
        with connection, suppress(ConnectionError):
            connection.settimeout(ANSWER_WITHIN)
            connection.sendall(request)
            if not select.select([connection], [], [], moment)[0]:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65_536)
            while not first and (more := connection.recv(65_536)):
                answer += more
            return answer
        return b""

    def page(self, role: str, request: tuple[Any, ...]) -> None:
        if role not in self._sessions:
            token = getattr(load(self.c.folder), role)
            url = f"{self.c.url_of('page')}/login"
            with urllib.request.urlopen(url, json.dumps({"token": token}).encode(), timeout=ANSWER_WITHIN) as answer:
                self._sessions[role] = json.load(answer)["session"]
        self.http("page", request, self._sessions[role])
        if "logout" in request[1]:
            del self._sessions[role]

    def private(self, request: bytes) -> None:
        sockets = sorted(self.c.runtime.rglob("*.sock"))
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.fspath(sockets[self.counts["private"] % len(sockets)]))
        answer = self._talk(connection, request)
        if answer.startswith(b"HTTP/1.0 5"):
            raise Harm(f"a private socket answered {answer[:500]!r}")

    def command(self, frames: list[bytes]) -> None:
        self._endpoint.send_multipart(frames or [b""])
        while self._endpoint.poll(0):
            self._endpoint.recv_multipart()

    def bus(self, topic: bytes) -> None:
        with self._context.socket(zmq.XSUB) as subscriber:
            subscriber.connect(self.c.pubsub)
            subscriber.send(topic)


TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Fuzz, Any], None]]] = {
    "page": (page_requests, lambda it, what: it.http("page", what)),
    "page as reader": (page_requests, lambda it, what: it.page("reader", what)),
    "page as administrator": (page_requests, lambda it, what: it.page("admin", what)),
    "sample app": (app_requests, lambda it, what: it.http("web", what)),
    "private sockets": (private_requests, Fuzz.private),
    "circusd": (messages, Fuzz.command),
    "event bus": (blobs | st.binary(max_size=9).map(lambda it: b"\1" + it), Fuzz.bus),
}


def fuzz(folder: Path, *, requests: int, number: int) -> tuple[int, str]:
    """Send *requests*; return the exit code and the result as text."""
    watchers = [
        Watcher(
            "web",
            app="xboard_circus.app:app",
            env={"XBOARD_DB": f"{folder}/x.db", "XBOARD_UPLOADS": f"{folder}/u"},
            options=HEALTH,
        ),
        Watcher("page", numprocesses=1, app=PAGE, options={"health.live_path": "/healthz"}),
    ]
    with circusd(folder, watchers=watchers, plugins=BUNDLE, check_delay=1) as c:
        eventually(lambda: all(c.verdict(name) == "ok" for name in c.watchers), timeout=90, what="all serve")
        it, began = Fuzz(c), time.monotonic()

        @seed(number)
        @settings(
            max_examples=requests,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of([st.tuples(st.just(name), what) for name, (what, _) in TARGETS.items()]))
        def send(request: tuple[str, Any]) -> None:
            if it.counts.total() < requests:
                it.send(*request)

        try:
            send()
            it.look()
        except (Harm, OSError) as trouble:
            return 1, f"{it.report()}\nseed {number}: after {it.counts.total()} requests: {trouble}"
        finally:
            it.close()
        lines = [f"seed {number}, {it.counts.total()} requests in {time.monotonic() - began:.0f} s"]
        lines += [f"  {name}: {it.counts[name]}" for name in TARGETS]
        lines += ["  HTTP: " + ", ".join(f"{count} x {status}" for status, count in sorted(it.statuses.items()))]
        return 0, "\n".join([*lines, "no 5xx, no traceback, no process ended, circusd answers"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="another one each time without it")
    parser.add_argument("--write", action="store_true", help="write the result into docs/security.md and its twin")
    options = parser.parse_args()
    number = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    print(f"seed {number}", flush=True)
    with script_folder() as folder:
        code, result = fuzz(folder, requests=options.requests, number=number)
    print(result)
    if options.write and code == 0:
        for name in ("security.md", "security.zh-CN.md"):
            path = Path(__file__).resolve().parents[2] / "docs" / name
            head, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
            shown = f"{MARKS[0]}```\n{result}\n```\n{MARKS[1]}"
            path.write_text(head + shown + rest.partition(MARKS[1])[2], encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
