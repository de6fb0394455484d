"""Run and summarise measurements: go through the rows, where the failure of one costs no other."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bench.rivals import BARE, CLI, MEASURED, OURS, RIVAL
from bench.running import Never, Rival

APART = 2.5
"""Seconds between the begins of rivals that are measured side by side, so that no two of them start workers at once."""


@dataclass(frozen=True)
class Found:
    """One measurement; without one *value* is None, *word* is why, and *note* what happened instead."""

    value: float | None
    note: str = ""
    word: str = ""


@dataclass(frozen=True)
class Row:
    """One measurement that gives a line in the table for each of *lines*.

    Attributes:
        rivals: The names of those that take part.
        runs: The most runs that it is worth; a steady figure needs one.
        at_once: How many rivals are measured side by side, where the time is that of waiting.
    """

    name: str
    lines: tuple[tuple[str, str], ...]  # title and unit
    measure: Callable[[Rival], list[Found]]
    rivals: list[str] = field(default_factory=lambda: list(MEASURED))
    runs: int = 99
    at_once: int = 1


class Spread(NamedTuple):
    """Median, minimum and maximum of the runs that gave a value."""

    median: float
    min: float
    max: float


@dataclass
class Series:
    """One line of the table: the figures of each rival, run by run."""

    row: str
    title: str
    unit: str
    found: dict[str, list[Found]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        rivals = {}
        for name, all_found in self.found.items():
            figures = dict(zip(Spread._fields, spread(all_found) or (None, None, None), strict=True))
            rivals[name] = {"runs": [asdict(found) for found in all_found], **figures}
        return {"row": self.row, "title": self.title, "unit": self.unit, "rivals": rivals}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Series":
        found = {name: [Found(**run) for run in rival["runs"]] for name, rival in data["rivals"].items()}
        return cls(data["row"], data["title"], data["unit"], found)


def spread(all_found: list[Found]) -> Spread | None:
    """Return the spread of the values; None when most runs have none."""
    values = [found.value for found in all_found if found.value is not None]
    if 2 * len(values) <= len(all_found):
        return None
    return Spread(statistics.median(values), min(values), max(values))


def measure_all(rows: list[Row], rivals: list[str], runs: int) -> list[Series]:
    """Measure run by run and not row by row, so that other load on the machine meets every rival."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    lines = {row.name: [Series(row.name, title, unit) for title, unit in row.lines] for row in rows}
    wanted = {*rivals, BARE, CLI} if OURS in rivals else set(rivals)
    todo: list[tuple[Row, list[str]]] = []
    for run in range(runs):
        for row in rows:
            names = [name for name in row.rivals if name in wanted and run < row.runs]
            todo += [(row, names[at : at + row.at_once]) for at in range(0, len(names), row.at_once)]
    columns = (TextColumn("{task.description:50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(len(MEASURED)) as pool:
        bar = progress.add_task("", total=len(todo))
        for row, names in todo:
            progress.update(bar, description=f"{row.name}: {', '.join(RIVAL[name].title for name in names)}")
            before = {name: lines[row.name][0].found.get(name) for name in names}
            # A rival that never got there in the first run is not waited for in the next.
            left = [name for name, found in before.items() if found is None or found[0].value is not None]
            measured = [pool.submit(measure, row, name, APART * at) for at, name in enumerate(left)]
            for name, ones in zip(left, measured, strict=True):
                for line, one in zip(lines[row.name], ones.result(), strict=True):
                    line.found.setdefault(name, []).append(one)
            progress.advance(bar)
    return [line for of_row in lines.values() for line in of_row]


def measure(row: Row, name: str, after: float = 0.0) -> list[Found]:
    time.sleep(after)
    try:
        RIVAL[name].check(row.name)
        return row.measure(RIVAL[name])
    except Never as never:
        found = Found(None, str(never), never.word)
    except Exception as error:  # the boundary of one measurement: the others are worth having without it
        found = Found(None, f"{type(error).__name__}: {error}"[:200], "failed")
    return [found] * len(row.lines)
