"""Record docs/terminal.svg: a worker is killed, one hangs, all are reloaded, in a real terminal with a real backend.

`.venv/bin/python scripts/record_terminal.py`, with the ports of circus.ini free, takes a minute. It types the commands
into bash and draws what the terminal shows; only long pauses are shortened.
"""

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyte

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, LINES = 100, 28
LONGEST_PAUSE, LAST_PAUSE = 3.2, 6.0  # seconds in the picture
SHORTEST = 0.1  # seconds: a spinner turns faster
READABLE = 3.0  # seconds for which the answer of a command stands
PATIENCE = 60.0
KEYS = 4  # characters that are typed at once
WIDTH, HEIGHT, MARGIN = 8, 17, 12  # of a character, and around all, in pixels
COLOURS = {"default": "#d0d7de", "black": "#6e7681", "red": "#ff7b72", "green": "#56d364", "brown": "#e3b341"}
COLOURS |= {"blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#d0d7de", "yellow": "#e3b341"}
BACKGROUND = "#0d1117"


class Run(NamedTuple):
    """Characters of one style, and the column where they begin."""

    column: int
    text: str
    colour: str
    is_bold: bool


Row = tuple[Run, ...]


class Frame(NamedTuple):
    """What the screen showed from a time on."""

    at: float
    rows: tuple[Row, ...]


def row_of(screen: pyte.Screen, line: int) -> Row:
    """Return a line of the screen in runs of one style, without the blanks at its end."""
    cells = [(screen.buffer[line][column], column) for column in range(screen.columns)]
    found = []
    for (colour, is_bold), some in groupby(cells, key=lambda cell: (cell[0].fg, cell[0].bold)):
        group = [*some]
        text = "".join(cell.data for cell, _ in group)
        if text.strip():
            column = group[0][1] + len(text) - len(text.lstrip())
            found.append(Run(column, text.strip(), COLOURS.get(colour, f"#{colour}"), is_bold))
    return tuple(found)


def shortened(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames from 0 on, with no pause longer than `LONGEST_PAUSE`, and without those of a moment."""
    found: list[Frame] = []
    at, before = 0.0, frames[0].at
    for frame, later in pairwise([*frames, frames[-1]._replace(at=float("inf"))]):
        at += min(frame.at - before, LONGEST_PAUSE)
        before = frame.at
        if later.at - frame.at >= SHORTEST:
            found.append(frame._replace(at=at))
    return found


def svg(frames: Sequence[Frame], *, title: str, columns: int, lines: int) -> str:
    """Return the frames as one picture that plays them for ever; without motion it shows the last."""
    width, height = columns * WIDTH + 2 * MARGIN, lines * HEIGHT + 2 * MARGIN
    length = frames[-1].at + LAST_PAUSE
    rows: dict[Row, str] = {}
    pictures = []
    for number, frame in enumerate(frames):
        for line, row in enumerate(frame.rows):
            if row:
                name = rows.setdefault(row, f"r{len(rows)}")
                pictures.append(f'<use href="#{name}" y="{number * height + line * HEIGHT}"/>')
    drawn = "".join(f'<g id="{name}">{"".join(map(_drawn, row))}</g>' for row, name in rows.items())
    steps = "".join(
        f"{100 * frame.at / length:.3f}%{{transform:translateY({-number * height}px)}}"
        for number, frame in enumerate(frames)
    )
    last = f"translateY({-(len(frames) - 1) * height}px)"
    style = (
        f"text{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}"
        f"#film{{animation:film {length:.2f}s steps(1,end) infinite}}@keyframes film{{{steps}100%{{transform:{last}}}}}"
        f"@media(prefers-reduced-motion:reduce){{#film{{animation:none;transform:{last}}}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{style}</style><defs>{drawn}</defs>'
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
        f'<svg x="{MARGIN}" y="{MARGIN}" width="{width - 2 * MARGIN}" height="{height - 2 * MARGIN}">'
        f'<g id="film">{"".join(pictures)}</g></svg></svg>\n'
    )


def _drawn(run: Run) -> str:
    bold = ' style="font-weight:bold"' if run.is_bold else ""
    place = f'x="{run.column * WIDTH}" y="{HEIGHT - 4}" textLength="{len(run.text) * WIDTH}"'
    return f'<text {place} fill="{run.colour}"{bold}>{escape(run.text)}</text>'


class Recorder:
    """A shell in a terminal of its own, what it shows, and when."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.frames: list[Frame] = []
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], environment)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def watch(self, seconds: float, until: Callable[[str], object] | None = None) -> None:
        """Take frames for so long, or until the text of the screen is as wanted, which has to come true."""
        give_up_at = time.monotonic() + seconds
        while (left := give_up_at - time.monotonic()) > 0:
            if until is not None and until(self.text()):
                return
            if select.select([self._terminal], [], [], min(left, 0.1))[0]:
                self._stream.feed(os.read(self._terminal, 65536))
                self._take()
        if until is not None:
            raise SystemExit(f"this did not come within {seconds:g} s:\n{self.text()}")

    def _take(self) -> None:
        rows = tuple(row_of(self.screen, line) for line in range(LINES))
        if not self.frames or self.frames[-1].rows != rows:
            self.frames.append(Frame(time.monotonic(), rows))

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def type(self, command: str) -> None:
        """Type a command as a person does, and wait until the prompt is back."""
        for begin in range(0, len(command), KEYS):
            os.write(self._terminal, command[begin : begin + KEYS].encode())
            self.watch(0.15)
        os.write(self._terminal, b"\r")
        self.watch(0.3)
        self.watch(PATIENCE, until=lambda text: text.endswith("\n$"))
        self.watch(READABLE)

    def clear(self) -> None:
        os.write(self._terminal, b"\x0c")
        self.watch(0.2)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        os.waitpid(self.pid, 0)


def main() -> int:
    """Record, and write the picture."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "xboard")
        (folder / "logs").mkdir(parents=True)
        shutil.copy(ROOT / "circus.ini", folder)
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": tools, "PS1": "$ ", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        environment |= {"XBOARD_RUNTIME_DIR": str(Path(place, "run")), "PYTHONPATH": str(ROOT)}
        environment.pop("NO_COLOR", None)

        def ours(*arguments: str) -> str:
            command = ["xboard-circus", *arguments]
            return subprocess.check_output(command, cwd=folder, env=environment, text=True)

        def worker(slot: int) -> dict[str, Any]:
            (found,) = (each for each in json.loads(ours("status", "--json"))["watchers"] if each["name"] == "xboard")
            return next(each for each in found["workers"] if each["slot"] == slot)

        ours("start")
        recorder = Recorder(folder, environment)
        try:
            recorder.watch(PATIENCE, until=lambda text: text == "$")
            recorder.type("xboard-circus status")
            recorder.type(f"kill -9 {worker(1)['pid']}")
            recorder.type("xboard-circus why")
            recorder.clear()
            hung = worker(2)["pid"]
            recorder.type(f"kill -STOP {hung}; while kill -0 {hung} 2> /dev/null; do sleep 1; done")
            recorder.type("xboard-circus why xboard | head -20")
            recorder.clear()
            recorder.type("xboard-circus reload xboard")
            recorder.type("xboard-circus status xboard")
        finally:
            recorder.close()
            ours("stop")
        frames = shortened(recorder.frames)
    title = "In a terminal: a worker is killed, one hangs, all are reloaded; each is replaced"
    PICTURE.write_text(svg(frames, title=title, columns=COLUMNS, lines=LINES), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}: {len(frames)} pictures, {frames[-1].at:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
