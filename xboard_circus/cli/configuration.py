"""The commands check and init: the ini file before circusd reads it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from xboard_circus import init as initial
from xboard_circus.checks import check as checking
from xboard_circus.checks.findings import Level, Report
from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.screen import say

STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", Level.OK: "green"}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print JSON for programs.")
@click.option("--deep", is_flag=True, help="Start a throw-away worker of each watcher too, away from the public port.")
@ini_option
@click.pass_obj
def check(asked: Asked, as_data: bool, deep: bool) -> int:
    """Check the ini file: options, hooks, plugins, ports. Ends with 1 when there is an error."""
    report = checking.check(asked.config_file, deep=deep)
    if as_data:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        show(report, down_to=Level.OK)
    return DONE if report.passed else TOLD


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--app", required=True, metavar="MODULE:APP", help="The ASGI app that the workers serve.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Public port.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of workers.")
@click.option("--live-path", metavar="PATH", help="Path that answers 2xx while a worker is fit to live.")
@click.option("--ready-path", metavar="PATH", help="Path that answers 2xx when a worker can serve.")
@click.option("--force", is_flag=True, help="Write over a circus.ini that is there.")
def init(
    folder: Path, app: str, port: int, workers: int, live_path: str | None, ready_path: str | None, force: bool
) -> int:
    """Write a circus.ini into DIR (default: the current folder) for an app of your own."""
    written = initial.write_config(
        folder, app=app, port=port, workers=workers, live_path=live_path, ready_path=ready_path, force=force
    )
    say(f"wrote {written}; next: `xboard-circus -c {written} start`")
    return DONE


def show(report: Report, *, down_to: Level = Level.WARNING) -> None:
    """Print what a check found, from the worst down to that level."""
    wanted = list(Level)[: list(Level).index(down_to) + 1]
    for finding in report.findings:
        if finding.level in wanted:
            say(f"{finding.level.value}: {finding}", STYLES[finding.level])
