"""What every command is given: the ini file that was asked for, in front of the command or behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from xboard_circus.instance import Instance

DEFAULT = Path("circus.ini")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """The choice that was made on the command line."""

    config_file: Path = DEFAULT

    def instance(self) -> Instance:
        """Read the ini file; XboardError where that is not possible."""
        return Instance(self.config_file)


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
        help=f"The ini file of circusd; {DEFAULT} in the current folder unless you say otherwise.",
    )(function)
