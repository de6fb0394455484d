"""Make circusd quit when the backend cannot be kept up, so that the container ends too.

Circus itself retries for ever and stays up meanwhile, so Docker and Kubernetes would take the container for healthy.
``container.give_up_after`` turns this on.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.outage_limit import Outage, Patience, outages_of
from xboard_circus.host import last_words
from xboard_circus.plugins._base import Commands, Part, XboardPlugin, ask_state

log = logging.getLogger("xboard_circus.plugins.giving_up")

PERIOD = 1.0
BY = "xboard-circus: container.give_up_after"


class Surrender(Part):
    """Query every second whether each armed watcher serves; when *patience* is used up, make circusd quit.

    The reason goes to *leave_word* first, because circusd takes this process with it.
    """

    name = "giving_up"
    period = PERIOD

    def __init__(
        self, commands: Commands, patience: Patience, *, leave_word: Callable[[str], None], **seams: Any
    ) -> None:
        super().__init__(commands, **seams)
        self._patience = patience
        self._leave_word = leave_word
        self._reason: str | None = None

    async def tick(self) -> float:
        """Query the state; when it is time to give up, send `quit` at each tick until circusd is gone."""
        if self._reason is None:
            self._reason = self._patience.look(self._clock(), await self._outages())
            if self._reason is None:
                return PERIOD
            log.error("giving up: %s", self._reason)
            self._leave_word(self._reason)
        await self._commands.call("quit", by=BY)
        return PERIOD

    async def _outages(self) -> list[Outage]:
        try:
            state = await ask_state(self._commands)
        except CommandRefused:
            return []  # no watcher is armed, so nothing is known of the workers
        except CircusdGone as gone:
            return [Outage("circusd", str(gone))]
        return outages_of(state["watchers"])


def surrender_of(plugin: XboardPlugin) -> list[Part]:
    """Return the part if the options of *plugin* turn it on."""
    limit, instance = plugin.options.container.give_up_after, os.environ.get("XBOARD_INSTANCE", "")
    if not limit:
        return []
    return [Surrender(plugin.commands, Patience(limit), leave_word=partial(last_words.leave, instance))]
