"""Define the command line ``xboard-circus``, with one error boundary for all commands.

Exit codes: 0 success, 1 failed (the reason is printed), 2 usage error, 3 internal error (the traceback is in a file),
130 Ctrl-C.
"""

import gc
import importlib
from typing import Any

import click

from xboard_circus import __version__
from xboard_circus.cli.context import ini_option
from xboard_circus.cli.error_boundary import ErrorBoundary
from xboard_circus.cli.foreign_words import ANSWERS
from xboard_circus.errors import XboardError

MODULES = {
    "start": "lifecycle",
    "stop": "lifecycle",
    "restart": "restarting",
    "reload": "reloading",
    "retry": "reloading",
}
MODULES |= {"scale": "watchers", "signal": "watchers", "describe": "description", "top": "top", "status": "overview"}
MODULES |= {"why": "events", "events": "events", "requests": "live_requests", "logs": "log_view", "dashboard": "page"}
MODULES |= {"clean": "cleaning", "completion": "completing", "alerts": "alert_commands", "service": "servicing"}
MODULES |= {"check": "configuration", "options": "configuration", "doctor": "diagnosis", "init": "new_files"}
"""The module of each command. Only that of the running command is imported: importing all takes twice as long."""


class CommandLine(ErrorBoundary):
    """Group of all commands. Each is imported when it runs; click knows only the names of the others."""

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
        gc.freeze()  # or Python would look through all that is imported when it ends, which takes a fifth of the time
        gc.enable()
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in MODULES and args[0] in ANSWERS:
            raise XboardError(f"{args[0]} is no command here: {ANSWERS[args[0]]}", exit_code=2)
        return super().resolve_command(ctx, args)


@click.group(
    cls=CommandLine,
    commands=[click.Command(name) for name in MODULES],
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@ini_option
@click.version_option(__version__, prog_name="xboard-circus")
def main() -> None:
    """Keep a FastAPI backend up under Circus."""
