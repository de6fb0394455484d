"""Run ``python -m xboard_circus.dashboard``: the page without the worker around it, by hand or in a container."""

import argparse
import contextlib
import sys
from collections.abc import Callable

import uvicorn

from xboard_circus.checks.authorship import load_own
from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import Settings, of_config
from xboard_circus.errors import XboardError
from xboard_circus.worker.__main__ import open_public
from xboard_circus.worker.server import SheddingServer

LONGEST_END = 3


def command_line(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of `serve`."""
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("--fd", type=int, help="descriptor of a listening socket, in place of host and port")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to bind (%(default)s)")
    return parser


def serve(given: argparse.Namespace, settings: Callable[[], Settings]) -> int:
    """Serve until SIGTERM, on the listener inherited as *fd* or on an address of our own; return the exit code."""
    try:
        app = create_app(settings())
        how = {"host": given.host, "port": given.port, "access_log": False, "timeout_graceful_shutdown": LONGEST_END}
        sockets = None if given.fd is None else [open_public(given.fd)]
    except XboardError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"--fd {given.fd}: it can't be served on: {error.strerror or error}", file=sys.stderr)
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        SheddingServer(uvicorn.Config(app, **how)).run(sockets)
    return 0


def main() -> int:
    parser = command_line("python -m xboard_circus.dashboard", "Serve the dashboard.")
    parser.add_argument("--config", default="circus.ini", help="the ini file of circusd (%(default)s)")
    parser.add_argument("--root-path", help="path below which a proxy shows the page")
    given = parser.parse_args()
    return serve(given, lambda: of_config(load_own(given.config), root_path=given.root_path))


if __name__ == "__main__":
    sys.exit(main())
