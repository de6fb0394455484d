"""Export the app that the dashboard's watcher serves with ``python -m xboard_circus.worker``."""

import os

from xboard_circus.checks.authorship import load_own
from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import of_config

_config = load_own(os.environ.get("XBOARD_CONFIG") or "circus.ini")
app = create_app(of_config(_config, watcher=os.environ.get("XBOARD_WATCHER") or None))
