"""The dashboard under Circus's own switch: circusd runs `main` with the words that it gave circus-web."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from xboard_circus import config
from xboard_circus.dashboard.serving import serve
from xboard_circus.dashboard.settings import HTTPD, LOCAL, Settings, absolute, of_config
from xboard_circus.dashboard.tunnel import tunnel
from xboard_circus.errors import XboardError
from xboard_circus.instance import config_file_of


def main() -> None:
    """Serve the dashboard of the circusd that started us, or of the one at --endpoint."""
    parser = argparse.ArgumentParser("circushttpd", description="The dashboard of one circusd.")
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5555", help="where circusd answers (%(default)s)")
    parser.add_argument("--fd", type=int, help="descriptor of a listening socket, in place of host and port")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to bind (%(default)s)")
    parser.add_argument("--ssh", metavar="USER@HOST:PORT", help="ssh server from which the endpoint is reached")
    given, _ = parser.parse_known_args()
    try:
        with contextlib.ExitStack() as stack:
            endpoint = given.endpoint
            if given.ssh:
                endpoint = stack.enter_context(tunnel(endpoint, given.ssh))
            serve(_settings(endpoint), fd=given.fd, host=given.host, port=given.port)
    except XboardError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def _settings(endpoint: str) -> Settings:
    """Take what can be had from the ini file of the circusd above us; without one there is its endpoint."""
    file = config_file_of(os.getppid())
    if file is not None:
        return of_config(config.load(file), watcher=HTTPD, endpoint=endpoint)
    return Settings(folder=Path.cwd(), endpoint=absolute(endpoint, Path.cwd()), label=LOCAL, watcher=None)


if __name__ == "__main__":
    main()
