"""Define the routes of the page, each a few lines over the Hub."""

import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from xboard_circus import __version__
from xboard_circus.core.durations import seconds
from xboard_circus.core.incidents import present
from xboard_circus.core.reason import LARGEST, one_line, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.dashboard import log_pages, metrics, translations
from xboard_circus.dashboard.access import Access, address_of
from xboard_circus.dashboard.actions import ActionOrder, Refused
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.death_view import Evidence
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.in_force import options_shown
from xboard_circus.dashboard.security import Guarded, boot_script, refusal
from xboard_circus.dashboard.sessions import Session
from xboard_circus.dashboard.settings import LOCAL, Settings
from xboard_circus.dashboard.stream import EventStream, transport_of
from xboard_circus.errors import XboardError
from xboard_circus.logs import LogFile
from xboard_circus.translations import sentences

METRICS_EVERY = 1.0  # seconds: scrapers that come together get the same figures
BODY_WITHIN = 10.0
MOST_LOGS = 8  # in one view
DATED = {each.name: each.value for each in Say if each.name.startswith(("HEAD_", "GONE", "VERDICT_", "UNIT"))}
"""What an English page needs to say since when in the time of its reader; of all else it has the text."""
ROLES = {"admin": Say.ROLE_ADMIN, "reader": Say.ROLE_READER}


def create_app(settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> Guarded:
    """Return the dashboard as an ASGI app; XboardError if its token cannot be read or made."""
    hub = Hub(settings, clock=clock)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with hub.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    for error in (HTTPException, XboardError, ClientDisconnect):
        app.add_exception_handler(error, _refusal)
    access = Access(hub)
    app.include_router(_pages(hub, access))
    app.include_router(_api(hub, access))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static"), check_dir=False), name="static")
    # Around the app and not among its middleware, because the answer to an error of our own needs the headers, too.
    return Guarded(app, root_path=settings.root_path, hosts=settings.hosts, behind_proxy=settings.behind_proxy)


def _refusal(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return refusal(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, ClientDisconnect):
        return refusal(400, Answer.BROKEN_OFF())
    return refusal(error.status if isinstance(error, Refused) else 503, one_line(str(error), LARGEST))


@dataclass
class Scraped:
    """The metrics of a moment, valid *until* a time of the hub's clock."""

    text: bytes = b""
    until: float = float("-inf")
    lock: anyio.Lock = field(default_factory=anyio.Lock)


def _pages(hub: Hub, access: Access) -> APIRouter:
    router = APIRouter()
    scraped = Scraped()
    templates = Environment(loader=PackageLoader("xboard_circus.dashboard"), autoescape=True)

    logged_in = Depends(access.need)

    @functools.cache  # any client may request it any number of times
    def rendered(name: str, language: str, theme: str) -> bytes:
        texts = {"text": translations.catalogue(language), "sentences": sentences(language) or DATED}
        chosen = {"language": language, "languages": translations.LANGUAGES, "theme": theme}
        return templates.get_template(name).render(**texts, **chosen, version=__version__, boot=boot_script()).encode()

    def page(name: str, request: Request) -> HTMLResponse:
        cookies = request.cookies
        language = translations.choose(cookies.get(translations.COOKIE), request.headers.get("accept-language"))
        return HTMLResponse(rendered(name, language, translations.theme(cookies.get(translations.THEME_COOKIE))))

    # Open to every client: no page holds anything of this host, and a script has to be loaded to send the session.
    @router.get("/")
    async def index(request: Request) -> Response:
        return page("page.html", request)

    @router.get("/login")
    async def login_page(request: Request) -> Response:
        return page("login.html", request)

    @router.post("/login")
    async def login(request: Request) -> Response:
        tried = access.log_in(request, (await _given(request, "token"))["token"].strip())
        if isinstance(tried, str):
            return JSONResponse({"session": tried})
        if tried == 0.0:
            return refusal(401, Answer.WRONG_TOKEN())
        wait = str(max(1, round(tried)))
        return refusal(429, Answer.TOO_MANY_TOKENS(wait=seconds(int(wait))), {"retry-after": wait})

    @router.post("/logout")
    async def logout(session: Session = logged_in) -> Response:
        with contextlib.suppress(XboardError):  # the end counts in this process all the same
            hub.sessions.end(session)
        return JSONResponse({"ok": True})

    @router.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @router.get("/metrics")
    async def scrape(request: Request) -> Response:
        if access.session_of(request) is None and access.role_of_bearer(request) is None:
            raise HTTPException(401, Answer.TOKEN_WANTED(), {"www-authenticate": "Bearer"})
        async with scraped.lock:
            if hub.clock() >= scraped.until:
                text = await run_sync(metrics.exposition, hub)
                scraped.text, scraped.until = text, hub.clock() + METRICS_EVERY
        return Response(scraped.text, media_type=metrics.CONTENT_TYPE)

    return router


def _api(hub: Hub, access: Access) -> APIRouter:
    logged_in = Depends(access.need)
    router = APIRouter(prefix="/api", dependencies=[logged_in])

    async def local(server: str = LOCAL) -> Evidence:
        if server != LOCAL:
            raise HTTPException(404, Answer.NOT_FROM_HERE())
        return hub.evidence

    of_here = Depends(local)

    async def turn(request: Request, session: Session = logged_in) -> AsyncIterator[None]:
        async with hub.reading[session.role]:
            unread = {each for each in hub.answered[session.role] if each.get_write_buffer_size()}
            if len(unread) >= hub.settings.most_followed:
                raise HTTPException(503, Answer.TOO_MANY_UNREAD(n=len(unread)))
            hub.answered[session.role] = unread
            yield
            if (transport := transport_of(request.receive)) is not None:
                hub.answered[session.role].add(transport)

    in_turn = [Depends(turn)]

    async def chosen(log_ids: str, evidence: Evidence = of_here) -> list[LogFile]:
        ids = [*dict.fromkeys(log_ids.split(","))]
        if len(ids) > MOST_LOGS or not all(each in evidence.logs for each in ids):
            raise HTTPException(404, Answer.NO_LOG())
        return [evidence.logs[each] for each in ids]

    @router.get("/state")
    async def state(session: Session = logged_in) -> Response:
        return Response(hub.state(session.role), media_type="application/json")

    @router.get("/stream")
    async def stream(session: Session = logged_in) -> Response:
        if hub.board.viewers[session.role] >= hub.settings.most_pages:
            raise HTTPException(503, Answer.TOO_MANY_PAGES(n=hub.settings.most_pages))
        return EventStream(hub.follow(session))

    @router.get("/history")
    async def history(server: str = LOCAL) -> Response:
        if server not in hub.servers:
            raise HTTPException(404, Answer.NO_SERVER())
        return JSONResponse(hub.servers[server].history.view())

    # Not async, so that FastAPI runs them in a thread, because they read from a disk.

    @router.get("/events", dependencies=in_turn)
    def events(
        watcher: str | None = None,
        kind: str | None = None,
        span: float = 0.0,
        after: int | None = None,
        limit: int = 100,
        brief: bool = False,
        evidence: Evidence = of_here,
    ) -> Response:
        which: dict[str, Any] = {"watcher": watcher or None, "kind": kind or None, "after": after}
        return JSONResponse({"events": evidence.events(span=span, limit=limit, is_brief=brief, **which)})

    @router.get("/traffic", dependencies=in_turn)
    def traffic(watcher: str, slot: int = 0, span: int = 300, evidence: Evidence = of_here) -> Response:
        return JSONResponse(evidence.traffic(watcher, slot=slot, span=span))

    @router.get("/beats", dependencies=in_turn)
    def beats(span: float = 86_400.0, evidence: Evidence = of_here) -> Response:
        watchers = (hub.servers[LOCAL].state or {"watchers": []})["watchers"]
        # Of a watcher that is not armed the ledger knows no worker that came up.
        armed = {each["name"]: present(each, now=time.time()) for each in watchers if each["armed"]}
        return JSONResponse({"watchers": evidence.beats(armed, span=span)})

    @router.get("/incidents", dependencies=in_turn)
    def incidents(evidence: Evidence = of_here) -> Response:
        return JSONResponse({"incidents": evidence.incidents(hub.servers[LOCAL].troubled())})

    @router.get("/reloads", dependencies=in_turn)
    def reloads(watcher: str, evidence: Evidence = of_here) -> Response:
        return JSONResponse({"reloads": evidence.reloads(watcher)})

    @router.get("/options", dependencies=in_turn)
    def options(server: str = LOCAL, watcher: str = "") -> Response:
        if (asked := hub.servers.get(server)) is None:
            raise HTTPException(404, Answer.NO_SERVER())
        if watcher and asked.watcher(watcher) is None:
            raise HTTPException(404, Answer.NO_WATCHER())
        rows = options_shown(asked, hub.settings, watcher)
        return JSONResponse({"options": [dict(zip(("name", "value", "place"), row, strict=True)) for row in rows]})

    @router.get("/requests", dependencies=in_turn)
    def requests(evidence: Evidence = of_here) -> Response:
        return JSONResponse({"requests": evidence.requests()})

    @router.get("/why", dependencies=in_turn)
    def why(watcher: str | None = None, pid: int | None = None, evidence: Evidence = of_here) -> Response:
        found = hub.servers[LOCAL].watcher(watcher or "")
        current = None if found is None else present(cast(WatcherEntry, found), now=time.time())
        return JSONResponse(evidence.why(watcher=watcher or None, pid=pid, current=current))

    @router.get("/logs/{log_ids}", dependencies=in_turn)
    def log(
        lines: int = 200,
        before: str | None = None,
        after: str | None = None,
        at: float | None = None,
        files: list[LogFile] = Depends(chosen),
        evidence: Evidence = of_here,
    ) -> Response:
        if before is not None:
            page = log_pages.page_before(log_pages.places_in(before, files), lines)
        elif after is not None:
            page = log_pages.page_after(log_pages.places_in(after, files), lines)
        else:
            page = log_pages.last_page(files, lines) if at is None else log_pages.page_at(files, lines, at)
        return JSONResponse({**page, "slots": evidence.slots(files)})

    @router.get("/logs")
    async def logs(evidence: Evidence = of_here) -> Response:
        files = evidence.logs.values()
        shown = [{"id": each.id, **with_say(each.title, "title"), "watcher": each.watcher} for each in files]
        return JSONResponse({"files": shown})

    @router.get("/logs/{log_ids}/stream")
    async def log_stream(
        after: str | None = None, session: Session = logged_in, files: list[LogFile] = Depends(chosen)
    ) -> Response:
        if hub.followers[session.role] >= hub.settings.most_followed:
            raise HTTPException(503, Answer.TOO_MANY_LOGS(n=hub.settings.most_followed))
        places = {} if after is None else log_pages.places_in(after, files)
        return EventStream(hub.follow_logs(session, {log: places.get(log) for log in files}))

    @router.post("/actions")
    async def actions(request: Request, session: Session = logged_in) -> Response:
        if session.role != "admin":
            raise HTTPException(403, Answer.ONLY_LOOKS())
        given = await _given(request, "action")
        by = Say.BY_PAGE(role=ROLES[session.role](), address=address_of(request))
        message = await ActionOrder(hub, given, by=by).carry_out()
        return JSONResponse({"ok": True, **with_say(message, "message")})

    return router


async def _given(request: Request, name: str) -> dict[str, Any]:
    """Return the JSON object of a request; 400 without the text *name* in it, 408 if it does not come."""
    try:
        with anyio.fail_after(BODY_WITHIN):
            given = json.loads(await request.body())
    except TimeoutError:
        raise HTTPException(408, Answer.BROKEN_OFF()) from None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not isinstance(given.get(name), str):
        raise HTTPException(400, Answer.JSON_WANTED(name=name))
    return given
