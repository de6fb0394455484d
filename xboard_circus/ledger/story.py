"""Find the record that `why` explains, and the records around it. No effects."""

from collections.abc import Sequence

from xboard_circus.core.lost import BACK, HOST_RESTARTED, LOST
from xboard_circus.core.names import circusd_of
from xboard_circus.ledger.record import Record

DEATHS = frozenset({"restart", "end"})
_OF_PORT = ("port_refused", "port_freed", "port_shared", "port_shut")
_FAILED = ("unhealthy", "kept", "reload_end", "before_failed", "preflight_failed", "output_lost")
DECISIONS = frozenset({*_OF_PORT, *_FAILED, LOST, HOST_RESTARTED})
# Decisions that mean nothing without the death that they follow.
FOLLOWERS = frozenset({"cooldown", "recovered", "poison", BACK})
EXPLAINED = DEATHS | DECISIONS | FOLLOWERS
CIRCUS = frozenset({"spawn", "reap", "kill", "start", "stop"})
"""Circus's own events, which have no number."""

_AROUND = ("command", "ready", "replace", "reload_begin", "before_done", "output_back", "slow_request")
KINDS = EXPLAINED | CIRCUS | {*_AROUND}
"""Recorded events: those that `why` explains, and those around them."""

TROUBLE = frozenset({"restart", "unhealthy", "port_refused", "before_failed", "output_lost", "poison", LOST})
"""Events with which an incident begins, or goes on."""

_FOLLOWED = DEATHS | {"unhealthy", LOST}


def subject(records: Sequence[Record], *, pid: int | None = None) -> Record | None:
    """Return the record to explain: the last death or decision, or the death of *pid*; None without one.

    *records* are in the order in which they were stored. A cooldown, a recovery, and the findings of the prober on a
    replaced worker are shown with the death that they belong to.
    """
    if pid is not None:
        records = [record for record in records if record.pid == pid]
        deaths = [record for record in records if record.kind in DEATHS]
        if deaths:
            return deaths[-1]
    for place in range(len(records) - 1, -1, -1):
        record = records[place]
        if record.kind in FOLLOWERS or (record.kind == "unhealthy" and record.pid is not None):
            earlier = [other for other in records[:place] if other.kind in _FOLLOWED and _same(other, record)]
            return subject(earlier) or record
        # The cause may be a lost circusd: its workers had the port until the next one took it over.
        if record.kind == "port_freed" and (lost := _loss_before(records[:place])) is not None:
            return lost
        if record.kind in EXPLAINED:
            return record
    return None


def _loss_before(records: Sequence[Record]) -> Record | None:
    """Return the loss of a circusd that caused a takeover."""
    for record in reversed(records):
        if record.kind in (LOST, BACK):
            return subject([*records[: records.index(record) + 1]])
        if record.kind in EXPLAINED and record.kind != "port_freed":
            return None
    return None


def successor(record: Record, history: Sequence[Record]) -> Record | None:
    """Return the record of the successor of a dead process: that it came up, or how it ended.

    It may have been ready before the other's end. Where neither is known yet it is the next ``spawn`` of the watcher,
    because Circus does not report which worker that replaces.
    """
    if record.pid is not None:
        for other in history:
            if other.watcher == record.watcher and other.data.get("follows") == record.pid:
                return other
    of_others = {other.pid for other in history if other.data.get("follows") not in (None, record.pid)}
    return next((one for one in _after(record, history) if one.kind == "spawn" and one.pid not in of_others), None)


def followers(record: Record, history: Sequence[Record]) -> list[Record]:
    """Return the decisions that followed on a death of the same worker, up to the next death in its slot."""
    found = []
    for other in _after(record, history):
        if other.kind == LOST or (other.kind in DEATHS and other.wid is not None and other.wid == record.wid):
            break
        is_of_all = other.kind == "recovered" and other.pid is None  # what a dependency does after a death is its own
        if other.kind in FOLLOWERS | {"port_refused"} and (other.wid in (None, record.wid)):
            found += [] if is_of_all and record.kind in DEATHS else [other]
    return found


def death_of(pid: int | None, after: Record, history: Sequence[Record]) -> Record | None:
    """Return how a later process ended, None if it has not."""
    later = [after, *_after(after, history)]
    return next((other for other in later if other.kind in DEATHS and other.pid == pid), None)


def is_of_the_past(record: Record, history: Sequence[Record]) -> bool:
    """Return whether a later circusd has recorded an event of the watcher: nothing follows on one of the earlier.

    An earlier version may have numbered no event, nor recorded what followed.
    """
    circusd, later = circusd_of(record.seq), _after(record, history)
    return any(other.kind in EXPLAINED and circusd_of(other.seq) != circusd for other in later)


def _after(record: Record, history: Sequence[Record]) -> list[Record]:
    own = [other for other in history if other.watcher == record.watcher and other.id is not None]
    return [other for other in own if record.id is not None and (other.id or 0) > record.id]


def _same(one: Record, other: Record) -> bool:
    """Return whether *one* may be what *other* followed on."""
    is_of_slot = one.wid == other.wid and other.kind == "recovered"
    return one.watcher == other.watcher and (other.pid is None or one.pid in (None, other.pid) or is_of_slot)
