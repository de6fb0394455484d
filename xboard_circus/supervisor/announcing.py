"""Send an event of ours that no watcher has: what was asked of circusd, and what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def announce(supervisor: Supervisor, name: str, event: str, message: dict[str, Any]) -> None:
    """Send it on Circus's bus, numbered; *name* stands in the place of a watcher's."""
    socket = supervisor.arbiter.evpub_socket
    if socket is not None and not socket.closed:
        numbered = supervisor.journal.note(name, event, message)
        topic = f"watcher.{name}.{event}".encode(errors="replace")
        socket.send_multipart([topic, json.dumps(numbered).encode()])
