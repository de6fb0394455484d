"""The command doctor: one line for everything that may keep the backend from running well."""

from __future__ import annotations

import json

import click

from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.screen import say
from xboard_circus.doctor import Level, examine

STYLES = {Level.GOOD: "green", Level.WARNING: "yellow", Level.BAD: "red", Level.UNKNOWN: "dim"}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print JSON for programs.")
@ini_option
@click.pass_obj
def doctor(asked: Asked, as_data: bool) -> int:
    """Look for what keeps the backend from running well, and say what to do. Changes nothing.

    Ends with 1 when something is bad; a warning is none.
    """
    found = examine(asked.config_file)
    is_bad = any(each.level is Level.BAD for each in found)
    if as_data:
        print(json.dumps({"good": not is_bad, "findings": [each.as_dict() for each in found]}, indent=2))
    else:
        for each in found:
            say(str(each), STYLES[each.level])
        counts = {level: sum(each.level is level for each in found) for level in Level}
        say(", ".join(f"{count} {level.value}" for level, count in counts.items() if count))
    return TOLD if is_bad else DONE
