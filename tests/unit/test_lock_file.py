"""A lock file."""

from pathlib import Path

import pytest

from xboard_circus.host.lock_file import NoLockFile, locked


def test_a_link_that_another_user_laid_is_not_followed(tmp_path: Path) -> None:
    """Given a link in place of the lock file, as a user may lay it, then what it leads to is kept."""
    theirs = tmp_path / "of-root"
    theirs.write_text("kept")
    (tmp_path / "lock").symlink_to(theirs)

    with pytest.raises(NoLockFile, match="cannot be made"), locked(tmp_path / "lock", "busy"):
        pass

    assert theirs.read_text() == "kept"
