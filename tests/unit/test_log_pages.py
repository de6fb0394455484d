"""Pages of logs: before and after a place, around a time, over rotated files; and a line as the page shows it."""

import io
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_logs import AT, append, log, rotate, stamped

from xboard_circus.dashboard.log_pages import (
    FollowedLogs,
    cursor_of,
    last_page,
    page_after,
    page_at,
    page_before,
    places_in,
    shown_line,
)
from xboard_circus.logs import LogFile, follow
from xboard_circus.logs.lines import open_log
from xboard_circus.logs.pages import NOWHERE, place_at


def texts(page: dict[str, object]) -> list[str]:
    lines = page["lines"]
    assert isinstance(lines, list)
    return [text.rpartition(" ")[2] for *_, text in lines]


def three_files(folder: Path) -> LogFile:
    """A log of which each file has four lines: 0 to 3 in the oldest."""
    web = log(folder)
    for file in range(3):
        if file:
            rotate(web.path)
        append(web.path, "".join(stamped(20 + number, str(number)) for number in range(4 * file, 4 * file + 4)))
    return web


def test_a_flood_of_several_reads_is_read_to_its_end_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    web = log(tmp_path)
    with closing(FollowedLogs({web: None})) as followed:
        followed.begin()
        append(web.path, "".join(stamped(20, f"{'x' * 50} {number}") for number in range(50_000)))  # 4 MB

        left_out, rows = followed.new_lines()

    assert (left_out, len(rows), rows[-1][-1].rpartition(" ")[2]) == (48_000, 2000, "49999")


def test_pages_go_back_over_rotated_files_to_the_first_line_and_forth_again(tmp_path: Path) -> None:
    web = three_files(tmp_path)
    page = last_page([web], 5)
    assert texts(page) == ["7", "8", "9", "10", "11"]
    append(web.path, stamped(32, "12"))
    rotate(web.path)  # the places are still there under other names

    older = page_before(places_in(page["begin"], [web]), 5)
    oldest = page_before(places_in(older["begin"], [web]), 5)
    assert (texts(older), texts(oldest)) == (["2", "3", "4", "5", "6"], ["0", "1"])
    assert texts(page_before(places_in(oldest["begin"], [web]), 5)) == []

    newer = page_after(places_in(older["begin"], [web]), 7)
    newest = page_after(places_in(newer["end"], [web]), 100)
    assert (texts(newer), texts(newest)) == (["2", "3", "4", "5", "6", "7", "8"], ["9", "10", "11", "12"])
    assert texts(page_after(places_in(newest["end"], [web]), 100)) == []


@pytest.mark.parametrize(("second", "first"), [(0, "0"), (23, "3"), (24, "4"), (31, "11"), (50, None)])
def test_a_page_around_a_time_says_how_many_lines_are_older(tmp_path: Path, second: int, first: str | None) -> None:
    page = page_at([three_files(tmp_path)], 100, AT - 29 + second)

    assert texts(page) == [str(number) for number in range(12)]
    assert texts(page)[page["older"] :][:1] == ([first] if first else [])


def test_a_time_is_found_in_a_big_file_with_lines_of_no_time(tmp_path: Path) -> None:
    web = log(tmp_path)
    filler = "  File x.py\n" * 2000
    append(web.path, "".join(stamped(second, str(second)) + filler for second in range(60)))

    place = place_at(web, AT - 29 + 41)

    assert place.offset == web.path.read_text().index(stamped(41, "41"))


def test_lines_of_two_logs_are_merged_and_each_goes_on_from_its_own_place(tmp_path: Path) -> None:
    one, other = (LogFile(name, name, tmp_path / name, "web", 0) for name in ("one", "other"))
    one.path.write_text("".join(stamped(second, f"one-{second}") for second in (1, 3, 5)))
    other.path.write_text("".join(stamped(second, f"other-{second}") for second in (2, 4)))

    page = last_page([one, other], 3)
    older = page_before(places_in(page["begin"], [one, other]), 3)

    assert (texts(page), texts(older)) == (["one-3", "other-4", "one-5"], ["one-1", "other-2"])


def test_what_follows_a_page_is_read_from_its_end_on(tmp_path: Path) -> None:
    web = three_files(tmp_path)
    end = places_in(last_page([web], 5)["end"], [web])[web]
    append(web.path, stamped(32, "12"))
    rotate(web.path)
    append(web.path, stamped(33, "13"))

    with closing(FollowedLogs({web: end})) as followed:
        followed.begin()
        left_out, rows = followed.new_lines()
        assert (left_out, [text.rpartition(" ")[2] for *_, text in rows]) == (0, ["12", "13"])
        assert followed.cursor == last_page([web], 5)["end"]


@pytest.mark.parametrize("call", ["begin", "new_lines"])
def test_a_stream_that_ends_leaves_its_files_to_the_thread_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Given a disk that holds up a thread, when its stream ends, then the file is closed when the thread goes on."""
    web, reached, goes_on = log(tmp_path, stamped(20, "1")), threading.Event(), threading.Event()
    opened: list[io.FileIO] = []
    followed = FollowedLogs({web: NOWHERE})
    if call == "new_lines":
        followed.begin()

    def opening(path: Path) -> io.FileIO:
        reached.set()
        goes_on.wait()
        opened.append(open_log(path))
        return opened[0]

    if call == "new_lines":
        rotate(web.path)
        append(web.path, stamped(21, "2"))
    monkeypatch.setattr(follow, "open_log", opening)
    thread = threading.Thread(target=getattr(followed, call))
    thread.start()
    reached.wait()
    followed.close()
    assert opened == []
    goes_on.set()
    thread.join()

    assert [file.closed for file in opened] == [True]


def test_lines_carry_their_time_level_and_pid_and_a_traceback_those_above_it(tmp_path: Path) -> None:
    web = log(tmp_path, "2026-11-24 20:47:29 [7] | ERROR: it broke\n  File x.py\n")

    rows = last_page([web], 5)["lines"]

    assert [row[:3] for row in rows] == [(AT, 40, 7), (AT, 40, 7)]


def test_a_whole_log_is_read_from_its_oldest_line_on_also_where_a_file_goes_meanwhile(tmp_path: Path) -> None:
    web = three_files(tmp_path)

    page = page_after(places_in("begin", [web]), 2)
    assert texts(page) == ["0", "1"]
    web.path.with_name(f"{web.path.name}.2").unlink()  # the file in which the page ends

    assert texts(page_after(places_in(page["end"], [web]), 100)) == [str(number) for number in range(4, 12)]


@pytest.mark.parametrize("cursor", ["", "x", "1.2.3", "-1.5", "9" * 30 + ".1", "1.2,3.4,5.6", "٣.٣"])
def test_a_cursor_of_a_page_is_a_claim(tmp_path: Path, cursor: str) -> None:
    web = three_files(tmp_path)

    assert texts(page_before(places_in(cursor, [web]), 5)) == []
    assert cursor_of([NOWHERE, NOWHERE]) == "0.0,0.0"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[2Jgone", "\x1b[31mred\x1b[0m and gone"),
        ("\x1b[36mpassword\x1b[0m=\x1b[35mhunter2\x1b[0m", "password=***"),
        ("pass\x1b[1mword=hunter2\x1b[0m", "password=***"),
        ("a\u202eb \x1b[32mok", "a?b \x1b[32mok"),
        ("\x1b]0;title\x07 \x1b[32mok", "?]0;title? \x1b[32mok"),
    ],
)
def test_a_line_keeps_its_colours_unless_something_in_it_is_masked(line: str, shown: str) -> None:
    assert shown_line(line) == shown


def test_an_answer_has_no_more_of_long_lines_than_a_million_characters_and_the_rest_follows(tmp_path: Path) -> None:
    """Given 600 lines of 4,000 characters, then no answer has more than 262 of them, and pages back and forth and a
    stream leave none out unsaid."""
    web = log(tmp_path)
    with closing(FollowedLogs({web: None})) as followed:
        followed.begin()
        append(web.path, "".join(stamped(20, f"{'x' * 4000} {number:03}") for number in range(600)))
        left_out, rows = followed.new_lines()
    assert (left_out, len(rows)) == (600 - 262, 262)

    def back(cursor: str) -> dict[str, Any]:
        return page_before(places_in(cursor, [web]), 2000)

    pages = [last_page([web], 2000)]
    while pages[-1]["lines"]:
        pages.append(back(pages[-1]["begin"]))
    assert [len(page["lines"]) for page in pages] == [262, 262, 76, 0]
    forth = [page_after(places_in("begin", [web]), 2000)]
    while forth[-1]["lines"]:
        forth.append(page_after(places_in(forth[-1]["end"], [web]), 2000))
    assert [len(page["lines"]) for page in forth] == [262, 262, 76, 0]
    assert len(page_at([web], 2000, 0.0)["lines"]) == 262
