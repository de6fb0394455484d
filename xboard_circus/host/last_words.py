"""Record why circusd quits by itself: the plugin writes the reason, the container reads it once circusd has ended."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from xboard_circus.host import runtime

NAME = "last-words"


def path_of(instance: str) -> Path:
    """Return the file, in the private folder of the instance."""
    return runtime.instance_dir(instance) / NAME


def leave(instance: str, reason: str) -> None:
    """Write *reason*; a reader finds all of it or nothing. XboardError or OSError where that is not possible."""
    path = path_of(instance)
    number, name = tempfile.mkstemp(prefix=f"{NAME}.", dir=path.parent)
    with open(number, "w", encoding="utf-8") as file:
        file.write(reason)
    os.replace(name, path)


def read(instance: str) -> str | None:
    """Return what was written, None where nothing was."""
    try:
        return path_of(instance).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def forget(instance: str) -> None:
    """Take away what an earlier circusd has left."""
    with suppress(FileNotFoundError):
        path_of(instance).unlink()
