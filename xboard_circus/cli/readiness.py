"""Decide from a snapshot how far each watcher is on its way up. Nothing here asks circusd or waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from xboard_circus.core.states import nobody_wanted
from xboard_circus.snapshot import Snapshot, Watcher, Worker


class Stage(Enum):
    """How far a watcher is: *stuck* goes on by itself, but not within the time that a person waits for."""

    READY = "ready"
    COMING = "coming"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Expected:
    """A watcher that a start has to bring up; only an armed one can tell more than that it runs."""

    name: str
    armed: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far one watcher is, and the line that says so."""

    name: str
    stage: Stage
    text: str


def outlooks(snapshot: Snapshot, expected: Iterable[Expected]) -> list[Outlook]:
    """Return how far each of the *expected* watchers is."""
    found = []
    for each in expected:
        watcher = snapshot.watcher(each.name)
        if watcher is None:
            text = f"{each.name}: circusd runs without it, because it could not be created"
            found.append(Outlook(each.name, Stage.STUCK, text))
        elif each.armed and not watcher.armed:
            # Its hook has not run yet, and nobody asks its workers before.
            found.append(Outlook(each.name, Stage.COMING, f"{each.name}: {watcher.status}"))
        else:
            stage, text = _outlook(watcher)
            found.append(Outlook(each.name, stage, f"{each.name}: {text}"))
    return found


def _outlook(watcher: Watcher) -> tuple[Stage, str]:
    count = f"{watcher.serving} of {watcher.numprocesses} ready"
    if watcher.wants_nobody:
        return Stage.STUCK, nobody_wanted(watcher.name)
    if watcher.serving >= watcher.numprocesses and watcher.status == "active":
        return Stage.READY, count
    if watcher.port is not None and watcher.port.state == "refused":
        return Stage.STUCK, f"waits for port {watcher.port.port}: {watcher.port.reason}"
    if watcher.cooldown_until is not None:
        return Stage.STUCK, f"{count}; cools down" + (f": {watcher.last_reason}" if watcher.last_reason else "")
    told = [f"{count}{'' if watcher.status == 'active' else f' ({watcher.status})'}", *_told(watcher.workers)]
    if watcher.restarts and watcher.last_reason:
        told.append(f"last: {watcher.last_reason}")
    return Stage.COMING, "; ".join(told)


def _told(workers: Iterable[Worker]) -> list[str]:
    """Return what those that are not up do, those that do the same together."""
    # The seconds to the next try would make every look at it a change.
    doing = Counter(
        (worker.state, worker.reason.partition(", next try in")[0])
        for worker in workers
        if worker.state not in ("ready", "busy")
    )
    return [f"{count} {state}" + (f" ({reason})" if reason else "") for (state, reason), count in doing.items()]
