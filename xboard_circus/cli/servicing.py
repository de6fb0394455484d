"""Define the command service: the backend as a service of the host."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import reduce
from pathlib import Path
from typing import Any

import click

from xboard_circus.cli.context import dry_run_option
from xboard_circus.cli.error_boundary import SafeGroup
from xboard_circus.cli.screen import interrupted
from xboard_circus.masking import printable
from xboard_circus.service.installing import Service, host
from xboard_circus.service.layout import INI, NAME, USER, ServiceOptions


def _folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if not os.path.isdir(value):
        raise click.BadParameter(f"{value}: there is no such folder, or you may not enter it", context, parameter)
    return value.resolve()


_DIR: dict[str, Any] = {"type": click.Path(path_type=Path), "default": ".", "callback": _folder}
_DIR["show_default"] = "the current folder"
_LAST, _WHO = "that of the installed service, otherwise", "User of a system service; created if missing."
OPTIONS = (
    click.option("--user", "of_user", is_flag=True, help="Install a service of your user, without root."),
    click.option("--name", default=NAME, help="Name of the service."),
    click.option("--dir", "folder", metavar="DIR", help="Folder of the ini file and, in .venv, the packages.", **_DIR),
    click.option("--ini", metavar="FILE", show_default=f"{_LAST} {INI}", help="The ini file in that folder."),
    click.option("--run-as", metavar="USER", show_default=f"{_LAST} {USER}", help=_WHO),
    dry_run_option,
)


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    return reduce(lambda command, option: option(command), reversed(OPTIONS), function)


@click.group(cls=SafeGroup)
def service() -> None:
    """Install the backend as a service: systemd on Linux, launchd on macOS."""


@service.command()
@_with_options
@click.option("--restart", is_flag=True, help="Restart it though nothing differs, as after pip has upgraded it.")
def install(restart: bool, **given: Any) -> None:
    """Write the service's files, enable it and start it. Run again, it changes only what differs."""
    with _interrupted("install"):
        _service("install", given).install(restart=restart)


@service.command()
@_with_options
def upgrade(**given: Any) -> None:
    """Reinstall the packages, then install again and restart the service."""
    with _interrupted("upgrade"):
        _service("upgrade", given).install(restart=True)


@service.command()
@_with_options
def remove(**given: Any) -> None:
    """Stop and disable the service and delete its files; the folder, its logs and data stay."""
    with _interrupted("remove"):
        _service("remove", given).remove()


@service.command()
@_with_options
def unit(**given: Any) -> None:
    """Print the systemd unit or launchd job, to be copied by hand, and write the other files that it needs."""
    print(_service("unit", given).unit(), end="")


def _interrupted(action: str) -> AbstractContextManager[None]:
    """Report on Ctrl-C that only a part is done."""
    return interrupted(f"only what the lines above name was done; `xboard-circus service {action}` goes on")


def _service(action: str, given: dict[str, Any]) -> Service:
    return Service(ServiceOptions(**given), host(), _report, action=action)


def _report(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
