"""The result of `check` and of `doctor`: what is wrong, where, how bad it is and what to do, one line each."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from xboard_circus.options.reading import shown

_LONGEST_VALUE = 60


class Level(enum.Enum):
    """How bad a finding is, worst first. Only an error stops a start, or ends the command with 1."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check` or `doctor`.

    A rule leaves out the place; `checks.judgement.placed` adds it.

    Attributes:
        option: The option of *section* that is meant; "" for the section as a whole.
        file: The ini file as the user named it; "" for what is not in a file, which is named by its *topic*.

    >>> finding = Finding(Level.ERROR, "restrt.burst", "unknown option", "drop it", "watcher:xboard", "circus.ini", "5")
    >>> str(finding)
    'circus.ini: [watcher:xboard] restrt.burst = 5: unknown option; drop it'
    >>> str(bad("disk", "12 MiB left on /srv", "delete or move something"))
    'disk: 12 MiB left on /srv; delete or move something'
    """

    level: Level
    option: str
    what: str
    hint: str
    section: str = ""
    file: str = ""
    value: str | None = None
    topic: str = "settings"

    def __str__(self) -> str:
        place = f"{self.file or self.topic}:"
        if self.section:
            place += f" [{self.section}]"
        if self.option:
            place += f" {self.option}:" if self.value is None else f" {self.option} = {_short(shown(self.value))}:"
        return f"{place} {self.what}; {self.hint}" if self.hint else f"{place} {self.what}"

    def as_dict(self) -> dict[str, str | None]:
        """Return the finding for ``--json``, with secrets masked."""
        return {
            "topic": self.topic,
            "level": self.level.value,
            "file": self.file,
            "section": self.section,
            "option": self.option,
            "value": None if self.value is None else shown(self.value),
            "what": self.what,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one command, worst first."""

    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return self._at(Level.ERROR)

    @property
    def warnings(self) -> list[Finding]:
        return self._at(Level.WARNING)

    @property
    def passed(self) -> bool:
        """Return whether there is no error."""
        return not self.errors

    def as_dict(self) -> dict[str, object]:
        """Return the report for ``--json``."""
        return {"passed": self.passed, "findings": [finding.as_dict() for finding in self.findings]}

    def _at(self, level: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.level is level]


def report(findings: Iterable[Finding]) -> Report:
    """Return the findings as a report: each once, errors first, else in the order in which they came."""
    order = list(Level)
    return Report(tuple(sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.level))))


def good(topic: str, what: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, "", what, "", topic=topic)


def warning(topic: str, what: str, hint: str) -> Finding:
    """Return a finding that may become, or hide, an error."""
    return Finding(Level.WARNING, "", what, hint, topic=topic)


def bad(topic: str, what: str, hint: str) -> Finding:
    """Return a finding that keeps the backend from running well."""
    return Finding(Level.ERROR, "", what, hint, topic=topic)


def unknown(topic: str, what: str, hint: str = "") -> Finding:
    """Return a finding on what cannot be read from here."""
    return Finding(Level.UNKNOWN, "", what, hint, topic=topic)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."
