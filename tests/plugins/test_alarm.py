import asyncio
import time

from xboard_circus.plugins._base import Alarm

LONG = 60.0


async def slept(*rings: float, before: bool) -> float:
    """Return how long a sleep of a minute took that *rings* ended, those before it or in its middle."""
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop)
    for within in rings:
        if before:
            alarm.ring(within)
        else:
            loop.call_later(0.01, alarm.ring, within)
    began = time.monotonic()
    await asyncio.wait_for(alarm.sleep(LONG), LONG / 2)
    return time.monotonic() - began


def test_a_ring_ends_the_sleep() -> None:
    assert asyncio.run(slept(0.02, before=False)) < LONG / 2


def test_a_ring_before_the_sleep_counts_for_it() -> None:
    assert asyncio.run(slept(0.02, before=True)) < LONG / 2


def test_the_soonest_ring_counts() -> None:
    assert asyncio.run(slept(LONG, 0.02, LONG, before=False)) < LONG / 2


def test_a_ring_that_was_heard_does_not_count_for_the_next_sleep() -> None:
    async def scenario() -> bool:
        alarm = Alarm(asyncio.get_running_loop())
        alarm.ring(0.01)
        await alarm.sleep(LONG)
        try:
            await asyncio.wait_for(alarm.sleep(LONG), 0.1)
        except (TimeoutError, asyncio.TimeoutError):
            return True
        return False

    assert asyncio.run(scenario())
