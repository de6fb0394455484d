#!/usr/bin/env python3
"""Our figures beside the rivals', measured in one run on one machine: ``python3 scripts/bench.py --help``.

The rivals come from PyPI into ``.venv-bench`` of the checkout, where this script goes on (with --smoke in ``.venv``, if
it exists). Every process that it starts is ended again, by pid and start time, and no other. A failure of a rival in a
row is reported there, and the rest goes on.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from clone import import_from

import_from(Path(__file__).resolve().parent.parent)  # tests.real has the load client

from bench.rivals import MEASURED, OURS, enter_venv  # noqa: E402 - the path comes first
from bench.rows import FULL, SMOKE, YES_OR_NO, rows  # noqa: E402

ROW_NAMES = [row.name for row in rows(FULL)]
SMOKE_ROWS = ["start", "kills-2", "reload-4", "crash-loop", "memory", "burst"]  # one of each kind


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help="of each measurement (default 3)")
    parser.add_argument("--rows", nargs="*", choices=ROW_NAMES, metavar="ROW", help=f"{', '.join(ROW_NAMES)}; or none")
    parser.add_argument("--rivals", nargs="+", choices=MEASURED, metavar="RIVAL", help=", ".join(MEASURED))
    parser.add_argument("--smoke", action="store_true", help="small, once, few rows, and ourselves alone: for CI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="earlier JSON: keep its other rows, and say so")
    parser.add_argument("--note", default="", help="what a reader must know, such as what else was running")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write docs/benchmark.md, or such, there")
    parser.add_argument("--readme", action="store_true", help="write the table of both READMEs")
    parser.add_argument("--table", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    options.size = SMOKE if options.smoke else FULL
    if options.rivals:
        options.size = options.size._replace(rivals=options.rivals)
    usual = (SMOKE_ROWS, [OURS], 1) if options.smoke else (ROW_NAMES, MEASURED, 3)
    for name, value in zip(("rows", "rivals", "runs"), usual, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> int:
    options = parse()
    # Ours runs from the checkout: each of its processes would compile all that has changed since it was last compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    enter_venv(is_short=options.smoke and options.rivals == [OURS])
    from bench import report
    from bench.measuring import Series, measure_all

    measured = [row for row in rows(options.size) if row.name in options.rows]
    load_before = os.getloadavg()[0]
    lines = measure_all(measured, options.rivals, options.runs)
    command = shlex.join(["scripts/bench.py", *sys.argv[1:]])
    chosen = [row.name for row in measured]
    session = report.session(chosen, command=command, runs=options.runs, note=options.note, load_before=load_before)
    sessions, shown = [session], lines
    if options.keep:
        kept = json.loads(options.keep.read_text())
        sessions = [*kept["sessions"], *([session] if chosen else [])]
        others = [Series.from_json(line) for line in kept["lines"] if line["row"] in {*ROW_NAMES} - {*chosen}]
        shown = sorted([*others, *lines], key=lambda line: ROW_NAMES.index(line.row))
    if options.json:
        written = {"sessions": sessions, "lines": [line.as_json() for line in shown]}
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    if options.page:
        options.page.write_text(report.page(shown, sessions))
    if options.readme:
        for path, words in report.READMES.items():
            path.write_text(report.readme(path.read_text(), shown, words))
    if options.table or not options.json:
        print(report.table(shown), report.notes(shown), sep="\n\n")
    # A rival may fail in any row. Without a figure of ours, something is broken, and CI should fail.
    ours = {line.title: line.found[OURS] for line in lines if OURS in line.found and line.unit != YES_OR_NO}
    silent = [title for title, found in ours.items() if all(each.value is None for each in found)]
    for title in silent:
        print(f"xboard-circus gives no figure: {title}", file=sys.stderr)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
