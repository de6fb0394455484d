"""Report what `check` and `doctor` found: what is wrong, where, how bad it is and the cure, one line each."""

import enum
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from xboard_circus.errors import Command
from xboard_circus.options.reading import shown

_LONGEST_VALUE = 60


class Level(enum.Enum):
    """Level of a finding, worst first. Only an error stops a start, and gives exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"

    @property
    def rank(self) -> int:
        """Return 0 for the worst."""
        return list(Level).index(self)


ERROR, WARNING = Level.ERROR, Level.WARNING


class Finding(NamedTuple):
    """One line of `check` or `doctor`.

    A rule leaves out the file and the value; `checks.judgement.placed` adds them.

    Attributes:
        option: The option of *section*; "" for the section as a whole.
        file: The ini file as the user named it; "" outside of it, where the *topic* names the thing.

    >>> finding = Finding(Level.ERROR, "restrt.burst", "unknown option", "drop it", "watcher:xboard", "circus.ini", "5")
    >>> str(finding)
    'circus.ini: [watcher:xboard] restrt.burst = 5: unknown option; drop it'
    >>> str(bad("12 MiB left on /srv", "delete or move something"))
    'settings: 12 MiB left on /srv; delete or move something'
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
            value = "" if self.value is None else shown(self.value)
            value = value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."
            place += f" {self.option}:" if self.value is None else f" {self.option} = {value}:"
        return f"{place} {self.what}; {self.hint}" if self.hint else f"{place} {self.what}"

    def as_dict(self) -> dict[str, str | None]:
        """Return the finding for ``--json``, with secrets masked."""
        value = None if self.value is None else shown(self.value)
        return {**self._asdict(), "level": self.level.value, "value": value}


class Report(NamedTuple):
    """All findings of one command, worst first."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Return whether there is no error."""
        return not self.at(Level.ERROR)

    def at(self, level: Level) -> list[Finding]:
        """Return the findings of that level."""
        return [finding for finding in self.findings if finding.level is level]

    def as_dict(self) -> dict[str, object]:
        """Return the report for ``--json``."""
        return {"passed": self.passed, "findings": [finding.as_dict() for finding in self.findings]}


def report(findings: Iterable[Finding]) -> Report:
    """Return the findings as a report: each once, errors first, otherwise in the order in which they came."""
    return Report(tuple(sorted(dict.fromkeys(findings), key=lambda finding: finding.level.rank)))


def within(section: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings with the section that they are about."""
    return (finding._replace(section=section) for finding in findings)


def no_folder(level: Level, option: str, folder: Path, cure: str = "mkdir -p {}") -> Finding:
    """Return a finding on a *folder* that is missing."""
    return Finding(level, option, f"there is no folder {folder}", Command(cure, folder))


def graded(what: str, hint: str, *, error: bool, warning: bool) -> Finding:
    """Return a finding on a figure of the host: an error or a warning where it is out of bounds, otherwise good."""
    return Finding(ERROR if error else WARNING, "", what, hint) if error or warning else good(what)


def good(what: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, "", what, "")


def warning(what: str, hint: str) -> Finding:
    """Return a finding that may become, or hide, an error."""
    return Finding(WARNING, "", what, hint)


def bad(what: str, hint: str) -> Finding:
    """Return a finding that keeps the backend from running well."""
    return Finding(ERROR, "", what, hint)


def unknown(what: str, hint: str = "") -> Finding:
    """Return a finding on what cannot be read from here."""
    return Finding(Level.UNKNOWN, "", what, hint)
