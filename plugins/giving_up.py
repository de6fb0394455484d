"""End circusd when the backend cannot be kept up, so that whoever runs the container sees it.

Circus itself tries for ever and stays up meanwhile, and a container that is up looks well to Docker and Kubernetes.
``container.give_up_after`` turns this on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Container
from functools import cache

from xboard_circus import config
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.patience import Outage, Patience, outages_of
from xboard_circus.errors import XboardError
from xboard_circus.host import last_words
from xboard_circus.plugins._base import BusEvent, Commands, XboardPlugin, ask_state

log = logging.getLogger("xboard_circus.plugins.giving_up")

PERIOD = 1.0
BY = "xboard-circus: container.give_up_after"


class Surrender:
    """Looks every second whether each armed watcher serves; when *patience* is at its end, circusd is to quit.

    The reason is handed to *leave_word* first: circusd takes this process with it. *pages* returns the watchers that
    run our dashboard: they may be down.
    """

    name = "giving_up"
    period = PERIOD

    def __init__(
        self,
        commands: Commands,
        patience: Patience,
        *,
        leave_word: Callable[[str], None],
        pages: Callable[[str | None], Container[str]] = lambda config_file: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands = commands
        self._patience = patience
        self._leave_word = leave_word
        self._pages = pages
        self._clock = clock
        self._reason: str | None = None

    def handle_event(self, event: BusEvent) -> None:
        """Events do not matter here: what counts is who serves, not what happens."""

    async def close(self) -> None:
        """Nothing here is worth keeping."""

    async def tick(self) -> float:
        """Look once; tell circusd to quit where that is due, and again until it does."""
        if self._reason is None:
            outages = await self._outages()
            self._reason = self._patience.look(self._clock(), outages)
            if self._reason is not None:
                log.error("giving up: %s", self._reason)
                self._leave_word(self._reason)
        if self._reason is not None:
            await self._commands.call("quit", by=BY)
        return PERIOD

    async def _outages(self) -> list[Outage]:
        try:
            state = await ask_state(self._commands)
        except CommandRefused:
            return []  # no watcher is armed: nobody can tell who serves
        except CircusdGone as gone:
            return [Outage("circusd", str(gone))]
        return outages_of(state["watchers"], pages=self._pages(state["circusd"]["config_file"]))


def surrender_of(plugin: XboardPlugin) -> list[Surrender]:
    """Return the part where the options of *plugin* ask for it."""
    limit = plugin.options.container.give_up_after
    if not limit:
        return []
    instance = os.environ.get("XBOARD_INSTANCE", "")
    return [
        Surrender(
            plugin.commands,
            Patience(limit),
            leave_word=lambda reason: last_words.leave(instance, reason),
            pages=cache(pages_of),
        )
    ]


def pages_of(config_file: str | None) -> frozenset[str]:
    """Return the names of the watchers of *config_file* that run our dashboard."""
    try:
        found = config.load(config_file or "circus.ini")
    except XboardError as error:
        log.error("every watcher counts, since the ini file cannot be read: %s", error)
        return frozenset()
    return frozenset(watcher.name for watcher in found.watchers if config.is_dashboard(watcher))
