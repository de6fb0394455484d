"""Put a reason into words that fit everywhere: one line, short, safe on a terminal.

A reason quotes what others wrote (a log line, a stranger's command line), so it is cleaned here, once,
before it reaches a log, a table, an event or a browser.
"""

from __future__ import annotations

import re

LONGEST = 300

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""Return *text* as one printable line of at most *longest* characters.

    >>> one_line("\x1b[31mERROR\x1b[0m:\tno such\n table")
    'ERROR: no such table'
    >>> one_line("abcdefgh", longest=6)
    'abc...'
    """
    # Four times as much is plenty to shorten; a line of 100 MB must not be copied around.
    text = _ESCAPE.sub("", text[: 4 * longest])
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def seconds(value: float) -> str:
    """Return a duration as a person writes it.

    >>> seconds(600.0), seconds(2.34), seconds(0.05)
    ('600 s', '2.3 s', '0.05 s')
    """
    return f"{value:.2g} s" if 0 < value < 1 else f"{value:.1f}".removesuffix(".0") + " s"


def lasted(value: float) -> str:
    """Return how long something took, a short time with its fraction, down to a hundredth of a second.

    >>> lasted(0.0049), lasted(2.34), lasted(75), lasted(-1)
    ('0 s', '2.3 s', '1 min 15 s', '0 s')
    """
    return seconds(round(max(value, 0.0), 2)) if value < 60 else span(value)


def span(value: float) -> str:
    """Return a time span of whole *value* seconds in the two units that matter.

    >>> span(0.4), span(75), span(7260), span(200_000)
    ('0 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    left = max(0, int(value))
    parts: list[tuple[int, str]] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"
