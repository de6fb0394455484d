"""`top` and `status --watch` in a real terminal of four widths, and Ctrl-C in each command that waits."""

import itertools
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xboard_circus.cli.strips import NARROWEST
from xboard_circus.cli.summary import COLUMNS
from xboard_circus.cli.top import FOOTER
from xboard_circus.core.incidents import CELLS

from .harness import BUNDLE, Circusd, circusd, eventually, kill
from .parts import find, needs
from .test_cli import begun

NUMBERS = itertools.count()
PATIENCE = 90.0


class Terminal:
    """A shell in a terminal of tmux, on a server of its own."""

    def __init__(self, c: Circusd, width: int, height: int, **env: str) -> None:
        self.c = c
        self._tmux = [find("tmux") or "", "-L", f"xb-{os.getpid()}-{next(NUMBERS)}", "-f", os.devnull]
        variables = {**c.environ(), "LANG": "C.UTF-8", **env}
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "bash --norc --noprofile", env=variables)

    def _run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, timeout=30, check=False, env=env
        )
        return done.stdout

    def keys(self, *names: str) -> None:
        self._run("send-keys", *names)

    def type(self, line: str) -> None:
        self._run("send-keys", "-l", line)
        self.keys("Enter")

    def command(self, *arguments: str) -> None:
        """Run a command of ours, with something on the screen before it."""
        self.type("clear; echo it was here")
        self.until(lambda text: "\nit was here" in f"\n{text}" and "clear" not in text)
        words = [self.c.python, "-m", "xboard_circus", "-c", str(self.c.ini), *arguments]
        script = self.c.folder / "cmd"
        script.write_text(f"exec {shlex.join(words)}\n")
        self.type(f"sh {script.name}")

    def text(self, *options: str) -> str:
        return self._run("capture-pane", "-p", *options)

    def until(self, holds: Callable[[str], object]) -> str:
        return eventually(lambda: text if holds(text := self.text()) else None, timeout=PATIENCE, what=self.text())

    def ended(self) -> tuple[int, bool]:
        """Return the exit code of the last command, and whether the terminal is as it was before it."""
        self.until(lambda text: "it was here" in text and text.rstrip().endswith("%"))
        self.type("echo code=$?; stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo | tr '\\n' .")
        text = self.until(lambda text: re.search(r"^code=\d+\n", text, re.MULTILINE))
        text = self.until(lambda text: re.search(r"^icanon\.echo\.", text, re.MULTILINE))
        found = re.search(r"^code=(\d+)$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]), "NAME " not in text

    def close(self) -> None:
        self._run("kill-server")


@contextmanager
def terminal(c: Circusd, width: int = 80, height: int = 30, **env: str) -> Iterator[Terminal]:
    found = Terminal(c, width, height, **env)
    try:
        found.type(f"PS1='% '; cd {c.folder}")
        yield found
    finally:
        found.close()


def whole_words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_a_terminal_of_any_width_has_whole_words_and_is_restored_by_ctrl_c(tmp_path: Path, width: int) -> None:
    """Given a terminal, when `status -w` and `top` run in it until Ctrl-C, then no word is cut, and it is as before."""
    needs("tmux")
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        with terminal(c, width) as t:
            for command in (["status", "-w"], ["top"]):
                t.command(*command)
                shown = t.until(lambda text: "All fine: 1 backend, 2 workers" in whole_words(text) and "#2" in text)
                head = next(line for line in shown.splitlines() if line.startswith("NAME"))
                assert whole_words(" ".join(COLUMNS)).startswith("NAME STATE UP PID AGE")
                assert [word for word in head.split() if word not in " ".join(COLUMNS).split()] == []
                assert len(head.split()) >= 4
                if command == ["top"]:
                    assert whole_words(shown).endswith(FOOTER)
                else:
                    shown = t.until(lambda text: (" s known" in text) is (width >= NARROWEST))
                    strips = [line for line in shown.splitlines() if line.startswith("  \u00b7")]
                    assert [len(line.split()[0]) for line in strips] == ([min(CELLS, width - 30)] if strips else [])
                t.keys("C-c")
                assert t.ended() == (130, True), t.text()
            t.command("events")
            t.until(lambda text: re.search(r"web \(pid \d+\) ready: up [\d.]+ m?s after its start", whole_words(text)))


def test_top_operates_a_watcher_by_keys(tmp_path: Path) -> None:
    """Given `top`, when keys choose, scale, ask why and reload, then it is done after a yes, and q ends it with 0."""
    needs("tmux")
    with circusd(tmp_path, plugins=BUNDLE) as c:
        first, _ = c.wait_ready()
        with terminal(c, 100, 40) as t:
            t.command("top")
            t.until(lambda text: "#2" in text)
            t.keys("+")
            t.until(lambda text: "Run 3 workers of web until circusd restarts? y/n" in text)
            t.keys("n")
            t.until(lambda text: "nothing was done" in text)
            t.keys("+", "y")
            t.until(lambda text: "3 of 3" in text)
            kill(first)
            t.until(lambda text: str(first) not in text.partition("---")[0] and "3 of 3" in text)
            t.keys("w")
            t.until(lambda text: "killed from outside by SIGKILL" in text.partition("--- why")[2])
            t.keys("r", "y")
            eventually(lambda: (c.watcher()["reload"] or {}).get("state") == "done", timeout=PATIENCE)
            t.keys("/", "#", "3", "Enter")
            t.until(lambda text: "only rows with: #3" in text and "#2" not in text.partition("---")[0])
            t.keys("q")

            assert t.ended() == (0, True)
        assert len(c.wait_ready(3)) == 3


def test_a_terminal_without_colours_gets_none_and_one_that_is_hung_up_is_restored(tmp_path: Path) -> None:
    """Given NO_COLOR, when top runs, then no colour is sent; when a signal ends it, then the terminal is as before."""
    needs("tmux")
    with circusd(tmp_path) as c:
        c.wait_ready()
        for env, is_coloured, signum in (
            ({"NO_COLOR": "1"}, False, signal.SIGTERM),
            ({}, True, signal.SIGHUP),
        ):
            with terminal(c, 80, 30, **env) as t:
                t.command("top")
                t.until(lambda text: "#2" in text)
                assert bool(re.search(r"\x1b\[(?:\d+;)*3[1-7]", t.text("-e"))) is is_coloured
                pid = t._run("display-message", "-p", "#{pane_pid}").strip()
                (child,) = subprocess.check_output(["pgrep", "-P", pid], text=True).split()
                os.kill(int(child), signum)

                assert t.ended() == (128 + signum, True)


@pytest.mark.parametrize(
    ("arguments", "is_under_way", "said"),
    [
        pytest.param(
            ["reload", "--no-preflight", "web"],
            lambda c: (c.watcher()["reload"] or {}).get("state") == "running",
            "no longer waiting; circusd goes on with the reload of web: `xboard-circus status`",
            id="reload",
        ),
        pytest.param(
            ["restart", "web"],
            lambda c: c.verdict() != "ok",
            "no longer waiting; circusd goes on",
            id="restart NAME",
        ),
        pytest.param(
            ["scale", "web", "3"],
            lambda c: c.watcher()["numprocesses"] == 3,
            "web is set to 3 workers, and 2 are up; circusd goes on: `xboard-circus status web`",
            id="scale",
        ),
        pytest.param(["logs", "-f"], None, "", id="logs -f"),
        pytest.param(["events", "-f"], None, "interrupted", id="events -f"),
    ],
)
def test_ctrl_c_ends_with_130_and_says_what_goes_on(
    tmp_path: Path, arguments: list[str], is_under_way: Callable[[Circusd], bool] | None, said: str
) -> None:
    with circusd(tmp_path, plugins=BUNDLE) as c:
        c.wait_ready()
        eventually(lambda: c.verdict() == "ok")
        eventually(lambda: (c.folder / "ledger.db").exists())
        c.set("boot", "slow 4")
        with begun(c, *arguments) as running:
            assert running.stdout is not None
            if is_under_way is None:
                running.stdout.readline()
            else:
                eventually(lambda: is_under_way(c))
            os.kill(running.pid, signal.SIGINT)
            _, stderr = running.communicate(timeout=PATIENCE)

        # A shell shows an end by SIGINT, as Python's own where it comes in the last moment, as 130 too.
        reports = [Path(path).read_text() for path in re.findall(r"\S+/crash-\S+\.log", stderr)]
        assert running.returncode in (130, -signal.SIGINT), (stderr, *reports)
        assert (said in stderr, "Traceback" in stderr) == (True, False), stderr
