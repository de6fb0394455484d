"""Request a path of the app in this process, with a deadline.

No connection, port or parser takes part: a probe checks the app and the event loop of this worker. Nothing that the app
does can block the caller or fill the memory.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from xboard_circus import __version__
from xboard_circus.core.durations import exactly, seconds
from xboard_circus.core.failed_checks import failed_checks
from xboard_circus.core.reason import one_line, raised
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.masking import safe_text, secrets_of, without

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

MAX_BODY = 64 * 1024
MAX_REASON = 200
FIRST_BYTES = 200
OVERLAP = 4096  # of the body, so that no secret is cut before it is masked


def hidden(text: str) -> str:
    """Return what the app said without the secrets that are known here: it goes on to logs, alerts and the page."""
    return safe_text(without(text, secrets_of(os.environ)))


def failing_in(body: bytes) -> str:
    """Return the checks that fail as *body* names them, if it is JSON, without secrets."""
    try:
        return hidden(failed_checks(json.loads(body)))
    except (ValueError, RecursionError):
        return ""


class AppAnswer(NamedTuple):
    """Result of one call.

    Attributes:
        ok: A whole answer came in time, with a status of 2xx or a redirect to the same path, see `redirects_to_itself`.
        status: None when the app had not begun to answer.
        reason: What is wrong; empty if *ok*.
        latency: Seconds until the result was known.
        body: The first bytes of the body; empty if *ok*.
        refused: A whole answer came, of 3xx or 4xx: the app works, and does not accept the probe's request.
    """

    ok: bool
    status: int | None
    reason: str
    latency: float
    body: str = ""
    refused: bool = False

    @property
    def works(self) -> bool:
        """Return whether the app itself answered, which is all that a live path has to show."""
        return self.ok or self.refused


class Asker(NamedTuple):
    """Headers and scheme of a probe's request: the options ``health.host``, ``.scheme`` and ``.headers``."""

    host: str = "localhost"
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Asker":
        """Read it from the environment that circusd gave the worker."""
        lines = environ.get("XBOARD_PROBE_HEADERS", "").splitlines()
        named, default = (line.partition(":") for line in lines), cls()
        return cls(
            host=environ.get("XBOARD_PROBE_HOST") or default.host,
            scheme=environ.get("XBOARD_PROBE_SCHEME") or default.scheme,
            headers=tuple((name.strip().lower(), value.strip()) for name, _, value in named),
        )

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of a request; those of the options replace ours."""
        given = {name for name, _ in self.headers}
        ours = (("host", self.host), ("user-agent", f"xboard-circus/{__version__}"), ("accept", "*/*"))
        headers = [*(each for each in ours if each[0] not in given), *self.headers]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def redirects_to_itself(path: str, location: str) -> bool:
    """Return whether a redirect leads to the same path with a slash more or less, or to the same path by https.

    A working app gives both: the first a sub-app mounted at the path, the second `HTTPSRedirectMiddleware`.

    >>> redirects_to_itself("/health", "http://localhost/health/"), redirects_to_itself("/health", "/login")
    (True, False)
    >>> redirects_to_itself("/health?deep=1", "https://localhost/health?deep=1")
    True
    """
    asked = urlsplit(path).path
    try:
        there = urlsplit(location)
    except ValueError:
        return False
    leads_to = unquote(there.path)
    return leads_to.rstrip("/") == asked.rstrip("/") and (there.scheme == "https" or leads_to != asked)


class AppCall:
    """Call the app once.

    The answer is known when the body ends, grows over `MAX_BODY` or is late. The app may run on after that although it
    is cancelled, because a thread cannot be; so the answer and the end of the task are two events.
    """

    def __init__(self, app: App, scope: Message, *, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._path = str(scope["path"])
        self._location = ""
        self.answer: asyncio.Future[AppAnswer] = loop.create_future()
        self.began_at = time.monotonic()
        self.completed = self._running = False
        self._status: int | None = None
        self._size = 0
        self._first = b""
        self._timeout = timeout
        self._deadline = loop.call_later(timeout, self._expire)
        self.task = loop.create_task(self._run(app, scope))

    async def _run(self, app: App, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._end(Say.CANCELLED())
            raise
        except BaseException as error:  # an app's SystemExit must not end the worker; uvicorn does not let it either
            self._end(hidden(raised(error)))
        else:
            self._end(Say.NO_WHOLE_ANSWER())

    async def _receive(self) -> Message:
        if not self._running:
            self._running = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.wait({self.answer})
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
            self._location = headers.get(b"location", b"").decode("latin-1")
        elif message["type"] == "http.response.body":
            piece = message.get("body", b"")
            self._size += len(piece)
            self._first += piece[: FIRST_BYTES + OVERLAP - len(self._first)]
            if self._size > MAX_BODY:
                self._end(Say.BODY_TOO_LARGE(kib=MAX_BODY // 1024))
            elif not message.get("more_body", False):
                self.completed = True
                self._end("")
        if self.answer.done() and not self.completed:
            raise OSError("the caller has gone")  # as in uvicorn; ends also an app that ignores its cancellation

    def _expire(self) -> None:
        say = Say.NO_ANSWER_WITHIN if self._status is None else Say.NO_END_WITHIN
        self._end(say(timeout=exactly(self._timeout)))
        self.task.cancel()

    def _end(self, failure: str) -> None:
        if self.answer.done():
            return
        self._deadline.cancel()
        latency = time.monotonic() - self.began_at
        status = 0 if failure or self._status is None else self._status
        is_redirect = 300 <= status < 400
        ok = 200 <= status < 300 or (is_redirect and redirects_to_itself(self._path, self._location))
        refused = 300 <= status < 500 and not ok
        reason = "" if ok else one_line(self._refusal(status) if refused else self._why_not(failure), MAX_REASON)
        body = "" if ok else hidden(self._first.decode("utf-8", errors="replace"))[:FIRST_BYTES]
        self.answer.set_result(AppAnswer(ok, self._status, reason, latency, body, refused))

    def _why_not(self, failure: str) -> str:
        if self._status is None:
            return failure
        failure = failure or failing_in(self._first)
        return (Say.STATUS_SAYING if failure else Say.STATUS)(status=self._status, why=as_said(failure))

    def _refusal(self, status: int) -> str:
        if status < 400 and self._location:
            return Say.PROBE_REFUSED_REDIRECT(status=status, location=self._location[:60])
        login = Say.PROBE_REFUSED_LOGIN
        sayings = {400: Say.PROBE_REFUSED_HOST, 401: login, 403: login, 404: Say.PROBE_REFUSED_PATH}
        return sayings.get(status, Say.PROBE_REFUSED)(status=status)


@dataclass
class AppCalls:
    """Call one app, once per path at a time, so that probes do not pile up in a stuck app.

    *state* is the state of the app's lifespan for its requests; a call gets a copy, as a request in uvicorn does.
    """

    app: App
    asker: Asker
    state: dict[str, Any]
    root_path: str
    _calls: dict[str, AppCall] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)  # the loop itself keeps only weak references to tasks

    async def ask(self, path: str, *, timeout: float) -> AppAnswer:
        """Return the answer of *path* within *timeout* seconds; while a call of it runs, return the answer of that."""
        call = self._calls.get(path)
        if call is None or call.task.done() or call.completed:
            call = self._start(path, timeout)
        elif call.answer.done():
            age = time.monotonic() - call.began_at
            return AppAnswer(False, None, Say.CALL_STILL_RUNS(age=seconds(age)), 0.0)
        await asyncio.wait({call.answer}, timeout=timeout)
        if call.answer.done():
            return call.answer.result()
        return AppAnswer(False, None, Say.NO_ANSWER_WITHIN(timeout=exactly(timeout)), timeout)

    def _start(self, path: str, timeout: float) -> AppCall:
        call = self._calls[path] = AppCall(self.app, self._scope(path), timeout=timeout)
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)
        return call

    def _scope(self, target: str) -> Message:
        path, _, query = target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": self.asker.scheme,
            "root_path": self.root_path,
            "path": self.root_path + unquote(path),
            "raw_path": (self.root_path + path).encode(),
            "query_string": query.encode(),
            "headers": self.asker.all_headers(),
            "client": ("127.0.0.1", 0),
            "server": (self.asker.host, 443 if self.asker.scheme == "https" else 80),
            "state": self.state.copy(),
        }
