"""Circus's own kill of a worker that something else has killed meanwhile."""

import asyncio
import errno
import os
import signal
from typing import Any

import pytest
from circus.process import Process
from circus_in_process import PATIENCE, running, watcher_of

from xboard_circus.supervisor.patches.circus_process import has_ended


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


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stop_signal": 99999}, id="a signal that no system has"),
        pytest.param({"stop_signal": 0, "graceful_timeout": float("inf")}, id="no signal, and no end of the wait"),
        pytest.param({"graceful_timeout": float("nan")}, id="no number of seconds"),
    ],
)
def test_a_stop_ends_whatever_circusd_was_given_for_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Given an option that `check` would have refused, when circusd runs with it, then a stop ends the worker."""

    async def steps() -> None:
        watcher = watcher_of("web", **options)
        async with running(watcher, monkeypatch=monkeypatch) as arbiter:
            assert (watcher.stop_signal, watcher.graceful_timeout) == (signal.SIGTERM, 30.0)
            await asyncio.wait_for(arbiter.stop_watchers(), PATIENCE)
            assert watcher.is_stopped()

    asyncio.run(steps())


def test_a_worker_that_cannot_be_signalled_breaks_off_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given two workers of which the system lets only one be signalled, when both are stopped, then the stop ends."""
    refused: list[int] = []
    send = Process.send_signal

    def send_signal(process: Any, signum: int) -> Any:
        if not refused:
            refused.append(process.pid)
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return send(process, signum)

    async def steps() -> None:
        watcher = watcher_of("web", numprocesses=2)
        async with running(watcher, monkeypatch=monkeypatch):
            monkeypatch.setattr(Process, "send_signal", send_signal)
            before = dict(watcher.processes)
            await asyncio.wait_for(watcher.kill_processes(), PATIENCE)
            assert [pid for pid, process in before.items() if not has_ended(process)] == refused

    asyncio.run(steps())
