"""Read files of mode 0600: another user who can write them decides what the page does."""

import errno
import os
from pathlib import Path


def read(path: Path, most: int, *, flags: int = 0) -> str:
    """Return the first *most* characters of a text; OSError where others can read it or it is not ours or root's."""
    with open(path, encoding="utf-8", opener=lambda name, mode: os.open(name, mode | flags)) as file:
        found = os.fstat(file.fileno())
        if found.st_uid not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, f"it belongs to another user (uid {found.st_uid}); give it to this one")
        if found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "others can read it; chmod 600 it")
        return file.read(most)
