"""Circus's own kill of a worker that something else has killed meanwhile."""

import asyncio
import os
import signal

import pytest
from circus_in_process import running, watcher_of


def test_a_last_sigkill_to_a_worker_that_is_reaped_already_breaks_off_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given two kills of one worker at once, when the second finds it reaped, then nothing is raised into Circus.

    A replaced worker that drains is killed twice at a `quit`. Raised, it left circusd running for ever, "stopping".
    """

    async def steps() -> None:
        watcher = watcher_of("web")
        async with running(watcher, monkeypatch=monkeypatch):
            (process,) = watcher.processes.values()
            os.kill(process.pid, signal.SIGKILL)
            process._worker.wait()

            watcher.send_signal_process(process, signal.SIGKILL, recursive=True)

    asyncio.run(steps())
