"""The command service: the backend as a service of the host."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from xboard_circus.cli.boundary import DONE
from xboard_circus.cli.screen import printable
from xboard_circus.service import installing
from xboard_circus.service.layout import INI, NAME, USER, ServiceOptions


def _folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    try:
        found = value.resolve(strict=True)
        is_folder = found.is_dir()
    except OSError:
        is_folder = False
    if not is_folder:
        raise click.BadParameter(f"{value}: there is no such folder, or you may not enter it", context, parameter)
    return found


OPTIONS = (
    click.option(
        "--user", "of_user", is_flag=True, help="Install a service of your user, not of the system; needs no root."
    ),
    click.option("--name", default=NAME, show_default=True, help="Name of the service."),
    click.option(
        "--dir",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path),
        default=".",
        callback=_folder,
        help="Folder of the ini file and, in .venv, the packages.  [default: the current folder]",
    ),
    click.option("--ini", metavar="FILE", default=INI, show_default=True, help="The ini file in that folder."),
    click.option(
        "--run-as",
        metavar="USER",
        default=USER,
        show_default=True,
        help="User of a system service; created if missing.",
    ),
)
_dry_run = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.group()
def service() -> None:
    """Install the backend as a service: systemd on Linux, launchd on macOS."""


@service.command()
@_options
@_dry_run
@click.option("--restart", is_flag=True, hidden=True)  # an upgrade goes on with this, in the new code
def install(restart: bool, **words: Any) -> int:
    """Write the service's files, enable it and start it. Run again, it changes only what differs."""
    _service("install", words).install(restart=restart)
    return DONE


@service.command()
@_options
@_dry_run
def upgrade(**words: Any) -> int:
    """Reinstall the packages, then install again and restart the service."""
    _service("upgrade", words).install()
    return DONE


@service.command()
@_options
@_dry_run
def remove(**words: Any) -> int:
    """Stop and disable the service and delete its files; the folder, its logs and data stay."""
    _service("remove", words).remove()
    return DONE


@service.command()
@_options
def unit(**words: Any) -> int:
    """Print the systemd unit or launchd job, and write nothing."""
    print(_service("unit", words).unit(), end="")
    return DONE


def _service(action: str, words: dict[str, Any]) -> installing.Service:
    return installing.Service(ServiceOptions(**words), installing.host(), _report, action=action)


def _report(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
