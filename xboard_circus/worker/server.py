"""uvicorn's server as a worker under Circus: it reports its health, and drains before it shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from xboard_circus import __version__
from xboard_circus.core.reason import with_say
from xboard_circus.core.states import WorkerState
from xboard_circus.host import worker_files
from xboard_circus.worker.app_calls import AppAnswer, AppCalls, Asker
from xboard_circus.worker.drain import CLOSE_HEADER, drain, stop_accepting
from xboard_circus.worker.forsaken import watch
from xboard_circus.worker.gauges import LoopLag, resident_bytes, thread_pool
from xboard_circus.worker.private_socket import SERVE_PATH, BadQuestion, PrivateSocket, Question, SocketOrder

log = logging.getLogger("uvicorn.error")

GRACEFUL_SHUTDOWN = 20
WEBSOCKET_SPREAD = 3.0
TICK = 0.1  # uvicorn calls on_tick that often
START_PERIOD = 0.2
START_TIMEOUT = 5.0
STARTED_AT = time.monotonic()


@dataclass(frozen=True)
class Surroundings:
    """What the environment says, read once.

    Attributes:
        folder: Where our private socket and our marks go; None: there are none.
        token: The name of our files, given by circusd to this worker alone.
        launcher: The process that circusd started, "pid:started": ours, or that of a wrapper in front of us.
        live_path: The path of the app that must answer before we are up; None: none.
        ready_path: The path of the app that must answer before we are ready; None: none.
        asker: How a probe's request looks to the app.
        owner: The process that these surroundings are of: a child that the app forks never takes our files.
        preflight: We are a trial of new code and stay away from the public socket.
        spare: We import the app and wait until we are told to serve.
        instance: The instance of the bundle that we belong to.
        circusd: The circusd that started us, "pid:started".
        websocket_spread: Seconds over which a drain closes the WebSockets.
    """

    folder: Path | None
    token: str
    watcher: str | None
    wid: int | None
    live_path: str | None
    ready_path: str | None
    preflight: bool
    asker: Asker
    owner: int
    spare: bool = False
    instance: str = ""
    circusd: str = ""
    launcher: str = ""
    websocket_spread: float = WEBSOCKET_SPREAD

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Surroundings:
        folder, token, wid = (environ.get(f"XBOARD_{name}", "") for name in ("WORKER_DIR", "WORKER", "WID"))
        return cls(
            folder=Path(folder) if folder and token else None,
            token=token,
            watcher=environ.get("XBOARD_WATCHER"),
            wid=int(wid) if wid.isdecimal() else None,
            live_path=environ.get("XBOARD_LIVE_PATH") or None,
            ready_path=environ.get("XBOARD_READY_PATH") or None,
            preflight=environ.get("XBOARD_PREFLIGHT") == "1",
            spare=environ.get("XBOARD_SPARE") == "1",
            instance=environ.get("XBOARD_INSTANCE", ""),
            circusd=environ.get("XBOARD_CIRCUSD", ""),
            launcher=environ.get("XBOARD_LAUNCHER", ""),
            websocket_spread=float(environ.get("XBOARD_WEBSOCKET_SPREAD", WEBSOCKET_SPREAD)),
            asker=Asker.read(environ),
            owner=os.getpid(),
        )

    def can_use_folder(self) -> bool:
        """Return whether files can be made in the runtime folder."""
        return self.folder is not None and self.folder.is_dir() and os.access(self.folder, os.W_OK | os.X_OK)

    def file(self, suffix: str) -> Path | None:
        """Return the path of our private socket ("sock") or of a mark ("up", "ready")."""
        return None if self.folder is None else self.folder / f"{self.token}.{suffix}"

    def mark(self, suffix: str) -> None:
        """Make a mark, by which circusd learns how far we are."""
        if (file := self.file(suffix)) is None:
            return
        try:
            file.touch(mode=0o600)
        except OSError as error:
            log.error("circusd will not learn that this worker is %s: %s", suffix, error)

    def remove_files(self) -> None:
        """Remove our private socket and our marks."""
        if self.folder is not None and self.owner == os.getpid():
            worker_files.remove(self.folder, self.token)


class WorkerServer(uvicorn.Server):
    """uvicorn's server, which also tells how it is, and drains before it shuts down."""

    def __init__(self, config: uvicorn.Config, surroundings: Surroundings, private: PrivateSocket | None) -> None:
        super().__init__(config)
        self.recycled = False
        self.dismissed = False  # a spare that was told to go before it served
        self._surroundings = surroundings
        self._private = private
        self._phase = WorkerState.SPARE if surroundings.spare else WorkerState.STARTING
        self._called = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._public: list[socket.socket] = []
        self._lag = LoopLag(period=TICK)
        self._calls: AppCalls | None = None
        self._starting: asyncio.Task[None] | None = None
        # One list for good, not a new one each second as uvicorn makes them: requests in flight see the drain begin.
        self._headers: list[tuple[bytes, bytes]] = []
        self.server_state.default_headers = self._headers

    @property
    def drain_limit(self) -> float:
        """Return how many seconds a drain may take."""
        limit = self.config.timeout_graceful_shutdown
        return GRACEFUL_SHUTDOWN if limit is None else limit

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._public = sockets or []
        if self._private is not None:
            await self._private.serve(self._tell, self._obey)
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
        if self._surroundings.spare and not await self._is_called():
            self.dismissed = True
            return
        await super().startup(sockets)
        for sock in sockets or []:
            log.info("Uvicorn running on socket %s (Press CTRL+C to quit)", sock.getsockname())
        self._calls = AppCalls(
            self.config.loaded_app,
            state=self.lifespan.state,
            root_path=self.config.root_path,
            user_agent=f"xboard-circus/{__version__}",
            asker=self._surroundings.asker,
        )
        self._starting = asyncio.create_task(self._complete_start(self._calls))

    async def _is_called(self) -> bool:
        """Wait as a spare; return False when the end comes first."""
        log.info("Spare: the app is imported, waiting for the order to serve")
        watching = watch(
            self._surroundings.circusd, self._surroundings.folder, self._surroundings.token, self._left_alone
        )
        await self._called.wait()
        watching.cancel()
        return not self.should_exit

    def _left_alone(self, others_serve: bool) -> None:
        """Decide, as a spare whose circusd is gone, what becomes of us."""
        if self._called.is_set():
            return
        log.warning("Spare: circusd is gone; %s", "others serve, so this one ends" if others_serve else "serving")
        if others_serve:
            self.should_exit = True
        else:
            self._phase = WorkerState.STARTING
        self._called.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._phase is WorkerState.SPARE and self._loop is not None:
            self._loop.call_soon_threadsafe(self._called.set)  # a signal alone does not wake a loop without timers

    def _obey(self, order: SocketOrder) -> tuple[dict[str, Any], int | None]:
        if order.path == SERVE_PATH:
            if self._is_going():
                raise BadQuestion(409, "it was ordered to leave")
            if self._phase is WorkerState.SPARE:
                self._phase = WorkerState.STARTING
            self._called.set()
            return {"state": self._phase.value}, None
        return self._hand_over(order)

    def _is_going(self) -> bool:
        return self.should_exit or self._phase is WorkerState.DRAINING

    def _hand_over(self, order: SocketOrder) -> tuple[dict[str, Any], int | None]:
        """Give the public listener to the next circusd of our instance and user, when our own is gone."""
        from xboard_circus.host import procs  # brings psutil, which no worker needs until then

        ours = self._surroundings
        if order.peer not in (0, os.geteuid()):
            raise BadQuestion(403, "another user's")
        if not ours.instance or order.instance != ours.instance:
            raise BadQuestion(403, "another instance's")
        try:
            circusd = procs.Identity.parse(ours.circusd)
        except ValueError:
            raise BadQuestion(409, "no circusd started this worker") from None
        if procs.is_running(circusd.pid, circusd.started):
            raise BadQuestion(409, f"its circusd, pid {circusd.pid}, lives")
        if self._is_going():
            raise BadQuestion(409, "it was ordered to leave")
        listening = [sock for sock in self._public if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        if len(listening) != 1:
            raise BadQuestion(409, "it has no listening socket of circusd's")
        where = listening[0].getsockname()
        host, port = (where, 0) if listening[0].family == socket.AF_UNIX else where[:2]
        return {"host": host, "port": port}, listening[0].fileno()

    async def _complete_start(self, calls: AppCalls) -> None:
        """Be up when the live path gives its first good answer, ready when the ready path does.

        The public socket is served since the lifespan is done; what is not up is no use to circusd all the same.
        """
        ours = self._surroundings
        if ours.live_path is not None:
            answer = await self._until(calls, ours.live_path, lambda answer: answer.works, "up")
            if answer.refused:
                log.warning("The live path refuses its probes: %s says: %s", ours.live_path, answer.reason)
        self._phase = WorkerState.UP
        ours.mark("up")
        if ours.ready_path is not None:
            await self._until(calls, ours.ready_path, lambda answer: answer.ok, "ready")
        ours.mark("ready")

    async def _until(self, calls: AppCalls, path: str, is_good: Callable[[AppAnswer], bool], what: str) -> AppAnswer:
        """Ask the app for *path* until the answer is good."""
        said = None
        while not is_good(answer := await calls.ask(path, timeout=START_TIMEOUT)):
            if answer.reason != said:
                log.info("Not %s yet: %s says: %s", what, path, answer.reason)
                said = answer.reason
            await asyncio.sleep(START_PERIOD)
        return answer

    def descriptors(self) -> set[int]:
        """Return what no child of the app may hold: the listeners, and the connections of clients."""
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
        should_exit = await super().on_tick(counter)
        if self.server_state.default_headers is not self._headers:
            closing = [CLOSE_HEADER] if self._phase is WorkerState.DRAINING else []
            self._headers[:] = [*self.server_state.default_headers, *closing]
            self.server_state.default_headers = self._headers
        return should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        limit = self.drain_limit
        self._phase = WorkerState.DRAINING
        self.should_exit = True  # of a recycled worker, too, one SIGINT more is to force the end
        if self._starting is not None:
            self._starting.cancel()
        await stop_accepting(self.servers, sockets or [])
        log.info("Draining %d connection(s)", len(self.server_state.connections))
        await drain(
            self,
            idle_limit=min(limit, self.config.timeout_keep_alive + 1),
            limit=limit,
            websocket_spread=min(limit, self._surroundings.websocket_spread),
        )
        self._lag.stop()
        self.config.timeout_graceful_shutdown = 1  # what is left now does not listen to reason
        await super().shutdown(sockets)

    async def _tell(self, question: Question) -> dict[str, Any]:
        live, ready = await asyncio.gather(
            self._ask(question.live, question.timeout), self._ask(question.ready, question.timeout)
        )
        threads_used, threads_limit = thread_pool()
        return {
            "pid": os.getpid(),
            "watcher": self._surroundings.watcher,
            "wid": self._surroundings.wid,
            "uptime": time.monotonic() - STARTED_AT,
            "state": self._phase.value,
            "lag": self._lag.largest(),
            "lag_latest": self._lag.latest(),
            "threads_used": threads_used,
            "threads_limit": threads_limit,
            "requests_active": len(self.server_state.tasks),
            "requests_served": self.server_state.total_requests,
            "rss": resident_bytes(),
            "live": live,
            "ready": ready,
            "version": __version__,
        }

    async def _ask(self, path: str | None, timeout: float) -> dict[str, Any] | None:
        """None also while the app's lifespan has not started: it can't be asked yet."""
        if path is None or self._calls is None:
            return None
        answer = await self._calls.ask(path, timeout=timeout)
        return {**asdict(answer), **with_say(answer.reason)}
