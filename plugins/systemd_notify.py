"""Notify systemd of the service: READY, STATUS, WATCHDOG and STOPPING.

circusd itself does not know systemd, so its unit has ``Type=notify`` and ``NotifyAccess=all``, and this plugin sends
the notifications. None comes from a timer alone: each WATCHDOG=1 rests on an answer of circusd and on a round of probes
that has ended since the last one. The bundle hosts it if systemd has set NOTIFY_SOCKET; ``[plugin:notify] use =
xboard_circus.plugins.systemd_notify.SystemdNotify`` runs it alone, beside a prober.

RELOADING=1 is not sent: ``systemctl reload`` runs ``xboard-circus reload``, which knows how long that takes. A plugin
that sent RELOADING=1 and then died would leave the service in a reload that never ends.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from circus.util import to_bool

from xboard_circus import config
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.systemd_state import ServiceState, SystemdNotice
from xboard_circus.errors import XboardError
from xboard_circus.host import service_manager
from xboard_circus.plugins._base import Commands, Part, XboardPlugin, ask_state

log = logging.getLogger("xboard_circus.plugins.systemd_notify")

STARTING_PERIOD, PERIOD = 0.25, 1.0
CALL_SECONDS, CLOSE_SECONDS = 2.0, 0.5
# How long a start or a reload may take until the next notification, on top of what the unit allows.
EXTENSION = 60.0

Send = Callable[[str], None]
Expected = Callable[[str], list[str]]


class Notifier(Part):
    """Query circusd's state about once a second, and send systemd what `core.systemd_state` derives from it.

    Until a start is complete, and during a reload, each proof that circusd and the prober work extends the unit's
    time-out. The limiter retries for ever a backend that cannot start yet; if systemd started all anew, the limiter
    would only lose its counts.

    Attributes:
        watchdog: Seconds within which systemd expects WATCHDOG=1; None if it does not.
    """

    name = "systemd_notify"
    period = PERIOD

    def __init__(
        self, commands: Commands, send: Send, *, expected: Expected, watchdog: float | None = None, **seams: Any
    ) -> None:
        super().__init__(commands, **seams)
        self._send = send
        self._watchdog = watchdog
        self._expected = expected
        self._state: ServiceState | None = None
        self._is_ready = self._is_stopping = False
        self._status = ""

    async def tick(self) -> float:
        """Query circusd and notify systemd; return the seconds until the next time."""
        try:
            self._notify(await self._judged(CALL_SECONDS))
        except (CircusdGone, CommandRefused) as error:
            self._write([], f"circusd gives no state: {error}")
            return STARTING_PERIOD
        if not self._is_ready:
            return STARTING_PERIOD
        return PERIOD if self._watchdog is None else min(PERIOD, self._watchdog / 8)

    async def close(self) -> None:
        """Send STOPPING=1 if circusd itself ends, not only this plugin."""
        with suppress(XboardError):
            self._notify(await self._judged(CLOSE_SECONDS))

    async def _judged(self, deadline: float) -> SystemdNotice:
        queried_at = self._clock()
        state = await ask_state(self._commands, deadline=deadline)
        if self._state is None:
            self._state = ServiceState(self._expected(state["circusd"]["config_file"] or "circus.ini"))
        return self._state.judge(state, queried_at=queried_at)

    def _notify(self, notice: SystemdNotice) -> None:
        is_up = notice.ready or self._is_ready
        is_proven = notice.proven and not notice.stopping
        is_news = notice.ready and not self._is_ready and not notice.stopping
        lines = {
            "STOPPING=1": notice.stopping and not self._is_stopping,
            "READY=1": is_news,
            "WATCHDOG=1": is_proven and self._watchdog is not None,
            f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}": is_proven and (notice.reloading or not is_up),
        }
        status = f"stopping; {notice.status}" if notice.stopping else notice.status
        # A failed notification is sent again the next time.
        if self._write([line for line, is_due in lines.items() if is_due], status):
            self._is_stopping = notice.stopping
            if is_news:
                self._is_ready = True
                log.info("sent READY to systemd")

    def _write(self, lines: list[str], status: str) -> bool:
        if status != self._status:
            lines = [*lines, f"STATUS={status}"]
        try:
            if lines:
                self._send("\n".join(lines))
        except OSError as error:
            if self._said.may_say("send"):
                log.warning("systemd cannot be notified: %s", error)
            return False
        self._status = status
        return True


def notifiers_of(plugin: XboardPlugin) -> list[Part]:
    """Return the notifier of a plugin process if systemd has set an address, otherwise nothing."""
    if not (address := service_manager.address()):
        return []
    watchdog = watchdog_seconds(os.environ.get("WATCHDOG_USEC"))
    return [Notifier(plugin.commands, partial(service_manager.send, address), expected=expected_by, watchdog=watchdog)]


class SystemdNotify(XboardPlugin):
    """Run the notifier alone in a process."""

    name = "systemd_notify"
    parts = notifiers_of


def watchdog_seconds(microseconds: str | None) -> float | None:
    """Return WATCHDOG_USEC in seconds.

    >>> watchdog_seconds("30000000"), watchdog_seconds("soon"), watchdog_seconds(None)
    (30.0, None, None)
    """
    return (int(microseconds) / 1e6 or None) if microseconds and microseconds.isdigit() else None


def expected_by(config_file: str) -> list[str]:
    """Return the names of the backends that a circusd of *config_file* has to bring up.

    Without the dashboard: a start of the service would otherwise hang if the page cannot get its port, though the
    backend serves. circusd's state does not have them, because a watcher is armed only with its first start.
    """
    try:
        found = config.load(config_file)
    except XboardError as error:
        log.error("the watchers to wait for are unknown, so READY is never sent to systemd: %s", error)
        return []
    return [
        watcher.name
        for watcher in found.watchers
        if config.is_backend(watcher) and watcher.respawn and to_bool(watcher.given.get("autostart", "True"))
    ]
