"""Serve the page without the worker around it: by hand, and where Circus itself starts it."""

from __future__ import annotations

import contextlib

import uvicorn

from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import Settings
from xboard_circus.errors import XboardError
from xboard_circus.worker.__main__ import open_public

LONGEST_END = 3


def serve(settings: Settings, *, fd: int | None = None, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve until SIGTERM, on the listener inherited as *fd* or on an address of our own."""
    app = create_app(settings)
    config = uvicorn.Config(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=LONGEST_END)
    sockets = None
    if fd is not None:
        try:
            sockets = [open_public(fd)]
        except OSError as error:
            raise XboardError(f"--fd {fd}: it can't be served on: {error.strerror or error}") from None
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets)
