"""Record why circusd quits by itself: the plugin writes the reason, the container reads it once circusd has ended."""

from contextlib import suppress
from pathlib import Path

from xboard_circus.host import runtime

NAME = "last-words"


def path_of(instance: str) -> Path:
    """Return the file, in the private folder of the instance."""
    return runtime.instance_dir(instance) / NAME


def leave(instance: str, reason: str) -> None:
    """Write *reason*; a reader finds all of it or nothing. XboardError or OSError where that is not possible."""
    runtime.write_whole(path_of(instance), reason)


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
