"""Print plain lines for the command line, safe whatever a process calls itself."""

import functools
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click
from click import Abort
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from xboard_circus.checks.findings import Level, Report
from xboard_circus.errors import XboardError
from xboard_circus.masking import printable

WIDTH_WITHOUT_TERMINAL = 160
HANG = "  "  # before the further lines of one that is broken
STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", Level.UNKNOWN: "dim", Level.OK: "green"}


class Screen(Console):
    """A console whose reader may end early, as `head` does: the error boundary takes that for a success."""

    def on_broken_pipe(self) -> None:
        """Raise in place of an exit with 1."""
        raise BrokenPipeError


def say(message: str, style: str = "") -> None:
    """Print *message* on stdout."""
    _write(Screen(highlight=False), message, style)


def complain(message: str) -> None:
    """Print *message* on stderr, as the reason of a failure."""
    _write(Console(highlight=False, stderr=True), f"xboard-circus: {message}", "red")


@contextmanager
def ignored(signum: signal.Signals) -> Iterator[None]:
    """Ignore a signal that would end the command, such as SIGHUP; what the block starts does not inherit that."""
    before = signal.getsignal(signum)
    if before in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signum, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signum, before)


@contextmanager
def interrupted(what: str) -> Iterator[None]:
    """Report on Ctrl-C *what* was done or not; of two such blocks the outer one knows more."""
    try:
        yield
    except (KeyboardInterrupt, Abort) as error:
        raise KeyboardInterrupt(what) from error


def agree(cost: str, question: str, otherwise: str) -> None:
    """Ask on a terminal whether to go on at this *cost*; XboardError with *otherwise* without one."""
    if not sys.stdin.isatty():
        raise XboardError(f"{cost}; {otherwise}")
    click.confirm(f"{cost}. {question}", abort=True)


def show(found: Report, *, down_to: Level = Level.WARNING) -> None:
    """Print the findings, from the worst down to that level."""
    wanted = list(Level)[: list(Level).index(down_to) + 1]
    for finding in found.findings:
        if finding.level in wanted:
            say(f"{finding.level.value}: {finding}", STYLES[finding.level])


def out() -> Console:
    """Return a console for output wider than a line; into a pipe it is not folded at 80 columns."""
    return Screen(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


@functools.lru_cache(1)
def has_colours() -> bool:
    """Return whether stdout shows colours: a terminal that can, without NO_COLOR."""
    console = Console()
    return console.is_terminal and console.color_system is not None and not console.no_color


def painted(text: str, style: str) -> str:
    """Return *text* in *style* for a `print` of many lines, plain where stdout shows no colours."""
    return Style.parse(style).render(text) if style and has_colours() else text


class Progress:
    """Print the progress of a command that waits: each change once, with a spinner on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written: dict[str, str] = {}
        self.spinner = console.status("")

    def report(self, topic: str, message: str) -> None:
        """Print *message* unless it is the last that was printed about *topic*."""
        if self._written.get(topic) != message:
            self._written[topic] = message
            _write(self._console, message, "")

    def waiting_for(self, what: str) -> None:
        """Show beside the spinner what the command waits for."""
        self.spinner.update(plain(what))


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on stdout while the block runs."""
    shown = Progress(Screen(highlight=False))
    try:
        with suppress(RuntimeError):  # it takes a thread, and `stop` has to work where the user may have no more
            shown.spinner.start()
        yield shown
    finally:
        with suppress(OSError):  # the terminal is gone
            shown.spinner.stop()


def need_terminal(what: str) -> None:
    """Raise click's error of wrong usage if stdin and stdout are no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(f"{what} needs a terminal; `xboard-circus status --json` is for programs")


@contextmanager
def full_screen() -> Iterator[Live]:
    """Show a picture in place of the terminal's content, which comes back at the end, also after SIGTERM or SIGHUP."""

    def end(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    before: dict[int, Any] = {signum: signal.signal(signum, end) for signum in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # the shell would get our screen
    try:
        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            yield live
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def plain(text: str, style: str = "") -> Text:
    """Return *text* for rich, safe to print, with no markup read in it."""
    return Text(printable(text), style=style)


def fitted(text: str, console: Console | None = None) -> str:
    """Return *text* with lines broken between words where the terminal ends; as it is into a pipe.

    A word that is longer than the terminal is wide stays whole, so that an address can be copied.

    >>> print(fitted("circusd is down: nothing replaces it", Console(width=20, force_terminal=True)))
    circusd is down:
      nothing replaces
      it
    """
    console = console or Console()
    return "\n".join(_broken(line, console) for line in text.split("\n")) if console.is_terminal else text


def _broken(line: str, console: Console) -> str:
    if cell_len(line) <= console.width:
        return line
    indent, *words = re.findall(r"^\s*|\S+\s*", line)
    lines = [indent]
    for word in words:
        if lines[-1].strip() and cell_len(lines[-1] + word.rstrip()) > console.width:
            lines.append(HANG + indent)
        lines[-1] += word
    return "\n".join(map(str.rstrip, lines))


def give_up(output: IO[str]) -> None:
    """Have nothing written to *output* from now on, where that would fail again, also at the end of the process."""
    with suppress(OSError, ValueError):  # no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _write(console: Console, message: str, style: str) -> None:
    """Print a line; where that fails, because its reader has ended or its disk is full, the command goes on without.

    A `restart --cold` that ended between its stop and its start would leave nothing running.
    """
    try:
        console.print(plain(fitted(message, console), style), soft_wrap=True)
    except OSError:
        give_up(console.file)
