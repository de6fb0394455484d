"""Write a circus.ini for the user's own app, where the package is installed and there is no checkout."""

import re
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from string import Template

from xboard_circus.errors import OptionError, XboardError
from xboard_circus.options.kinds import WrongValueError, read_url_path

NAME = "circus.ini"

_APP = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", re.ASCII)


class _IniTemplate(Template):
    """A template in which "$" is left alone: it stands for Circus's own variables."""

    delimiter = "@"


@dataclass(frozen=True, kw_only=True)
class NewBackend:
    """The backend that a new circus.ini describes: an app and its ports.

    Attributes:
        live_path: Without it only the event loop of the workers is watched.
        endpoint_port: Port for commands to circusd, which publishes its events on the next one.
        page_port: Port of the dashboard; None for 8080, or 8081 where the app has that one.
    """

    app: str
    port: int = 8000
    workers: int = 2
    live_path: str | None = None
    ready_path: str | None = None
    endpoint_port: int = 5555
    page_port: int | None = None

    def ini(self) -> str:
        """Return the text of its circus.ini; OptionError for a wrong app or path, or one port for two."""
        page_port = self.page_port or (8080 if self.port != 8080 else 8081)
        pubsub_port = self.endpoint_port + 1
        ports: dict[int, str] = {}
        for option, port in (
            ("--port", self.port),
            ("--page-port", page_port),
            ("--endpoint-port", self.endpoint_port),
            ("--endpoint-port plus one, for events", pubsub_port),
        ):
            if port in ports:
                raise OptionError(f"{ports[port]} and {option} are both {port}; choose two ports", exit_code=2)
            ports[port] = option
        if not _APP.fullmatch(self.app):
            raise OptionError(
                f"--app {self.app}: not a module and an app in it; write one such as mypackage.main:app", exit_code=2
            )
        template = resources.files("xboard_circus").joinpath("init_template.ini").read_text(encoding="utf-8")
        return _IniTemplate(template).substitute(
            asdict(self),
            dashboard_port=page_port,
            pubsub_port=pubsub_port,
            live_path=_path_line("live", self.live_path),
            ready_path=_path_line("ready", self.ready_path),
        )


def write_config(directory: str | Path, backend: NewBackend, *, force: bool = False) -> Path:
    """Write circus.ini into *directory*, and make that and its logs/; return the file's path.

    Raises:
        OptionError: *backend* has a wrong app or path, or one port for two.
        XboardError: There is a circus.ini and *force* is not set, or the folder cannot be written.
    """
    text = backend.ini()
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


def _path_line(name: str, path: str | None) -> str:
    if path is None:
        return f"# health.{name}_path = /health/{name}"
    try:
        return f"health.{name}_path = {read_url_path(path)}"
    except WrongValueError as wrong:
        raise OptionError(f"--{name}-path {path}: {wrong.what}; {wrong.hint}", exit_code=2) from None
