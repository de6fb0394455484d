import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from plugin_fakes import FakeCircusd, FakeClock
from state_views import state_view, watcher_view

from xboard_circus.circus_client import CircusdGone
from xboard_circus.core.outage_limit import Patience
from xboard_circus.plugins._log import ParentOutputHandler
from xboard_circus.plugins.giving_up import BY, PERIOD, Surrender

REASON = "xboard could not be kept up for 3 s: none of 2 workers is up: exited with code 3"


def state(*words: str) -> Any:
    return state_view(watcher_view(*words, name="xboard", numprocesses=2, last_reason="exited with code 3"))


def ticks(circusd: FakeCircusd, count: int) -> list[str]:
    """Run that many ticks, a second apart; return the words that were left."""
    clock = FakeClock()
    words: list[str] = []
    part = Surrender(circusd, Patience(3.0), leave_word=words.append, clock=clock)
    for _ in range(count):
        assert asyncio.run(part.tick()) == PERIOD
        clock.sleep(1.0)
    return words


def test_a_backend_that_serves_is_left_alone() -> None:
    circusd = FakeCircusd(state("up", "held"))

    assert ticks(circusd, 60) == []
    assert circusd.sent == []


def test_a_backend_that_does_not_is_given_up_and_the_reason_is_left_first() -> None:
    circusd = FakeCircusd(state("held", "held"))

    assert ticks(circusd, 4) == [REASON]
    assert circusd.sent == [("quit", {"by": BY})]


def test_the_order_to_quit_is_given_until_circusd_is_gone() -> None:
    circusd = FakeCircusd(state("held"))

    assert ticks(circusd, 7) == [REASON]
    assert [command for command, _ in circusd.sent] == ["quit"] * 4


def test_a_circusd_that_does_not_answer_is_an_outage_too() -> None:
    circusd = FakeCircusd(state("up"))
    circusd.is_gone = True
    words: list[str] = []
    clock = FakeClock()
    part = Surrender(circusd, Patience(3.0), leave_word=words.append, clock=clock)

    async def look() -> None:
        for _ in range(5):
            with contextlib.suppress(CircusdGone):  # the host logs it and asks again
                await part.tick()
            clock.sleep(1.0)

    asyncio.run(look())
    assert [word.partition(":")[0] for word in words] == ["circusd could not be kept up for 3 s"]


def test_without_an_armed_watcher_nobody_is_given_up() -> None:
    assert ticks(FakeCircusd(None), 60) == []


def test_a_log_line_goes_to_the_parents_output(tmp_path: Path) -> None:
    """Given a parent whose output is a file, then each line is at its end, and a parent that is gone is no error."""
    told = tmp_path / "out"
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "ready", (), None)
    handler = ParentOutputHandler(os.getpid())
    told.write_text("before\n")
    handler.path = str(told)
    handler.emit(record)

    assert told.read_text().startswith("before\n")
    assert told.read_text().endswith(" plugin INFO ready\n")
    handler.path = "/proc/0/fd/1"
    handler.emit(record)
