"""Define the command top: watch all workers in one terminal, and operate them by keys."""

import os
import re
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from shlex import quote
from threading import Thread
from typing import Any, NamedTuple

import click
from rich.console import Group
from rich.text import Text

from xboard_circus.circus_client import CircusdClient
from xboard_circus.cli.context import for_instance
from xboard_circus.cli.error_boundary import DONE, INTERRUPTED
from xboard_circus.cli.events import explained
from xboard_circus.cli.log_view import level_style, of_name
from xboard_circus.cli.screen import full_screen, need_terminal, plain
from xboard_circus.cli.summary import Summary, SummaryRow, folded, gather, headline, rows, table
from xboard_circus.core.durations import lasted
from xboard_circus.core.in_flight import by_age
from xboard_circus.core.names import PLUGIN, plugin_log_name
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.logs import LogFollower, tail
from xboard_circus.logs.follow import polled
from xboard_circus.logs.lines import merged, without_colours
from xboard_circus.masking import safe_line

LOOK_EVERY, DRAW_EVERY = 0.75, 0.25
KEPT_LINES = 500
MOST_REQUESTS = 3
SCROLLS = {"page up": -8, "page down": 8, "wheel up": -3, "wheel down": 3}
FOOTER = "up/down:choose w:why l:logs r:reload +/-:scale t:retry /:filter ?:help q:quit"
HELP = """\
up, down, k, j  choose a watcher or a worker
w  why the chosen worker, or the last one of the chosen watcher, ended
l  the log of the chosen watcher
r  reload the chosen watcher: workers one by one, the new one ready first
+  run one worker more of it, until circusd restarts
-  run one worker less
t  start the chosen held slot now
PgUp, PgDn, wheel  scroll what is below the table; Shift and the mouse select text
/  show only rows with a text, such as a name, hung or a pid; Esc shows all
q  quit, as Ctrl-C does; the backend runs on
What changes something asks first, and y does it."""
NAMED = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\n": "enter"}
NAMED |= {"\r": "enter", "\x1b": "escape", "\x7f": "back", "\x08": "back"}
NAMED |= {"\x1b[5~": "page up", "\x1b[6~": "page down", "\x1b[<64": "wheel up", "\x1b[<65": "wheel down"}
MOUSE_ON, MOUSE_OFF = "\x1b[?1000h\x1b[?1006h", "\x1b[?1006l\x1b[?1000l"
SAME = {"k": "up", "j": "down", "h": "?", "=": "+"}
_KEY = re.compile(r"\x1b[\[O][<0-9;]*[A-Za-z~]|.", re.DOTALL)


class Look(NamedTuple):
    """What was seen at one moment: workers, and the requests in flight, the oldest first."""

    summary: Summary
    requests: Sequence[dict[str, Any]]


class Lookout(Thread):
    """Query circusd again and again, because it may take seconds to answer, and a key must not."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(daemon=True)
        self.instance = instance
        self.look: Look | None = None
        self.trouble = ""
        self.bug: Exception | None = None

    def run(self) -> None:
        while self.bug is None:
            try:
                self.look, self.trouble = _look(self.instance), ""
            except XboardError as error:
                self.trouble = str(error)
            except Exception as error:
                self.bug = error  # for the thread that has the terminal
            time.sleep(LOOK_EVERY)


class Question(NamedTuple):
    """A change that waits for a yes: what it is, what sends it, and what is shown once it was sent."""

    text: str
    send: Callable[[CircusdClient], object]
    done: str


@dataclass
class TopScreen:
    """What is chosen and shown, apart from the state of the workers; keys change it."""

    chosen: int = 0
    pane: str = "logs"
    scroll: int = 0  # lines from the top of the pane, or up from the end of the log
    why: str = ""
    wanted: str = ""
    is_typing: bool = False
    question: Question | None = None
    message: str = ""
    shown: list[SummaryRow] = field(default_factory=list)

    @property
    def row(self) -> SummaryRow | None:
        """Return the chosen row."""
        return self.shown[self.chosen] if self.shown else None

    def take(self, summary: Summary) -> None:
        """Show a new state; the chosen row stays chosen as long as it is there."""
        before = self.row
        found = [row for row in rows(summary, whole=True) if self.wanted in " ".join(map(str, row.cells.values()))]
        same = (place for place, row in enumerate(found) if before and row[:2] == before[:2])
        self.shown, self.chosen = found, next(same, max(0, min(self.chosen, len(found) - 1)))

    def press(self, key: str, summary: Summary | None) -> None:
        """Act on a key other than those that need circusd's answer."""
        if key in SCROLLS:
            self.scroll += SCROLLS[key]
            return
        self.message, self.scroll = "", 0
        if self.is_typing:
            self.is_typing = key not in ("enter", "escape")
            self.wanted = {"enter": self.wanted, "escape": "", "back": self.wanted[:-1]}.get(key, self.wanted + key)
            return
        key = SAME.get(key, key)
        if key == "escape":
            self.wanted = ""
        elif key in ("up", "down"):
            self.chosen = max(0, min(len(self.shown) - 1, self.chosen + (1 if key == "down" else -1)))
        elif key == "/":
            self.is_typing = True
        elif key in ("?", "l", "w"):
            self.pane = {"?": "help", "l": "logs", "w": "why"}[key]
        elif key in ("r", "+", "-", "t") and summary is not None and self.row is not None:
            self._ask(key, summary, self.row)

    def _ask(self, key: str, summary: Summary, row: SummaryRow) -> None:
        name, watcher = row.watcher, summary.found.watcher(row.watcher)
        count = (0 if watcher is None else watcher["numprocesses"]) + (1 if key == "+" else -1)
        if key == "r":
            text = f"Reload {name}, without a trial of the new code?"
            self.question = Question(text, lambda client: client.reload(name), f"the reload of {name} has begun")
        elif key == "t":
            if row.slot < 1 or row.cells["STATE"].plain != "held":
                self.message = "no held slot is chosen: there is nothing to retry"
                return
            text, done = f"Start {name} #{row.slot} now?", f"{name} #{row.slot} is starting"
            self.question = Question(text, lambda client: client.retry(name, row.slot), done)
        elif count < 1:
            self.message = f"{name} keeps its worker: `xboard-circus stop {quote(name)}` stops it"
        else:
            text = f"Run {count} worker{'' if count == 1 else 's'} of {name} until circusd restarts?"
            self.question = Question(text, lambda client: client.scale(name, count), f"{name}: {count} wanted")


class LogPane:
    """The last lines of a watcher's logs, and new ones as they come."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._followers: list[LogFollower] = []
        if not name:
            return
        try:
            is_plugin = name.startswith(PLUGIN)
            logs = of_name(instance.config, plugin_log_name(name).removesuffix(".log") if is_plugin else name)
            with suppress(OSError):
                self._followers = [LogFollower(log) for log in logs]
                self.lines.extend(line.text for _, line in merged({log: tail(log, KEPT_LINES) for log in logs}))
        except XboardError as error:
            self.lines.append(str(error))

    def poll(self) -> None:
        """Read what has been written since."""
        self.lines.extend(text for _, text in polled(self._followers))


@click.command()
@for_instance
def top(instance: Instance) -> int:
    """Watch all workers, requests in flight and logs in this terminal, and operate them by keys; ? lists these."""
    need_terminal("top")
    screen, pane, lookout = TopScreen(), LogPane(instance, ""), Lookout(instance)
    lookout.start()
    with suppress(KeyboardInterrupt), full_screen() as live, keyboard() as keys:
        while lookout.bug is None:
            if (look := lookout.look) is not None:
                screen.take(look.summary)
            if screen.row is not None and screen.row.watcher != pane.name:
                pane = LogPane(instance, screen.row.watcher)
            pane.poll()
            size = live.console.size
            lines = frame(screen, look, lookout.trouble, pane.lines, size.width, size.height)
            live.update(Group(*lines), refresh=True)
            for key in keys(DRAW_EVERY):
                if key == "end" or (key == "q" and not screen.is_typing):
                    return DONE
                _act(instance, screen, key, None if look is None else look.summary)
    if lookout.bug is not None:
        raise lookout.bug
    return INTERRUPTED


def _look(instance: Instance) -> Look:
    found = gather(instance)
    with suppress(XboardError), instance.client() as client:  # no watcher is armed
        answer = client.call("xboard_requests", name="", deadline=instance.answer_within)
        return Look(found, by_age(answer.get("workers")))
    return Look(found, [])


def _act(instance: Instance, screen: TopScreen, key: str, summary: Summary | None) -> None:
    """Act on a key; what a change was refused for is shown."""
    if key in SCROLLS:
        screen.press(key, summary)
        return
    question, screen.question = screen.question, None
    if question is not None:
        screen.message = "nothing was done"
        if key == "y":
            try:
                with instance.client() as client:
                    question.send(client)
                screen.message = question.done
            except XboardError as error:
                screen.message = str(error)
        return
    screen.press(key, summary)
    if key == "w" and not screen.is_typing and screen.row is not None:
        pid = screen.row.cells.get("PID", Text("-")).plain
        try:
            screen.why = explained(instance, pid if pid.isdigit() else screen.row.watcher)[2]
        except XboardError as error:
            screen.why = str(error)


def frame(
    screen: TopScreen, look: Look | None, trouble: str, log: Sequence[str] | deque[str], width: int, height: int
) -> list[Text]:
    """Return the lines of the whole screen."""
    first = folded(plain(trouble or "waiting for circusd to answer", "red" if trouble else "dim"), width)
    if look is not None and not trouble:
        first = folded(headline(look.summary), width)[: height // 2]
    last = _last(screen, width)
    requests = _requests(look, width)
    room = max(4, height - len(first) - len(last) - len(requests) - 2)
    drawn = _window(screen, width, max(3, room * 2 // 3 if screen.pane == "logs" else room // 2))
    left = height - len(first) - len(drawn) - len(requests) - len(last) - 2
    name = "" if screen.row is None else screen.row.watcher
    title = {"logs": f"log of {name}", "why": f"why: {name}", "help": "keys"}[screen.pane]
    place, shown = _pane(screen, log, width, max(0, left))
    lines = [*first, Text(), *drawn, *requests, plain(f"--- {title}{place} ---"[:width], "dim"), *shown]
    return [*lines[: height - len(last)], *[Text()] * (height - len(last) - len(lines)), *last]


def _window(screen: TopScreen, width: int, most: int) -> list[Text]:
    """Return the head of the table and the lines around the chosen row."""
    (_, head), *lines = table(screen.shown, width, wraps=True)
    if screen.wanted or screen.is_typing:
        head = plain(f"only rows with: {screen.wanted}", "yellow")
    at = next((place for place, (row, _) in enumerate(lines) if row is screen.row), 0)
    if lines:
        chosen = lines[at][1].copy()
        chosen.pad_right(max(0, width - chosen.cell_len))
        chosen.stylize("reverse")
        lines[at] = (screen.row, chosen)
    begin = max(0, min(at - most // 2, len(lines) - most))
    return [head, *(text for _, text in lines[begin : begin + most])]


def _requests(look: Look | None, width: int) -> list[Text]:
    found = [] if look is None else look.requests
    lines = [f"in flight, the oldest of {len(found)} first:"] if found else []
    for request in found[:MOST_REQUESTS]:
        what = f"{request.get('method')} {request.get('route')}"
        lines.append(f"  {lasted(request['age'])}  {what}  {request['watcher']} #{request['slot']}")
    return [each for line in lines for each in folded(plain(line), width)[:1]]


def _pane(screen: TopScreen, log: Sequence[str] | deque[str], width: int, most: int) -> tuple[str, Sequence[Text]]:
    """Return which lines of the pane are shown, where they are not all, and these; scroll no further than it has."""
    lines: list[Text] = []
    if screen.pane != "logs":
        text = HELP if screen.pane == "help" else screen.why
        lines = [each for line in text.splitlines() for each in folded(plain(line), width)]
        screen.scroll = begin = max(0, min(screen.scroll, len(lines) - most))
    else:
        screen.scroll = min(0, screen.scroll)
        for text in reversed(log):
            if len(lines) >= most - screen.scroll:
                break
            shown = safe_line(without_colours(text).expandtabs())
            lines = [*folded(plain(shown, level_style(shown)), width), *lines]
        begin = max(0, len(lines) - most + screen.scroll)
        screen.scroll = min(0, begin + most - len(lines))
    is_part = len(lines) > most and screen.pane != "logs"
    place = f" {begin + 1}-{begin + most} of {len(lines)}: PgUp PgDn" if is_part else ""
    return place, lines[begin : begin + most]


def _last(screen: TopScreen, width: int) -> list[Text]:
    if screen.question is not None:
        return folded(plain(f"{screen.question.text} y/n", "bold yellow"), width)
    if screen.is_typing:
        return folded(plain(f"/{screen.wanted}_  (Enter keeps it, Esc shows all)", "bold"), width)
    return folded(plain(screen.message, "bold") if screen.message else plain(FOOTER, "dim"), width)


@contextmanager
def keyboard() -> Iterator[Callable[[float], list[str]]]:
    """Yield a function that waits so long for keys and returns them, unechoed; the terminal is as before at the end."""
    door = sys.stdin.fileno()
    before = termios.tcgetattr(door)

    def keys(wait: float) -> list[str]:
        if not select.select([door], [], [], wait)[0]:
            return []
        typed = os.read(door, 1024).decode(errors="replace")
        # Of a report of the mouse only the button counts; a sequence that is not known is no text.
        found = [key.partition(";")[0] if key.startswith("\x1b[<") else key for key in _KEY.findall(typed)]
        return [NAMED.get(key, key) for key in found if key in NAMED or len(key) == 1] if typed else ["end"]

    tty.setcbreak(door)
    print(end=MOUSE_ON, flush=True)
    try:
        yield keys
    finally:
        print(end=MOUSE_OFF, flush=True)
        termios.tcsetattr(door, termios.TCSADRAIN, before)
