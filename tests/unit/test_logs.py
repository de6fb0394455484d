"""Which logs an ini has, their last lines, and what comes after, over every kind of rotation."""

import os
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from xboard_circus.config import load
from xboard_circus.core.incidents import DAY
from xboard_circus.logs import Line, LogFile, LogFollower, log_files, tail
from xboard_circus.logs.lines import LEVELS, LONGEST, MOST_PIDS, LinesAbove, time_of
from xboard_circus.plugins.log_pruner import removed

AT = time.mktime((2026, 11, 24, 20, 47, 29, 0, 0, -1))


def log(folder: Path, text: str = "", *, old_files: int = 3) -> LogFile:
    path = folder / "web.log"
    path.write_text(text)
    return LogFile("web", "web", path, "web", old_files)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path, *, count: int = 3) -> None:
    """As Circus's FileStream does."""
    for number in range(count - 1, 0, -1):
        one, next_one = Path(f"{path}.{number}"), Path(f"{path}.{number + 1}")
        if one.exists():
            one.replace(next_one)
    path.replace(f"{path}.1")
    path.touch()


def stamped(second: int, text: str) -> str:
    return f"2026-11-24 20:47:{second:02} [7] | {text}\n"


# --- which files ---


def ini(folder: Path, text: str) -> Path:
    path = folder / "circus.ini"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["monitor.log", "monitor.log.5"])
def test_the_monitors_log_is_one_where_there_is_a_monitor(tmp_path: Path, name: str) -> None:
    config = load(ini(tmp_path, "[circus]\n"))
    assert "monitor" not in [each.id for each in log_files(config)]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).touch()

    assert [(each.id, each.path) for each in log_files(config)][-1] == ("monitor", tmp_path / "logs" / "monitor.log")


def test_the_logs_of_an_ini_are_those_that_it_names(tmp_path: Path) -> None:
    config = load(
        ini(
            tmp_path,
            """\
[circus]
endpoint = tcp://127.0.0.1:1
[watcher:My Web]
cmd = x
stderr_stream.class = FileStream
stderr_stream.filename = logs/web.log
stderr_stream.max_bytes = 1000
stderr_stream.backup_count = 4
stdout_stream.class = FileStream
stdout_stream.filename = logs/web.out.log
[watcher:one]
cmd = x
stderr_stream.class = FileStream
stderr_stream.filename = logs/one.log
stdout_stream.class = FileStream
stdout_stream.filename = logs/../logs/one.log
[watcher:none]
cmd = x
[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
log_dir = elsewhere
[plugin:other]
use = somebody.elses.Plugin
""",
        )
    )

    assert {
        each.id: (str(each.path.relative_to(tmp_path)), each.watcher, each.old_files) for each in log_files(config)
    } == {
        "My-Web": ("logs/web.log", "My Web", 4),
        "My-Web.out": ("logs/web.out.log", "My Web", 0),
        "one": ("logs/one.log", "one", 0),
        "circusd": ("logs/circusd.log", None, 5),
        "circusd.out": ("logs/circusd.out", None, 1),
        "plugin-xboard": ("elsewhere/plugin-xboard.log", None, 3),
    }


def test_a_name_that_is_taken_or_means_a_folder_gets_another_id(tmp_path: Path) -> None:
    sections = [
        f"[watcher:{name}]\ncmd = x\nstderr_stream.class = FileStream\nstderr_stream.filename = logs/{place}.log\n"
        for place, name in enumerate(("circusd", "../etc", "a/b", "a b"))
    ]
    config = load(ini(tmp_path, "[circus]\nlogoutput = -\n" + "".join(sections)))

    assert sorted(each.id for each in log_files(config)) == ["a-b", "a-b-2", "circusd", "circusd.out", "etc"]


# --- times ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-11-24 20:47:29 [71] | x", AT, id="a stream of Circus"),
        pytest.param("2026-11-24 20:47:29 circus[7] [INFO] x", AT, id="circusd"),
        pytest.param("2026-11-24 20:47:29,250 INFO x", AT + 0.25, id="a plugin"),
        pytest.param("[2026-11-24T20:47:29] x", AT, id="in brackets"),
        pytest.param("2026-11-24T20:47:29Z x", 1795553249.0, id="UTC"),
        pytest.param("2026-11-24 20:47:29.5+08:00 x", 1795553249.5 - 8 * 3600, id="east of it"),
        pytest.param("2026-02-31 20:47:29 x", None, id="no such day"),
        pytest.param("2026-13-24 20:47:29 x", None, id="no such month"),
        pytest.param("0000-01-01 00:00:00 x", None, id="no such year"),
        pytest.param("INFO:     Started server process [71]", None, id="uvicorn"),
        pytest.param("at 2026-11-24 20:47:29", None, id="further in"),
        pytest.param("", None, id="empty"),
    ],
)
def test_time_of(text: str, expected: float | None) -> None:
    assert time_of(text) == expected


# --- the last lines ---


def test_a_number_in_front_of_a_line_that_is_no_pid_hides_no_log(tmp_path: Path) -> None:
    """Given an app that prints what a client sends, such as thousands of digits, then its log can be shown."""
    above, one = LinesAbove(), log(tmp_path)

    labels = [above.labels(one, text)[0] for text in ("[71] | up", f"[{'9' * 5000}] | ERROR", "[72] | up")]

    assert labels == [71, 71, 72]


def test_forged_pids_fill_no_memory(tmp_path: Path) -> None:
    """Given a log with more pids than a host has, as an app can print them, then those of its workers are known on,
    and the others are forgotten."""
    above, one = LinesAbove(), log(tmp_path)

    for forged in range(1000, 21_000):
        above.labels(one, f"[{forged}] | up")
        if forged % 500 == 0:
            above.labels(one, "[71] | ERROR it broke")

    assert len(above._levels) == MOST_PIDS
    assert above.labels(one, "[71] |   the rest of it") == (71, LEVELS["ERROR"])


def test_the_tail_goes_back_into_rotated_files(tmp_path: Path) -> None:
    web = log(tmp_path)
    for number in range(1, 10):
        append(web.path, f"line {number}\n")
        if number % 2 == 0:
            rotate(web.path)

    assert [line.text for line in tail(web, 5)] == [f"line {number}" for number in range(5, 10)]
    assert [line.text for line in tail(web, 100)] == [f"line {number}" for number in range(3, 10)]


def test_look_alikes_of_rotated_files_are_not_read(tmp_path: Path) -> None:
    web = log(tmp_path, "now\n")
    for name in ("web.log.01", "web.log.4", "web.log.1.gz", "web.log.bak", "web.log2", "xweb.log.1"):
        (tmp_path / name).write_text("other\n")

    assert tail(web, 10) == [Line(None, "now")]


def test_lines_without_a_time_have_that_of_the_line_above(tmp_path: Path) -> None:
    web = log(tmp_path, stamped(29, "Traceback") + "  File x\n  boom\n" + stamped(31, "next"))

    assert [(line.time, line.text[-9:]) for line in tail(web, 3)] == [
        (AT, "  File x"),
        (AT, "  boom"),
        (AT + 2, "[7] | next"[-9:]),
    ]


def test_since_leaves_out_what_is_older_with_what_belongs_to_it(tmp_path: Path) -> None:
    web = log(tmp_path, stamped(29, "old") + "  of old\n" + stamped(31, "new") + "  of new\n")

    assert [line.text for line in tail(web, 10, since=AT + 1)] == [stamped(31, "new").rstrip(), "  of new"]
    assert tail(web, 10, since=AT + 5) == []


def test_since_of_a_log_without_times_is_kept_by_the_file_alone(tmp_path: Path) -> None:
    web = log(tmp_path, "one\ntwo\n")
    os.utime(web.path, (AT, AT))

    assert tail(web, 10, since=AT - 1) == [Line(None, "one"), Line(None, "two")]
    assert tail(web, 10, since=AT + 1) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("one", ["one"], id="no end"),
        pytest.param("\n", [""], id="one empty line"),
        pytest.param("one\n\ntwo\n", ["one", "", "two"], id="an empty line"),
        pytest.param("one\r\ntwo\r\n", ["one", "two"], id="other ends"),
        pytest.param("日志\n", ["日志"], id="Chinese"),
    ],
)
def test_the_lines_of_a_file(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert [line.text for line in tail(log(tmp_path, text), 10)] == expected


def test_lines_across_blocks_are_whole_and_endless_ones_are_cut(tmp_path: Path) -> None:
    lines = [f"{number} " + "x" * 1000 for number in range(150)]
    web = log(tmp_path, "\n".join(lines) + "\n" + "y" * 3_000_000)

    told = [line.text for line in tail(web, 301)]

    assert told[:-1] == lines
    assert len(told[-1]) <= LONGEST


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert tail(LogFile("web", "web", tmp_path / "no" / "web.log", None, 3), 10) == []


def test_a_pipe_in_place_of_a_log_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "web.log")

    with pytest.raises(OSError, match="seek"):
        tail(LogFile("web", "web", tmp_path / "web.log", None), 10)


# --- what comes ---


def test_a_follower_gives_each_new_line_once(tmp_path: Path) -> None:
    web = log(tmp_path, "old\n")
    with closing(LogFollower(web)) as follower:
        assert follower.poll() == []
        append(web.path, "one\ntw")
        assert follower.poll() == ["one"]
        append(web.path, "o\n")
        assert follower.poll() == ["two"]
        assert follower.poll() == []


def test_a_follower_goes_on_across_rotations(tmp_path: Path) -> None:
    web = log(tmp_path)
    with closing(LogFollower(web)) as follower:
        append(web.path, "one\n")
        rotate(web.path)
        append(web.path, "two\n")
        rotate(web.path)
        append(web.path, "three\nfour")
        rotate(web.path)
        append(web.path, "five\n")

        assert follower.poll() == ["one", "two", "three", "four", "five"]
        assert follower.poll() == []


def test_a_follower_that_fell_behind_all_rotated_files_goes_on_with_what_there_is(tmp_path: Path) -> None:
    web = log(tmp_path, "old\n")
    with closing(LogFollower(web)) as follower:
        for number in range(6):
            append(web.path, f"{number}\n")
            rotate(web.path)
        append(web.path, "now\n")

        assert "now" in follower.poll()


class Rotating(LogFile):
    """A log that is rotated each time its files have just been listed, until *left* is empty."""

    left: list[str]

    def old(self) -> list[Path]:
        found = super().old()
        if self.left:
            rotate(self.path, count=9)
            append(self.path, self.left.pop(0))
        return found


def test_a_rotation_while_the_files_are_listed_hides_none(tmp_path: Path) -> None:
    web = Rotating("web", "web", tmp_path / "web.log", "web", 9)
    web.left = ["three\n", "four\n"]
    web.path.touch()
    with closing(LogFollower(web)) as follower:
        append(web.path, "one\n")
        rotate(web.path)
        append(web.path, "two\n")

        told = [line for _ in range(6) for line in follower.poll()]

    assert told == ["one", "two", "three", "four"]


def test_a_follower_loses_nothing_to_a_writer_that_rotates_all_the_time(tmp_path: Path) -> None:
    web = LogFile("web", "web", tmp_path / "web.log", "web", 160)
    web.path.touch()

    def write() -> None:
        for number in range(150):
            append(web.path, f"{number}\n")
            rotate(web.path, count=160)

    writer = threading.Thread(target=write)
    told: list[str] = []
    with closing(LogFollower(web)) as follower:
        writer.start()
        while writer.is_alive():
            told += follower.poll()
        writer.join()
        for _ in range(3):
            told += follower.poll()

    assert told == [str(number) for number in range(150)]


def test_a_follower_waits_for_a_file_and_reads_an_emptied_one_anew(tmp_path: Path) -> None:
    web = LogFile("web", "web", tmp_path / "web.log", "web", 3)
    with closing(LogFollower(web)) as follower:
        assert follower.poll() == []
        web.path.write_text("one\n")
        assert follower.poll() == ["one"]
        web.path.write_text("")
        assert follower.poll() == []
        append(web.path, "two\n")
        assert follower.poll() == ["two"]


def test_a_flood_comes_in_pieces(tmp_path: Path) -> None:
    web = log(tmp_path)
    with closing(LogFollower(web)) as follower:
        append(web.path, ("x" * 99 + "\n") * 30_000)
        pieces = [len(follower.poll()) for _ in range(4)]

    assert sum(pieces) == 30_000
    assert max(pieces) < 11_000


# --- what may go ---


def test_only_what_our_writers_rotated_and_only_when_it_is_old_expires(tmp_path: Path) -> None:
    names = ["web.log", "web.log.1", "web.log.2", "web.log.3", "web.log.4", "web.log.01", "web.log.1.gz", "web.log.-1"]
    names += ["web.log.1 ", "web.log.1\n", "web.log.", "web.log.٣", "webXlog.1", "web.log.2026", "web.out.log.1"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    of = partial(LogFile, "web", "", tmp_path / "web.log", None)

    assert removed(of(3), keep_days=7, now=7 * DAY) == []
    assert removed(of(0), keep_days=7, now=8 * DAY) == []
    os.utime(tmp_path / "web.log.2", (9 * DAY, 9 * DAY))
    (tmp_path / "web.log.3").unlink()
    (tmp_path / "web.log.3").symlink_to("web.log.4")
    assert removed(of(4), keep_days=7, now=8 * DAY) == [tmp_path / "web.log.1", tmp_path / "web.log.4"]
    assert {each.name for each in tmp_path.iterdir()} == {*names} - {"web.log.1", "web.log.4"}
