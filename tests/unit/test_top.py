"""What `top` draws at each width, and what its keys do."""

import os
import pty
import re
import sys
import termios
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from state_views import watcher_view, worker_view
from test_summary import looping, summary, workers

from xboard_circus.cli.summary import Summary
from xboard_circus.cli.top import FOOTER, HELP, MOST_REQUESTS, Look, TopScreen, _act, frame, keyboard

LOG = [f"2026-11-24 20:47:29 [101] | INFO:     line {number} of the log" for number in range(100)]
REQUEST: Any = {"age": 7.7, "method": "PUT", "route": "/uploads/{name}", "watcher": "web", "slot": 1, "pid": 100}


class FakeClient:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.asked.append((name, *given))


def shown(given: Summary, **known: Any) -> TopScreen:
    screen = TopScreen(**known)
    screen.take(given)
    return screen


def press(screen: TopScreen, given: Summary, *keys: str) -> TopScreen:
    for key in keys:
        screen.press(key, given)
        screen.take(given)
    return screen


def picture(screen: TopScreen, given: Summary, width: int, height: int) -> list[str]:
    return [line.plain for line in frame(screen, Look(given, [REQUEST]), "", LOG, width, height)]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("height", [24, 50])
def test_the_picture_fills_the_screen_and_cuts_no_word(width: int, height: int) -> None:
    """Given trouble, requests and a log, then all of it is there, between the verdict and the keys."""
    given = summary(looping(), watcher_view(*workers(3)))

    lines = picture(shown(given), given, width, height)

    assert len(lines) == height
    assert [line for line in lines if cell_len(line) > width] == []
    drawn = frame(shown(given), Look(given, [REQUEST] * 9), "", LOG, width, height)
    assert sum("PUT /uploads" in line.plain for line in drawn) == MOST_REQUESTS
    (chosen,) = (line for line in drawn if any(span.style == "reverse" for span in line.spans))
    assert chosen.plain.startswith("api ")
    text = " ".join(" ".join(lines).split())
    assert re.match(r"DOWN for 3 min 12 s, since [\w: ]+: api, 0 of 1 up\. ", text)
    assert text.endswith(FOOTER)
    for part in ("NAME STATE UP PID", "api looping 0 of 1", "PUT /uploads/{name} web #1", "log of api"):
        assert part in text
    if height == 50:
        assert text.index("line 98 of the log") < text.index("line 99 of the log")


def test_the_chosen_row_is_in_the_picture_of_a_long_table() -> None:
    given = summary(watcher_view(*workers(40)))

    lines = picture(press(shown(given), given, *["down"] * 40), given, 80, 24)

    assert [line.split()[0] for line in lines if line.startswith("  #")][-1] == "#40"


def test_keys_are_read_as_they_come_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a terminal, when keys and sequences are typed in one go, then each is known; its end is one too."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(stdin)
        with keyboard() as keys:
            assert keys(0) == []
            os.write(ours, b"k\x1b[A\x1bOB\r\x7fq")
            assert keys(5) == ["k", "up", "down", "enter", "back", "q"]
            os.write(ours, b"\x1b[6~\x1b[<64;3;4M\x1b[<0;3;4M\x1b[<0;3;4m\x1b[15~q")
            assert keys(5) == ["page down", "wheel up", "q"]
            os.write(ours, termios.tcgetattr(stdin)[6][termios.VEOF])
            assert termios.tcgetattr(stdin)[3] & (termios.ECHO | termios.ICANON) == 0
            monkeypatch.setattr(os, "read", lambda *_: b"")
            assert keys(5) == ["end"]
            monkeypatch.undo()
        assert termios.tcgetattr(stdin) == before
    os.close(ours)


@pytest.mark.parametrize(("answer", "asked", "message"), [("y", 1, "begun"), ("n", 0, "nothing was done")])
def test_a_change_is_made_after_a_yes_alone(
    monkeypatch: pytest.MonkeyPatch, answer: str, asked: int, message: str
) -> None:
    given, client = summary(watcher_view(*workers(1))), FakeClient()
    screen = press(shown(given), given, "r")

    _act(SimpleNamespace(client=lambda: nullcontext(client)), screen, answer, given)  # type: ignore[arg-type]

    assert (len(client.asked), screen.question) == (asked, None)
    assert screen.message.endswith(message)


def test_without_circusd_the_first_line_says_so() -> None:
    lines = frame(TopScreen(), None, "circusd of circus.ini does not run; `xboard-circus start` starts it", [], 80, 24)

    assert lines[0].plain == "circusd of circus.ini does not run; `xboard-circus start` starts it"


@pytest.mark.parametrize(
    ("moves", "key", "question", "asked"),
    [
        pytest.param(0, "r", "Reload api, without a trial of the new code?", ("reload", "api"), id="reload"),
        pytest.param(0, "+", "Run 2 workers of api until circusd restarts?", ("scale", "api", 2), id="one more"),
        pytest.param(2, "-", "Run 2 workers of web until circusd restarts?", ("scale", "web", 2), id="one less"),
        pytest.param(1, "t", "Start api #1 now?", ("retry", "api", 1), id="retry"),
    ],
)
def test_a_change_asks_first_and_is_of_the_chosen_row(
    moves: int, key: str, question: str, asked: tuple[Any, ...]
) -> None:
    given, client = summary(looping(), watcher_view(*workers(3))), FakeClient()

    screen = press(shown(given), given, *["down"] * moves, key)

    assert screen.question is not None
    assert screen.question.text == question
    assert client.asked == []
    screen.question.send(client)  # type: ignore[arg-type]
    assert client.asked == [asked]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param("t", "no held slot is chosen: there is nothing to retry", id="retry of a watcher"),
        pytest.param("jt", "no held slot is chosen: there is nothing to retry", id="retry of a worker that is up"),
        pytest.param("-", "web keeps its worker: `xboard-circus stop web`", id="the last worker"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_asked(keys: str, message: str) -> None:
    given = summary(watcher_view(*workers(1)))

    screen = press(shown(given), given, *keys)

    assert (screen.question, screen.message.startswith(message)) == (None, True)


def test_the_chosen_worker_stays_chosen_while_trouble_moves_rows() -> None:
    given = summary(watcher_view(*workers(2)))
    screen = press(shown(given), given, "j", "j")
    assert screen.row is not None
    assert screen.row[:2] == ("web", 2)

    screen.take(summary(looping(), watcher_view(*workers(2))))

    assert screen.row is not None
    assert screen.row[:2] == ("web", 2)


def test_a_filter_leaves_the_rows_with_the_text_until_escape() -> None:
    hung = worker_view(777, "hung", slot=3)
    given = summary(watcher_view(*workers(2), hung, name="web"), watcher_view(*workers(1), name="q"))

    screen = press(shown(given), given, "/", "h", "u", "x", "back", "n", "g", "enter")
    assert [row[:2] for row in screen.shown] == [("web", 3)]
    assert "only rows with: hung" in "\n".join(picture(screen, given, 80, 24))
    assert len(press(screen, given, "escape").shown) == 6
    typing = press(shown(given), given, "/", "q")
    assert (typing.is_typing, typing.wanted, [row.watcher for row in typing.shown]) == (True, "q", ["q"])


@pytest.mark.parametrize("pane", ["why", "help", "logs"])
def test_a_pane_scrolls_to_each_of_its_lines_at_40_by_30(pane: str) -> None:
    """Given a pane that does not fit, when it is scrolled by keys and the wheel, then no line of it stays hidden."""
    given = summary(looping(), watcher_view(*workers(3)))
    text = "\n".join(f"  line {number} of the story" for number in range(60))
    screen = shown(given, why=text, pane=pane)
    seen, (ahead, back) = set[str](), ("wheel up", "page down") if pane == "logs" else ("wheel down", "page up")

    for _ in range(80):
        seen |= {line.strip() for line in picture(screen, given, 40, 30)}
        screen.press(ahead, given)
    for _ in range(30):
        screen.press(back, given)
        at_home = picture(screen, given, 40, 30)

    wanted = {"help": HELP, "why": text, "logs": "\n".join(f"line {number} of the log" for number in range(100))}[pane]
    assert set(wanted.replace("\n", " ").split()) <= set(" ".join(seen).split())
    assert at_home == picture(shown(given, why=text, pane=pane), given, 40, 30)
    assert any("PgUp PgDn ---" in line for line in at_home) is (pane != "logs")


def test_scrolling_answers_no_question() -> None:
    given = summary(watcher_view(*workers(1)))
    screen = press(shown(given), given, "r")

    _act(SimpleNamespace(), screen, "wheel down", given)  # type: ignore[arg-type]

    assert screen.question is not None


def test_panes_show_keys_and_why() -> None:
    given = summary(watcher_view(*workers(1)))
    screen = press(shown(given, why="Worker 1 of web was killed\n  when:  now"), given, "w")

    assert "Worker 1 of web was killed" in "\n".join(picture(screen, given, 80, 24))
    assert "What changes something asks first" in "\n".join(picture(press(screen, given, "h"), given, 80, 30))


def test_no_secret_of_a_log_is_shown_in_top() -> None:
    given = summary(watcher_view(*workers(1)))
    log = ["connect to \x1b[31mredis://:hunter2@cache/0\x1b[0m"]

    lines = frame(shown(given), Look(given, []), "", log, 80, 24)

    assert "connect to redis://:***@cache/0" in [line.plain.strip() for line in lines]
