"""Shift time.time in every Python of the test by the seconds in a file, as if somebody had set the clock.

Python imports this at its start when the folder is in PYTHONPATH. The file is mapped into memory, so that a change
reaches all processes in the same moment and costs none of them a system call.
"""

import mmap
import os
import struct
import time


def shift(path: str) -> None:
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real, real_ns = time.time, time.time_ns

    def shifted() -> float:
        offset: float = struct.unpack("d", shared[:8])[0]
        return real() + offset

    def shifted_ns() -> int:
        return real_ns() + int(struct.unpack("d", shared[:8])[0] * 1e9)

    time.time, time.time_ns = shifted, shifted_ns


if "CLOCK_FILE" in os.environ:
    shift(os.environ["CLOCK_FILE"])
