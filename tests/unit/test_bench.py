"""What the benchmark writes of its figures: the table, who is best in each line of it, and that of the READMEs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT / "scripts"))

from bench import report  # type: ignore[import-not-found]  # noqa: E402 - the path comes first
from bench.measuring import Found, Series  # type: ignore[import-not-found]  # noqa: E402
from bench.rows import FULL, SMOKE, rows  # type: ignore[import-not-found]  # noqa: E402


def line(title: str, unit: str, **found: Found) -> Series:
    return Series("row", title, unit, {name.replace("ours", "xboard-circus"): [one] for name, one in found.items()})


def test_each_line_says_who_is_best_and_in_a_word_who_has_no_figure() -> None:
    cannot = Found(None, "why", "cannot")

    text = report.table([line("a start", "s", ours=Found(1.5), granian=Found(0.5), pm2=cannot, circus=Found(None))])

    assert text.splitlines() == [
        "| | xboard-circus | granian | pm2 + uvicorn --workers | stock Circus | best |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a start, s | 1.50 | **0.50** | cannot | never | granian |",
    ]


def test_the_table_of_a_readme_is_replaced_and_nothing_else() -> None:
    lines = [line(*title.rsplit(", ", 1), ours=Found(2), circus=Found(None)) for title in report.IN_README]
    old = "# Title\n\n| | xboard-circus | a |\n|---|---|---|\n| x | 1 | 2 |\n\nmore\n"

    text = report.readme(old, lines, report.CHINESE)

    assert text.startswith("# Title\n\n| | xboard-circus | 原版 Circus | 最好 |\n| --- | --- | --- | --- |\n")
    assert text.endswith(" | **2** | 永不 | xboard-circus |\n\nmore\n")
    assert all(report.CHINESE[title] in text for title in report.IN_README)


def test_the_readme_shows_lines_that_a_full_run_measures() -> None:
    measured = {f"{title}, {unit}" for row in rows(FULL) for title, unit in row.lines}

    assert set(report.IN_README) <= measured


def test_a_smoke_run_has_the_same_rows() -> None:
    assert [row.name for row in rows(SMOKE)] == [row.name for row in rows(FULL)]


def test_it_begins_with_a_python_that_has_no_packages() -> None:
    """Given a Python without a library, as a newcomer's, then it begins, and installs what it needs itself."""
    bench = Path(__file__).parents[2] / "scripts" / "bench.py"
    command = [sys.executable, "-S", str(bench), "--help"]

    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
