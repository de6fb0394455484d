"""Record why circusd quits by itself: a plugin writes the reason, the container reads it once circusd has ended."""

from contextlib import suppress
from pathlib import Path

from xboard_circus.host import runtime

NAME = "last-words"


def path_of(instance: str) -> Path:
    """Return the file, in the private folder of the instance."""
    return runtime.instance_dir(instance) / NAME


def leave(instance: str, reason: str) -> None:
    """Write *reason*, whole or not at all. XboardError or OSError where that is not possible."""
    runtime.write_whole(path_of(instance), reason)


def read(instance: str) -> str | None:
    """Return the recorded reason, None without one."""
    with suppress(FileNotFoundError):
        return path_of(instance).read_text(encoding="utf-8").strip() or None
    return None


def forget(instance: str) -> None:
    """Remove the reason of an earlier circusd."""
    with suppress(FileNotFoundError):
        path_of(instance).unlink()
