"""List mount points, and say how full the one of a file is."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import psutil

from xboard_circus.core.amounts import size_text
from xboard_circus.core.sentences import Say
from xboard_circus.host.written_files import resolved


def mount_points() -> set[Path]:
    """Return the mount points that this process sees; in a container a single file may be one."""
    return {Path(each.mountpoint) for each in psutil.disk_partitions(all=True)}


def is_mounted_alone(file: Path) -> bool:
    """Return whether *file* is a mount point itself, so that files beside it lie on another disk.

    SQLite's write-ahead log is such a file, and is lost with the container.
    """
    return resolved(file) in mount_points()


def has_room(file: str, least: int) -> bool:
    """Return whether the file system of *file* has *least* bytes free; True where that is not known."""
    with suppress(OSError):
        room = os.statvfs(resolved(file).parent)
        return room.f_bavail * room.f_frsize >= least and bool(room.f_favail or not room.f_files)
    return True


def why_unwritten(error: Exception, file: str) -> str:
    """Return why *file* could not be written; of a full file system also where it is mounted and how full it is."""
    why = (isinstance(error, OSError) and error.strerror) or str(error)
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or os.sep not in file:  # a stream without a file
        return why
    with suppress(OSError):  # it is gone meanwhile: the error alone has to do
        folder = resolved(file).parent
        room, mounts = os.statvfs(folder), mount_points()
        mount = next(place for place in (folder, *folder.parents) if place in mounts or place == place.parent)
        if room.f_files and not room.f_favail and room.f_bavail:
            return Say.NO_INODES(error=why, n=room.f_files, mount=mount)
        used, size, free = (n * room.f_frsize for n in (room.f_blocks - room.f_bfree, room.f_blocks, room.f_bavail))
        return Say.DISK_FULL(error=why, used=size_text(used), size=size_text(size), mount=mount, free=size_text(free))
    return why
