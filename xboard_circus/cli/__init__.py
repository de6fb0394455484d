"""The command ``xboard-circus``: faces of what the rest of the package does, with one error boundary.

Exit codes: 0 done, 1 told you why, 2 wrong usage, 3 our bug (with a file that says more), 130 Ctrl-C.
"""

from __future__ import annotations

import click

from xboard_circus import __version__
from xboard_circus.cli.alerting import alerts
from xboard_circus.cli.boundary import Boundary
from xboard_circus.cli.cleaning import clean
from xboard_circus.cli.configuration import check, init
from xboard_circus.cli.context import ini_option
from xboard_circus.cli.doctoring import doctor
from xboard_circus.cli.history import events, why
from xboard_circus.cli.lifecycle import restart, start, stop
from xboard_circus.cli.log_view import logs
from xboard_circus.cli.overview import status
from xboard_circus.cli.page import dashboard
from xboard_circus.cli.reloading import reload


@click.group(cls=Boundary, context_settings={"help_option_names": ["-h", "--help"]})
@ini_option
@click.version_option(__version__, prog_name="xboard-circus")
def main() -> None:
    """Keep a FastAPI backend up under Circus."""


for command in (start, stop, restart, reload, status, why, events, logs, doctor, dashboard, clean, check, init, alerts):
    main.add_command(command)
