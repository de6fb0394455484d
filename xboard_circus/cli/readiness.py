"""Decide from a snapshot whether each watcher is up, coming up or stuck. No effects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from xboard_circus.core.verdict import headline
from xboard_circus.snapshot import Snapshot, Watcher


class Stage(Enum):
    """How far a watcher is: *stuck* goes on by itself, but not within the time that a person waits for."""

    READY = "ready"
    COMING = "coming"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Expected:
    """A watcher that a start has to bring up; an unarmed one reports only that it runs."""

    name: str
    armed: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """Stage of one watcher's start, and the line that shows it."""

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
    if watcher.wants_nobody:
        return Stage.STUCK, watcher.verdict["cause"]
    if watcher.has_come_up:
        return Stage.READY, f"{watcher.serving} of {watcher.numprocesses} up"
    text = headline(watcher.verdict)
    is_stuck = watcher.verdict["word"] == "blocked" or watcher.cooldown_until is not None
    return Stage.STUCK if is_stuck else Stage.COMING, text
