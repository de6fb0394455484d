"""Write a circus.ini, or a Dockerfile, for the user's own app."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from xboard_circus.errors import OptionError, XboardError
from xboard_circus.host.written_files import opener, refuse_behind_link
from xboard_circus.options.kinds import WrongValueError, read_url_path

NAME = "circus.ini"

_APP = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class NewBackend:
    """The backend that a new circus.ini describes: an app and its ports.

    Attributes:
        live_path: Without it only the event loop of the workers is watched.
        endpoint_port: Port for commands to circusd, which publishes its events on the next one.
        page_port: Port of the dashboard; None for 8080, or 8081 if the app has that one.
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
        return self._filled("init_template.ini", page_port=page_port, pubsub_port=pubsub_port)

    def dockerfile(self) -> str:
        """Return the text of its Dockerfile; OptionError for a wrong app or path."""
        return self._filled("init_template.dockerfile")

    def _filled(self, template: str, **more: object) -> str:
        if not _APP.fullmatch(self.app):
            what = "not a module and an app in it; write one such as mypackage.main:app"
            raise OptionError(f"--app {self.app}: {what}", exit_code=2)
        for name, path in (("live", self.live_path), ("ready", self.ready_path)):
            try:
                read_url_path(path or "/")
            except WrongValueError as wrong:
                raise OptionError(f"--{name}-path {path}: {wrong.what}; {wrong.hint}", exit_code=2) from None
        loader = PackageLoader("xboard_circus", "")
        templates = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
        return templates.get_template(template).render({**asdict(self), **more})


def write_config(directory: str | Path, backend: NewBackend, *, force: bool = False) -> Path:
    """Write circus.ini into *directory*, and make that and its logs/; return the file's path.

    Raises:
        OptionError: *backend* has a wrong app or path, or one port for two.
        XboardError: There is a circus.ini and *force* is not set, or the folder cannot be written.
    """
    file = Path(directory) / NAME
    _write({file: backend.ini()}, force=force)
    return file


def write_dockerfile(directory: str | Path, backend: NewBackend, *, force: bool = False) -> Path:
    """Write Dockerfile and .dockerignore into *directory*, and an empty requirements.txt if it has none.

    Raises:
        OptionError: *backend* has a wrong app or path.
        XboardError: One of the first two is there and *force* is not set, or the folder cannot be written.
    """
    folder = Path(directory)
    file, requirements = folder / "Dockerfile", folder / "requirements.txt"
    made = {file: backend.dockerfile(), folder / ".dockerignore": _text_of("init_template.dockerignore")}
    _write(made if os.path.exists(requirements) else {**made, requirements: ""}, force=force)
    return file


def _text_of(template: str) -> str:
    return resources.files("xboard_circus").joinpath(template).read_text(encoding="utf-8")


def _write(files: Mapping[Path, str], *, force: bool) -> None:
    """Write all *files*, and make their folder and its logs/; nothing if one exists already and not *force*."""
    for file in files:
        if os.path.lexists(file) and not force:
            raise XboardError(f"{file} is there already; --force writes over it")
    try:
        for file, text in files.items():
            refuse_behind_link(file.parent / "logs")
            (file.parent / "logs").mkdir(parents=True, exist_ok=True)
            with open(file, "w" if force else "x", encoding="utf-8", opener=opener) as written:
                written.write(text)
    except FileExistsError as error:
        raise XboardError(f"{error.filename} is in the way of a folder") from None
    except OSError as error:
        raise XboardError(f"{error.filename} cannot be written: {error.strerror}") from None
