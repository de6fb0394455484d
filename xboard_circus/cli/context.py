"""Define options of several commands: the ini file, in front of the command or behind it, and output for programs."""

import getpass
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from xboard_circus.cli.screen import complain
from xboard_circus.errors import XboardError
from xboard_circus.host import session
from xboard_circus.instance import Instance
from xboard_circus.options import kinds
from xboard_circus.options.kinds import WrongValueError
from xboard_circus.snapshot import Snapshot

DEFAULT = Path("circus.ini")
RUNNING = frozenset({"start", "restart", "reload"})
"""The commands that run what the ini file names, and need its variables as circusd has them."""
COMPLETES_WITHIN, TIMEOUT = 0.5, 60.0
_TIMES = kinds.seconds(low=1.0)

json_option = click.option("--json", "as_data", is_flag=True, help="Print JSON for programs.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


class Number(click.IntRange):
    """A whole number within a range; click calls that an "integer range" in its errors and its help."""

    name = "number"


def sender() -> str:
    """Return the sender of the running command, for the ledger: program, command, user."""
    command = click.get_current_context().info_name
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    sudo = os.environ.get("SUDO_USER")
    return f"xboard-circus {command}, user {user}" + (f" (sudo by {sudo})" if sudo else "")


def complete_names(context: click.Context, _: click.Parameter, beginning: str) -> list[str]:
    """Return the watchers that begin so: those of circusd, or those of the ini file if it does not answer in time."""
    try:
        instance = Instance(context.obj or DEFAULT, answer_within=COMPLETES_WITHIN, looks=True)
    except XboardError:
        return []
    names = [watcher.name for watcher in instance.config.watchers]
    with suppress(XboardError):
        found = instance.find()
        if isinstance(found, Snapshot):
            names = [watcher["name"] for watcher in found.watchers]
    # bash puts a word into the line as it is: in another user's ini a watcher may be named ``$(command)``.
    return [name for name in names if name.startswith(beginning) and re.fullmatch(r"[\w.+@/-]+", name)]


name_argument = click.argument("name", shell_complete=complete_names)
names_argument = click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names)


def is_number(text: str) -> bool:
    """Return whether *text* may be the number of a slot or process: int() also takes other scripts, and fails late."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def slot_number(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Return the number of a slot, written as ``1`` or ``#1``; None without one."""
    digits = "" if text is None else text.removeprefix("#")
    if text is not None and not (is_number(digits) and int(digits)):
        raise click.BadParameter(f"{text!r} is not a slot; write its number, such as 1", context, parameter)
    return int(digits) if digits else None


def read_seconds(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Read an option's *text* as a time from a second to a year, as in the ini file."""
    try:
        return float(str(_TIMES.read(text)))
    except WrongValueError as wrong:
        hint = f"; {wrong.hint}" if wrong.hint else ""
        raise click.BadParameter(f"{text!r}: {wrong.what}{hint}", context, parameter) from None


timeout_option = click.option(
    "--timeout", metavar="SECONDS", callback=read_seconds, default=str(TIMEOUT), help="Longest wait, in seconds."
)


def ini_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``-c`` to a command or group; the last one on the line counts."""

    def choose(context: click.Context, _: click.Parameter, chosen: Path | None) -> None:
        context.obj = chosen or context.obj or DEFAULT

    told = f"The ini file of circusd.  [default: {DEFAULT} in the current folder]"
    how: dict[str, Any] = {"type": click.Path(path_type=Path), "expose_value": False, "callback": choose}
    return click.option("-c", "--config", help=told, **how)(function)


def for_ini_file(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``-c`` to a command, and pass the path as its first argument."""
    return ini_option(click.pass_obj(function))


def for_instance(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``-c`` to a command, and pass the instance of that ini file as its first argument."""

    @wraps(function)
    def run(config_file: Path, **given: Any) -> Any:
        looks = click.get_current_context().info_name not in RUNNING
        if not looks:  # an app may run them, for the deployment of its next version
            session.leave_workers()
        instance = Instance(config_file, by=sender(), lenient=True, looks=looks)
        if instance.unread:
            complain(f"{instance.unread}\ncircusd runs with what it has read before; correct this before a start")
        return function(instance, **given)

    return for_ini_file(run)
