"""What a check found: where, what is wrong and what to write, one line each."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from xboard_circus.options.reading import shown

_LONGEST_VALUE = 60


class Level(enum.Enum):
    """How bad it is: an error stops a start, a warning does not."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Remark:
    """What a rule says about one option of the section that it was given ("" for the section as a whole)."""

    level: Level
    option: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A remark with its place.

    >>> str(Finding(Level.ERROR, "circus.ini", "watcher:xboard", "restrt.burst", "5", "unknown option", "drop it"))
    'circus.ini: [watcher:xboard] restrt.burst = 5: unknown option; drop it'
    """

    level: Level
    file: str
    section: str
    option: str
    value: str | None
    what: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.file}: [{self.section}]" if self.section else f"{self.file}:"
        if self.option:
            place += f" {self.option}:" if self.value is None else f" {self.option} = {_short(shown(self.value))}:"
        return f"{place} {self.what}; {self.hint}" if self.hint else f"{place} {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a check found, worst first."""

    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return self._at(Level.ERROR)

    @property
    def warnings(self) -> list[Finding]:
        return self._at(Level.WARNING)

    @property
    def passed(self) -> bool:
        """True where nothing stops a start."""
        return not self.errors

    def as_dict(self) -> dict[str, object]:
        """Return the report for ``check --json``."""
        return {
            "passed": self.passed,
            "findings": [
                {
                    "level": finding.level.value,
                    "file": finding.file,
                    "section": finding.section,
                    "option": finding.option,
                    "value": None if finding.value is None else shown(finding.value),
                    "what": finding.what,
                    "hint": finding.hint,
                }
                for finding in self.findings
            ],
        }

    def _at(self, level: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.level is level]


def report(findings: Iterable[Finding]) -> Report:
    """Return the findings as a report: each once, errors first, else in the order in which they came."""
    order = list(Level)
    return Report(tuple(sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.level))))


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."
