"""`circusctl restart` without a name made reliable: the new arbiter finds its endpoints free.

Circus closes its ZeroMQ sockets and binds them again at once, in the same process; ZeroMQ lets go of the addresses a
moment later, in a thread of its own. In about one of four restarts the new arbiter found them taken, and circusd lived
on without workers and without answering anybody.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from circus import logger

from xboard_circus.host import listeners

PATIENCE = 5.0
POLL = 0.01


def install(arbiter: Any) -> None:
    """Let the closing of an arbiter that is to have a successor wait until its endpoints can be bound again."""
    original = arbiter.stop_controller_and_close_sockets

    def stop_controller_and_close_sockets() -> None:
        original()
        if arbiter._restarting:
            for endpoint in (arbiter.endpoint, arbiter.pubsub_endpoint):
                wait_until_free(endpoint)

    arbiter.stop_controller_and_close_sockets = stop_controller_and_close_sockets


def wait_until_free(endpoint: str) -> None:
    """Return when a TCP endpoint can be bound; the loop does not run at that time, so this may wait."""
    address = urlsplit(endpoint)
    if address.scheme != "tcp" or address.hostname is None or address.port is None:
        return
    host = "0.0.0.0" if address.hostname == "*" else address.hostname
    end = time.monotonic() + PATIENCE
    while (error := listeners.try_bind(host, address.port)) is not None:
        if time.monotonic() > end:
            logger.error("xboard: %s is not free %g s after it was closed: %s", endpoint, PATIENCE, error)
            return
        time.sleep(POLL)
