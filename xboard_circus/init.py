"""Write a circus.ini for an app of the user's own, for those who have installed the package and have no checkout."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

from xboard_circus.errors import OptionError, XboardError
from xboard_circus.options.kinds import WrongValueError, read_url_path

NAME = "circus.ini"
DASHBOARD_PORT = 8080
ENDPOINT_PORT = 5555

_APP = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class _IniTemplate(Template):
    """A template in which "$" is left alone: it stands for Circus's own variables."""

    delimiter = "@"


def write_config(
    directory: str | Path,
    *,
    app: str,
    port: int = 8000,
    workers: int = 2,
    live_path: str | None = None,
    ready_path: str | None = None,
    endpoint_port: int = ENDPOINT_PORT,
    page_port: int | None = None,
    force: bool = False,
) -> Path:
    """Write circus.ini into *directory*, and make that and its logs/; return the file's path.

    Without a live path only the event loop of the workers is watched. circusd publishes its events on the port after
    *endpoint_port*; the page has 8080 where no *page_port* is given and the app does not have that one.

    Raises:
        OptionError: *app* is no ``module:app``, a path is none, or two of the ports are the same.
        XboardError: There is a circus.ini and *force* is not set, or the folder cannot be written.
    """
    if page_port is None:
        page_port = DASHBOARD_PORT if port != DASHBOARD_PORT else DASHBOARD_PORT + 1
    text = rendered(
        app=app,
        port=port,
        workers=workers,
        live_path=live_path,
        ready_path=ready_path,
        endpoint_port=endpoint_port,
        page_port=page_port,
    )
    file = Path(directory) / NAME
    try:
        (file.parent / "logs").mkdir(parents=True, exist_ok=True)
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        if not file.exists():
            raise XboardError(f"{error.filename} is in the way of a folder") from None
        raise XboardError(f"{file} is there already; --force writes over it") from None
    except OSError as error:
        raise XboardError(f"{error.filename or file} cannot be written: {error.strerror}") from None
    return file


def rendered(
    *,
    app: str,
    port: int,
    workers: int,
    live_path: str | None,
    ready_path: str | None,
    endpoint_port: int,
    page_port: int,
) -> str:
    """Return the text of a circus.ini."""
    ports = {"--port": port, "--page-port": page_port, "--endpoint-port": endpoint_port}
    ports["--endpoint-port plus one, for events"] = endpoint_port + 1
    for option, number in ports.items():
        if same := [other for other, taken in ports.items() if taken == number and other != option]:
            raise OptionError(f"{option} and {same[0]} are both {number}; choose two ports", exit_code=2)
    if not app.isascii() or not _APP.fullmatch(app):
        raise OptionError(
            f"--app {app}: not a module and an app in it; write one such as mypackage.main:app", exit_code=2
        )
    template = resources.files("xboard_circus").joinpath("init_template.ini").read_text(encoding="utf-8")
    return _IniTemplate(template).substitute(
        app=app,
        workers=workers,
        port=port,
        dashboard_port=page_port,
        endpoint_port=endpoint_port,
        pubsub_port=endpoint_port + 1,
        live_path=_path_line("live_path", live_path, example="/health/live"),
        ready_path=_path_line("ready_path", ready_path, example="/health/ready"),
    )


def _path_line(name: str, path: str | None, *, example: str) -> str:
    if path is None:
        return f"# health.{name} = {example}"
    try:
        return f"health.{name} = {read_url_path(path)}"
    except WrongValueError as wrong:
        option = f"--{name.replace('_', '-')}"
        raise OptionError(f"{option} {path}: {wrong.what}; {wrong.hint}", exit_code=2) from None
