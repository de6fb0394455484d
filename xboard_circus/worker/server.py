"""uvicorn's server as a worker under Circus: it knows how it is, and drains before it shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from xboard_circus import __version__
from xboard_circus.core.states import WorkerState
from xboard_circus.worker.app_calls import AppCalls
from xboard_circus.worker.drain import CLOSE_HEADER, drain, stop_accepting
from xboard_circus.worker.forsaken import watch
from xboard_circus.worker.gauges import LoopLag, resident_bytes, thread_pool
from xboard_circus.worker.private_socket import SERVE_PATH, BadQuestion, Order, PrivateSocket, Question

log = logging.getLogger("uvicorn.error")

GRACEFUL_SHUTDOWN = 20
TICK = 0.1  # uvicorn calls on_tick that often
READY_PERIOD = 0.2
READY_TIMEOUT = 5.0
STARTED_AT = time.monotonic()


@dataclass(frozen=True)
class Surroundings:
    """What the environment says, read once.

    Attributes:
        folder: Where our private socket and our ready file go; None: there are none.
        ready_path: The path of the app that must answer before we call ourselves ready; None: none.
        preflight: We are a trial of new code and stay away from the public socket.
        spare: We import the app and wait until we are told to serve.
        instance: The instance of the bundle that we belong to.
        circusd: The circusd that started us, "pid:started".
    """

    folder: Path | None
    watcher: str | None
    wid: int | None
    ready_path: str | None
    preflight: bool
    spare: bool = False
    instance: str = ""
    circusd: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Surroundings:
        folder, wid = environ.get("XBOARD_WORKER_DIR"), environ.get("XBOARD_WID", "")
        return cls(
            folder=Path(folder) if folder else None,
            watcher=environ.get("XBOARD_WATCHER"),
            wid=int(wid) if wid.isdecimal() else None,
            ready_path=environ.get("XBOARD_READY_PATH") or None,
            preflight=environ.get("XBOARD_PREFLIGHT") == "1",
            spare=environ.get("XBOARD_SPARE") == "1",
            instance=environ.get("XBOARD_INSTANCE", ""),
            circusd=environ.get("XBOARD_CIRCUSD", ""),
        )

    def file(self, suffix: str) -> Path | None:
        """Return our file of that kind. It bears the pid of who asks: a child that the app forks never takes ours."""
        return None if self.folder is None else self.folder / f"{os.getpid()}.{suffix}"

    def remove_files(self) -> None:
        for path in (self.file("sock"), self.file("ready")):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)


class WorkerServer(uvicorn.Server):
    """uvicorn's server, which also tells how it is, and drains before it shuts down."""

    def __init__(self, config: uvicorn.Config, surroundings: Surroundings, private: PrivateSocket | None) -> None:
        super().__init__(config)
        self.recycled = False
        self.dismissed = False  # a spare that was told to go before it served
        self._surroundings = surroundings
        self._private = private
        self._state = WorkerState.SPARE if surroundings.spare else WorkerState.STARTING
        self._called = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._public: list[socket.socket] = []
        self._lag = LoopLag(period=TICK)
        self._calls: AppCalls | None = None
        self._readiness: asyncio.Task[None] | None = None
        # One list for good, not a new one each second as uvicorn makes them: requests in flight see the drain begin.
        self._headers: list[tuple[bytes, bytes]] = []
        self.server_state.default_headers = self._headers

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
        )
        self._readiness = asyncio.create_task(self._become_ready(self._calls))

    async def _is_called(self) -> bool:
        """Wait as a spare; return False when the end comes first."""
        log.info("Spare: the app is imported, waiting to be told to serve")
        watching = watch(self._surroundings.circusd, self._surroundings.folder, self._left_alone)
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
            self._state = WorkerState.STARTING
        self._called.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._state is WorkerState.SPARE and self._loop is not None:
            self._loop.call_soon_threadsafe(self._called.set)  # a signal alone does not wake a loop without timers

    def _obey(self, order: Order) -> tuple[dict[str, Any], int | None]:
        if order.path == SERVE_PATH:
            if self._is_going():
                raise BadQuestion(409, "it has been told to go")
            if self._state is WorkerState.SPARE:
                self._state = WorkerState.STARTING
            self._called.set()
            return {"state": self._state.value}, None
        return self._hand_over(order)

    def _is_going(self) -> bool:
        return self.should_exit or self._state is WorkerState.DRAINING

    def _hand_over(self, order: Order) -> tuple[dict[str, Any], int | None]:
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
            raise BadQuestion(409, "it has been told to go")
        listening = [sock for sock in self._public if sock.family in (socket.AF_INET, socket.AF_INET6)]
        if len(listening) != 1 or not listening[0].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise BadQuestion(409, "it has no listening TCP socket of circusd's")
        host, port = listening[0].getsockname()[:2]
        return {"host": host, "port": port}, listening[0].fileno()

    async def _become_ready(self, calls: AppCalls) -> None:
        path, said = self._surroundings.ready_path, None
        while path is not None and not (answer := await calls.ask(path, timeout=READY_TIMEOUT)).ok:
            if answer.reason != said:
                log.info("Not ready yet: %s says: %s", path, answer.reason)
                said = answer.reason
            await asyncio.sleep(READY_PERIOD)
        self._state = WorkerState.READY
        if (file := self._surroundings.file("ready")) is not None:
            try:
                file.touch(mode=0o600)
            except OSError as error:
                log.error("Nobody will know that this worker is ready: %s", error)

    async def main_loop(self) -> None:
        await super().main_loop()
        self.recycled = not self.should_exit

    async def on_tick(self, counter: int) -> bool:
        self._lag.tick()
        should_exit = await super().on_tick(counter)
        if self.server_state.default_headers is not self._headers:
            closing = [CLOSE_HEADER] if self._state is WorkerState.DRAINING else []
            self._headers[:] = [*self.server_state.default_headers, *closing]
            self.server_state.default_headers = self._headers
        return should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        limit = self.config.timeout_graceful_shutdown
        limit = GRACEFUL_SHUTDOWN if limit is None else limit
        self._state = WorkerState.DRAINING
        self.should_exit = True  # of a recycled worker, too, one SIGINT more is to force the end
        if self._readiness is not None:
            self._readiness.cancel()
        await stop_accepting(self.servers, sockets or [])
        log.info("Draining %d connection(s)", len(self.server_state.connections))
        await drain(self, idle_limit=min(limit, self.config.timeout_keep_alive + 1), limit=limit)
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
            "state": self._state.value,
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
        return asdict(await self._calls.ask(path, timeout=timeout))
