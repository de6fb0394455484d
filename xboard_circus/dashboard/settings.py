"""Configure the page: which circusd it shows, and what it may do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xboard_circus import config
from xboard_circus.config import Config, WatcherConfig
from xboard_circus.options.fields import DashboardOptions

APP = "xboard_circus.dashboard.served:app"
WATCHER, HTTPD = "dashboard", "circushttpd"
LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One dashboard.

    Attributes:
        config: The ini file of the circusd beside us; None if only its endpoint is known.
        folder: Folder of the token, and of what the page remembers.
        endpoint: Endpoint of the circusd beside us.
        watcher: Our own name in circusd, which "stop all" leaves out; None if we are none of its watchers.
        poll: Seconds between two polls of a circusd while a page is open; *idle* while none is.
        deadline: Seconds that circusd has to answer a poll, and *order* an order.
        most_pages: How many pages each role may have open at once, and *most_followed* how many logs it may follow.
    """

    folder: Path
    endpoint: str
    label: str
    config: Config | None = None
    watcher: str | None = None
    root_path: str = ""
    hosts: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    allow_add: bool = False
    poll: float = 1.0
    idle: float = 5.0
    deadline: float = 2.0
    order: float = 5.0
    most_pages: int = 256
    most_followed: int = 32

    @property
    def behind_proxy(self) -> bool:
        """Return whether the ini file names a proxy, so that its X-Forwarded-For is trusted."""
        return bool(self.hosts or self.root_path)


def of_config(
    found: Config, *, watcher: str | None = None, root_path: str | None = None, endpoint: str | None = None
) -> Settings:
    """Return the settings of the dashboard that *watcher* of an ini file runs; without one, those of its options."""
    options = options_of(found, watcher)
    of: dict[str, Any] = {"hosts": options.hosts or (), "endpoints": options.endpoints or ()}
    of |= {"root_path": (options.root_path if root_path is None else root_path) or "", "allow_add": options.allow_add}
    of |= {"folder": folder_of(found, watcher), "label": found.path.name, "config": found, "watcher": watcher}
    return Settings(endpoint=config.absolute(endpoint or found.endpoint, found.folder), **of)


def options_of(found: Config, watcher: str | None) -> DashboardOptions:
    """Return the options of that watcher, or of the one that runs the page."""
    names = [each.name for each in found.watchers]
    chosen = found.watcher(watcher) if watcher in names else dashboard_of(found)
    return chosen.options.dashboard if chosen is not None else DashboardOptions()


def folder_of(found: Config, watcher: str | None = None) -> Path:
    """Return the folder of the token: that of the options, relative to the ini file's, or that one."""
    return found.folder / (options_of(found, watcher).folder or "")


def dashboard_of(found: Config) -> WatcherConfig | None:
    """Return the watcher that runs the page, or None."""
    return next(filter(config.is_dashboard, found.watchers), None)
