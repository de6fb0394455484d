"""Look up what is mounted."""

from pathlib import Path

import psutil


def mount_points() -> set[Path]:
    """Return where something is mounted, as this process sees it; a single file may be, as containers have it."""
    return {Path(each.mountpoint) for each in psutil.disk_partitions(all=True)}


def is_mounted_alone(file: Path) -> bool:
    """Return whether *file* is a mount point itself: what is written beside it then lies on another disk.

    SQLite's write-ahead log does, and whatever was in it is gone with the container.
    """
    return file.resolve() in mount_points()
