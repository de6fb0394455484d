"""Watch the process that a worker depends on: circusd, or the wrapper in front of the worker.

Circus signals the process that it spawned. After a kill of a wrapper (``uv run``), its worker would live on, unknown to
circusd, and hold the port; so the worker ends by itself.
"""

import logging
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from xboard_circus.launch import circusd_is_alive, pipes

log = logging.getLogger("uvicorn.error")

POLL = 2.0


def end_with(launcher: str, *, grace: float) -> None:
    """End this worker when *launcher* ("pid:started") has ended: SIGTERM, and SIGKILL *grace* seconds later.

    Do nothing if the launcher became this very process, as it does without a wrapper.
    """
    pid = launcher.partition(":")[0]
    if not pid or int(pid) == os.getpid():
        return

    def end() -> None:
        log.warning("The process in front of this worker, pid %s, is gone; ending", pid)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    when_gone(launcher, end)


def outlive_output(circusd: str) -> None:
    """Keep writes to stdout and stderr from failing when *circusd*, which reads them from pipes, is gone.

    The worker serves on until the next circusd has taken over, and a `print` in a request would raise BrokenPipeError.
    The reading end is held from the start, so no write falls between; output without a circusd is read and dropped. A
    pipe that circusd writes into, too, belongs to another reader: without it, all writers would hang.
    """
    if not names_process(circusd):
        return
    others = pipes(f"/proc/{circusd.partition(':')[0]}/fd")
    ends = []
    for path, pipe in pipes("/proc/self/fd").items():
        if pipe not in others.values():
            with suppress(OSError):
                ends.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def read_away() -> None:
        while True:
            for end in select.select(ends, [], [])[0]:
                with suppress(BlockingIOError):  # stdout and stderr are one pipe
                    os.read(end, 1 << 16)

    if ends:
        when_gone(circusd, read_away)


def names_process(mark: str) -> bool:
    """Return whether *mark* has the form "pid:started"."""
    return re.fullmatch(r"[0-9]+:[0-9]+", mark) is not None


def when_gone(process: str, then: Callable[[], None]) -> None:
    """Call *then* in a thread when *process* ("pid:started") has ended; never if the mark names no process.

    A thread, because *process* may end while the app is imported, or while the event loop stands still.
    """

    def wait() -> None:
        descriptor = None
        with suppress(AttributeError, OSError):  # macOS, an old kernel, a sandbox
            descriptor = os.pidfd_open(int(process.partition(":")[0]))
        # It may have ended, and another process have its pid, before there was a descriptor.
        while circusd_is_alive(process):
            if descriptor is None:
                time.sleep(POLL)
            else:
                select.select([descriptor], [], [])
        then()

    if names_process(process):
        threading.Thread(target=wait, daemon=True, name=f"until {process} is gone").start()
