import os
from pathlib import Path

import pytest

from xboard_circus.container.volumes import complaints, warnings

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def test_what_is_not_there_is_not_missed(tmp_path: Path) -> None:
    assert complaints({}, folder=tmp_path) == []


def test_what_can_be_written_is_fine(tmp_path: Path) -> None:
    (tmp_path / "xboard.db").touch()
    (tmp_path / "uploads").mkdir()

    assert complaints({"XBOARD_UPLOADS": "uploads", "XBOARD_DB": "xboard.db"}, folder=tmp_path) == []


def test_what_can_be_made_is_fine(tmp_path: Path) -> None:
    assert complaints({"XBOARD_UPLOADS": "a/b", "XBOARD_DB": "data/xboard.db"}, folder=tmp_path) == []


def test_a_database_that_is_mounted_as_a_file_is_warned_of(tmp_path: Path) -> None:
    """Given mounts of files and a folder, then each database of SQLite's is named, but not that of the sample app."""
    for name, content in (("a.db", b""), ("b.data", b"SQLite format 3\0..."), ("c.conf", b"x")):
        (tmp_path / name).write_bytes(content)
    mounted = [*tmp_path.iterdir(), tmp_path, tmp_path / "gone.db"]

    told = warnings({"XBOARD_APP": "shop:app"}, mounted=mounted)

    assert [line.partition(" is mounted as a file: ")[0] for line in told] == [
        str(tmp_path / "a.db"),
        str(tmp_path / "b.data"),
    ]
    assert warnings({"XBOARD_APP": "xboard_circus.app:app"}, mounted=mounted) == []


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "xboard.db").mkdir()

    (told,) = complaints({}, folder=tmp_path)
    assert told.startswith(f"{tmp_path / 'xboard.db'} is a folder: there was no file to mount")
    assert "`touch xboard.db`" in told


def test_a_folder_in_place_of_any_mounted_file(tmp_path: Path) -> None:
    """Given mounts whose source was missing, then each that is named like a file is named, and no other folder."""
    for name in ("shop.db", "circus.ini", ".env", "conf.d", "shop"):
        (tmp_path / name).mkdir()

    told = complaints({"XBOARD_APP": "shop:app"}, folder=tmp_path, mounted=tmp_path.iterdir())

    assert [line.partition(" is a folder")[0] for line in told] == [
        str(tmp_path / name) for name in (".env", "circus.ini", "shop.db")
    ]
    assert ["`touch shop.db`" in told[2], "put the file there" in told[0]] == [True, True]


@not_root
def test_a_mounted_folder_that_cannot_be_written_is_named_and_no_other_place(tmp_path: Path) -> None:
    """Given that Docker made the folder of the database as root's, then the cure is to give that to the user."""
    (tmp_path / "data").mkdir(mode=0o500)

    (told,) = complaints({"XBOARD_DB": "data/xboard.db"}, folder=tmp_path, mounted=[tmp_path / "data"])

    assert told.startswith(f"{tmp_path / 'data'} cannot be written by user {os.geteuid()}: `chown")


@not_root
def test_the_sample_app_writes_where_it_stands_and_another_app_may_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        told = complaints({"XBOARD_APP": "xboard_circus.app:app"}, folder=tmp_path)
        of_another = complaints({"XBOARD_APP": "shop:app"}, folder=tmp_path)
    finally:
        tmp_path.chmod(0o700)

    assert [line.partition(":")[0] for line in told] == [
        f"SQLite keeps its log beside {tmp_path / 'xboard.db'}, and {tmp_path} cannot be written",
        f"{tmp_path} cannot be written by user {os.geteuid()}",
    ]
    assert of_another == []


@not_root
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir(mode=0o500)

    (told,) = complaints({"XBOARD_UPLOADS": "uploads"}, folder=tmp_path)
    assert told.startswith(f"{tmp_path / 'uploads'} cannot be written by user {os.geteuid()}")


@not_root
def test_a_database_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "xboard.db").touch()
    tmp_path.chmod(0o500)
    try:
        (told,) = complaints({}, folder=tmp_path)
    finally:
        tmp_path.chmod(0o700)

    assert told.endswith("mount a folder, say /app/data, and set XBOARD_DB=/app/data/xboard.db")
