"""How the command line writes: plain lines, safe to print whatever a process calls itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 160


def say(message: str, style: str = "") -> None:
    """Write *message* for the person who gave the command."""
    _write(Console(highlight=False), message, style)


def complain(message: str) -> None:
    """Write *message* to stderr: why the command failed."""
    _write(Console(highlight=False, stderr=True), f"xboard-circus: {message}", "red")


def out() -> Console:
    """Return a console for what is wider than a line; into a pipe it is not folded at 80 columns."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, width=width)


class Progress:
    """Print the progress of a command that waits: each change once, with a spinner on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[str, str] = {}
        self._status = console.status("") if console.is_terminal else None

    def tell(self, topic: str, message: str) -> None:
        """Write *message* unless it is the last that was written about *topic*."""
        if self._told.get(topic) != message:
            self._told[topic] = message
            _write(self._console, message, "")

    def waiting_for(self, what: str) -> None:
        """Show what the wait is for, where something can turn."""
        if self._status is not None:
            self._status.update(Text(printable(what)))

    def _turn(self, on: bool) -> None:
        if self._status is not None:
            (self._status.start if on else self._status.stop)()


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on stdout while the block runs."""
    shown = Progress(Console(highlight=False))
    shown._turn(True)
    try:
        yield shown
    finally:
        shown._turn(False)


def printable(text: str) -> str:
    """Return *text* without what could move the cursor or colour the terminal: a process chooses its own name.

    >>> printable("evil\\x1b[2J name")
    'evil?[2J name'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def memory(size: int) -> str:
    """Return *size* bytes in MiB.

    >>> memory(54_525_952)
    '52 MiB'
    """
    return f"{size / 2**20:.0f} MiB"


def _write(console: Console, message: str, style: str) -> None:
    console.print(Text(printable(message), style=style), soft_wrap=True)
