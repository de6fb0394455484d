"""Turn exceptions of commands into exit codes and lines on the screen."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import click

from xboard_circus import __version__
from xboard_circus.cli.screen import complain
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime

NEVER_SUGGESTED = ("stop", "clean", "restart", "remove")
DONE, TOLD, OUR_BUG, INTERRUPTED = 0, 1, 3, 130


class Boundary(click.Group):
    """A group whose commands return their exit code and raise XboardError on failure."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest none that stops or deletes in the place of a misspelt one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            alike = getattr(error, "possibilities", None)
            if alike:
                error.possibilities = [each for each in alike if each not in NEVER_SUGGESTED]  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: click.Context) -> NoReturn:
        try:
            code = super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise  # wrong usage, and --help: click's own to tell
        except XboardError as error:
            complain(str(error))
            code = error.exit_code
        except BrokenPipeError:
            # Who read our output has had enough, such as `head`; nothing may be flushed into it at the end either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = DONE
        except (click.Abort, KeyboardInterrupt):
            complain("interrupted")
            code = INTERRUPTED
        except Exception:
            complain(f"this is a bug in xboard-circus, not in your setup; what happened is in {_write_report()}")
            code = OUR_BUG
        ctx.exit(code if isinstance(code, int) else DONE)


def _write_report() -> str:
    """Write the exception that is being handled into a file of its own and return the path."""
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-"
    lines = [
        f"xboard-circus {__version__} ({os.path.dirname(os.path.dirname(__file__))}), circus {_version('circus')}",
        f"Python {sys.version} on {platform.platform()}",
        f"command: {sys.argv}",
        "",
        traceback.format_exc(),
    ]
    folder = None
    with contextlib.suppress(XboardError, OSError):
        folder = str(runtime.root())
    try:
        descriptor, path = tempfile.mkstemp(prefix=name, suffix=".log", dir=folder)
        with os.fdopen(descriptor, "w") as report:
            report.write("\n".join(lines))
    except OSError as error:
        print("\n".join(lines), file=sys.stderr)
        return f"the lines above (no file could be written: {error})"
    return path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
