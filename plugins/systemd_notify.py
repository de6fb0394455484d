"""Tell systemd how the service is: READY, STATUS, WATCHDOG and STOPPING.

circusd itself knows nothing of systemd, so its unit has ``Type=notify`` and ``NotifyAccess=all``, and this plugin
speaks for it. It never speaks from a timer alone: each WATCHDOG=1 rests on an answer of circusd and on a round of
probes that has ended since the last one. The bundle hosts it wherever systemd has set NOTIFY_SOCKET;
``[plugin:notify] use = xboard_circus.plugins.systemd_notify.SystemdNotify`` runs it alone, beside a prober.

RELOADING=1 is not sent: ``systemctl reload`` runs ``xboard-circus reload`` and knows by itself how long that takes,
and whoever sent RELOADING=1 and then died would leave the service in a reload that never ends.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from circus.util import to_bool

from xboard_circus import config
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.core.state_schema import State
from xboard_circus.core.systemd_state import ServiceState, SystemdNotice
from xboard_circus.errors import XboardError
from xboard_circus.plugins._base import BusEvent, Commands, Part, XboardPlugin, ask_state
from xboard_circus.plugins._log import Sparingly

log = logging.getLogger("xboard_circus.plugins.systemd_notify")

STARTING_PERIOD = 0.25
PERIOD = 1.0
CALL_SECONDS = 2.0
CLOSE_SECONDS = 0.5
# How long a start or a reload that moves on may take until the next word from here, on top of what the unit says.
EXTENSION = 60.0

Send = Callable[[str], None]


class Notifier:
    """Asks circusd for its state about once a second, and tells systemd what `core.systemd_state` makes of it.

    While a start is not through, or a reload is at work, the time-out of the unit is moved on with each proof that
    circusd and the prober are at work: a backend that cannot start yet is tried for ever by the limiter, and systemd,
    which would start all anew, could only make it forget what it has learned.

    Attributes:
        watchdog: Seconds within which systemd wants to hear WATCHDOG=1; None where it does not.
    """

    name = "systemd_notify"
    period = PERIOD

    def __init__(
        self,
        commands: Commands,
        send: Send,
        *,
        expected: Callable[[str], list[str]],
        watchdog: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands = commands
        self._send = send
        self._clock = clock
        self._watchdog = watchdog
        self._expected = expected
        self._state: ServiceState | None = None
        self._is_ready = False
        self._is_stopping = False
        self._status = ""
        self._said = Sparingly(clock=clock)

    def handle_event(self, event: BusEvent) -> None:
        """Events do not matter here: circusd's state tells it all."""

    async def tick(self) -> float:
        """Ask and tell; return the seconds until the next time."""
        asked_at = self._clock()
        try:
            state = await ask_state(self._commands, deadline=CALL_SECONDS)
        except (CircusdGone, CommandRefused) as error:
            self._tell([], f"circusd gives no state: {error}")
            return STARTING_PERIOD
        self._tell_of(self._judge(state, asked_at))
        return self._pause()

    async def close(self) -> None:
        """Say STOPPING=1 where it is circusd that ends, and not this plugin alone."""
        with suppress(XboardError):
            state = await ask_state(self._commands, deadline=CLOSE_SECONDS)
            self._tell_of(self._judge(state, self._clock()))

    def _judge(self, state: State, asked_at: float) -> SystemdNotice:
        if self._state is None:
            self._state = ServiceState(self._expected(state["circusd"]["config_file"] or "circus.ini"))
        return self._state.judge(state, asked_at=asked_at)

    def _tell_of(self, notice: SystemdNotice) -> None:
        lines = []
        is_news = notice.ready and not self._is_ready and not notice.stopping
        if notice.stopping and not self._is_stopping:
            lines.append("STOPPING=1")
        if is_news:
            lines.append("READY=1")
        if notice.proven and not notice.stopping:
            if self._watchdog is not None:
                lines.append("WATCHDOG=1")
            if not (notice.ready or self._is_ready) or notice.reloading:
                lines.append(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}")
        # What could not be told is no less news the next time.
        if self._tell(lines, f"stopping; {notice.status}" if notice.stopping else notice.status):
            self._is_stopping = notice.stopping
            if is_news:
                self._is_ready = True
                log.info("sent READY to systemd")

    def _tell(self, lines: list[str], status: str) -> bool:
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

    def _pause(self) -> float:
        if not self._is_ready:
            return STARTING_PERIOD
        return PERIOD if self._watchdog is None else min(PERIOD, self._watchdog / 8)


class SystemdNotify(XboardPlugin):
    """The notifier alone in a process."""

    name = "systemd_notify"

    def parts(self) -> list[Part]:
        """Return the notifier, or nothing where there is no systemd to talk to."""
        return notifiers_of(self)


def notifiers_of(plugin: XboardPlugin) -> list[Part]:
    """Return the notifier of a plugin process that systemd has given an address, else nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return []
    return [
        Notifier(
            plugin.commands,
            sender_to(address),
            expected=expected_by,
            watchdog=watchdog_seconds(os.environ.get("WATCHDOG_USEC")),
        )
    ]


def sender_to(address: str) -> Send:
    r"""Return what sends a message to the datagram socket at *address*; "@" begins one without a file.

    It never waits: a full queue is an OSError, as everything else that goes wrong.
    """
    name = "\0" + address[1:] if address.startswith("@") else address

    def send(message: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.setblocking(False)
            door.connect(name)
            door.sendall(message.encode())

    return send


def watchdog_seconds(microseconds: str | None) -> float | None:
    """Return what WATCHDOG_USEC says in seconds.

    >>> watchdog_seconds("30000000"), watchdog_seconds("soon"), watchdog_seconds(None)
    (30.0, None, None)
    """
    if not microseconds or not microseconds.isdigit() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6


def expected_by(config_file: str) -> list[str]:
    """Return the names of the backends that a circusd of *config_file* has to bring up.

    Not the dashboard: a start of the service would otherwise hang where a page cannot get its port, though the backend
    serves. circusd's own state cannot tell: before its first start a watcher is not armed there yet.
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
