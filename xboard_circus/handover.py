"""Take a listening socket over from a worker that outlived its circusd."""

from __future__ import annotations

import socket
from pathlib import Path


def candidates(folder: Path) -> list[Path]:
    return []


def take_over(socket_path: Path, *, instance: str, address: tuple[str, int], timeout: float = 1.0) -> socket.socket | None:
    return None
