"""The figures as JSON and as a Markdown page."""

import os
import platform
import time
from pathlib import Path
from typing import Any

from jinja2 import Template

from bench.measuring import Found, Series, spread
from bench.rivals import BARE, CLI, MEASURED, OURS, RIVAL, UVICORN_WORKERS, versions

NEVER = "never"
PAGE = Path(__file__).with_name("page.md.j2")


def session(rows: list[str], *, command: str, runs: int, note: str, load_before: float) -> dict[str, Any]:
    """What a reader has to know of one call of the script to judge its figures."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
        "command": command,
        "runs": runs,
        "rows": rows,
        "note": note,
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def page(lines: list[Series], sessions: list[dict[str, Any]]) -> str:
    """The page: what was measured, with what, the table, and what happened where a figure alone does not tell."""
    template = Template(PAGE.read_text(), trim_blocks=True, keep_trailing_newline=True)
    return template.render(sessions=sessions, table=table(lines), notes=notes(lines))


def table(lines: list[Series]) -> str:
    names = [name for name in MEASURED if any(name in line.found for line in lines)]
    head = ["| | " + " | ".join(RIVAL[name].title for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {line.title}, {line.unit} | " + " | ".join(_cell(line, name) for name in names) + " |" for line in lines
    ]
    return "\n".join([*head, *rows])


def _cell(line: Series, name: str) -> str:
    if name not in line.found:
        return ""
    text = shown(line.found[name])
    return f"**{text}**" if name in _best(line) else text


def _best(line: Series) -> set[str]:
    """Who has the best median, and who can't be told apart from that one: their ranges overlap."""
    measured = [name for name in MEASURED if name in line.found]
    known = {name: found for name in measured if (found := spread(line.found[name]))}
    if len(measured) < 2 or not known or line.unit == "starts":
        return set()
    best = (max if line.unit == "requests/s" else min)(known.values())
    return {name for name, found in known.items() if found.min <= best.max and found.max >= best.min}


def shown(all_found: list[Found]) -> str:
    found = spread(all_found)
    if found is None:
        return NEVER if all(each.value is None for each in all_found) else "seldom"
    around = f" ({_number(found.min)} to {_number(found.max)})" if found.min != found.max else ""
    return _number(found.median) + around


def _number(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def notes(lines: list[Series]) -> str:
    """One bullet for each line whose measurements say more than figures."""
    bullets = []
    for line in lines:
        said = [text for text in (_note(line, name) for name in line.found) if text]
        if said:
            bullets.append("\n".join([f"- {line.title}, {line.unit}", *(f"  - {text}" for text in said)]))
    return "\n".join([*bullets, *_ratios(lines)])


def _note(line: Series, name: str) -> str:
    all_found = line.found[name]
    said = list(dict.fromkeys(found.note for found in all_found if found.note))
    if name in (BARE, CLI):  # they have no column
        said.insert(0, shown(all_found))
    return f"{RIVAL[name].title}: {'; '.join(said)}" if said else ""


def _ratios(lines: list[Series]) -> list[str]:
    """Ours beside uvicorn's, run by run: the two of a pair were measured one right after the other."""
    bullets = []
    for line in lines:
        if line.row == "throughput" and {OURS, UVICORN_WORKERS} <= line.found.keys():
            pairs = zip(line.found[OURS], line.found[UVICORN_WORKERS], strict=False)
            ratios = [Found(ours.value / theirs.value) for ours, theirs in pairs if ours.value and theirs.value]
            if ratios:
                each = ", ".join(f"{ratio.value:.2f}" for ratio in ratios)
                bullets.append(f"- {line.title}, share of `uvicorn --workers`: {shown(ratios)}; run by run {each}")
    return bullets
