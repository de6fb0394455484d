"""Fill in the templates of a service: the unit or job, the overlay of the ini file, the command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from xboard_circus.service.layout import Layout

UNITS = {"systemd": "systemd.service.j2", "launchd": "launchd.plist.j2"}

# circus-stats runs with either of them; its endpoint is private then, too.
_STATS = re.compile(r"^(statsd *= *(1|[Tt]rue|[Yy]es|[Oo]n)|stats_endpoint *=)", re.MULTILINE)
_HOMES = (Path("/home"), Path("/root"))


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that the manager allows, above what the ini file allows: circusd ends the workers, not the manager."""

    stop: int
    start: int
    watchdog: int

    @classmethod
    def above(cls, *, graceful_timeout: int, startup_timeout: int) -> Times:
        return cls(stop=graceful_timeout + 15, start=startup_timeout + 30, watchdog=graceful_timeout + 30)


@dataclass(frozen=True, slots=True)
class Texts:
    """What a service consists of."""

    unit: str
    overlay: str
    command: str


def rendered(layout: Layout, *, venv: Path, python: Path, group: str, ini_text: str, times: Times) -> Texts:
    """Return the texts of the files that make *layout* a service."""
    values: Mapping[str, object] = {
        "name": layout.name,
        "manager": layout.manager,
        "system": layout.system,
        "label": layout.unit_name,
        "dir": layout.folder,
        "python": python,
        "venv": venv,
        "ini": layout.overlay,
        "ini_name": layout.ini.relative_to(layout.folder),
        "user": layout.user,
        "group": group,
        "runtime": layout.runtime,
        "stop_seconds": times.stop,
        "start_seconds": times.start,
        "watchdog_seconds": times.watchdog,
        "protect_home": "read-only" if _in_a_home(layout.folder) or _in_a_home(python.resolve()) else "yes",
        "wanted_by": "multi-user.target" if layout.system else "default.target",
        "stats": bool(_STATS.search(ini_text)),
    }
    templates = Environment(
        loader=PackageLoader("xboard_circus.service"),
        autoescape=select_autoescape(["plist.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = (UNITS[layout.manager], "overlay.ini.j2", "command.sh.j2")
    return Texts(*(templates.get_template(name).render(values) for name in names))


def _in_a_home(path: Path) -> bool:
    return any(home in path.parents for home in _HOMES)
