"""Send an event of ours that no watcher has: what was asked of circusd, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xboard_circus.supervisor.patches import circus_arbiter

if TYPE_CHECKING:
    from xboard_circus.supervisor.supervisor import Supervisor


def announce(supervisor: Supervisor, name: str, event: str, message: dict[str, Any]) -> None:
    """Send it on Circus's bus, numbered; *name* stands in the place of a watcher's."""
    numbered = supervisor.journal.note(name, event, message)
    circus_arbiter.publish(supervisor.arbiter, f"watcher.{name}.{event}", numbered)
