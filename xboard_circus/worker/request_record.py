"""Count each request, and note it in memory that circusd reads after the death of this worker: which request did it.

A request costs one write at its begin, one when its route is known, and one at its end. Nothing of it is noted but
method, route, id and the size of its body: no query, no other header, no body, and of a path that no route names only
what are plain words.
"""

from __future__ import annotations  # what `note_and_send` takes and returns would be looked up in each request

import asyncio
import functools
import itertools
import mmap
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from inspect import isfunction
from operator import itemgetter
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from xboard_circus.core.in_flight import NO_REQUEST, SeenRequest
from xboard_circus.core.masked_path import masked_path
from xboard_circus.host import request_slots as layout
from xboard_circus.host.request_slots import BEGUN, FIRST, MOMENT, NUMBER, SLOT, SLOTS, TAKEN, TEXTS, made_id
from xboard_circus.worker.refusal import Refusal
from xboard_circus.worker.task_stack import stack_of
from xboard_circus.worker.traffic import RouteCounts, Traffic

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FIRST_OVER = FIRST + SLOT.size * (SLOTS - layout.OVERWRITTEN)
WEBSOCKETS_LEAVE = 24
"""Slots that WebSockets, which last, leave free for others."""

MOST_PATHS, LONGEST_METHOD = 1024, 11
MOST_OTHERS = 200
"""Tasks that are looked through for the one that waits for another: a client can make very many, and the loop waits."""
ID_HEADER, WEBSOCKET = "X-Request-ID", "WEBSOCKET"
LENGTH, LONGEST_SIZE = b"content-length", 16
SERIAL = "xboard_circus.request"
"""Key of an ASGI scope: a list with the number of the request, its slot, and what is known of its path."""
MOUNTED = "xboard_circus.mounted"
"""Key of an ASGI scope: the path of all that the app is mounted in, with its parameters, and the innermost mount."""
OTHER_ROUTE = "other"

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_serial: ContextVar[int] = ContextVar(SERIAL, default=0)
TELLS_CONTEXT = hasattr(asyncio.Task, "get_context")  # from Python 3.12 on
FORWARDED = frozenset({b"forwarded", *(b"x-forwarded-" + of for of in (b"for", b"proto", b"host", b"port", b"prefix"))})
"""Without one of these headers a request does not pass uvicorn's middleware, which would do nothing with it."""

ANSWERS = ("http.response.start", "websocket.accept")
name_of = itemgetter(0)
pack_begun, pack_number = BEGUN.pack_into, NUMBER.pack_into


class FoundRequest(NamedTuple):
    """A request in flight, and whether its answer has begun."""

    request: SeenRequest
    is_answered: bool


class _Path:
    """What is kept of paths with the same words that one method requests.

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
        self.texts = self.of_one()

    def of_another_route(self) -> _Path:
        """Return a copy to be changed: paths with the same words may have several routes, and the first is kept."""
        other = _Path(self.method, self.shown)
        other.mount = self.mount
        return other

    def of_one(self, id_: bytes = b"", size: int = 0) -> bytes:
        """Return the texts of a request that brings an id, or announces the size of its body."""
        return TEXTS.pack(TAKEN, self.method.encode(), id_, self.shown.encode(), size)


class RequestRecord:
    """Serve *app*, note its requests in *memory*, if any, and have *traffic* count them when they are answered.

    Their ids come in *header*, and go out in it; without it they come in `ID_HEADER`, and none goes out. Those that
    *refusal* names do not reach the app.
    """

    def __init__(
        self, app: App, memory: mmap.mmap | None, *, traffic: Traffic, header: str = "", refusal: Refusal | None = None
    ) -> None:
        self.refusal, self._sends_id = refusal, bool(header)
        self._app = self._unforwarded = self._around(app)
        if type(app) is ProxyHeadersMiddleware:
            self._unforwarded = self._around(app.app)
        self._traffic = traffic
        self._memory: mmap.mmap | bytearray = memory or bytearray(layout.SIZE)
        self._header = (header or ID_HEADER).lower().encode("latin-1")
        self._looked_for = FORWARDED | {self._header, LENGTH}
        self._mark = bytes(self._memory[layout.MARK_AT : layout.MARK_AT + layout.MARK_BYTES])
        self._free = deque(FIRST + SLOT.size * at for at in range(SLOTS - layout.OVERWRITTEN))  # the last ones stay
        self.paths: dict[str, _Path] = {}  # by method and words, such as "GET/items/{id}"
        self._next_serial = itertools.count(1).__next__
        self._over = self._running = self._websockets = 0
        self._has_routes = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        # In one piece, without a step that can be spared: each costs a request as much as what it does here.
        # `found_in` reads `state`, `texts`, `began_at` and `status` of a call by these names.
        try:
            known = self.paths.get(scope["method"] + scope["path"]) or self._know(scope["method"], scope["path"])
        except KeyError:  # only HTTP has a method
            await self._serve_other(scope, receive, send)
            return
        serial = self._next_serial()
        texts = known.texts
        app = self._unforwarded
        looked_for = self._looked_for
        for name, _ in scope["headers"]:
            if name in looked_for:
                if name in FORWARDED:
                    app = self._app
                elif texts is known.texts:  # once, however often a client sends its id
                    texts = self._of_this(known, scope)
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
        state: list[Any] = [serial, slot, known]
        scope[SERIAL] = state  # that does not lead back to the scope: only the garbage collector would free both
        if TELLS_CONTEXT:
            _serial.set(serial)  # uvicorn runs each request in a task, and so in a context, of its own
        try:
            await app(scope, receive, note_and_send)
        finally:
            known = state[2]
            row = known.counted or self._row_of(known, scope, status)
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
        serial = self._next_serial()
        known = self._know(WEBSOCKET, scope["path"])
        texts = self._of_this(known, scope)
        free = self._free
        slot = free.popleft() if len(free) > WEBSOCKETS_LEAVE else self._overwrite(serial)
        pack_begun(self._memory, slot, texts, serial, monotonic())
        scope[SERIAL] = [serial, slot, known]
        if TELLS_CONTEXT:
            _serial.set(serial)
        self._websockets += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._websockets -= 1
            if slot < FIRST_OVER:
                self._memory[slot] = 0
                free.append(slot)
            else:
                self._end_over(serial, slot)

    def _of_this(self, known: _Path, scope: Message) -> bytes:
        """Return the texts of a request with the size of its body, and the id that it brings if that is a sane word."""
        brought = {name: value for name, value in scope["headers"] if name in (self._header, LENGTH)}
        id_, length = brought.get(self._header, b""), brought.get(LENGTH, b"")
        size = int(length) if length.isdigit() and len(length) < LONGEST_SIZE else 0
        return known.of_one(id_ if _ID.fullmatch(id_) else b"", size)

    def _around(self, app: Any) -> App:
        """Return what is called in place of *app*; nothing of ours is in between where no option needs it."""
        call = _called(app)
        if self.refusal is not None:
            call = functools.partial(self._unless_refused, call)
        return functools.partial(self._with_id, call) if self._sends_id else call

    async def _with_id(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        if SERIAL in scope:  # else it is the lifespan
            serial, slot, _ = scope[SERIAL]
            send = self._identified(send, id_in(bytes(self._memory[slot : slot + TEXTS.size])), serial)
        await app(scope, receive, send)

    def _identified(self, send: Send, brought: bytes, serial: int) -> Send:
        """Return a *send* that adds the id of a request to the begin of its answer, unless the app sends one itself."""
        header = self._header
        id_ = brought or made_id(self._mark, serial)

        def identify_and_send(message: Message) -> Awaitable[None]:
            if message["type"] in ANSWERS:
                headers = message.get("headers") or ()
                if header not in map(name_of, headers):
                    message = {**message, "headers": [*headers, (header, id_)]}
            return send(message)

        return identify_and_send

    async def _unless_refused(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.refusal is not None:
            _, slot, known = scope[SERIAL]
            is_named_later = known.route is not None or known.mount is not None  # perhaps otherwise, by its route
            if not is_named_later and self.refusal.is_of(known.method, known.shown):
                await self.refuse(self.refusal, slot, send)
                return
        await app(scope, receive, send)

    def _row_of(self, known: _Path, scope: Message, status: int) -> RouteCounts:
        """Return the row of a request whose route did not report itself.

        Where no route does, as in an app that is not Starlette's, a path counts once it was answered 2xx: what a
        scanner asks for must not take the rows of the others.
        """
        route = getattr(scope.get("route"), "path", None) or scope.get("path_template")  # the latter is Litestar's
        if route is None and not self._has_routes and 200 <= status < 300:
            known.counted = self._traffic.row(known.method, known.shown)
            return known.counted
        return self._traffic.row(known.method, str(route or OTHER_ROUTE))

    def active(self) -> int:
        """Return how many requests are in flight, without WebSockets."""
        return SLOTS - layout.OVERWRITTEN - len(self._free) + self._over - self._websockets

    def _know(self, method: str, path: str) -> _Path:
        """Return what is noted of a path, which is kept by its words: paths with ids would be kept for nothing."""
        folder, _, last = path.rpartition("/")
        if last.isdecimal() and (known := self.paths.get(f"{method}{folder}/{{id}}")) is not None:
            return known  # as masked below, in a third of the time
        shown = masked_path(path)
        name = method + shown
        if (known := self.paths.get(name)) is None:
            if len(self.paths) >= MOST_PATHS:
                self.paths.clear()
            known = _Path(method, shown)
            if len(method) <= LONGEST_METHOD:
                self.paths[name] = known
        return known

    def _overwrite(self, serial: int) -> int:
        """Return the slot of a request that comes when all others are taken."""
        self._over += 1
        pack_number(self._memory, layout.OVER_AT, self._over)
        return FIRST_OVER + SLOT.size * (serial % layout.OVERWRITTEN)

    def _serial_in(self, slot: int) -> int:
        serial: int = NUMBER.unpack_from(self._memory, slot + TEXTS.size)[0]
        return serial

    def _end_over(self, serial: int, slot: int) -> None:
        self._over -= 1
        pack_number(self._memory, layout.OVER_AT, self._over)
        if self._serial_in(slot) == serial:  # else a newer one has it
            self._memory[slot] = 0

    async def refuse(self, refusal: Refusal, slot: int, send: Send) -> None:
        """Refuse a request; its slot is emptied, because a route that stays there counts as answered."""
        pack_begun(self._memory, slot, b"", 0, 0.0)
        await refusal.answer(send)

    def note_route(self, route: Any, scope: Message, *, is_mount: bool) -> None:
        """Note the template of the route that was found for a request, in the place of its masked path."""
        state = scope[SERIAL]
        serial, slot, known = state
        if (known.mount if is_mount else known.route) is not None:
            known = state[2] = known.of_another_route()
        template = scope.get(MOUNTED, ("",))[0] + ("/{path}" if is_mount else path_of(route, scope))
        known.show(template)
        takes_it = known.method in (getattr(route, "methods", None) or (known.method,))
        # Nor must methods that are answered 405 take the rows of others.
        known.counted = self._traffic.row(known.method, template if takes_it else OTHER_ROUTE)
        known.route, self._has_routes = route, True
        if is_mount:
            known.mount = route
        if self._serial_in(slot) == serial:
            _, _, id_, _, size = TEXTS.unpack_from(self._memory, slot)
            self._memory[slot : slot + TEXTS.size] = known.of_one(id_, size)

    def noted(self, serial: int) -> SeenRequest | None:
        """Return what is noted of a request in flight; None where newer ones have its slot."""
        slots = (SLOT.unpack_from(self._memory, FIRST + SLOT.size * at) for at in range(SLOTS))
        found = next((values for values in slots if values[0] == TAKEN and values[-2] == serial), None)
        if found is None:
            return None
        _, *texts, size, _, began_at = found
        method, id_, route = (text.rstrip(b"\0").decode(errors="ignore") for text in texts)
        return SeenRequest(serial, began_at, method, route, id_ or made_id(self._mark, serial).decode(), size)

    def found_in(self, frames: Sequence[FrameType]) -> FoundRequest | None:
        """Return the HTTP request that a task serves, from the frame of our own call among its *frames*."""
        for frame in frames:
            if frame.f_code is RequestRecord.__call__.__code__:
                seen = frame.f_locals
                if "state" not in seen:
                    return None
                serial, _, known = seen["state"]
                id_ = id_in(seen["texts"]) or made_id(self._mark, serial)
                request = SeenRequest(serial, seen["began_at"], known.method, known.shown, id_.decode())
                return FoundRequest(request, is_answered=seen["status"] != 0)
        return None

    def show_running(self, loop: asyncio.AbstractEventLoop, frame: FrameType | None, *, stands: bool = False) -> int:
        """Note and return which request a loop that does not turn works on, by its *frame*; None for one that turns.

        If it *stands* in one callback that is of no request, such as a background task's, that is noted in its place.
        To be called by another thread.
        """
        now = monotonic()  # before the look: what begins after it makes the look too old
        serial = 0 if frame is None else self._runs_in(loop, frame)
        is_over = serial and not self._over and self.noted(serial) is None  # what it left behind runs
        noted = NO_REQUEST if stands and (is_over or not serial) else serial
        if noted:
            MOMENT.pack_into(self._memory, layout.SEEN_AT, now)
        if noted != self._running:
            self._running = noted
            pack_number(self._memory, layout.RUNNING_AT, noted)
        return serial

    def _runs_in(self, loop: asyncio.AbstractEventLoop, frame: FrameType | None) -> int:
        task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        if TELLS_CONTEXT:
            # Also in a task that the request has made.
            found: int = 0 if task is None else task.get_context().get(_serial, 0)  # type: ignore[attr-defined]
            return found
        while frame is not None:
            scope = frame.f_locals.get("scope")
            if isinstance(scope, dict) and isinstance(noted := scope.get(SERIAL), list):
                serial: int = noted[0]
                return serial
            frame = frame.f_back
        return 0 if task is None else self._waits_for(task, asyncio.all_tasks(loop))

    def _waits_for(self, task: asyncio.Task[Any], others: Iterable[asyncio.Task[Any]]) -> int:
        """Return the number of the request that waits for a *task* which it has made; 0 without one."""
        coroutine = task.get_coro()
        for other in itertools.islice(others, MOST_OTHERS):
            frames = [] if other is task else stack_of(other).frames
            if any(frame is getattr(coroutine, "cr_frame", None) for frame in frames) and (of := self.found_in(frames)):
                return of.request.serial
        return 0

    def let_go(self) -> None:
        """Write nowhere from now on: this is a child that the app has forked."""
        memory, self._memory = self._memory, bytearray(layout.SIZE)
        if isinstance(memory, mmap.mmap):
            memory.close()


def _called(app: Any) -> App:
    """Return the method of an app that is an instance: called through its type, it costs a request more."""
    method: App = app.__call__ if isfunction(vars(type(app)).get("__call__")) else app
    return method


def id_in(texts: bytes) -> bytes:
    """Return the id that a request brought, b"" without one."""
    id_: bytes = TEXTS.unpack(texts)[2]
    return id_.rstrip(b"\0")


def path_of(route: Any, scope: Message) -> str:
    """Return the path of a route that Starlette or FastAPI has found, with its parameters by their names."""
    path: str = route.path_format
    if "fastapi" in scope:  # of a router that is included
        context = scope["fastapi"].get("effective_route_context")
        if context is not None and context.original_route is route:
            path = context.path_format
    return path
