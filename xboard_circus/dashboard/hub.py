"""All that one dashboard holds: who may look, the servers that it asks, and what it shows of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import anyio

from xboard_circus.core.logins import LoginLimiter
from xboard_circus.core.reason import with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.death_view import Evidence, new_lines
from xboard_circus.dashboard.poller import Server
from xboard_circus.dashboard.saved import Added, Saved
from xboard_circus.dashboard.sessions import Sessions
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.dashboard.stream import HEARTBEAT, StreamBoard, event, json_text
from xboard_circus.dashboard.tokens import Role, load_or_make
from xboard_circus.logs import LogFile, LogFollower, follow

TICK = 1.0
LOG_EVERY = 0.5
FIRST_ANSWER = 1.0
HEARTBEAT_EVERY = 15.0
ROLES: tuple[Role, ...] = ("admin", "reader")


class Hub:
    """Made once in a process. `running` asks the servers and shows what they say, for as long as it is entered."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.wall = wall
        self.tokens = load_or_make(settings.folder)
        self.saved = Saved(settings.folder)
        self.sessions = Sessions(self.tokens, self.saved, clock=wall)
        self.logins = LoginLimiter()
        self.board = StreamBoard()
        self.followers: Counter[str] = Counter()
        self.closing = asyncio.Event()
        self.evidence = Evidence(settings)
        # Orders, and reading of files. Apart from the pollers' threads, and of a number that is soon enough.
        self.pool = ThreadPoolExecutor(8, thread_name_prefix="dashboard")
        self.servers: dict[str, Server] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: tuple[float, str] = (float("-inf"), "")
        self._add(LOCAL, settings.label, settings.endpoint)
        for endpoint in settings.endpoints:
            self._add(id_of(endpoint), endpoint, endpoint)
        self._see_saved()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask and show."""
        _on_signal(self.closing)
        ticking = asyncio.create_task(self._tick())
        for server in self.servers.values():
            self._begin(server)
        # Whoever is ready takes the place of an older dashboard, which has figures to show.
        with anyio.move_on_after(FIRST_ANSWER):
            await self.servers[LOCAL].was_asked.wait()
        try:
            yield
        finally:
            self.closing.set()
            tasks = [ticking, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for server in self.servers.values():
                server.close()
            self.pool.shutdown(wait=False, cancel_futures=True)

    # Servers

    def add_server(self, label: str, endpoint: str) -> Server:
        """Show a further circusd from now on; XboardError where there are too many."""
        server_id = id_of(endpoint)
        if server_id not in self.servers:
            self.saved.add(Added(server_id, label or endpoint, endpoint))
            self._add(server_id, label or endpoint, endpoint)
            self._begin(self.servers[server_id])
        return self.servers[server_id]

    def remove_server(self, server_id: str) -> bool:
        """Show a circusd that was added on the page no longer; False where it is not one of those."""
        if server_id not in {each.id for each in self.saved.servers()}:
            return False
        self.saved.remove(server_id)
        self._drop(server_id)
        return True

    def is_removable(self, server_id: str) -> bool:
        """Say whether a server was added on the page and not in the ini file."""
        return server_id != LOCAL and server_id not in map(id_of, self.settings.endpoints)

    def _see_saved(self) -> None:
        """Take over what another process of this dashboard has added or removed."""
        saved = {each.id: each for each in self.saved.servers()}
        for server_id, each in saved.items():
            if server_id not in self.servers:
                self._add(server_id, each.label, each.endpoint)
        for server_id in [each for each in self.servers if self.is_removable(each) and each not in saved]:
            self._drop(server_id)

    def _add(self, server_id: str, label: str, endpoint: str) -> None:
        if server_id not in self.servers:
            self._told = (float("-inf"), "")
            deadline = self.settings.deadline
            self.servers[server_id] = Server(server_id, label, endpoint, deadline=deadline, clock=self.clock)

    def _drop(self, server_id: str) -> None:
        self._told = (float("-inf"), "")
        server, task = self.servers.pop(server_id, None), self._tasks.pop(server_id, None)
        if task is not None:
            task.cancel()
        if server is not None:
            server.close()

    def _begin(self, server: Server) -> None:
        self._tasks[server.id] = asyncio.create_task(server.run(self._period), name=f"ask {server.endpoint}")

    def _period(self) -> float:
        return self.settings.poll if self.board.viewers.total() else self.settings.idle

    # Showing

    def state(self, role: str) -> str:
        """Return the JSON of ``/api/state``: made once in a while for all who ask for it."""
        now = self.clock()
        made_at, told = self._told
        if now - made_at > TICK / 4:
            told = self._servers_json()
            self._told = now, told
        head = json_text({"now": round(self.wall(), 3), "role": role, "allow_add": self.settings.allow_add})
        return f'{head[:-1]},"servers":{told}}}'

    def follow(self, role: str, *, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the state as events, beginning now."""
        for server in self.servers.values():
            if (server.age() or 0) > self.settings.poll:
                server.ask_soon()
        return self.board.follow(role, lambda: event("state", self.state(role)), holds=holds)

    async def follow_log(self, role: str, log: LogFile, *, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield new lines of a log, one event for each batch, and notes of our own between them."""
        self.followers[role] += 1
        follower: LogFollower | None = None
        try:
            follower = await self.in_thread(follow, log)
            yield HEARTBEAT
            quiet_since = self.clock()
            while holds():
                left_out, lines = await self.in_thread(new_lines, follower)
                if lines:
                    note = event("note", json_text(with_say(Answer.LINES_LEFT_OUT(n=left_out)))) if left_out else b""
                    yield note + event("lines", json_text(lines))
                    quiet_since = self.clock()
                elif self.clock() - quiet_since > HEARTBEAT_EVERY:
                    yield HEARTBEAT
                    quiet_since = self.clock()
                await asyncio.sleep(LOG_EVERY)
        except OSError as error:
            yield event("note", json_text(with_say(Answer.LOG_LOST(path=log.path, error=error.strerror))))
        finally:
            self.followers[role] -= 1
            if follower is not None:
                follower.close()

    def _servers_json(self) -> str:
        views = [
            server.view(
                removable=self.is_removable(server.id),
                has_ledger=server.id == LOCAL and self.evidence.has_ledger,
                has_logs=server.id == LOCAL and self.evidence.has_logs,
            )
            for server in self.servers.values()
        ]
        return json_text(views)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._see_saved()
            for server in self.servers.values():
                if server.id not in self._tasks:
                    self._begin(server)
            if self.board.viewers.total():
                self.board.publish({role: event("state", self.state(role)) for role in ROLES})

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run what may wait beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)


def id_of(endpoint: str) -> str:
    """Return the name of a server in addresses: the same for an endpoint, however often it is added."""
    return f"s{hashlib.sha256(endpoint.encode()).hexdigest()[:10]}"


def _on_signal(closing: asyncio.Event) -> None:
    """Set *closing* when the process is told to end: uvicorn waits for open streams, which would never end."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def hear(signum: int) -> None:
        previous = signal.getsignal(signum)
        if not callable(previous):
            return

        def handler(signum: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(closing.set)
            previous(signum, frame)

        signal.signal(signum, handler)

    hear(signal.SIGTERM)
    hear(signal.SIGINT)
