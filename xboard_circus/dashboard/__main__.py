"""``python -m xboard_circus.dashboard``: the page by hand, or for a circusd that has no watcher for it."""

from __future__ import annotations

import sys

from xboard_circus import config
from xboard_circus.dashboard.serving import command_line, serve
from xboard_circus.dashboard.settings import of_config


def main() -> int:
    parser = command_line("python -m xboard_circus.dashboard", "Serve the dashboard.")
    parser.add_argument("--config", default="circus.ini", help="the ini file of circusd (%(default)s)")
    parser.add_argument("--root-path", help="path below which a proxy shows the page")
    given = parser.parse_args()
    return serve(given, lambda: of_config(config.load(given.config), root_path=given.root_path))


if __name__ == "__main__":
    sys.exit(main())
