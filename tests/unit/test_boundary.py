"""What circusd does beside its loop."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from xboard_circus.host import service_manager
from xboard_circus.supervisor import boundary
from xboard_circus.supervisor.leave import EndBySignal


def test_work_waits_until_there_is_room_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a user whose processes are used up, when orphans are to be ended, then they are once that is over."""
    start, refused = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start_or_not(thread: threading.Thread) -> None:
        if refused:
            raise refused.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    monkeypatch.setattr(boundary, "SHORTAGE_RETRY", 0.0)

    assert asyncio.run(boundary.in_daemon_thread(lambda: 7)) == 7


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_the_look_for_systemds_job_needs_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a service whose app has used up all threads of its user, at SIGTERM circusd stops at once, in order.

    Otherwise `systemctl stop` waits for its time-out, and cuts requests off.
    """
    monkeypatch.setattr(service_manager, "own_unit", lambda: "web.service")
    monkeypatch.setattr(service_manager, "job_of", lambda unit, *, of_user: "stop")
    monkeypatch.setattr(boundary, "SHORTAGE_RETRY", 0.01)
    stopped = asyncio.Event()

    class Supervisor:
        def is_over(self) -> bool:
            return False

        def run(self, work: Coroutine[Any, Any, None], what: str, *, on_failure: object) -> None:
            self.task = asyncio.get_running_loop().create_task(work)

    async def end() -> None:
        ends = EndBySignal(Supervisor())  # type: ignore[arg-type]
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        ends.end(stopped.set)
        await asyncio.wait_for(stopped.wait(), 60)

    asyncio.run(end())
