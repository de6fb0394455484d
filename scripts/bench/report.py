"""Report the figures as JSON and as a Markdown page."""

import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from jinja2 import Template

from bench.measuring import Found, Series, spread
from bench.rivals import BARE, CLI, MEASURED, OURS, RIVAL, UVICORN_WORKERS, versions
from bench.running import CHECKOUT, Never

PAGE = Path(__file__).with_name("page.md.j2")
# What a user asks: how long a start, a crash that comes back and a hang last, what a reload loses, what it all costs.
IN_README = (
    "command until 8 workers are ready, s",
    "one of two workers killed: until two are ready, s",
    "the only worker hangs: until it is replaced, s",
    "4 workers reloaded under load: lost, new connections, requests",
    "all processes, plain app: PSS with 4 workers, MiB",
)
CHINESE = json.loads(Path(__file__).with_name("readme.zh-CN.json").read_text())
READMES = {CHECKOUT / "README.md": {}, CHECKOUT / "README.zh-CN.md": CHINESE}


def session(rows: list[str], *, command: str, runs: int, note: str, load_before: float) -> dict[str, Any]:
    """Return what a reader needs of one call of the script to judge its figures."""
    load = [round(load_before, 2), round(os.getloadavg()[0], 2)]
    found = {"date": time.strftime("%Y-%m-%d %H:%M %z"), "command": command, "runs": runs, "rows": rows, "note": note}
    return {**found, "load_average": load, "machine": machine(), "versions": versions()}


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def page(lines: list[Series], sessions: list[dict[str, Any]]) -> str:
    """Return the page: what was measured, with what, the table, and what happened where a figure alone does not show
    it."""
    template = Template(PAGE.read_text(), trim_blocks=True, keep_trailing_newline=True)
    return template.render(sessions=sessions, table=table(lines), notes=notes(lines))


def table(lines: list[Series]) -> str:
    names = [name for name in MEASURED if any(name in line.found for line in lines)]
    rows = [["", *(RIVAL[name].title for name in names), "best"], ["---"] * (len(names) + 2)]
    for line in lines:
        best = ", ".join(RIVAL[name].title for name in names if name in _best(line))
        rows.append([f"{line.title}, {line.unit}", *(_cell(line, name) for name in names), best])
    return "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in rows)


def readme(text: str, lines: list[Series], words: dict[str, str]) -> str:
    """Return the README with these lines in place of its table, which is one of the page's in other *words*."""
    by_title = {f"{line.title}, {line.unit}": line for line in lines}
    if missing := [title for title in IN_README if title not in by_title]:
        raise SystemExit(f"The READMEs show lines that were not measured: {'; '.join(missing)}")
    chosen = table([by_title[title] for title in IN_README])
    for english, other in words.items():
        chosen = chosen.replace(english, other)
    return re.sub(r"^\| \| xboard-circus .*?(?=\n\n)", lambda _: chosen, text, flags=re.MULTILINE | re.DOTALL)


def _cell(line: Series, name: str) -> str:
    if name not in line.found:
        return ""
    text = shown(line.found[name])
    return f"**{text}**" if name in _best(line) else text


def _best(line: Series) -> set[str]:
    """Return the names with the best median, and those that cannot be distinguished from it: their ranges overlap."""
    measured = [name for name in MEASURED if name in line.found]
    known = {name: found for name in measured if (found := spread(line.found[name]))}
    if len(measured) < 2 or not known or line.unit == "starts":
        return set()
    best = (max if line.unit == "requests/s" else min)(known.values())
    return {name for name, found in known.items() if found.min <= best.max and found.max >= best.min}


def shown(all_found: list[Found]) -> str:
    found = spread(all_found)
    if found is None:
        return (all_found[0].word or Never.word) if all(each.value is None for each in all_found) else "seldom"
    around = f" ({_number(found.min)} to {_number(found.max)})" if found.min != found.max else ""
    return _number(found.median) + around


def _number(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def notes(lines: list[Series]) -> str:
    """Return one bullet for each line with measurements that mean more than figures."""
    bullets = []
    for line in lines:
        texts = [text for text in (_note(line, name) for name in line.found) if text]
        if texts:
            bullets.append("\n".join([f"- {line.title}, {line.unit}", *(f"  - {text}" for text in texts)]))
    return "\n".join([*bullets, *_ratios(lines)])


def _note(line: Series, name: str) -> str:
    all_found = line.found[name]
    texts = list(dict.fromkeys(found.note for found in all_found if found.note))
    if name in (BARE, CLI):  # they have no column
        texts.insert(0, shown(all_found))
    return f"{RIVAL[name].title}: {'; '.join(texts)}" if texts else ""


def _ratios(lines: list[Series]) -> list[str]:
    """Return ours beside uvicorn's, run by run: the two of a pair were measured one right after the other."""
    bullets = []
    for line in lines:
        if line.row == "throughput" and {OURS, UVICORN_WORKERS} <= line.found.keys():
            pairs = zip(line.found[OURS], line.found[UVICORN_WORKERS], strict=False)
            ratios = [Found(ours.value / theirs.value) for ours, theirs in pairs if ours.value and theirs.value]
            if ratios:
                each = ", ".join(f"{ratio.value:.2f}" for ratio in ratios)
                bullets.append(f"- {line.title}, share of `uvicorn --workers`: {shown(ratios)}; run by run {each}")
    return bullets
