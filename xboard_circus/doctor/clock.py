"""Examine the clock: supervision does not need it; times in logs, the ledger and certificates do."""

import ctypes
import struct
import sys
from collections.abc import Iterator

from xboard_circus.checks.findings import Finding, good, unknown, warning
from xboard_circus.doctor.case import Case
from xboard_circus.host import procs, runtime

JUMP = 60.0
GREATEST_ERROR_US = 16_000_000  # as in systemd; the kernel counts up to it while nothing corrects the clock
_STAYS = "harmless for the workers: their limits go by another clock; times in logs before it are off"


def look(case: Case) -> Iterator[Finding]:
    """Yield whether the clock is synchronised, and whether it was set since circusd started."""
    synchronised = is_synchronised()
    if synchronised is None:
        yield unknown("whether it is synchronised cannot be seen here", "run `timedatectl` on the host")
    elif synchronised:
        yield good("synchronised by NTP")
    else:
        yield warning("the clock is not synchronised (no NTP)", "`timedatectl set-ntp true`, or install chrony")
    if case.circusd is not None and (moved := jump(case, case.circusd)):
        yield warning(f"it was set {moved} since circusd started", _STAYS)


def jump(case: Case, circusd: procs.Identity) -> str:
    """Return how the clock was set since *circusd* started; "" without a sign of it.

    circusd wrote its record when it started. A record from the future, or from before circusd's start, is the sign.
    """
    try:
        written = (runtime.root_path() / case.instance_id / runtime.RECORD).stat().st_mtime
    except OSError:
        return ""
    started = case.now - procs.age(circusd.started)
    if written > case.now + JUMP:
        return f"back by at least {written - case.now:.0f} s"
    return f"forward by about {started - written:.0f} s" if written < started - JUMP else ""


def is_synchronised() -> bool | None:
    """Query the kernel for its greatest error, as systemd does, because some NTP servers do not set its flag."""
    if sys.platform != "linux":
        return None
    # struct timex, all zero: query, change nothing. It has 208 bytes; the third long is the greatest error.
    timex = ctypes.create_string_buffer(512)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else struct.unpack_from("@I3l", timex)[3] < GREATEST_ERROR_US
