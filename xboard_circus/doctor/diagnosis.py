"""What was found of one thing: that it is good, or what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How it is; only *bad* ends the command with 1."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line.

    >>> str(Diagnosis("disk", Level.BAD, "12 MiB left on /srv", "delete or move something"))
    'bad      disk: 12 MiB left on /srv; delete or move something'
    """

    topic: str
    level: Level
    what: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.level.value:<8} {self.topic}: {self.what}"
        return f"{line}; {self.hint}" if self.hint else line

    def as_dict(self) -> dict[str, str]:
        """Return it for ``doctor --json``."""
        return {"topic": self.topic, "level": self.level.value, "what": self.what, "hint": self.hint}


def good(topic: str, what: str) -> Diagnosis:
    """Nothing to do."""
    return Diagnosis(topic, Level.GOOD, what)


def warning(topic: str, what: str, hint: str) -> Diagnosis:
    """It may become, or hide, a trouble."""
    return Diagnosis(topic, Level.WARNING, what, hint)


def bad(topic: str, what: str, hint: str) -> Diagnosis:
    """It is one."""
    return Diagnosis(topic, Level.BAD, what, hint)


def unknown(topic: str, what: str, hint: str = "") -> Diagnosis:
    """It cannot be told from here."""
    return Diagnosis(topic, Level.UNKNOWN, what, hint)
