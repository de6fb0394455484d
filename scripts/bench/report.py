"""The figures as JSON and as a Markdown page."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from bench.result import Found, Line, spread
from bench.rivals import BARE, CLI, MEASURED, OURS, RIVAL, UVICORN_WORKERS, versions

NEVER = "never"
BEFORE = (
    "The same plain FastAPI app, the same uvicorn, 2 workers unless a line says otherwise, one machine, one after the "
    "other in the same run. Median (minimum to maximum). *never* is not within 30 s, and 20 s where a supervisor is "
    "started anew. The settings of each are in `scripts/bench/settings/`. uvicorn's one worker (`--workers 1`) has no "
    "supervisor. The load is an open loop of 300 requests/s, half on new connections."
)


def as_json(lines: list[Line], *, command: str, runs: int) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
        "command": command,
        "runs": runs,
        "machine": machine(),
        "versions": versions(),
        "lines": [line.as_json() for line in lines],
    }


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(part, 2) for part in os.getloadavg()],
    }


def page(lines: list[Line], about: dict[str, Any]) -> str:
    """The page: what was measured, with what, the table, and what happened where a figure alone does not tell."""
    shown = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    told = about["machine"]
    where = f"{told['processor']}, {told['cores']} cores, Linux {told['kernel']}, Python {told['python']}"
    load = f"load average at the end {told['load_average'][0]}"
    parts = [
        "# Beside the rivals",
        f"Written by `{about['command']}` on {about['date']}, {about['runs']} runs; do not edit.\n{BEFORE}",
        f"{where}; {load}.\n{shown}.",
        table(lines),
        "## What each figure is made of",
        notes(lines),
    ]
    return "\n\n".join(parts) + "\n"


def table(lines: list[Line]) -> str:
    names = [name for name in MEASURED if any(name in line.found for line in lines)]
    head = ["| | " + " | ".join(RIVAL[name].title for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {line.title}, {line.unit} | " + " | ".join(_cell(line, name) for name in names) + " |" for line in lines
    ]
    return "\n".join([*head, *rows])


def _cell(line: Line, name: str) -> str:
    if name not in line.found:
        return ""
    text = shown(line.found[name])
    return f"**{text}**" if name in _best(line) else text


def _best(line: Line) -> set[str]:
    """Who has the best median, where there is anybody to be better than."""
    medians = {name: spread(line.found[name])["median"] for name in MEASURED if name in line.found}
    known = {name: median for name, median in medians.items() if median is not None}
    if len(medians) < 2 or not known:
        return set()
    best = max(known.values()) if line.unit == "requests/s" else min(known.values())
    return {name for name, median in known.items() if median == best} if line.unit != "starts" else set()


def shown(all_found: list[Found]) -> str:
    found = spread(all_found)
    median, low, high = found["median"], found["min"], found["max"]
    if median is None or low is None or high is None:
        return NEVER if all(each.value is None for each in all_found) else "seldom"
    spread_text = f" ({_number(low)} to {_number(high)})" if low != high else ""
    return _number(median) + spread_text


def _number(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def notes(lines: list[Line]) -> str:
    """One bullet for each line whose measurements say more than figures."""
    bullets = []
    for line in lines:
        said = [text for text in (_note(line, name) for name in line.found) if text]
        if said:
            bullets.append("\n".join([f"- {line.title}, {line.unit}", *(f"  - {text}" for text in said)]))
    return "\n".join([*bullets, *_ratios(lines)])


def _note(line: Line, name: str) -> str:
    all_found = line.found[name]
    said = list(dict.fromkeys(found.note for found in all_found if found.note))
    if name in (BARE, CLI):  # they have no column
        said.insert(0, shown(all_found))
    return f"{RIVAL[name].title}: {'; '.join(said)}" if said else ""


def _ratios(lines: list[Line]) -> list[str]:
    found = []
    for line in lines:
        if line.row == "throughput" and {OURS, UVICORN_WORKERS} <= line.found.keys():
            ours, theirs = (spread(line.found[name])["median"] for name in (OURS, UVICORN_WORKERS))
            if ours and theirs:
                found.append(f"- {line.title}: xboard-circus has {ours / theirs:.2f} of `uvicorn --workers`")
    return found
