"""Hold the parts of one dashboard: its sessions, the servers that it polls, and the streams that show them."""

import asyncio
import contextlib
import functools
import hashlib
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import FrameType
from typing import Any

import anyio
from anyio.to_thread import run_sync

from xboard_circus.core.headlines import Recent
from xboard_circus.core.logins import LoginLimiter
from xboard_circus.core.names import is_backend
from xboard_circus.core.reason import with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.death_view import Evidence
from xboard_circus.dashboard.log_pages import FollowedLogs
from xboard_circus.dashboard.poller import Server
from xboard_circus.dashboard.saved import Added, Saved
from xboard_circus.dashboard.sessions import Session, Sessions
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.dashboard.stream import HEARTBEAT, StreamBoard, event, json_text
from xboard_circus.dashboard.tokens import Role, load_or_make
from xboard_circus.logs import LogFile
from xboard_circus.logs.lines import Place

TICK = 1.0
FIRST_ANSWER = 1.0
LOG_EVERY, RECENT_EVERY, HEARTBEAT_EVERY = 0.5, 5.0, 15.0
MOST_ORDERS, MOST_READING = 8, 2
ROLES: tuple[Role, ...] = ("admin", "reader")


class Hub:
    """All parts of one dashboard. `running` polls the servers and publishes their state while it is entered.

    Attributes:
        followers: How many logs are followed, by role.
        answered: Connections with long answers that may not be read yet, by role.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.tokens = load_or_make(settings.folder)
        self.saved = Saved(settings.folder)
        self.sessions = Sessions(self.tokens, self.saved)
        self.logins = LoginLimiter()
        self.board = StreamBoard()
        self.followers: Counter[str] = Counter()
        self.answered: dict[str, set[asyncio.Transport]] = {role: set() for role in ROLES}
        self.evidence = Evidence(settings)
        own = [Added(LOCAL, settings.label, settings.endpoint)]
        self._of_ini = {each.id: each for each in own + [added(endpoint) for endpoint in settings.endpoints]}
        self._shown: tuple[float, str] = (float("-inf"), "")
        self.servers: dict[str, Server] = {}
        self.recent: Recent | None = None
        self._troubled_at = float("-inf")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll and publish."""
        # Apart from the threads that read files for all users: no number of readers delays an order.
        self.orders = anyio.CapacityLimiter(MOST_ORDERS)
        # Masking the lines of a log takes the processor: 24 threads of a reader's kept the event loop from it for 2 s
        # at a time, so that the page was killed as hung again and again.
        self.reading = {role: anyio.CapacityLimiter(MOST_READING) for role in ROLES}
        _call_on_signal(self.board.close)
        self._update_servers()
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._read_recent())]
        # A new dashboard replaces an older one, which has figures to show, as soon as it is up.
        with anyio.move_on_after(FIRST_ANSWER):
            await self.servers[LOCAL].was_polled.wait()
        try:
            yield
        finally:
            self.board.close()
            for task in tasks:
                task.cancel()
            for server in self.servers.values():
                server.close()

    # Servers

    def add_server(self, label: str, endpoint: str) -> Server:
        """Show a further circusd from now on; XboardError where there are too many."""
        server = added(endpoint, label)
        if server.id not in self.servers:
            self.saved.add(server)
            self._update_servers()
        return self.servers[server.id]

    def remove_server(self, server_id: str) -> bool:
        """Stop showing a circusd that was added on the page; False for any other."""
        if server_id in self._of_ini or server_id not in self.servers:
            return False
        self.saved.remove(server_id)
        self._update_servers()
        return True

    def _update_servers(self) -> None:
        """Apply what this process or another one of this dashboard has added or removed."""
        wanted = {**self._of_ini, **{each.id: each for each in self.saved.servers()}, **self._of_ini}
        if wanted.keys() == self.servers.keys():
            return
        for server_id in self.servers.keys() - wanted.keys():
            self.servers.pop(server_id).close()
        for each in wanted.values():
            if each.id not in self.servers:
                how: dict[str, Any] = {"deadline": self.settings.deadline, "clock": self.clock}
                server = self.servers[each.id] = Server(each.id, each.label, each.endpoint, **how)
                server.start(lambda: self.settings.poll if self.board.viewers.total() else self.settings.idle)
        self._shown = (float("-inf"), "")

    # Showing

    def state(self, role: str) -> str:
        """Return the JSON of ``/api/state``: made once in a while for all pages."""
        now = self.clock()
        made_at, shown = self._shown
        if now - made_at > TICK / 4:
            shown = json_text([self._view(server) for server in self.servers.values()])
            self._shown = now, shown
        head = json_text({"now": round(time.time(), 3), "role": role, "allow_add": self.settings.allow_add})
        return f'{head[:-1]},"servers":{shown}}}'

    def _view(self, server: Server) -> dict[str, object]:
        is_local = server.id == LOCAL
        kept = self.evidence.history is not None, self.evidence.ledger is not None, bool(self.evidence.logs)
        has = {name: is_local and each for name, each in zip(("history", "ledger", "logs"), kept, strict=True)}
        more = {"removable": server.id not in self._of_ini, **{f"has_{name}": each for name, each in has.items()}}
        return server.view(self.all_fine() if is_local else None, **more)

    def follow(self, session: Session) -> AsyncGenerator[bytes, None]:
        """Yield the state as events, beginning now, while the session is valid."""
        for server in self.servers.values():
            if (server.age() or 0) > self.settings.poll:
                server.poll_soon()
        first, holds = (lambda: event("state", self.state(session.role))), (lambda: self.sessions.is_valid(session))
        return self.board.follow(session.role, first, holds=holds, most=self.settings.most_pages)

    async def follow_logs(self, session: Session, logs: Mapping[LogFile, Place | None]) -> AsyncGenerator[bytes, None]:
        """Yield new lines of *logs*, each from a place or its end on, with where they end, and notes between them."""
        self.followers[session.role] += 1
        followed = FollowedLogs(logs)
        in_thread = functools.partial(run_sync, abandon_on_cancel=True, limiter=self.reading[session.role])
        try:
            if self.followers[session.role] > self.settings.most_followed:  # as in `StreamBoard.follow`
                return
            await in_thread(followed.begin)
            yield event("begun", "null")
            quiet_since = self.clock()
            while not self.board.is_closed and self.sessions.is_valid(session):
                left_out, lines = await in_thread(followed.new_lines)
                if left_out:
                    note = {**with_say(Answer.LINES_LEFT_OUT(n=left_out)), "left_out": left_out}
                    yield event("note", json_text(note))
                if lines or self.clock() - quiet_since > HEARTBEAT_EVERY:
                    end = followed.cursor
                    yield event("lines", json_text({"lines": lines, "end": end})) if lines else HEARTBEAT
                    quiet_since = self.clock()
                await asyncio.sleep(LOG_EVERY)
        except OSError as error:
            path = error.filename or ", ".join(str(log.path) for log in logs)
            yield event("note", json_text(with_say(Answer.LOG_LOST(path=path, error=error.strerror))))
        finally:
            self.followers[session.role] -= 1
            followed.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._update_servers()
            self.note_trouble()
            if self.board.viewers.total():
                self.board.publish({role: event("state", self.state(role)) for role in ROLES})

    def note_trouble(self) -> None:
        """Note that there is trouble now: what was read before knows only of the one before."""
        server = self.servers[LOCAL]
        if server.troubled() or any(each["word"] == "circusd_lost" for each in server.headlines(None)):
            self._troubled_at, self.recent = self.clock(), None

    def all_fine(self) -> Recent | None:
        """Return the figures of "all fine"; the ledger has the end of a trouble a moment later than this page."""
        if self.recent is None or self._troubled_at == float("-inf"):
            return self.recent
        age, known = self.clock() - self._troubled_at, self.recent["trouble_age"]
        return {**self.recent, "trouble_age": age if known is None else min(age, known)}

    async def _read_recent(self) -> None:
        """Read the figures of "all fine", while a page is open."""
        while True:
            watchers = (self.servers[LOCAL].state or {"watchers": []})["watchers"]
            names = [each["name"] for each in filter(is_backend, watchers)]
            if names and self.board.viewers.total():
                self.recent = await run_sync(self.evidence.recent, names, limiter=self.reading["admin"])
            await asyncio.sleep(RECENT_EVERY if self.recent else TICK)


def added(endpoint: str, label: str = "") -> Added:
    """Return a server of which only the endpoint is known; its id is the same however often it is added."""
    return Added(f"s{hashlib.sha256(endpoint.encode()).hexdigest()[:10]}", label or endpoint, endpoint)


def _call_on_signal(close: Callable[[], None]) -> None:
    """Call *close* when the process is ordered to end: uvicorn waits for open streams, which would never end."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(previous := signal.getsignal(number)):

            def handler(signum: int, frame: FrameType | None, previous: Callable[..., object] = previous) -> None:
                loop.call_soon_threadsafe(close)
                previous(signum, frame)

            signal.signal(number, handler)
