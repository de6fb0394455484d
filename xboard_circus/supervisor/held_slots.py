"""Find what a held slot waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xboard_circus.core.sentences import Say

if TYPE_CHECKING:
    from xboard_circus.core.state_schema import HeldByWord
    from xboard_circus.supervisor.watcher import ArmedWatcher


class Hold(NamedTuple):
    """What a held slot waits for: *turn* is the try of another cooling slot. *next_try* is in seconds."""

    by: HeldByWord
    reason: str
    next_try: float


def hold_of(armed: ArmedWatcher, slot: int, now: float) -> Hold:
    """Return what a held slot waits for."""
    port, wait = armed.port, armed.budget.wait(slot, now)
    if armed.before.pending is not None:
        return Hold("before", armed.before.pending.reason, wait)
    if not port.is_ready:
        return Hold("port", Say.WAITS_FOR_PORT(why=port.reason), max(wait, port.retry_in()))
    if not armed.budget.is_cooling(slot, now):
        return Hold("delay", Say.WAITING_PLAINLY(), wait)
    return Hold("cooldown", Say.WAITING_COOLING(), wait) if wait else Hold("turn", Say.WAITS_FOR_TURN(), wait)
