"""List mount points."""

from pathlib import Path

import psutil


def mount_points() -> set[Path]:
    """Return the mount points that this process sees; in a container a single file may be one."""
    return {Path(each.mountpoint) for each in psutil.disk_partitions(all=True)}


def is_mounted_alone(file: Path) -> bool:
    """Return whether *file* is a mount point itself, so that files beside it lie on another disk.

    SQLite's write-ahead log is such a file, and is lost with the container.
    """
    return file.resolve() in mount_points()
