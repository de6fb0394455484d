"""What circusd does beside its loop."""

import asyncio
import threading

import pytest

from xboard_circus.supervisor import boundary


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
