"""Draw how each backend has been in the last day as a line of characters: its heartbeat, and its availability."""

import time
from contextlib import suppress
from math import floor

from rich.console import Console
from rich.text import Text

from xboard_circus.cli.summary import Summary
from xboard_circus.core.durations import roughly
from xboard_circus.core.incidents import CELLS, DAY, Heartbeat, heartbeat, present
from xboard_circus.core.names import bus_name, is_backend
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.query import month_of

NARROWEST = 80
"""Columns of a terminal that has room for a heartbeat."""

ROOM_OF_SHARE = len(" up 99.99 % of 119 min known")
INDENT = "  "
MARKS = {"none": ("\u00b7", ".", "dim"), "ok": ("\u2581", "_", "green")}
MARKS |= {"stopped": ("\u2500", "-", "dim"), "degraded": ("\u2584", "+", "yellow"), "down": ("\u2588", "#", "bold red")}
"""The mark of a cell by its word, the same in ASCII, and its style: trouble sticks out without colours too."""


def strips(instance: Instance, summary: Summary, console: Console) -> dict[str, Text]:
    """Return the line of each armed backend that fits into *console*; none into a narrow one, or without a ledger."""
    room, now = console.width - len(INDENT), time.time()
    found, cells = dict[str, Text](), min(CELLS, room - ROOM_OF_SHARE)
    if console.width < NARROWEST:
        return found
    with suppress(XboardError):  # no plugin keeps a ledger, or it cannot be read: `why` reports it
        events, begun = month_of(ledger_of(instance.config), now=now)
        for each in summary.found.watchers:
            if each["armed"] and is_backend(each):
                name, current = each["name"], present(each, now=now)
                beat = heartbeat(events, bus_name(name), current, begun=begun, now=now, span=DAY, count=cells)
                found[name] = strip(beat, room, console.encoding)
    return found


def strip(beat: Heartbeat, room: int, encoding: str) -> Text:
    """Return a heartbeat with as many of its shares as have room; in ASCII where *encoding* lacks the marks."""
    try:
        "".join(mark for mark, _, _ in MARKS.values()).encode(encoding)
        place = 0
    except (UnicodeEncodeError, LookupError):
        place = 1
    line = Text()
    for cell in beat.cells:
        line.append(MARKS[cell.word][place], MARKS[cell.word][2])
    lead = " up "
    for part, span, whole in beat.shares:
        # Rounded down: 100 % is without any outage.
        known = "-" if part is None else f"{floor(part * 10_000) / 100:g} %"
        words = f"{lead}{known} of {roughly(span)}{'' if whole else ' known'}"
        if len(line) + len(words) <= room:
            line.append(words)
            lead = ", "
    return line
