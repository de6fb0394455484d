"""Serve the app as a worker under Circus: uvicorn's server, which reports its health and drains before a shutdown."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import uvicorn

from xboard_circus import __version__
from xboard_circus.core.reason import with_say
from xboard_circus.core.state_names import WorkerState
from xboard_circus.host import request_slots, worker_files
from xboard_circus.launch import circusd_is_alive
from xboard_circus.worker import cookie_quotes
from xboard_circus.worker.accepting import Acceptor, Counts
from xboard_circus.worker.app_calls import AppAnswer, AppCalls, Asker
from xboard_circus.worker.app_code import AppCode
from xboard_circus.worker.drain import CLOSE_HEADER, close, close_for_good, drain, has_unread, is_silent, stop_accepting
from xboard_circus.worker.forsaken import names_process
from xboard_circus.worker.gauges import LoopLag, resident_bytes, thread_pool
from xboard_circus.worker.header_limit import limited
from xboard_circus.worker.limits import most_open_files
from xboard_circus.worker.pipelining import is_kept, one_at_a_time, untaken
from xboard_circus.worker.private_socket import PrivateRequest, PrivateSocket, RefusedRequest
from xboard_circus.worker.progress import show_progress
from xboard_circus.worker.quiet_log import QUIET_LOG
from xboard_circus.worker.refusal import Refusal
from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.route_names import name_routes
from xboard_circus.worker.slow_requests import SlowRequests
from xboard_circus.worker.task_stack import Stack
from xboard_circus.worker.time_limit import TimeLimit
from xboard_circus.worker.traffic import Traffic
from xboard_circus.worker.upgrades import without_upgrades
from xboard_circus.worker.websocket_bounds import bounded

log = logging.getLogger("uvicorn.error")

GRACEFUL_SHUTDOWN = 20
WEBSOCKET_SPREAD = "3"
TICK = 0.1  # uvicorn calls on_tick that often
LOOK_EVERY = 0.5
STUCK_AFTER = 60.0  # as nginx's send_timeout
MOST_UNTAKEN = 16 * 1024  # below that uvicorn goes on writing
BUSY_TICKS = 100  # after so many, what the app has loaded is frozen also beside requests
START_PERIOD = 0.2
START_TIMEOUT = 5.0
ACCEPTS_WITHIN = 1.0


class Surroundings:
    """Read from the environment who this worker is and what circusd wants of it.

    Attributes:
        folder: Folder of the private socket and the marks; None: there are none.
        token: Name of these files, which circusd gave to this worker alone.
        launcher: The process that circusd started, "pid:started": this one, or a wrapper in front of it.
        live_path: Path of the app that must answer before the worker is up; None: none.
        ready_path: Path of the app that must answer before the worker is ready; None: none.
        asker: How a probe's request looks to the app.
        owner: The process that this is about: a child that the app forks never removes the files.
        preflight: A trial of new code, which stays away from the public socket.
        instance: The instance that the worker belongs to.
        circusd: The circusd that started it, "pid:started".
        websocket_spread: Seconds over which a drain closes the WebSockets.
        memory: Where circusd reads the requests in flight; None: it cannot.
        records: Requests are noted and counted.
        id_header: The header in which an answer carries the id of its request; "" for none.
        slow: Seconds after which a request without an answer is reported; 0: none is.
        timeout: Seconds after which a request without an answer is answered 504; 0: none is.
        refusal: Of requests of poisonous routes; None: there are none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        def given(name: str, default: str = "") -> str:
            return environ.get(f"XBOARD_{name}") or default

        self.token = given("WORKER")
        self.folder = Path(given("WORKER_DIR")) if given("WORKER_DIR") and self.token else None
        self.watcher = environ.get("XBOARD_WATCHER")
        self.wid = int(given("WID")) if given("WID").isdecimal() else None
        self.live_path = given("LIVE_PATH") or None
        self.ready_path = given("READY_PATH") or None
        self.preflight = given("PREFLIGHT") == "1"
        self.instance = given("INSTANCE")
        self.circusd = given("CIRCUSD")
        self.launcher = given("LAUNCHER")
        self.websocket_spread = float(given("WEBSOCKET_SPREAD", WEBSOCKET_SPREAD))
        self.memory = request_slots.mapped(environ.get(request_slots.VARIABLE, ""))
        self.records = given("REQUEST_RECORD") != "0" and (self.folder or self.memory) is not None
        self.id_header = given("REQUEST_ID_HEADER")
        self.slow = float(given("REQUEST_SLOW", "0"))
        self.timeout = float(given("REQUEST_TIMEOUT", "0"))
        self.refusal = Refusal(given("REFUSED")) if given("REFUSED") else None
        self.asker = Asker.read(environ)
        self.owner = os.getpid()

    def can_use_folder(self) -> bool:
        """Return whether files can be made in the runtime folder."""
        return worker_files.is_usable(self.folder)

    def file(self, suffix: str) -> Path | None:
        """Return the path of the private socket ("sock"), of a mark ("up", "ready") or of the "beat"."""
        return worker_files.path_of(self.folder, self.token, suffix)

    def note(self, suffix: str, content: bytes = b"") -> None:
        """Make a file by which circusd learns that the worker is "up" or "ready", which "code" it has imported, or how
        many requests it has "cut" off."""
        if (file := self.file(suffix)) is not None:
            try:
                file.touch(mode=0o600)
                file.write_bytes(content)
            except OSError as error:
                log.error('circusd does not learn what this worker notes as "%s": %s: %s', suffix, file, error)

    def remove_files(self) -> None:
        """Remove the private socket and the marks; what it cut off is left for circusd."""
        if self.folder is not None and self.owner == os.getpid():
            worker_files.remove(self.folder, self.token)


def noting_handshakes(protocol: type[asyncio.Protocol], handshakes: WeakSet[Any]) -> type[asyncio.Protocol]:
    """Return *protocol* with its instances in *handshakes* from the accepted connection to the end of the handshake.

    The event loop makes the protocol when it has accepted, and drops it where the handshake fails.
    """

    class NotingProtocol(protocol):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            handshakes.add(self)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            handshakes.discard(self)
            super().connection_made(transport)

    return NotingProtocol


class SheddingServer(uvicorn.Server):
    """Run uvicorn's server for clients that take all they can get.

    It limits the headers of requests, accepts as many connections as its siblings, also beside busy ones, and closes
    silent ones before descriptors run out.
    """

    def __init__(self, config: uvicorn.Config, wid: int = 0) -> None:
        super().__init__(config)
        for each in (log, logging.getLogger("uvicorn.access")):
            each.addFilter(QUIET_LOG)
        self._most_connections = most_open_files() // 2
        self._silent: set[Any] = set()
        self._shed: WeakSet[Any] = WeakSet()
        self._idle_since: dict[Any, float] = {}  # by the last request of a connection
        self._untaken: dict[Any, tuple[int, bytes, float]] = {}  # by connection, with since when
        self._looked_at = 0.0
        self._handshakes: WeakSet[Any] = WeakSet()
        self._acceptor = Acceptor(Counts(wid), attach=self._attach)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        cookie_quotes.mend()
        self.config.ws_protocol_class = bounded(self.config.ws_protocol_class)
        protocol = one_at_a_time(without_upgrades(limited(self.config.http_protocol_class)))
        self.config.http_protocol_class = (
            noting_handshakes(protocol, self._handshakes) if self.config.is_ssl else protocol
        )
        await super().startup(None if sockets is None else [])
        for listener in sockets or []:
            listener.listen(self.config.backlog)
        self._accept(sockets or [])

    def _protocol(self) -> asyncio.Protocol:
        config = self.config
        return config.http_protocol_class(config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]

    def _accept(self, listeners: list[socket.socket]) -> None:
        self._acceptor.start(listeners)

    async def on_tick(self, counter: int) -> bool:
        self._acceptor.note()
        self._shed_silent()
        self.end_idle(time.monotonic())
        return await super().on_tick(counter)

    def _attach(self, connection: socket.socket) -> Coroutine[Any, Any, Any]:
        # The loop gives each handshake a minute. One user of the host could hold all descriptors with those.
        if self.config.ssl and len(self._acceptor.attaching) > self._most_connections // 2:
            self._acceptor.end_oldest()
        return asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    def end_idle(self, now: float) -> None:
        """Close the connections that were not used for as long as they are kept alive, or half a second longer."""
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        connections: set[Any] = self.server_state.connections
        kept = {connection.cycle: connection for connection in connections if is_kept(connection)}
        self._idle_since = {request: self._idle_since.get(request, now) for request in kept}
        for request, connection in kept.items():
            if now - self._idle_since[request] >= self.config.timeout_keep_alive and not has_unread(connection):
                close(connection)
        self._end_stuck(now)

    def _end_stuck(self, now: float) -> None:
        """End the connections whose clients take nothing of their answers, which stay in memory: two for each.

        Time alone tells nothing: a slow client takes some of it, and a stream with nothing to send has nothing left.
        """
        before, self._untaken = self._untaken, {}
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            transport = connection.transport
            if not (transport.get_write_buffer_size() or self.config.is_ssl):  # TLS has a buffer below its own
                continue
            left, taken = untaken(connection)
            last, mark, since = before.get(connection, (left, taken, now))
            if left <= MOST_UNTAKEN or left < last or taken != mark:
                since = now
            elif now - since >= STUCK_AFTER:
                log.info("Cut off %s, which took nothing of its answer for %g s", connection.client, STUCK_AFTER)
                transport.abort()
            self._untaken[connection] = left, taken, since

    def _shed_silent(self) -> None:
        """Close connections on which no request comes, while connections take half of all descriptors.

        uvicorn waits for a first request without a limit, so that one user of the host could hold them all.
        """
        connections, before = self.server_state.connections, self._silent
        is_crowded = len(connections) > self._most_connections
        self._silent = set(filter(is_silent, connections)) if is_crowded else set()
        for connection in self._silent & before:
            if not connection.transport.is_closing() and not has_unread(connection):
                close(connection)
                self._shed.add(connection)
            elif connection in self._shed and not connection.transport.get_write_buffer_size():
                connection.transport.abort()  # TLS waits half a minute for the client's goodbye


class WorkerServer(SheddingServer):
    """Run uvicorn's server, report its health on the private socket, and drain before the shutdown."""

    def __init__(
        self, config: uvicorn.Config, ours: Surroundings, private: PrivateSocket | None, code: AppCode | None = None
    ) -> None:
        super().__init__(config, ours.wid or 0)
        self._code = code
        self._began_at = time.monotonic()
        self.recycled = self._is_frozen = False
        self._surroundings = ours
        self._private = private
        self._phase = WorkerState.STARTING
        self._public: list[socket.socket] = []
        self._lag = LoopLag(period=TICK)
        self._traffic = Traffic()
        self._calls: AppCalls | None = None
        self._starting: asyncio.Task[None] | None = None
        self._record: RequestRecord | None = None
        self._slow: SlowRequests | None = None
        # Always the same list, not a new one each second as in uvicorn: requests in flight see the drain begin.
        self._headers: list[tuple[bytes, bytes]] = []
        self.server_state.default_headers = self._headers

    @property
    def drain_limit(self) -> float:
        """Return how many seconds a drain may take."""
        limit = self.config.timeout_graceful_shutdown
        return GRACEFUL_SHUTDOWN if limit is None else limit

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._public = sockets or []
        if self._private is not None:
            await self._private.serve({"GET /-/worker": self._report, "POST /-/handover": self._hand_over})
        await super().serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Remove our files while signals are still held: uvicorn raises SIGTERM again at the end of this, and dies."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._surroundings.remove_files()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        app, ours = self.config.loaded_app, self._surroundings
        if ours.timeout:
            self.config.loaded_app = TimeLimit(app, seconds=ours.timeout, on_late=self._report_late)
        if ours.records:
            self._record_requests()
        await super().startup(sockets)
        for sock in sockets or []:
            log.info("Uvicorn running on socket %s (Press CTRL+C to quit)", sock.getsockname())
        self._calls = AppCalls(app, ours.asker, self.lifespan.state, self.config.root_path)  # a probe is no traffic
        if (beat := self._surroundings.file("beat")) is not None:
            asyncio.get_running_loop().call_soon(show_progress, beat, self._lag, self._record, self._slow)
        self._starting = asyncio.create_task(self._complete_start(self._calls))

    def _accept(self, listeners: list[socket.socket]) -> None:
        """Accept once the worker is up, after a second at the latest: `_complete_start` does."""

    def _record_requests(self) -> None:
        """Note and count requests from now on; without that nothing of ours is in their path but a limit of time."""
        ours = self._surroundings
        app, header = self.config.loaded_app, ours.id_header
        self._record = RequestRecord(app, ours.memory, traffic=self._traffic, header=header, refusal=ours.refusal)
        package = str(self.config.app).partition(":")[0].partition(".")[0]
        self._slow = SlowRequests(self._record, limit=ours.slow, app=package)
        name_routes(self._record)
        self.config.loaded_app = self._record.__call__  # a method: uvicorn would call an instance through its type

    def _report_late(self, task: "asyncio.Task[Any]", stack: Stack) -> None:
        if self._slow is not None:
            self._slow.report_late(task, stack)

    async def _hand_over(self, request: PrivateRequest) -> tuple[dict[str, Any], int]:
        """Give the public listener to the next circusd of our instance and user, when our own is gone."""
        # Nothing is imported here: a restart comes after the packages, or the Python, were replaced under this worker.
        ours = self._surroundings
        if request.peer not in (0, os.geteuid()):
            raise RefusedRequest(403, "another user's")
        if not ours.instance or request.options.get("instance") != ours.instance:
            raise RefusedRequest(403, "another instance's")
        if not names_process(ours.circusd):
            raise RefusedRequest(409, "no circusd started this worker")
        if circusd_is_alive(ours.circusd):
            raise RefusedRequest(409, f"its circusd, pid {ours.circusd.partition(':')[0]}, lives")
        if self.should_exit or self._phase is WorkerState.DRAINING:
            raise RefusedRequest(409, "it was ordered to leave")
        listening = [sock for sock in self._public if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        if len(listening) != 1:
            raise RefusedRequest(409, "it has no listening socket of circusd's")
        where = listening[0].getsockname()
        host, port = (where, 0) if listening[0].family == socket.AF_UNIX else where[:2]
        return {"host": host, "port": port}, listening[0].fileno()

    async def _complete_start(self, calls: AppCalls) -> None:
        """Mark the worker as up at the first good answer of the live path, as ready at that of the ready path.

        The public socket is served from then on: a request that blocks the event loop before would leave the worker
        starting until `health.startup_timeout`, and clients send anew what has blocked its predecessor. It is served
        after a second in any case, as a dependency of the live path may be down that not every request needs.
        """
        ours = self._surroundings
        if ours.live_path is not None:
            late = asyncio.get_running_loop().call_later(ACCEPTS_WITHIN, self._begin_to_accept)
            answer = await self._until(calls, ours.live_path, lambda answer: answer.works, "up")
            late.cancel()
            if answer.refused:
                log.warning("The live path %s refuses its probes: %s", ours.live_path, answer.reason)
        self._phase = WorkerState.UP
        if self._code is not None:  # here, since an app may import the rest of itself in its lifespan
            self._code.look()
            ours.note("code", self._code.text().encode(errors="replace"))
        ours.note("up")
        self._begin_to_accept()
        if ours.ready_path is not None:
            await self._until(calls, ours.ready_path, lambda answer: answer.ok, "ready")
        ours.note("ready")

    def _begin_to_accept(self) -> None:
        if self._phase is not WorkerState.DRAINING:
            self._acceptor.start(self._public)

    async def _until(self, calls: AppCalls, path: str, is_good: Callable[[AppAnswer], bool], what: str) -> AppAnswer:
        """Request *path* of the app until the answer is good."""
        said = None
        while not is_good(answer := await calls.ask(path, timeout=START_TIMEOUT)):
            if answer.reason != said:
                log.info("Not %s yet: %s says: %s", what, path, answer.reason)
                said = answer.reason
            await asyncio.sleep(START_PERIOD)
        return answer

    def forget_requests(self) -> None:
        """Note no requests any more, in a child that the app has forked."""
        if self._record is not None:
            self._record.let_go()

    def descriptors(self) -> set[int]:
        """Return the descriptors that no child of the app may hold: listeners and connections of clients."""
        transports = [getattr(connection, "transport", None) for connection in self.server_state.connections]
        sockets = [
            *self._public,
            *(sock for server in getattr(self, "servers", ()) for sock in server.sockets),
            *(transport.get_extra_info("socket") for transport in transports if transport is not None),
        ]
        found = {sock.fileno() for sock in sockets if sock is not None}
        if self._private is not None:
            found.add(self._private.fileno())
        return found - {-1}

    async def main_loop(self) -> None:
        await super().main_loop()
        self.recycled = not self.should_exit

    async def on_tick(self, counter: int) -> bool:
        self._lag.tick()
        self._traffic.settle()
        if self._slow is not None:
            self._slow.look(self.server_state.tasks)
        self._freeze_app(counter)
        should_exit = await super().on_tick(counter)
        if self.server_state.default_headers is not self._headers:
            closing = [CLOSE_HEADER] if self._phase is WorkerState.DRAINING else []
            self._headers[:] = [*self.server_state.default_headers, *closing]
            self.server_state.default_headers = self._headers
        return should_exit

    def _freeze_app(self, tick: int) -> None:
        """Exempt what the app has loaded from the search for garbage, which would walk all of it again and again.

        Once, after the start and before the first requests if possible: it takes one last search. Beside requests only
        what is young is searched, because all of a large app would hold them up.
        """
        is_started = self._starting is not None and self._starting.done()
        if self._is_frozen or not is_started or (self.server_state.tasks and tick < BUSY_TICKS):
            return
        self._is_frozen = True
        if gc.isenabled():  # otherwise the app has its own way with garbage
            gc.collect(1 if self.server_state.tasks else 2)
            gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        limit = self.drain_limit
        self._phase = WorkerState.DRAINING
        self.should_exit = True  # then one SIGINT more forces the end, of a recycled worker too
        if self._starting is not None:
            self._starting.cancel()
        self._acceptor.stop()
        await stop_accepting(self.servers, sockets or [])
        log.info("Draining %d connection(s)", len(self.server_state.connections))
        idle, spread = self.config.timeout_keep_alive + 1, min(limit, self._surroundings.websocket_spread)
        cut = await drain(self, self._handshakes, idle_limit=min(limit, idle), limit=limit, websocket_spread=spread)
        if cut:
            self._surroundings.note(worker_files.LEFT, worker_files.CUT.pack(cut, limit))
        self._lag.stop()
        close_for_good(list(self.server_state.connections))
        self.config.timeout_graceful_shutdown = 1  # what is left now does not end by itself
        await super().shutdown(sockets)

    async def _report(self, request: PrivateRequest) -> tuple[dict[str, Any], None]:
        """Report the health of this worker: what its app answers, and what it measures of itself."""
        timeout = request.timeout()
        paths = [request.app_path(name) for name in ("live", "ready")]
        files_full = self._lacks_descriptors
        live, ready = await asyncio.gather(*(self._ask(path, timeout) for path in paths))
        files_full = files_full or self._lacks_descriptors
        threads_used, threads_limit = thread_pool()
        active = len(self.server_state.tasks)
        return {
            "pid": os.getpid(),
            "watcher": self._surroundings.watcher,
            "wid": self._surroundings.wid,
            "uptime": time.monotonic() - self._began_at,
            "state": self._phase.value,
            "lag": self._lag.largest(),
            "threads_used": threads_used,
            "threads_limit": threads_limit,
            "requests_active": active,
            "requests_served": self.server_state.total_requests,
            "rss": resident_bytes(),
            "cpu": time.process_time(),
            "traffic": self._traffic.report(active if self._record is None else self._record.active()),
            "slow": [] if self._slow is None else self._slow.reported(),
            "connections": len(self.server_state.connections),
            "files_full": most_open_files() if files_full else None,
            "live": live,
            "ready": ready,
            "version": __version__,
        }, None

    @property
    def _lacks_descriptors(self) -> bool:
        return self._private is not None and self._private.lacks_descriptors

    async def _ask(self, path: str | None, timeout: float) -> dict[str, Any] | None:
        """Return what the app answers; None without a path, and while its lifespan has not started."""
        if path is None or self._calls is None:
            return None
        answer = await self._calls.ask(path, timeout=timeout)
        return {**answer._asdict(), **with_say(answer.reason)}
