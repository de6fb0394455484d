"""Turn exceptions of commands into exit codes and lines on the screen."""

import contextlib
import os
import platform
import sys
import tempfile
import time
import traceback
from typing import Any, NoReturn

import circus
import click

from xboard_circus import __version__
from xboard_circus.cli.screen import complain
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime
from xboard_circus.masking import printable

NEVER_SUGGESTED = ("stop", "clean", "restart", "remove")
DONE, FAILED, OUR_BUG, INTERRUPTED = 0, 1, 3, 130


class SafeGroup(click.Group):
    """A group that suggests no command that stops or deletes for a misspelt one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if alike := getattr(error, "possibilities", None):
                error.possibilities = [each for each in alike if each not in NEVER_SUGGESTED]  # type: ignore[attr-defined]
            raise


class ErrorBoundary(SafeGroup):
    """A group whose commands return an exit code or nothing, and raise XboardError on failure."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an argument that would break a message into lines, or is no text."""
        for each in args:
            seen = printable(each).replace("\n", "?")
            if "\n" in each or (seen != each and not os.path.lexists(each)):  # a path may be in another encoding
                raise click.UsageError(f"{seen}: a line break or a character that is not shown; take it out", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> NoReturn:
        try:
            code = super().invoke(ctx) or DONE
        except (click.ClickException, click.exceptions.Exit):
            raise  # click itself reports wrong usage and prints --help
        except XboardError as error:
            complain(str(error))
            code = error.exit_code
        except BrokenPipeError:
            # The reader of our output, such as `head`, has ended; nothing may be flushed into the pipe at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = DONE
        except (click.Abort, KeyboardInterrupt) as error:
            complain(": ".join(filter(None, ("interrupted", str(error)))))
            code = INTERRUPTED
        except Exception:
            complain(f"this is a bug in xboard-circus, not in your setup; what happened is in {_write_report()}")
            code = OUR_BUG
        ctx.exit(code)


def _write_report() -> str:
    """Write the current exception into a file of its own and return the path."""
    text = (
        f"xboard-circus {__version__} ({os.path.dirname(os.path.dirname(__file__))}), circus {circus.__version__}\n"
        f"Python {sys.version} on {platform.platform()}\ncommand: {sys.argv}\n\n{traceback.format_exc()}"
    )
    folder = None
    with contextlib.suppress(XboardError, OSError):
        folder = str(runtime.root())
    try:
        descriptor, path = tempfile.mkstemp(".log", f"crash-{time.strftime('%Y%m%d-%H%M%S')}-", folder)
        with os.fdopen(descriptor, "w") as report:
            report.write(text)
    except OSError as error:
        print(text, file=sys.stderr)
        return f"the lines above (no file could be written: {error})"
    return path
