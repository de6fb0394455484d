"""Share with a worker the memory in which it notes its requests in flight, and read it after the worker's death.

circusd makes the memory, an anonymous file of the kernel's that can neither shrink nor grow, and keeps it open: there
is no path to remove or truncate, and no disk to be full. What is in it is the worker's own claim. One that was taken
over may write anything, so every value is checked.
"""

import contextlib
import fcntl
import io
import math
import os
import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from xboard_circus.core.in_flight import SeenRequest, SeenRequests

if TYPE_CHECKING:
    import mmap

VARIABLE = "XBOARD_REQUESTS"
"""The variable with the number of a worker's descriptor."""

MAGIC, VERSION = b"XBRQ", 3
# magic, version, slots, serial of the one that runs, how many overwrite, mark, when it was last seen to run
HEADER = struct.Struct("<4sHHQQ8sd")
RUNNING_AT, OVER_AT, MARK_AT, MARK_BYTES, SEEN_AT = 8, 16, 24, 8, 32
MOMENT = struct.Struct("<d")
NUMBER = struct.Struct("<Q")
TEXTS = struct.Struct("<B11s64s156sQ")  # whether it is taken, method, id, route, bytes of its body
SLOT = struct.Struct(f"{TEXTS.format}Qd")  # then serial, when it began
BEGUN = struct.Struct(f"<{TEXTS.size}sQd")  # the same, for a worker that keeps the texts in one piece
TAKEN = 1
SLOTS, OVERWRITTEN = 64, 16
"""How many slots there are, and how many of these, the last ones, are written over when all others are taken: so the
newest requests are always there, and the oldest as well."""
FIRST = 64
SIZE = FIRST + SLOTS * SLOT.size
_METHOD = re.compile(rb"[!-~]{1,11}")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Unreadable(ValueError):
    """There is something else in the memory than what a worker of ours writes."""


def make() -> io.FileIO:
    """Return new memory for one worker; OSError where there is none, or no descriptor is left."""
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd_create")
    made = os.memfd_create("xboard-requests", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    file = io.FileIO(made, "r+")
    os.ftruncate(made, SIZE)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, _seals())
    return file


@contextlib.contextmanager
def inherited(file: io.FileIO | None) -> Iterator[None]:
    """Let the process that is started meanwhile inherit *file*."""
    if file is None:
        yield
        return
    os.set_inheritable(file.fileno(), True)
    try:
        yield
    finally:
        os.set_inheritable(file.fileno(), False)


def mapped(number: str) -> "mmap.mmap | None":
    """Return the memory behind the descriptor that circusd gave this worker; None where it gave none."""
    if not number.isdecimal():
        return None
    import mmap  # circusd needs none of it

    descriptor = int(number)
    try:
        # A wrapper may have closed it, and something else may have its number now.
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) != _seals() or os.fstat(descriptor).st_size != SIZE:
            return None
        memory = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
    except (OSError, AttributeError):
        return None
    HEADER.pack_into(memory, 0, MAGIC, VERSION, SLOTS, 0, 0, os.urandom(MARK_BYTES // 2).hex().encode(), 0.0)
    return memory


def read(file: io.FileIO) -> SeenRequests:
    """Return what a worker has noted; OSError or Unreadable where that cannot be had."""
    return parse(os.pread(file.fileno(), SIZE, 0))


def parse(data: bytes) -> SeenRequests:
    """Return the requests in *data*; Unreadable where a worker of ours did not write it."""
    if len(data) != SIZE:
        raise Unreadable("it has another size")
    magic, version, slots, running, over, mark, seen_at = HEADER.unpack_from(data)
    if magic == bytes(len(MAGIC)):
        return SeenRequests([], 0, 0)  # it ended before its first line, or is a server of another kind
    if (magic, version, slots) != (MAGIC, VERSION, SLOTS) or over > 1 << 32 or not _ID.fullmatch(mark):
        raise Unreadable("it is of another version")
    all_slots = [*SLOT.iter_unpack(data[FIRST:])]
    taken = [values for values in all_slots if values[0]]
    found = [request for values in taken if (request := _request(mark, *values[1:])) is not None]
    if len(taken) - len(found) > 1:  # the worker may have died while it wrote one
        raise Unreadable("it holds what is no request")
    if any(request.began_at > seen_at > 0 for request in found):
        running = 0  # the loop has turned since, and the thread has not looked again
    seen_over = sum(values[0] > 0 for values in all_slots[-OVERWRITTEN:])
    free = [each for values in all_slots if not values[0] and (each := _request(mark, *values[1:])) is not None]
    return SeenRequests(found, running, max(0, over - seen_over), [f"{each.method} {each.route}" for each in free])


def _request(mark: bytes, *values: Any) -> SeenRequest | None:
    *texts, size, serial, began_at = values
    method, id_, route = (text.rstrip(b"\0") for text in texts)
    id_ = id_ or made_id(mark, serial)
    is_sound = _METHOD.fullmatch(method) and _ID.fullmatch(id_) and route.startswith(b"/")
    if not is_sound or not math.isfinite(began_at) or began_at < 0:
        return None
    text = route.decode("utf-8", errors="ignore")  # its end may be cut
    return SeenRequest(serial, began_at, method.decode(), text, id_.decode(), size) if text.isprintable() else None


def made_id(mark: bytes, serial: int) -> bytes:
    """Return the id of a request that brings none."""
    return b"%s-%x" % (mark, serial)


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
