"""Debian's logrotate in place of our own rotation: the file that we ship, forced again and again under load."""

import gzip
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from .harness import BUNDLE, Watcher, circusd, eventually
from .parts import find, needs

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "logrotate" / "xboard"
ROUNDS = 60
PAUSE = 0.3
LINES_A_SECOND = 1000

# Numbered lines to both streams, in bursts, each with a letter of two bytes in it.
TALKER = """
import os, sys, time
number, start = 0, time.monotonic()
while True:
    while number < (time.monotonic() - start) * int(sys.argv[1]):
        for stream in (sys.stdout, sys.stderr):
            print("line", os.getpid(), number, "\\u00e9" * 20, "end", file=stream, flush=True)
        number += 1
    time.sleep(0.01)
"""
LINE = re.compile(r"line (\d+) (\d+) é{20} end")


def shipped_file(folder: Path) -> Path:
    """The file that is shipped, for the logs in *folder*; only user and folder are other ones, and more is kept."""
    text = SHIPPED.read_text(encoding="utf-8")
    text = text.replace("/opt/xboard/logs", str(folder / "logs")).replace("rotate 14", "rotate 100")
    user = "" if os.geteuid() else "su root root"
    file = folder / "logrotate.conf"
    file.write_text(text.replace("su xboard xboard", user), encoding="utf-8")
    file.chmod(0o644)
    return file


def rotate(folder: Path, rounds: int, *logs: Path) -> None:
    """Rotate again and again, each time when something has been written to *logs*: an empty one is not rotated."""
    program, file = find("logrotate"), shipped_file(folder)
    assert program is not None
    for _ in range(rounds):
        eventually(lambda: all(log.stat().st_size for log in logs), what="the logs are written to")
        command = [program, "--force", "--state", str(folder / "state"), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        time.sleep(PAUSE)


def all_lines(log: Path) -> list[str]:
    """The lines of *log* and of all that was rotated away, oldest first."""

    def age(path: Path) -> int:
        found = re.search(r"\.(\d+)", path.name.removeprefix(log.name))
        return int(found[1]) if found else 0

    found = b""
    for path in sorted(log.parent.glob(f"{log.name}*"), key=age, reverse=True):
        found += gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return found.decode().splitlines()


def test_no_line_of_a_worker_is_lost_or_doubled(tmp_path: Path) -> None:
    """Given two workers that log a lot, when logrotate runs again and again, then each line is there once, in order."""
    needs("logrotate")
    talker = tmp_path / "talker.py"
    talker.write_text(TALKER)
    logs = tmp_path / "logs"
    streams = {
        f"{name}_stream.{key}": value
        for name, file in (("stdout", "web.out.log"), ("stderr", "web.log"))
        for key, value in (("class", "WatchedFileStream"), ("filename", logs / file))
    }
    command = f"{{python}} {talker} {LINES_A_SECOND}"
    watcher = Watcher(command=command, listens=False, options=streams)
    own = logs / "circusd-own.log"
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE, circus={"logoutput": own}) as c:
        eventually(lambda: len(all_lines(logs / "web.log")) > 100)
        circusds = c.past[-1].pid
        rotate(tmp_path, ROUNDS, logs / "web.log", logs / "web.out.log")
        c.do("stop", name="web", waiting=True)
        eventually(own.exists, what="circusd's own log is begun anew")
        assert c.past[-1].pid == circusds

        for name in ("web.log", "web.out.log"):
            assert len(list(logs.glob(f"{name}.*"))) >= ROUNDS - 1
            told: dict[int, list[int]] = {}
            for line in all_lines(logs / name):
                if (found := LINE.fullmatch(line)) is not None:
                    told.setdefault(int(found[1]), []).append(int(found[2]))
            assert len(told) == 2
            for numbers in told.values():
                assert numbers == list(range(len(numbers)))
                assert len(numbers) > ROUNDS * PAUSE * LINES_A_SECOND / 4
        assert "web stopped" in own.read_text()
        assert any("circusd" in line for line in all_lines(logs / "plugin-xboard.log"))


def test_no_line_of_a_plugin_is_lost_or_doubled(tmp_path: Path) -> None:
    """Given a plugin's log that is written to all the time, when logrotate runs, then each line is there once."""
    needs("logrotate")
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "plugin-test.log"
    code = (
        "import logging, sys, time; from pathlib import Path\n"
        "from xboard_circus.plugins._log import PluginLogHandler\n"
        "logger = logging.getLogger('t'); logger.propagate = False\n"
        "logger.addHandler(PluginLogHandler(Path(sys.argv[1])))\n"
        "for number in range(10**9): logger.warning('number %d', number); time.sleep(0.001)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(log)])
    try:
        eventually(log.exists)
        rotate(tmp_path, 10, log)
    finally:
        writer.kill()
        writer.wait()
    numbers = [int(line.rpartition(" ")[2]) for line in all_lines(log)]
    assert len(numbers) > 1000
    assert numbers == list(range(len(numbers)))
    assert len(list(log.parent.glob("plugin-test.log.*"))) >= 9
