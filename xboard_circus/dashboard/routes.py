"""The addresses of the page, each a few lines over the Hub."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from xboard_circus import __version__
from xboard_circus.core.durations import seconds
from xboard_circus.core.reason import one_line, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.dashboard import metrics, translations
from xboard_circus.dashboard.access import Access, address_of
from xboard_circus.dashboard.actions import ActionOrder, Refused, carry_out
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.death_view import Evidence
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.security import Guarded, boot_script, refusal
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.dashboard.stream import EventStream
from xboard_circus.errors import XboardError
from xboard_circus.logs import LogFile
from xboard_circus.translations import sentences

HERE = Path(__file__).resolve().parent
MOST_EVENTS = 1000
ROLES = {"admin": Say.ROLE_ADMIN, "reader": Say.ROLE_READER}


def create_app(settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> Guarded:
    """Return the dashboard as an ASGI app; XboardError where its token can't be read or made."""
    hub = Hub(settings, clock=clock)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with hub.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(XboardError, _told)
    app.add_exception_handler(ClientDisconnect, _told)
    access = Access(hub)
    _pages(app, hub, access)
    _api(app, hub, access)
    app.mount("/static", StaticFiles(directory=HERE / "static", check_dir=False), name="static")
    # Around the app and not among its middleware: the answer to an error of our own has to carry the headers, too.
    return Guarded(app, root_path=settings.root_path, hosts=settings.hosts, behind_proxy=settings.behind_proxy)


def _told(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return refusal(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, ClientDisconnect):
        return refusal(400, Answer.BROKEN_OFF())
    return refusal(error.status if isinstance(error, Refused) else 503, one_line(str(error)))


def _pages(app: FastAPI, hub: Hub, access: Access) -> None:
    templates = Environment(loader=PackageLoader("xboard_circus.dashboard"), autoescape=True)

    def page(name: str, request: Request, status: int = 200, **values: object) -> HTMLResponse:
        cookies, headers = request.cookies, request.headers
        language = translations.choose(cookies.get(translations.COOKIE), headers.get("accept-language"))
        text = templates.get_template(name).render(
            text=translations.catalogue(language),
            sentences=sentences(language),
            language=language,
            languages=translations.LANGUAGES,
            theme=translations.theme(cookies.get(translations.THEME_COOKIE)),
            version=__version__,
            boot=boot_script(),
            **values,
        )
        return HTMLResponse(text, status)

    @app.get("/")
    async def index(request: Request) -> Response:
        session = access.session_of(request)
        if session is None:
            return RedirectResponse(f"{request.scope['root_path']}/login", 303)
        allow_add = hub.settings.allow_add and session.role == "admin"
        return page("page.html", request, csrf=session.csrf, role=session.role, allow_add=allow_add)

    @app.get("/login")
    async def login_page(request: Request) -> Response:
        return page("login.html", request, csrf="", error="")

    @app.post("/login")
    async def login(request: Request) -> Response:
        tried = access.log_in(request, (await _field(request, "token")).strip())
        if isinstance(tried, str):
            answer = RedirectResponse(f"{request.scope['root_path']}/", 303)
            access.set_cookies(request, answer, tried)
            return answer
        if tried == 0.0:
            return page("login.html", request, 401, csrf="", error="login.wrong")
        wait = str(max(1, round(tried)))
        if "text/html" not in request.headers.get("accept", ""):
            return refusal(429, Answer.TOO_MANY_TOKENS(wait=seconds(int(wait))), {"retry-after": wait})
        refused = page("login.html", request, 429, csrf="", error="login.limited")
        refused.headers["retry-after"] = wait
        return refused

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        csrf = await _field(request, "csrf")
        session = access.need(request)
        access.check_csrf(request, session, csrf)
        with contextlib.suppress(XboardError):  # it holds in this process all the same
            hub.sessions.end(session)
        answer = RedirectResponse(f"{request.scope['root_path']}/login", 303)
        access.drop_cookie(request, answer)
        return answer

    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")


def _api(app: FastAPI, hub: Hub, access: Access) -> None:
    @app.get("/api/state")
    async def state(request: Request) -> Response:
        return Response(hub.state(access.need(request).role), media_type="application/json")

    @app.get("/api/stream")
    async def stream(request: Request) -> Response:
        session = access.need(request)
        if hub.board.viewers[session.role] >= hub.settings.most_pages:
            raise HTTPException(503, Answer.TOO_MANY_PAGES(n=hub.settings.most_pages))
        source = hub.follow(session.role, holds=lambda: hub.sessions.is_valid(session))
        return EventStream(source, closing=hub.closing)

    @app.get("/api/history")
    async def history(request: Request, server: str = LOCAL) -> Response:
        access.need(request)
        found = hub.servers.get(server)
        if found is None:
            raise HTTPException(404, Answer.NO_SERVER())
        return JSONResponse(found.history.view())

    @app.get("/api/events")
    async def events(
        request: Request,
        server: str = LOCAL,
        watcher: str | None = None,
        kind: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Response:
        access.need(request)
        evidence = _evidence(hub, server)

        def read() -> list[dict[str, Any]]:
            wanted = max(1, min(limit, MOST_EVENTS))
            return evidence.events(watcher=watcher or None, kind=kind or None, after=after, limit=wanted)

        return JSONResponse({"events": await hub.in_thread(read)})

    @app.get("/api/why")
    async def why(
        request: Request, server: str = LOCAL, watcher: str | None = None, pid: int | None = None
    ) -> Response:
        access.need(request)
        evidence = _evidence(hub, server)
        return JSONResponse(await hub.in_thread(lambda: evidence.why(watcher=watcher or None, pid=pid)))

    @app.get("/api/logs")
    async def logs(request: Request, server: str = LOCAL) -> Response:
        access.need(request)
        return JSONResponse({"files": _evidence(hub, server).logs()})

    @app.get("/api/logs/{log_id}")
    async def log(request: Request, log_id: str, server: str = LOCAL, lines: int = 200) -> Response:
        access.need(request)
        evidence = _evidence(hub, server)
        found = _log(evidence, log_id)
        return JSONResponse({"lines": await hub.in_thread(evidence.last_lines, found, lines)})

    @app.get("/api/logs/{log_id}/stream")
    async def log_stream(request: Request, log_id: str, server: str = LOCAL) -> Response:
        session = access.need(request)
        found = _log(_evidence(hub, server), log_id)
        if hub.followers[session.role] >= hub.settings.most_followed:
            raise HTTPException(503, Answer.TOO_MANY_LOGS(n=hub.settings.most_followed))
        source = hub.follow_log(session.role, found, holds=lambda: hub.sessions.is_valid(session))
        return EventStream(source, closing=hub.closing)

    @app.get("/metrics")
    async def metrics_(request: Request) -> Response:
        if access.session_of(request) is None and access.role_of_bearer(request) is None:
            raise HTTPException(401, Answer.TOKEN_WANTED(), {"www-authenticate": "Bearer"})
        return Response(metrics.exposition(hub), media_type=metrics.CONTENT_TYPE)

    @app.post("/api/actions")
    async def actions(request: Request) -> Response:
        session = access.need(request)
        access.check_csrf(request, session)
        if session.role != "admin":
            raise HTTPException(403, Answer.ONLY_LOOKS())
        try:
            given = json.loads(await request.body())
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or not isinstance(given.get("action"), str):
            raise HTTPException(400, Answer.JSON_WANTED())
        by = Say.BY_PAGE(role=ROLES[session.role](), address=address_of(request))
        message = await carry_out(hub, ActionOrder(action=given["action"], given=given, by=by))
        return JSONResponse({"ok": True, **with_say(message, "message")})


async def _field(request: Request, name: str) -> str:
    """Return one field of a form, "" where it is missing."""
    try:
        return parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10).get(name, [""])[0]
    except ValueError:
        raise HTTPException(400, Answer.ODD_FORM()) from None


def _log(evidence: Evidence, log_id: str) -> LogFile:
    found = evidence.log(log_id)
    if found is None:
        raise HTTPException(404, Answer.NO_LOG())
    return found


def _evidence(hub: Hub, server: str) -> Evidence:
    if server != LOCAL:
        raise HTTPException(404, Answer.NOT_FROM_HERE())
    return hub.evidence
