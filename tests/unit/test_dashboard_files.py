"""The files of the dashboard: its tokens, what it remembers, and the sessions that they make good or void."""

import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from xboard_circus.dashboard.saved import MOST_SERVERS, Added, Saved
from xboard_circus.dashboard.sessions import SECONDS, Sessions
from xboard_circus.dashboard.tokens import FILE, Tokens, load, load_or_make
from xboard_circus.errors import XboardError
from xboard_circus.masking import safe_line


def sessions(folder: Path, *, at: float = 1000.0) -> Sessions:
    return Sessions(load_or_make(folder), Saved(folder), clock=lambda: at)


def test_the_first_start_makes_tokens_that_nobody_else_can_read(tmp_path: Path) -> None:
    made = load_or_make(tmp_path)

    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert min(len(made.admin), len(made.reader)) >= 40
    assert made.admin != made.reader
    assert load(tmp_path) == made
    assert load_or_make(tmp_path) == made


def test_of_many_first_starts_at_once_all_have_the_same_tokens(tmp_path: Path) -> None:
    found: list[Tokens] = []
    threads = [threading.Thread(target=lambda: found.append(load_or_make(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o666])
def test_tokens_that_others_can_reach_are_refused(tmp_path: Path, mode: int) -> None:
    load_or_make(tmp_path)
    (tmp_path / FILE).chmod(mode)

    with pytest.raises(XboardError, match="others can read it; chmod 600 it"):
        load_or_make(tmp_path)


@pytest.mark.parametrize("text", ["", "admin = short\nreader = other\n", f"admin = {'x' * 40}\nreader = {'x' * 40}\n"])
def test_a_file_without_two_good_tokens_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    (tmp_path / FILE).chmod(0o600)

    with pytest.raises(XboardError, match="delete it and restart the dashboard for new ones"):
        load(tmp_path)


@pytest.mark.parametrize("text", [None, "admin = short\n", f"admin = {'x' * 40}\nreader = {'y' * 40}\n"])
def test_no_word_of_what_is_wrong_with_the_file_is_masked(tmp_path: Path, text: str | None) -> None:
    """Given a name with `token` in it, behind which a log shows no word after a colon."""
    if text is not None:
        (tmp_path / FILE).write_text(text)
        (tmp_path / FILE).chmod(0o644 if "y" in text else 0o600)

    with pytest.raises(XboardError) as found:
        load(tmp_path)

    assert safe_line(str(found.value)) == str(found.value)


def test_an_empty_file_is_made_anew(tmp_path: Path) -> None:
    """A reset of the host leaves such a one where the disk had the name before the text."""
    (tmp_path / FILE).touch(0o600)

    assert load_or_make(tmp_path) == load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_tokens_of_another_user_are_refused_as_such(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    os.chown(tmp_path / FILE, 65534, 65534)

    with pytest.raises(XboardError, match="it belongs to another user"):
        load_or_make(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_tokens_of_roots_page_that_another_user_could_put_back_are_refused() -> None:
    """Given a folder of another user's, where all may enter, then root's page takes no tokens from there."""
    with tempfile.TemporaryDirectory(prefix="xb-tokens-", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        tokens = load_or_make(folder)
        assert load(folder) == tokens

        shutil.chown(folder, "nobody")

        with pytest.raises(XboardError, match=f"nobody may write {folder}, and put back deleted tokens"):
            load_or_make(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(XboardError, match="cannot be made"):
        load_or_make(tmp_path)


def test_tokens_tell_the_role_and_are_not_shown(tmp_path: Path) -> None:
    tokens = load_or_make(tmp_path)

    assert [tokens.role_of(each) for each in (tokens.admin, tokens.reader, "", tokens.admin[:-1], "\ud800é")] == [
        "admin",
        "reader",
        None,
        None,
        None,
    ]
    assert tokens.admin not in repr(tokens)


def test_a_session_is_read_by_another_process_of_the_same_dashboard(tmp_path: Path) -> None:
    begun = sessions(tmp_path).begin("reader")

    session = sessions(tmp_path, at=2000.0).read(begun)

    assert session is not None
    assert session.role == "reader"


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: "A" + c, lambda c: c.replace(".", ""), lambda c: "é" + c]
)
def test_a_session_that_was_changed_is_none(tmp_path: Path, change: object) -> None:
    assert callable(change)
    one = sessions(tmp_path)

    assert [one.read(begun) for begun in (change(one.begin("reader")), "", "x" * 10_000)] == [None] * 3


def test_a_session_expires(tmp_path: Path) -> None:
    begun = sessions(tmp_path, at=1000.0).begin("admin")

    assert sessions(tmp_path, at=1000.0 + SECONDS - 1).read(begun) is not None
    assert sessions(tmp_path, at=1000.0 + SECONDS).read(begun) is None


def test_new_tokens_make_all_sessions_void(tmp_path: Path) -> None:
    begun = sessions(tmp_path).begin("admin")
    (tmp_path / FILE).unlink()

    assert sessions(tmp_path).read(begun) is None


def test_a_session_that_was_ended_stays_so_after_a_restart(tmp_path: Path) -> None:
    one = sessions(tmp_path)
    ended, other = one.begin("admin"), one.begin("admin")
    session = one.read(ended)
    assert session is not None
    one.end(session)

    assert (one.read(ended), sessions(tmp_path).read(ended)) == (None, None)
    assert sessions(tmp_path).read(other) is not None


def test_a_clock_that_goes_13_hours_forth_and_back_revives_no_session(tmp_path: Path) -> None:
    """Given an ended session, when another ends while the clock is 13 hours ahead, then the first stays void."""
    now = [1000.0]
    one = Sessions(load_or_make(tmp_path), Saved(tmp_path), clock=lambda: now[0])
    ended = one.begin("admin")

    for hour in (0, 13):
        now[0] = 1000.0 + hour * 3600
        session = one.read(one.begin("admin") if hour else ended)
        assert session is not None
        one.end(session)
    now[0] = 1000.0

    assert one.read(ended) is None


def test_readers_who_log_out_again_and_again_revive_no_session(tmp_path: Path) -> None:
    """Given an administrator who logged out, when a reader does so 1,003 times, then that session stays void."""
    now = [1000.0]
    one = Sessions(load_or_make(tmp_path), Saved(tmp_path), clock=lambda: now[0])

    def log_out(begun: str) -> None:
        session = one.read(begun)
        assert session is not None
        one.end(session)

    ended, kept, first = one.begin("admin"), one.begin("admin"), one.begin("reader")
    log_out(ended)
    log_out(first)
    for _ in range(1003):
        now[0] += 0.01
        log_out(one.begin("reader"))
    latest = one.begin("reader")

    for each in (one, Sessions(load_or_make(tmp_path), Saved(tmp_path), clock=lambda: now[0])):
        assert [each.read(begun) is not None for begun in (ended, kept, first, latest)] == [False, True, False, True]


def test_servers_that_were_added_are_remembered_for_their_owner_only(tmp_path: Path) -> None:
    Saved(tmp_path).add(Added("s1", "other", "tcp://10.0.0.7:5555"))

    assert Saved(tmp_path).servers() == [Added("s1", "other", "tcp://10.0.0.7:5555")]
    assert stat.S_IMODE(Saved(tmp_path).path.stat().st_mode) == 0o600


def test_what_others_could_have_written_is_not_used(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    saved.add(Added("s1", "other", "tcp://10.0.0.7:5555"))
    saved.path.chmod(0o666)

    assert Saved(tmp_path).servers() == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"servers": [1, {}], "ended": 3}', "\x00"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    saved = Saved(tmp_path)
    saved.path.write_text(text)
    saved.path.chmod(0o600)

    assert (saved.servers(), saved.has_ended("reader-x", 1.0)) == ([], False)


def test_what_another_process_added_is_seen(tmp_path: Path) -> None:
    one, other = Saved(tmp_path), Saved(tmp_path)
    assert one.servers() == []
    other.add(Added("s1", "other", "tcp://10.0.0.7:5555"))

    assert [each.id for each in one.servers()] == ["s1"]
    one.remove("s1")
    assert other.servers() == []


def test_there_is_a_limit_to_servers(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    for number in range(MOST_SERVERS):
        saved.add(Added(f"s{number}", "x", "tcp://h:1"))

    with pytest.raises(XboardError, match="remove one"):
        saved.add(Added("more", "x", "tcp://h:1"))
