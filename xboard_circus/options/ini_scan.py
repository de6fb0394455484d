"""Scan an ini file line by line as Circus's own parser does, keeping what that parser hides.

Circus silently keeps the first of two options of the same name, joins two sections of the same name, and takes an
indented comment for the rest of the value above it. Here every line is kept with its number.
"""

from collections.abc import Hashable, Iterable, Iterator
from configparser import RawConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Entry:
    """One option in a file."""

    section: str
    option: str
    value: str
    line: int


@dataclass(slots=True)
class Scan:
    """One file, line by line.

    Attributes:
        sections: Name and line of every section header, in the order of the file.
        broken: Line number and text of what Circus cannot read.
        comments: Line number of every comment that Circus takes for the rest of a value.
    """

    file: Path
    entries: list[Entry] = field(default_factory=list)
    sections: list[tuple[str, int]] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)
    comments: list[tuple[int, Entry]] = field(default_factory=list)


def scan(file: Path, text: str) -> Scan:
    """Return every section and option of *text*, the content of *file*."""
    found = Scan(file)
    section = None
    entry: Entry | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if _is_empty(line):
            continue
        if line[0].isspace() and entry is not None:
            entry.value += f"\n{line.strip()}"
            if line.lstrip()[0] in "#;":
                found.comments.append((number, entry))
        elif header := RawConfigParser.SECTCRE.match(line):
            section, entry = header.group("header"), None
            found.sections.append((section, number))
        elif section is not None and (option := RawConfigParser.OPTCRE.match(line)):
            entry = Entry(section, option.group("option").rstrip(), _value(option.group("value")), number)
            found.entries.append(entry)
        else:
            found.broken.append((number, line.strip()))
    return found


def repeated(found: Iterable[tuple[Hashable, T]]) -> Iterator[tuple[T, T]]:
    """Yield each (key, thing) with a repeated key, after the first thing with that key."""
    first: dict[Hashable, T] = {}
    for key, each in found:
        if (known := first.setdefault(key, each)) is not each:
            yield known, each


def _is_empty(line: str) -> bool:
    return not line.strip() or line[0] in "#;" or (line[0] in "rR" and line.split(None, 1)[0].lower() == "rem")


def _value(text: str) -> str:
    # As in Circus: only the first ";" counts, and only after a blank.
    position = text.find(";")
    if position > 0 and text[position - 1].isspace():
        text = text[:position]
    text = text.strip()
    return "" if text == '""' else text
