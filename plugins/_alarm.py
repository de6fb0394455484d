"""Sleep until a given time, or until an earlier one that is set meanwhile."""

import asyncio


class Alarm:
    """Wake one sleeper on *loop*. A ring without a sleeper counts for the next sleep."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*, or on `ring`."""
        self.ring(seconds)
        await self._rung.wait()
        self._rung.clear()
        self._timer = None

    def ring(self, within: float) -> None:
        """End the sleep within that many seconds."""
        due = self._loop.time() + within
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._rung.set)
