"""One measurement, and what many of them come to."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """One measurement; *value* is None where what was waited for never came, and *note* says what did."""

    value: float | None
    note: str = ""


@dataclass
class Series:
    """One line of the table: what each rival came to, run by run."""

    row: str
    title: str
    unit: str
    found: dict[str, list[Found]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        rivals = {
            name: {"runs": [asdict(found) for found in all_found], **spread(all_found)}
            for name, all_found in self.found.items()
        }
        return {"row": self.row, "title": self.title, "unit": self.unit, "rivals": rivals}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Series":
        found = {name: [Found(**run) for run in rival["runs"]] for name, rival in told["rivals"].items()}
        return cls(told["row"], told["title"], told["unit"], found)


def spread(all_found: list[Found]) -> dict[str, float | None]:
    """Median, minimum and maximum of what has a value; the median is None when most runs have none."""
    values = sorted(found.value for found in all_found if found.value is not None)
    if 2 * len(values) <= len(all_found):
        return {"median": None, "min": None, "max": None}
    return {"median": statistics.median(values), "min": values[0], "max": values[-1]}
