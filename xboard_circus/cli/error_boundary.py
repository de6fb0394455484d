"""Turn exceptions of commands into exit codes and lines on the screen."""

import contextlib
import errno
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
from xboard_circus.cli.screen import complain, give_up
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime
from xboard_circus.masking import printable

NEVER_SUGGESTED = ("stop", "clean", "restart", "remove")
DONE, FAILED, OUR_BUG, INTERRUPTED = 0, 1, 3, 130
USED_UP = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Disk, processes, memory or descriptors: no bug of ours, and no report can be written."""
NO_THREAD = "can't start new thread"
HOW_FAR = "`xboard-circus status` how far the command came"


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
            give_up(sys.stdout)  # its reader, such as `head`, has ended
            code = DONE
        except (click.Abort, KeyboardInterrupt) as error:
            complain(": ".join(filter(None, ("interrupted", str(error)))))
            code = INTERRUPTED
        except Exception as error:
            if lacking := _lacking(error):
                complain(f"{lacking}; `xboard-circus doctor` shows what this host or user has used up, {HOW_FAR}")
                code = FAILED
                give_up(sys.stdout)
            else:
                complain(f"this is a bug in xboard-circus, not in your setup; what happened is in {_write_report()}")
                code = OUR_BUG
        ctx.exit(code)


def _lacking(error: Exception) -> str:
    """Return what the host refused to a command for want of it; "" if the error is another one."""
    if isinstance(error, OSError) and error.errno in USED_UP:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return NO_THREAD if isinstance(error, RuntimeError) and NO_THREAD in str(error) else ""


def _write_report() -> str:
    """Write the current exception, which may quote a worker, into a file of its own and return the path."""
    text = printable(
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
