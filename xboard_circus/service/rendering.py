"""Fill in the templates of a service: the unit or job, the overlay of the ini file, the command."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from xboard_circus import config_files, launch
from xboard_circus.config import Config
from xboard_circus.service.layout import Layout

UNITS = {"systemd": "systemd.service.j2", "launchd": "launchd.plist.j2"}

_HOMES = {Path("/home"), Path("/root")}


class Texts(NamedTuple):
    """The texts of a service's files."""

    unit: str
    overlay: str
    command: str


def rendered(layout: Layout, venv: Path, group: str, ini: Config, graceful_timeout: int, startup_timeout: int) -> Texts:
    """Return the texts of the files that make *layout* a service.

    The manager allows more time than the ini file: circusd ends the workers, not the manager.
    """
    path = str(layout.ini.relative_to(layout.folder))
    # Circus looks for includes in the first file alone.
    words = [os.path.join(os.path.dirname(path), pattern) for _, pattern in config_files.patterns(ini.scans[0])]
    ways = (layout.folder, (venv / "bin" / "python").resolve(), *(each.file.resolve() for each in ini.scans))
    how: dict[str, Any] = {"undefined": StrictUndefined, "autoescape": select_autoescape(["plist.j2"])}
    how |= dict.fromkeys(("trim_blocks", "lstrip_blocks", "keep_trailing_newline"), True)
    templates = Environment(loader=PackageLoader("xboard_circus.service"), **how)
    values = layout._asdict() | {"venv": venv, "python": getattr(sys, "_base_executable", sys.executable)}
    values |= {"launcher": launch.__file__, "group": group, "stats": ini.circus["statsd"], "includes": [path, *words]}
    values |= {"graceful_timeout": graceful_timeout, "startup_timeout": startup_timeout}
    values["protect_home"] = "read-only" if any(_HOMES.intersection(way.parents) for way in ways) else "yes"
    names = (UNITS[layout.manager], "overlay.ini.j2", "command.sh.j2")
    return Texts(*(templates.get_template(name).render(values) for name in names))
