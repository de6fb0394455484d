"""Export the app that the dashboard's watcher serves with ``python -m xboard_circus.worker``."""

import os

from xboard_circus import config
from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import of_config

_config = config.load(os.environ.get("XBOARD_CONFIG") or "circus.ini")
app = create_app(of_config(_config, watcher=os.environ.get("XBOARD_WATCHER") or None))
