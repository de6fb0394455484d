"""Define the command line ``xboard-circus``, with one error boundary for all commands.

Exit codes: 0 success, 1 failed (the reason is printed), 2 usage error, 3 internal error (the traceback is in a file),
130 Ctrl-C.
"""

import click

from xboard_circus import __version__
from xboard_circus.cli.alert_commands import alerts
from xboard_circus.cli.cleaning import clean
from xboard_circus.cli.configuration import check, doctor, init, options
from xboard_circus.cli.context import ini_option
from xboard_circus.cli.error_boundary import ErrorBoundary
from xboard_circus.cli.events import events, why
from xboard_circus.cli.lifecycle import start, stop
from xboard_circus.cli.log_view import logs
from xboard_circus.cli.overview import status
from xboard_circus.cli.page import dashboard
from xboard_circus.cli.reloading import reload, retry
from xboard_circus.cli.restarting import restart
from xboard_circus.cli.servicing import service


@click.group(cls=ErrorBoundary, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@ini_option
@click.version_option(__version__, prog_name="xboard-circus")
def main() -> None:
    """Keep a FastAPI backend up under Circus."""


COMMANDS = (
    *(start, stop, restart, reload, retry, status, why, events, logs, doctor, dashboard, clean, check, init, alerts),
    *(options, service),
)

for command in COMMANDS:
    main.add_command(command)
