"""Show that a late event loop works: one that is overloaded answers no probe in time, and is not hung.

No answer comes while one turn of the loop lasts, and a turn lasts as long as all that is ready in it. So a thread looks
which callback the loop runs: another one than a moment ago is progress, whatever it is for (a request, a piece of a
body, a task of the app). Neither a request nor a turn in time costs anything for that.

A number in a file is raised for each progress. The prober reads it without a request to this process; beside it stands
since when there was no progress. Not in a shared page: a full or failing disk kills a writer of it with SIGBUS, and a
slow one holds up the event loop itself.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from xboard_circus.host.worker_files import BEAT
from xboard_circus.worker.gauges import LoopLag
from xboard_circus.worker.request_record import RequestRecord
from xboard_circus.worker.slow_requests import SlowRequests
from xboard_circus.worker.task_stack import calls

log = logging.getLogger("uvicorn.error")

PERIOD = 0.25
LATE = 0.05  # seconds: a probe takes several turns of the loop


def show_progress(
    path: Path, lag: LoopLag, record: RequestRecord | None = None, slow: SlowRequests | None = None
) -> None:
    """Raise the number in *path* from now on while the loop is late and works; to be called by the loop itself.

    The *record* of requests gets to know which of them a late loop runs, and *slow* reports it if it does so for long.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.pwrite(file, bytes(BEAT.size), 0)
    except OSError as error:
        log.warning("%s can't be written: %s; under overload this worker will be taken for hung", path, error)
        return
    depth, loop = len([*calls(sys._getframe())]), asyncio.get_running_loop()
    has_failed = False

    def show_running(frame: FrameType | None, stands: bool) -> None:
        nonlocal has_failed
        if record is None:
            return
        try:
            serial = record.show_running(loop, frame, stands=stands)
            if slow is not None and frame is not None and lag.last is not None:
                slow.look_at_held(serial, frame, time.monotonic() - lag.last)
        except Exception:  # that the loop works has to be shown all the same
            if not has_failed:
                log.exception("It can't be said which request the late event loop runs; this is not repeated")
            has_failed = True

    arguments = (file, lag, threading.get_ident(), depth, show_running)
    threading.Thread(target=_watch, args=arguments, daemon=True, name="shows progress").start()


def _watch(
    file: int, lag: LoopLag, thread: int, depth: int, show_running: Callable[[FrameType | None, bool], None]
) -> None:
    steps, tick, was_late, shown = 0, lag.last, False, (0, 0.0)
    since = looked_at = 0.0
    seen: list[FrameType | None] = []  # what ran at the last look, if no tick came; kept, so that no other has its id
    while True:
        time.sleep(PERIOD)
        looked_at, before = time.monotonic(), looked_at
        last, tick = tick, lag.last
        now = [_callback(thread, depth)] if tick == last else []
        stands = bool(now and seen) and now[0] is seen[0]
        show_running(sys._current_frames().get(thread) if tick == last else None, stands and now[0] is not None)
        # By the lag before this look: a loop that comes to a stand was in time, and its last tick is no progress.
        if was_late and (not now or (seen and now[0] is not seen[0])):
            steps += 1
        since = (since or before) if stands else 0.0
        if (steps, since) != shown:
            shown = steps, since
            with suppress(OSError):
                os.pwrite(file, BEAT.pack(*shown), 0)
        seen, was_late = now, lag.largest() > LATE


def _callback(thread: int, depth: int) -> FrameType | None:
    """Return the frame of the callback that the loop in *thread* runs, which is the *depth*-th; None between two."""
    frames = [*calls(sys._current_frames().get(thread))]
    return frames[-depth] if len(frames) >= depth else None
