"""Give each command the option -c, in front of the command or behind it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from xboard_circus.instance import Instance

DEFAULT = Path("circus.ini")


def asker() -> str:
    """Return the sender of the running command, for the ledger: program, command, user."""
    context = click.get_current_context(silent=True)
    command = f"xboard-circus {context.info_name}" if context is not None else "xboard-circus"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    sudo = os.environ.get("SUDO_USER")
    return f"{command}, user {user}" + (f" (sudo by {sudo})" if sudo else "")


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """The ini file that was chosen on the command line."""

    config_file: Path = DEFAULT

    def instance(self) -> Instance:
        """Read the ini file; XboardError where that is not possible."""
        return Instance(self.config_file, by=asker())


def ini_option(function: F) -> F:
    """Give a command, and the group, the option ``-c``; the last one that is written counts."""

    def choose(context: click.Context, _: click.Parameter, chosen: Path | None) -> None:
        if chosen is not None:
            context.obj = Asked(chosen)
        elif context.obj is None:
            context.obj = Asked()

    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=choose,
        help=f"The ini file of circusd.  [default: {DEFAULT} in the current folder]",
    )(function)
