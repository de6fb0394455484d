"""End circusd on a signal as its service manager means it: for a restart it leaves, and its workers serve on.

The unit's ``ExecStop=`` orders that (`service.unit_stop`), but systemd skips it for a unit that starts or reloads, and
sends SIGTERM at once: a restart that interrupts a reload, or that repairs code with which nothing starts.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from circus import logger
from circus.exc import MessageError

from xboard_circus.host import service_manager
from xboard_circus.supervisor.boundary import in_daemon_thread
from xboard_circus.supervisor.leave import leave

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


class EndBySignal:
    """What circusd does at SIGTERM and SIGINT."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._is_looking = False

    def end(self, stop: Callable[[], object]) -> object:
        """Leave if systemd restarts our unit, or does not say; else, at a second signal, or if none can stay, stop
        everything.

        Any other unit may have systemd kill what is left, with the requests in flight.
        """
        unit = service_manager.own_unit()
        if not unit or self._is_looking or self._supervisor.is_over():
            return stop()
        self._is_looking = True
        self._supervisor.run(self._end(unit, stop), "the look for systemd's job", on_failure=stop)
        return None

    async def _end(self, unit: str, stop: Callable[[], object]) -> None:
        of_user = "MANAGERPID" in os.environ  # see systemd.exec(5)
        job = await in_daemon_thread(partial(service_manager.job_of, unit, of_user=of_user))
        if self._supervisor.is_over():
            return
        if job is None:
            logger.warning("xboard: systemctl does not list the jobs of systemd; the unit ends the workers in a stop")
        # ExecStopPost= has the job listed by root: it keeps the workers in a restart, and drains them in a stop.
        if job in ("restart", None):
            with suppress(MessageError):  # no worker could stay
                leave(self._supervisor)
                return
        stop()
