"""Report the route of each request from Starlette and FastAPI to the record of requests, before it is served."""

import functools
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from xboard_circus.worker.refusal import Refusal
from xboard_circus.worker.request_record import MOUNTED, SERIAL, Message, Receive, RequestRecord, Send, path_of


def name_routes(record: RequestRecord) -> None:
    """Have the routes of Starlette and FastAPI report to *record* that one of them was found.

    The scope contains the route too, but would have to be read later, and a request that kills its worker at once
    leaves no time for that.
    """
    route: Any = getattr(sys.modules.get("starlette.routing"), "Route", None)
    fastapi_route: Any = getattr(sys.modules.get("fastapi.routing"), "APIRoute", None)
    if "handle" in vars(fastapi_route or object) and fastapi_route.__bases__ == (route,):
        # FastAPI's goes on to Starlette's, which would look at the same route again.
        with suppress(TypeError):  # an app has a class of its own between the two
            fastapi_route.__bases__ = (type("UnnotedRoute", (route,), {"handle": route.handle}),)
    kinds = [("starlette.routing", name) for name in ("Route", "WebSocketRoute", "Mount")]
    for module, name in [*kinds, ("fastapi.routing", "APIRoute")]:
        kind: Any = getattr(sys.modules.get(module), name, None)
        if kind is not None and "handle" in vars(kind):
            kind.handle = _noting(kind.handle, record, is_mount=name == "Mount")


def _noting(handle: Any, record: RequestRecord, *, is_mount: bool) -> Any:
    if record.refusal is not None:
        handle = _refusing(handle, record, record.refusal)

    @functools.wraps(handle)
    def noting(route: Any, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        state = scope.get(SERIAL)
        if state is not None and state[2].route is not route:  # else it is of a probe, or noted
            with suppress(Exception):  # a framework of another version: the masked path stays
                record.note_route(route, scope, is_mount=False)
        return handle(route, scope, receive, send)  # type: ignore[no-any-return]

    @functools.wraps(handle)
    def noting_mount(route: Any, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        if (state := scope.get(SERIAL)) is not None:
            with suppress(Exception):
                if (mounted := scope.get(MOUNTED, ("", None)))[1] is not route:
                    scope[MOUNTED] = (mounted[0] + path_of(route, scope).removesuffix("/{path}"), route)
                if state[2].mount is not route:
                    record.note_route(route, scope, is_mount=True)
        return handle(route, scope, receive, send)  # type: ignore[no-any-return]

    return noting_mount if is_mount else noting


def _refusing(handle: Any, record: RequestRecord, refusal: Refusal) -> Any:
    @functools.wraps(handle)
    def refusing(route: Any, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        state = scope.get(SERIAL)
        if state is not None and scope["type"] == "http" and refusal.is_of(state[2].method, state[2].shown):
            return record.refuse(refusal, state[1], send)
        return handle(route, scope, receive, send)  # type: ignore[no-any-return]

    return refusing
