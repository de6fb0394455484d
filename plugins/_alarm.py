"""Sleep until it is time, or until somebody says that it is time sooner: so nobody has to look in between."""

from __future__ import annotations

import asyncio
import math


class Alarm:
    """Wakes one sleeper on *loop*. What is asked for while nobody sleeps counts for the next sleep."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._sleeper: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*, or when `ring` has said so."""
        self._sleeper = self._loop.create_future()
        self.ring(seconds)
        try:
            await self._sleeper
        finally:
            self._sleeper, self._due = None, math.inf
            if self._timer is not None:
                self._timer.cancel()

    def ring(self, within: float) -> None:
        """End the sleep within that many seconds."""
        self._due = min(self._due, self._loop.time() + within)
        if self._sleeper is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._wake)

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
