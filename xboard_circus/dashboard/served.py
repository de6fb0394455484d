"""The app that the dashboard's watcher serves with ``python -m xboard_circus.worker``."""

from xboard_circus.dashboard.routes import create_app
from xboard_circus.dashboard.settings import from_environment

app = create_app(from_environment())
