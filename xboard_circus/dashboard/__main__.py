"""``python -m xboard_circus.dashboard``: the page by hand, or for a circusd that has no watcher for it."""

from __future__ import annotations

import argparse
import sys

from xboard_circus import config
from xboard_circus.dashboard.serving import serve
from xboard_circus.dashboard.settings import of_config
from xboard_circus.errors import XboardError


def main() -> int:
    parser = argparse.ArgumentParser("python -m xboard_circus.dashboard", description="Serve the dashboard.")
    parser.add_argument("--config", default="circus.ini", help="the ini file of circusd (%(default)s)")
    parser.add_argument("--fd", type=int, help="descriptor of a listening socket, in place of host and port")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to bind (%(default)s)")
    parser.add_argument("--root-path", help="path below which a proxy shows the page")
    given = parser.parse_args()
    try:
        settings = of_config(config.load(given.config), root_path=given.root_path)
        serve(settings, fd=given.fd, host=given.host, port=given.port)
    except XboardError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
