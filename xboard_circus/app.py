"""Serve the sample backend: boards in SQLite and uploads in a folder. Put your own ``module:app`` in its place.

Nothing here knows of Circus. It is easy to keep up because ``/health/live`` is async and touches nothing, so that it
answers while the database is stuck; blocking work runs in the thread pool; uploads pass through in chunks.
``XBOARD_DB``, ``XBOARD_UPLOADS``, ``XBOARD_MAX_UPLOAD`` (bytes) and ``LOG_LEVEL`` set it.
"""

import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import ClientDisconnect
from starlette.types import Message

from xboard_circus import __version__
from xboard_circus.sample.boards import Board, BoardStore
from xboard_circus.sample.uploads import UNSAFE, Upload, UploadFolder, holds_unsafe, too_large

log = logging.getLogger(__name__)

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
LARGEST_ID = 2**63 - 1
READY_TIMEOUT = 1.5
LONGEST_JSON = 65_536
MOST_ERRORS = 20

router = APIRouter()


class BoundedRoute(APIRoute):
    """Refuse bodies over `LONGEST_JSON`: 2.3 MB of unknown keys kept the event loop busy for 6 s, as a hang does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            left = LONGEST_JSON

            async def receive() -> Message:
                nonlocal left
                message = await request.receive()
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413, f"a body must not be larger than {LONGEST_JSON} bytes")
                return message

            return await handle(Request(request.scope, receive))

        return bounded


board_router = APIRouter(prefix="/boards", tags=["boards"], route_class=BoundedRoute)


@dataclass(frozen=True)
class SampleSettings:
    """Paths and limits. The paths are absolute, *max_upload* is in bytes."""

    database: Path
    uploads: Path
    max_upload: int
    log_level: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "SampleSettings":
        """Parse the settings; raise ValueError that names the wrong variable."""
        max_upload = environment.get("XBOARD_MAX_UPLOAD", str(100 * 1024 * 1024))
        if not (max_upload.isascii() and max_upload.isdigit()):
            raise ValueError(f"XBOARD_MAX_UPLOAD must be a number of bytes, such as 104857600, not {max_upload!r}")
        log_level = environment.get("LOG_LEVEL", "info").lower()
        if log_level not in (*LOG_LEVELS, "trace"):
            raise ValueError(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {log_level!r}")
        return cls(
            database=Path(environment.get("XBOARD_DB", "xboard.db")).absolute(),
            uploads=Path(environment.get("XBOARD_UPLOADS", "uploads")).absolute(),
            max_upload=int(max_upload),
            log_level="debug" if log_level == "trace" else log_level,  # uvicorn knows trace, logging does not
        )


class BoardFields(BaseModel):
    """What a client may set on a board."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=10_000)] = ""

    @field_validator("name")
    @classmethod
    def one_line(cls, name: str) -> str:
        if holds_unsafe(name):
            raise ValueError(f"must {UNSAFE}")
        return name


class BoardPage(BaseModel):
    boards: list[Board]
    total: int


class UploadPage(BaseModel):
    uploads: list[Upload]
    total: int


def _from_state(name: str) -> Any:
    def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(find)


Boards = Annotated[BoardStore, _from_state("boards")]
Uploads = Annotated[UploadFolder, _from_state("uploads")]
BoardId = Annotated[int, PathParameter(ge=1, le=LARGEST_ID)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=LARGEST_ID)]


@board_router.post("", status_code=201)
def create_board(fields: BoardFields, boards: Boards) -> Board:
    return boards.create(name=fields.name, description=fields.description)


@board_router.get("")
def list_boards(boards: Boards, limit: Limit = 100, offset: Offset = 0) -> BoardPage:
    page, total = boards.page(limit=limit, offset=offset)
    return BoardPage(boards=page, total=total)


@board_router.get("/{board_id}")
def read_board(board_id: BoardId, boards: Boards) -> Board:
    return boards.get(board_id)


@board_router.put("/{board_id}")
def change_board(board_id: BoardId, fields: BoardFields, boards: Boards) -> Board:
    return boards.change(board_id, name=fields.name, description=fields.description)


@board_router.delete("/{board_id}", status_code=204, response_model=None)
def delete_board(board_id: BoardId, boards: Boards) -> None:
    boards.delete(board_id)


# {name:path}, so that a name with a slash in it gets an error that explains it
@router.put(
    "/uploads/{name:path}",
    status_code=201,
    tags=["uploads"],
    openapi_extra={
        "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def upload_file(name: str, request: Request, uploads: Uploads) -> Upload:
    """Store the request's body: ``curl -T FILE http://HOST:8000/uploads/``.

    The plain body and not a form: it goes to the disk as it comes, and the cap holds before the body is there.
    """
    if int(request.headers.get("content-length", 0)) > uploads.max_bytes:
        raise too_large(uploads.max_bytes)
    return await uploads.save(name, request.stream())


@router.get("/uploads", tags=["uploads"])
def list_uploads(uploads: Uploads, limit: Limit = 100, offset: Offset = 0) -> UploadPage:
    page, total = uploads.page(limit=limit, offset=offset)
    return UploadPage(uploads=page, total=total)


@router.get("/uploads/{name:path}", tags=["uploads"], response_class=FileResponse)
def download_file(name: str, uploads: Uploads) -> FileResponse:
    path = uploads.find(name)
    # never shown in place: an uploaded page would run its scripts as ours
    headers = {"X-Content-Type-Options": "nosniff"}
    return FileResponse(path, filename=path.name, media_type="application/octet-stream", headers=headers)


@router.delete("/uploads/{name:path}", status_code=204, response_model=None, tags=["uploads"])
def delete_file(name: str, uploads: Uploads) -> None:
    uploads.delete(name)


@router.get("/health/live", tags=["health"])
async def live() -> dict[str, str]:
    """Say that the event loop runs. Asks no dependency: a dead database is no reason to replace a worker."""
    return {"status": "ok"}


@router.get("/health/ready", tags=["health"])
async def ready(request: Request) -> JSONResponse:
    """Say whether requests can be served: the database can be written and a file stored."""
    return _verdict(await _find_faults(request.app))


@router.get("/health", tags=["health"])
async def health(request: Request) -> JSONResponse:
    """Say the same as ``/health/ready``, and who says it."""
    uptime = round(time.monotonic() - request.app.state.started_at, 1)
    return _verdict(await _find_faults(request.app), version=__version__, pid=os.getpid(), uptime=uptime)


def _verdict(faults: dict[str, str], **more: Any) -> JSONResponse:
    checks = {"database": "ok", "uploads": "ok"} | faults
    if not faults:
        return JSONResponse({"status": "ok", "checks": checks, **more})
    reason = "; ".join(f"{what}: {why}" for what, why in faults.items())
    return JSONResponse({"status": "unavailable", "reason": reason, "checks": checks, **more}, status_code=503)


async def _find_faults(app: FastAPI) -> dict[str, str]:
    """Check the database and the uploads folder, in threads of their own, because a full pool is busy, not unready."""
    with move_on_after(READY_TIMEOUT):
        faults: dict[str, str] = await to_thread.run_sync(
            _look_for_faults, app.state.boards, app.state.uploads, abandon_on_cancel=True, limiter=app.state.checkers
        )
        return faults
    unknown = f"no answer within {READY_TIMEOUT:g} s"
    return {"database": unknown, "uploads": unknown}


def _look_for_faults(boards: BoardStore, uploads: UploadFolder) -> dict[str, str]:
    faults = {}
    try:
        boards.check_writable(timeout=READY_TIMEOUT / 2)
    except sqlite3.Error as error:
        faults["database"] = str(error)
    try:
        uploads.check_writable()
    except OSError as error:
        faults["uploads"] = error.strerror or str(error)
    return faults


def create_app(settings: SampleSettings | None = None) -> FastAPI:
    """Build the backend. Files are made when it starts, not here."""
    chosen = settings or SampleSettings.from_environment(os.environ)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        log.setLevel(chosen.log_level.upper())
        app.state.started_at = time.monotonic()
        app.state.checkers = CapacityLimiter(2)
        app.state.boards = BoardStore(chosen.database)
        app.state.uploads = UploadFolder(chosen.uploads, max_bytes=chosen.max_upload)
        await to_thread.run_sync(app.state.uploads.prepare)
        with closing(await to_thread.run_sync(app.state.boards.prepare)):
            log.info("database %s, uploads %s", chosen.database, chosen.uploads)
            yield

    app = FastAPI(title="XBoard", version=__version__, lifespan=lifespan)
    app.include_router(board_router)
    app.include_router(router)
    app.add_exception_handler(ClientDisconnect, _answer_disconnected)
    app.add_exception_handler(RequestValidationError, _answer_unprocessable)
    app.add_exception_handler(sqlite3.Error, _answer_database_trouble)
    app.add_exception_handler(OSError, _answer_disk_trouble)
    return app


async def _answer_disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client is gone: no one reads it, and it is no error of ours


async def _answer_unprocessable(request: Request, error: Exception) -> Response:
    """Explain what is wrong without repeating the input: FastAPI's own answer fails on NaN and on half a surrogate
    pair."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in errors[:MOST_ERRORS]]
    return Response(json.dumps({"detail": detail}), status_code=422, media_type="application/json")


async def _answer_database_trouble(request: Request, error: Exception) -> Response:
    log.warning("%s %s: database: %s", request.method, request.url.path, error)
    return JSONResponse({"detail": f"database: {error}"}, status_code=503, headers={"Retry-After": "1"})


async def _answer_disk_trouble(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = (isinstance(error, OSError) and error.strerror) or "input/output error"
    return JSONResponse({"detail": f"uploads: {reason}"}, status_code=507 if is_full else 503)


app = create_app()
