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
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

from xboard_circus.core.in_flight import SeenRequest
from xboard_circus.host.request_slots import (
    FIRST,
    MARK_AT,
    MARK_BYTES,
    NUMBER,
    OVER_AT,
    OVERWRITTEN,
    ROUTE,
    ROUTE_AT,
    RUNNING_AT,
    SIZE,
    SLOT,
    SLOTS,
    made_id,
)
from xboard_circus.worker.refusal import Refusal
from xboard_circus.worker.traffic import Traffic

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FIRST_OVER = FIRST + SLOT.size * (SLOTS - OVERWRITTEN)
WEBSOCKETS_LEAVE = 24
"""Slots that WebSockets, which last, leave free for others."""

MOST_PATHS, LONGEST_PATH = 1024, 300
SERIAL = "xboard_circus.request"
"""Key of an ASGI scope: the number of the request, and its slot."""

_WORDS = r"[A-Za-z][a-z]{0,19}(?:[A-Z][a-z]{1,19}){0,3}"
_NO_WORD = re.compile(rf"(?<=/)(?!(?:{_WORDS}(?:[-_.]{_WORDS}){{0,4}}|v\d{{1,2}})(?:/|\Z))[^/]+")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_serial: ContextVar[int] = ContextVar(SERIAL, default=0)
TELLS_CONTEXT = hasattr(asyncio.Task, "get_context")  # from Python 3.12 on
ANSWERS = ("http.response.start", "websocket.accept")
pack_slot, pack_number = SLOT.pack_into, NUMBER.pack_into


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
    """What is kept of a path: how it is noted, the template of its route if one was found, and that route."""

    __slots__ = ("route", "shown", "template")

    def __init__(self, shown: bytes) -> None:
        self.shown, self.template = shown, ""
        self.route: object = None


class RequestRecord:
    """Serve *app*, note its requests in *memory*, if any, and have *traffic* count them when they are answered.

    *id_header* carries their ids, "" for none; those that *refusal* names do not reach the app.
    """

    def __init__(
        self,
        app: App,
        memory: mmap.mmap | None,
        *,
        id_header: str,
        traffic: Traffic,
        refusal: Refusal | None = None,
    ) -> None:
        self._app = app
        self.refusal = refusal
        self._traffic = traffic
        self._memory: mmap.mmap | bytearray = memory or bytearray(SIZE)
        self._header = b"" if memory is None else id_header.lower().encode("latin-1")
        self._mark = bytes(self._memory[MARK_AT : MARK_AT + MARK_BYTES])
        self._free = deque(FIRST + SLOT.size * at for at in range(SLOTS - OVERWRITTEN))  # the last answered ones stay
        self.paths: dict[str, _Path] = {}
        self._served = self._over = self._running = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        # In one piece, because each call of a function costs as much as what it does here.
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            await self._app(scope, receive, send)
            return
        self._served = serial = self._served + 1
        header, id_ = self._header, b""  # then it is made of the serial
        if header:
            for name, value in scope["headers"]:
                if name == header and _ID.fullmatch(value):
                    id_ = value
        status, ended_at = 0, 0.0

        def note_and_send(message: Message) -> Awaitable[None]:
            nonlocal status, ended_at
            kind = message["type"]
            if kind == "http.response.body":
                if not message.get("more_body"):
                    ended_at = monotonic()  # not with the call: background tasks of Starlette's are a part of that
                return send(message)
            if kind == "http.response.start":
                status = message["status"]
            if header and kind in ANSWERS:
                message = with_id(message, header, id_ or made_id(self._mark, serial))
            return send(message)

        free, path = self._free, scope["path"]
        is_short = kind == "http"
        slot = free.popleft() if free and (is_short or len(free) > WEBSOCKETS_LEAVE) else self._overwrite(serial)
        known = self.paths.get(path) or self._know(path)
        method = scope["method"].encode() if is_short else b"WEBSOCKET"
        began_at = monotonic()
        pack_slot(self._memory, slot, serial, began_at, method, id_, known.shown)
        scope[SERIAL] = serial, slot
        if TELLS_CONTEXT:
            _serial.set(serial)  # uvicorn runs each request in a task, and so in a context, of its own
        if is_short:  # a WebSocket lasts for hours, and is none
            self._traffic.begun()
        try:
            if self.refusal is not None and is_short and self.refusal.is_of(scope["method"], known.shown.decode()):
                await self.refuse(self.refusal, slot, note_and_send)
            else:
                await self._app(scope, receive, note_and_send)
        finally:
            if is_short:
                template = known.template or str(getattr(scope.get("route"), "path", "other"))
                seconds = (ended_at or monotonic()) - began_at
                self._traffic.ended(scope["method"], template, status or 500, seconds)  # as uvicorn answers for the app
            if slot < FIRST_OVER:
                pack_number(self._memory, slot, 0)
                free.append(slot)
            else:
                self._end_over(serial, slot)

    def _know(self, path: str) -> _Path:
        """Return what is noted of a path, and keep it for the next request to it, unless the path is too long."""
        known = _Path(masked_path(path).encode())
        if len(self.paths) >= MOST_PATHS:
            self.paths.clear()
        if len(path) <= LONGEST_PATH:
            self.paths[path] = known
        return known

    def _overwrite(self, serial: int) -> int:
        """Return the slot of a request that comes when all others are taken."""
        self._over += 1
        pack_number(self._memory, OVER_AT, self._over)
        return FIRST_OVER + SLOT.size * (serial % OVERWRITTEN)

    def _end_over(self, serial: int, slot: int) -> None:
        self._over -= 1
        pack_number(self._memory, OVER_AT, self._over)
        if NUMBER.unpack_from(self._memory, slot)[0] == serial:  # else a newer one has it
            pack_number(self._memory, slot, 0)

    async def refuse(self, refusal: Refusal, slot: int, send: Send) -> None:
        """Refuse a request; its slot is emptied, because a route that stays there counts as answered."""
        pack_slot(self._memory, slot, 0, 0.0, b"", b"", b"")
        await refusal.answer(send)

    def note_route(self, route: Any, scope: Message, *, is_mount: bool) -> str:
        """Note the template of the route that was found for a request, in the place of its masked path."""
        template, path = template_of(route, scope, is_mount=is_mount), scope["path"]
        known = self.paths.get(path) or self._know(path)
        known.shown, known.template, known.route = template.encode(), template, route
        serial, slot = scope[SERIAL]
        if NUMBER.unpack_from(self._memory, slot)[0] == serial:
            ROUTE.pack_into(self._memory, slot + ROUTE_AT, known.shown)
        return template

    def noted(self, serial: int) -> SeenRequest | None:
        """Return what is noted of a request in flight; None where newer ones have its slot."""
        slots = (SLOT.unpack_from(self._memory, FIRST + SLOT.size * at) for at in range(SLOTS))
        found = next((values for values in slots if values[0] == serial), None)
        if found is None:
            return None
        _, began_at, *texts = found
        method, id_, route = (text.rstrip(b"\0").decode(errors="ignore") for text in texts)
        return SeenRequest(serial, began_at, method, route, id_ or made_id(self._mark, serial).decode())

    def found_in(self, frames: Sequence[FrameType]) -> FoundRequest | None:
        """Return the HTTP request that a task serves, from the frame of our own call among its *frames*."""
        for frame in frames:
            if frame.f_code is RequestRecord.__call__.__code__:
                seen = frame.f_locals
                if not seen.get("is_short") or "began_at" not in seen:
                    return None
                id_ = seen["id_"] or made_id(self._mark, seen["serial"])
                method, route = seen["method"].decode(), seen["known"].shown.decode()
                request = SeenRequest(seen["serial"], seen["began_at"], method, route, id_.decode())
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


def with_id(message: Message, header: bytes, id_: bytes) -> Message:
    """Return the begin of an answer with the id of its request, unless the app sends one of its own."""
    headers = message.get("headers") or ()
    for name, _ in headers:
        if name == header:
            return message
    return {**message, "headers": [*headers, (header, id_)]}


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
    starlette, fastapi = sys.modules.get("starlette.routing"), sys.modules.get("fastapi.routing")
    api_route: Any = getattr(fastapi, "APIRoute", None)
    if api_route is not None and "handle" in vars(api_route):
        api_route.handle = _noting(api_route.handle, record)
        tells_itself = api_route
    else:
        tells_itself = ()
    for name in ("Route", "WebSocketRoute", "Mount"):
        if (kind := getattr(starlette, name, None)) is not None:
            kind.handle = _noting(kind.handle, record, but=tells_itself, is_mount=name == "Mount")


def _noting(handle: Any, record: RequestRecord, *, but: Any = (), is_mount: bool = False) -> Any:
    @functools.wraps(handle)
    def noting(route: Any, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        known = record.paths.get(scope["path"])
        if (known is None or known.route is not route) and SERIAL in scope and not isinstance(route, but):
            with suppress(Exception):  # a framework of another version: the masked path stays
                template = record.note_route(route, scope, is_mount=is_mount)
                # Of a path that was routed before, the record has the template at once, and refuses it itself.
                refusal = record.refusal if scope["type"] == "http" else None
                if refusal is not None and refusal.is_of(scope["method"], template):
                    return record.refuse(refusal, scope[SERIAL][1], send)
        answer: Awaitable[None] = handle(route, scope, receive, send)
        return answer

    return noting
