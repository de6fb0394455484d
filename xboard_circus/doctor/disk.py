"""Room for what is written: the database, uploads, logs and the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xboard_circus import config as configuration
from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.config import Config
from xboard_circus.doctor.case import Case
from xboard_circus.host import runtime
from xboard_circus.ledger.location import ledgers_of

TOPIC = "disk"
MIB = 1 << 20
LOW_BYTES, VERY_LOW_BYTES = 1024 * MIB, 100 * MIB
# The smaller of bytes and share counts: a large disk has much left at five per cent.
LOW_SHARE, VERY_LOW_SHARE = 0.1, 0.05
LOW_FILES, VERY_LOW_FILES = 0.05, 0.01
# Variables of the sample app; an app of the user's own keeps to its folder, or is not known to us.
DATA_VARIABLES = ("XBOARD_DB", "XBOARD_UPLOADS")


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has left; *files* are inodes, 0 of 0 where it does not count them."""

    size: int
    free: int
    files: int
    free_files: int
    is_read_only: bool = False


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for each file system that something is written to."""
    if case.config is None:
        return
    seen: dict[int, list[Path]] = {}
    for folder in folders(case.config):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        seen.setdefault(there.stat().st_dev, []).append(there)
    for paths in seen.values():
        found = os.statvfs(paths[0])
        room = Room(
            size=found.f_blocks * found.f_frsize,
            free=found.f_bavail * found.f_frsize,
            files=found.f_files,
            free_files=found.f_favail,
            is_read_only=bool(found.f_flag & os.ST_RDONLY),
        )
        yield of_room(", ".join(map(str, dict.fromkeys(paths))), room)


def folders(config: Config) -> list[Path]:
    """Return where the database, uploads, logs, the ledger and the runtime files lie."""
    found = [config.folder, *configuration.log_folders(config), runtime.root_path()]
    found += [ledger.parent for ledger in ledgers_of(config)]
    for watcher in config.watchers:
        found.append(watcher.working_dir)
        for name in DATA_VARIABLES:
            if name in watcher.env:
                found.append((watcher.working_dir / watcher.env[name]).parent)
    return list(dict.fromkeys(found))


def of_room(where: str, room: Room) -> Finding:
    """Return whether *room* will do."""
    left = f"{room.free / MIB:,.0f} MiB of {room.size / MIB:,.0f} left for {where}"
    if room.is_read_only:
        return bad(TOPIC, f"nothing can be written to {where}: it is mounted read-only", "mount it for writing")
    hint = "delete or move something, or lower backup_count, ledger.max_mb and logs.keep_days"
    if room.free < min(VERY_LOW_BYTES, room.size * VERY_LOW_SHARE):
        return bad(TOPIC, left, hint)
    if room.files and room.free_files < room.files * VERY_LOW_FILES:
        return bad(TOPIC, f"{room.free_files} of {room.files} inodes left for {where}", "delete small files")
    if room.free < min(LOW_BYTES, room.size * LOW_SHARE):
        return warning(TOPIC, left, hint)
    if room.files and room.free_files < room.files * LOW_FILES:
        return warning(TOPIC, f"{room.free_files} of {room.files} inodes left for {where}", "delete small files")
    return good(TOPIC, left)
