"""A full disk is named: where it is mounted, how full it is."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.host import mounts

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("room", "why"),
    [
        ({"f_bfree": 512, "f_bavail": 0}, "62 KiB of 64 KiB used on {}, 0 B free"),
        ({"f_bfree": 1024, "f_bavail": 1024, "f_favail": 0}, "all 9 inodes used on {}"),
    ],
)
def test_a_full_file_system_is_named_with_its_mount_point(
    room: dict[str, int], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path.resolve()
    fields: Any = {"f_frsize": 4, "f_blocks": 16384, "f_files": 9, "f_favail": 9, **room}
    monkeypatch.setattr(os, "statvfs", lambda _: type("Room", (), fields))
    monkeypatch.setattr(mounts, "mount_points", lambda: {Path("/"), place})

    assert (
        mounts.why_unwritten(FULL, str(place / "logs" / "web.log")) == f"No space left on device: {why.format(place)}"
    )


@pytest.mark.parametrize(
    ("error", "file", "why"),
    [
        (OSError(errno.EACCES, "Permission denied"), "/var/log/web.log", "Permission denied"),
        (ValueError("I/O operation on closed file"), "/var/log/web.log", "I/O operation on closed file"),
        (FULL, "StdoutStream", "No space left on device"),
        (FULL, "/no/such/folder/web.log", "No space left on device"),
    ],
)
def test_any_other_error_says_what_it_is(error: Exception, file: str, why: str) -> None:
    assert mounts.why_unwritten(error, file) == why


def test_a_link_to_itself_in_the_place_of_a_folder_is_no_error_of_ours(tmp_path: Path) -> None:
    """Given such a link, which the user of a worker may put in the place of its logs, then nothing raises at a look."""
    (tmp_path / "logs").symlink_to("logs")

    log = tmp_path / "logs" / "web.log"
    assert mounts.has_room(str(log), 1)
    assert mounts.why_unwritten(FULL, str(log)) == "No space left on device"
    assert not mounts.is_mounted_alone(log)
