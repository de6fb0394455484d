"""Count each request, and note it in memory that circusd reads after the death of this worker: which request did it.

A request costs one write at its begin, one when its route is known, and one at its end. Nothing of it is noted but
method, route and id: no query, no header, no body, and of a path that no route names only what are plain words.
"""

import asyncio
import functools
import mmap
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from inspect import isfunction
from operator import itemgetter
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

from xboard_circus.core.in_flight import SeenRequest
from xboard_circus.host.request_slots import (
    BEGUN,
    FIRST,
    MARK_AT,
    MARK_BYTES,
    NUMBER,
    OVER_AT,
    OVERWRITTEN,
    RUNNING_AT,
    SIZE,
    SLOT,
    SLOTS,
    TAKEN,
    TEXTS,
    made_id,
)
from xboard_circus.worker.refusal import Refusal
from xboard_circus.worker.traffic import RouteCounts, Traffic

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FIRST_OVER = FIRST + SLOT.size * (SLOTS - OVERWRITTEN)
WEBSOCKETS_LEAVE = 24
"""Slots that WebSockets, which last, leave free for others."""

MOST_PATHS, MOST_METHODS, LONGEST_PATH = 1024, 8, 300
ID_HEADER, WEBSOCKET = "X-Request-ID", "WEBSOCKET"
SERIAL = "xboard_circus.request"
"""Key of an ASGI scope: the number of the request, its slot, and what is known of its path."""

_WORDS = r"[A-Za-z][a-z]{0,19}(?:[A-Z][a-z]{1,19}){0,3}"
_NO_WORD = re.compile(rf"(?<=/)(?!(?:{_WORDS}(?:[-_.]{_WORDS}){{0,4}}|v\d{{1,2}})(?:/|\Z))[^/]+")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_serial: ContextVar[int] = ContextVar(SERIAL, default=0)
TELLS_CONTEXT = hasattr(asyncio.Task, "get_context")  # from Python 3.12 on
ANSWERS = ("http.response.start", "websocket.accept")
name_of = itemgetter(0)
pack_begun, pack_number = BEGUN.pack_into, NUMBER.pack_into


def masked_path(path: str) -> str:
    """Return a path without what may be an id or a token: all that is no plain word.

    >>> masked_path("/v1/reports/4711/getPages"), masked_path("/reset/Zx9dQ-1")
    ('/v1/reports/{id}/getPages', '/reset/{id}')
    """
    return _NO_WORD.sub("{id}", path[:LONGEST_PATH]) if path.startswith("/") else "/{id}"


class FoundRequest(NamedTuple):
    """A request in flight, and whether its answer has begun."""

    request: SeenRequest
    is_answered: bool


class _Path:
    """What is kept of a path that one method requests.

    Attributes:
        shown: How it is noted: masked, or the template of its route.
        texts: Method and path as they stand in a slot.
        route: The route that was found, and `mount` what that is mounted in; None until then.
        counted: The row in which the requests of that route are counted; None until then.
    """

    __slots__ = ("counted", "method", "mount", "route", "shown", "texts")

    def __init__(self, method: str, shown: str) -> None:
        self.method = method
        self.route: object = None
        self.mount: object = None
        self.counted: RouteCounts | None = None
        self.show(shown)

    def show(self, shown: str) -> None:
        self.shown = shown
        self.texts = self.with_id(b"")

    def with_id(self, id_: bytes) -> bytes:
        """Return the texts of a request that brings an id."""
        return TEXTS.pack(TAKEN, self.method.encode(), id_, self.shown.encode())


class RequestRecord:
    """Serve *app*, note its requests in *memory*, if any, and have *traffic* count them when they are answered.

    Their ids come in *id_header*, and go out in it if *sends_id*; those that *refusal* names do not reach the app.
    """

    def __init__(
        self,
        app: App,
        memory: mmap.mmap | None,
        *,
        traffic: Traffic,
        id_header: str = ID_HEADER,
        sends_id: bool = False,
        refusal: Refusal | None = None,
    ) -> None:
        # An instance is called through its type: its method costs a request less.
        instance: Any = app
        self._behind: App = instance.__call__ if isfunction(vars(type(app)).get("__call__")) else app
        self._app = self._behind if refusal is None else self._unless_refused
        self.refusal = refusal
        self._traffic = traffic
        self._memory: mmap.mmap | bytearray = memory or bytearray(SIZE)
        self._header, self._sends_id = id_header.lower().encode("latin-1"), sends_id
        self._mark = bytes(self._memory[MARK_AT : MARK_AT + MARK_BYTES])
        self._free = deque(FIRST + SLOT.size * at for at in range(SLOTS - OVERWRITTEN))  # the last answered ones stay
        self.paths: dict[str, dict[str, _Path]] = {}
        self._served = self._over = self._running = self._websockets = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        # In one piece, without a step that can be spared: each costs a request as much as what it does here.
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        self._served = serial = self._served + 1
        try:
            known = self.paths[scope["path"]][scope["method"]]
        except KeyError:
            known = self._know(scope["path"], scope["method"])
        texts = known.texts
        if self._header in map(name_of, scope["headers"]):
            texts = self._with_its_id(known, scope)
        if self._sends_id:
            send = self._identified(send, serial, texts)
        status, ended_at = 0, 0.0

        def note_and_send(message: Message) -> Awaitable[None]:
            nonlocal status, ended_at
            if status:
                ended_at = monotonic()  # not the end of the call: background tasks of Starlette's are a part of that
            elif "status" in message:
                status = message["status"]
            return send(message)

        try:
            slot = self._free.popleft()
        except IndexError:
            slot = self._overwrite(serial)
        began_at = monotonic()
        pack_begun(self._memory, slot, texts, serial, began_at)
        scope[SERIAL] = serial, slot, known
        if TELLS_CONTEXT:
            _serial.set(serial)  # uvicorn runs each request in a task, and so in a context, of its own
        try:
            await self._app(scope, receive, note_and_send)
        finally:
            row = known.counted or self._row_of(known, scope)
            row.add((ended_at or monotonic()) - began_at)
            if status != 200:
                row.correct(status or 500)  # as uvicorn answers for the app
            if slot < FIRST_OVER:
                self._memory[slot] = 0
                self._free.append(slot)
            else:
                self._end_over(serial, slot)

    async def _serve_other(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a WebSocket, which lasts for hours and is not counted, or the lifespan of the app."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        self._served = serial = self._served + 1
        known = self.paths.get(scope["path"], {}).get(WEBSOCKET) or self._know(scope["path"], WEBSOCKET)
        texts = self._with_its_id(known, scope)
        free = self._free
        slot = free.popleft() if len(free) > WEBSOCKETS_LEAVE else self._overwrite(serial)
        pack_begun(self._memory, slot, texts, serial, monotonic())
        scope[SERIAL] = serial, slot, known
        if TELLS_CONTEXT:
            _serial.set(serial)
        self._websockets += 1
        try:
            await self._app(scope, receive, self._identified(send, serial, texts) if self._sends_id else send)
        finally:
            self._websockets -= 1
            if slot < FIRST_OVER:
                self._memory[slot] = 0
                free.append(slot)
            else:
                self._end_over(serial, slot)

    def _with_its_id(self, known: _Path, scope: Message) -> bytes:
        """Return the texts of a request, with the id that it brings if that is a sane word."""
        brought = [value for name, value in scope["headers"] if name == self._header and _ID.fullmatch(value)]
        return known.with_id(brought[-1]) if brought else known.texts

    def _identified(self, send: Send, serial: int, texts: bytes) -> Send:
        """Return a *send* that adds the id of a request to the begin of its answer, unless the app sends one itself."""
        header = self._header
        id_ = id_in(texts) or made_id(self._mark, serial)

        def identify_and_send(message: Message) -> Awaitable[None]:
            if message["type"] in ANSWERS:
                headers = message.get("headers") or ()
                if header not in map(name_of, headers):
                    message = {**message, "headers": [*headers, (header, id_)]}
            return send(message)

        return identify_and_send

    async def _unless_refused(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.refusal is not None:
            _, slot, known = scope[SERIAL]
            if self.refusal.is_of(known.method, known.shown):
                await self.refuse(self.refusal, slot, send)
                return
        await self._behind(scope, receive, send)

    def _row_of(self, known: _Path, scope: Message) -> RouteCounts:
        """Return the row of a request whose route did not report itself."""
        return self._traffic.row(known.method, str(getattr(scope.get("route"), "path", "other")))

    def active(self) -> int:
        """Return how many requests are in flight, without WebSockets."""
        return SLOTS - OVERWRITTEN - len(self._free) + self._over - self._websockets

    def _know(self, path: str, method: str) -> _Path:
        """Return what is noted of a path, and keep it for the next request to it, unless the path is too long."""
        known = _Path(method, masked_path(path))
        if len(self.paths) >= MOST_PATHS:
            self.paths.clear()
        if len(path) <= LONGEST_PATH:
            by_method = self.paths.setdefault(path, {})
            if len(by_method) < MOST_METHODS:
                by_method[method] = known
        return known

    def _overwrite(self, serial: int) -> int:
        """Return the slot of a request that comes when all others are taken."""
        self._over += 1
        pack_number(self._memory, OVER_AT, self._over)
        return FIRST_OVER + SLOT.size * (serial % OVERWRITTEN)

    def _serial_in(self, slot: int) -> int:
        serial: int = NUMBER.unpack_from(self._memory, slot + TEXTS.size)[0]
        return serial

    def _end_over(self, serial: int, slot: int) -> None:
        self._over -= 1
        pack_number(self._memory, OVER_AT, self._over)
        if self._serial_in(slot) == serial:  # else a newer one has it
            self._memory[slot] = 0

    async def refuse(self, refusal: Refusal, slot: int, send: Send) -> None:
        """Refuse a request; its slot is emptied, because a route that stays there counts as answered."""
        pack_begun(self._memory, slot, b"", 0, 0.0)
        await refusal.answer(send)

    def note_route(self, route: Any, scope: Message, *, is_mount: bool) -> str:
        """Note the template of the route that was found for a request, in the place of its masked path."""
        serial, slot, known = scope[SERIAL]
        template = template_of(route, scope, is_mount=is_mount)
        known.show(template)
        known.counted = self._traffic.row(known.method, template)
        known.route = route
        if is_mount:
            known.mount = route
        if self._serial_in(slot) == serial:
            id_ = id_in(bytes(self._memory[slot : slot + TEXTS.size]))
            self._memory[slot : slot + TEXTS.size] = known.with_id(id_)
        return template

    def noted(self, serial: int) -> SeenRequest | None:
        """Return what is noted of a request in flight; None where newer ones have its slot."""
        slots = (SLOT.unpack_from(self._memory, FIRST + SLOT.size * at) for at in range(SLOTS))
        found = next((values for values in slots if values[0] == TAKEN and values[-2] == serial), None)
        if found is None:
            return None
        _, *texts, _, began_at = found
        method, id_, route = (text.rstrip(b"\0").decode(errors="ignore") for text in texts)
        return SeenRequest(serial, began_at, method, route, id_ or made_id(self._mark, serial).decode())

    def found_in(self, frames: Sequence[FrameType]) -> FoundRequest | None:
        """Return the HTTP request that a task serves, from the frame of our own call among its *frames*."""
        for frame in frames:
            if frame.f_code is RequestRecord.__call__.__code__:
                seen = frame.f_locals
                if "began_at" not in seen:
                    return None
                known, serial = seen["known"], seen["serial"]
                id_ = id_in(seen["texts"]) or made_id(self._mark, serial)
                request = SeenRequest(serial, seen["began_at"], known.method, known.shown, id_.decode())
                return FoundRequest(request, is_answered=seen["status"] != 0)
        return None

    def show_running(self, loop: asyncio.AbstractEventLoop, frame: FrameType | None) -> int:
        """Note and return which request a loop that does not turn works on, by its *frame*; None for one that turns.

        To be called by another thread.
        """
        serial = 0 if frame is None else self._runs_in(loop, frame)
        if serial != self._running:
            self._running = serial
            pack_number(self._memory, RUNNING_AT, serial)
        return serial

    def _runs_in(self, loop: asyncio.AbstractEventLoop, frame: FrameType | None) -> int:
        task: Any = asyncio.current_task(loop)
        if TELLS_CONTEXT:
            found: int = 0 if task is None else task.get_context().get(_serial, 0)
            return found  # also in a task that the request has made
        while frame is not None:
            scope = frame.f_locals.get("scope")
            if isinstance(scope, dict) and isinstance(noted := scope.get(SERIAL), tuple):
                serial: int = noted[0]
                return serial
            frame = frame.f_back
        return 0

    def let_go(self) -> None:
        """Write nowhere from now on: this is a child that the app has forked."""
        memory, self._memory = self._memory, bytearray(SIZE)
        if isinstance(memory, mmap.mmap):
            memory.close()


def id_in(texts: bytes) -> bytes:
    """Return the id that a request brought, b"" without one."""
    id_: bytes = TEXTS.unpack(texts)[2]
    return id_.rstrip(b"\0")


def template_of(route: Any, scope: Message, *, is_mount: bool = False) -> str:
    """Return the template of a route that Starlette or FastAPI has found, with that of what it is mounted in."""
    path = route.path_format
    if "fastapi" in scope:  # of a router that is included
        context = scope["fastapi"].get("effective_route_context")
        if context is not None and context.original_route is route:
            path = context.path_format
    mounted = scope["root_path"][len(scope["app_root_path"]) :] if "app_root_path" in scope else ""
    prefix = masked_path(mounted) if mounted else ""
    return f"{prefix}/{{path}}" if is_mount else prefix + path  # of a mount, the prefix holds its own path already


def name_routes(record: RequestRecord) -> None:
    """Have the routes of Starlette and FastAPI tell *record* when one of them was found.

    The scope says it only where somebody looks again later, and a request that kills its worker at once leaves no time
    for that.
    """
    kinds = [("starlette.routing", name) for name in ("Route", "WebSocketRoute", "Mount")]
    for module, name in [*kinds, ("fastapi.routing", "APIRoute")]:
        kind: Any = getattr(sys.modules.get(module), name, None)
        if kind is not None and "handle" in vars(kind):
            kind.handle = _noting(kind.handle, record, is_mount=name == "Mount")


def _noting(handle: Any, record: RequestRecord, *, is_mount: bool) -> Any:
    @functools.wraps(handle)
    def noting(route: Any, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            _, slot, known = scope[SERIAL]
            is_new = (known.mount if is_mount else known.route) is not route
        except KeyError:  # of a probe
            is_new = False
        if is_new:
            with suppress(Exception):  # a framework of another version: the masked path stays
                template = record.note_route(route, scope, is_mount=is_mount)
                # Of a path that was routed before, the record has the template at once, and refuses it itself.
                refusal = record.refusal if scope["type"] == "http" else None
                if refusal is not None and refusal.is_of(scope["method"], template):
                    return record.refuse(refusal, slot, send)
        answer: Awaitable[None] = handle(route, scope, receive, send)
        return answer

    return noting
