"""Define the command doctor, which examines the host and the backend."""

from pathlib import Path

import click

from xboard_circus.checks.findings import report
from xboard_circus.cli.configuration import print_report
from xboard_circus.cli.context import for_ini_file, json_option
from xboard_circus.doctor import examine


@click.command()
@json_option
@for_ini_file
def doctor(config_file: Path, as_data: bool) -> int:
    """Examine the host and the backend, and print what is wrong with its cure. Changes nothing.

    Exits with 1 on an error; warnings do not count.
    """
    return print_report(report(examine(config_file)), as_data)
