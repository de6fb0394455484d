"""Set a damaged file aside, so that a new one is begun and the old one can be examined."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

KEPT_DAMAGED = 3

_BESIDE = ("-wal", "-shm")  # what SQLite keeps beside its file


def set_aside(path: Path, *, now: float) -> Path:
    """Rename the file at *path*, and what belongs to it, to ``NAME.damaged-TIME``; keep the last three of such."""
    target = Path(f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.localtime(now))}")
    for suffix in (*_BESIDE, ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    found = [each for each in path.parent.glob(f"{path.name}.damaged-*") if each.name[-4:] not in _BESIDE]
    for old in sorted(found)[:-KEPT_DAMAGED]:
        for suffix in ("", *_BESIDE):
            Path(f"{old}{suffix}").unlink(missing_ok=True)
    return target
