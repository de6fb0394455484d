"""The commands check, doctor and init: the ini file and the host before circusd is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from xboard_circus import init as initial
from xboard_circus import preflight
from xboard_circus.checks import check as checking
from xboard_circus.checks.findings import Finding, Level, Report, report
from xboard_circus.cli.context import IniChoice, for_ini, json_option
from xboard_circus.cli.error_boundary import DONE, FAILED
from xboard_circus.cli.screen import say
from xboard_circus.config import is_armed, load
from xboard_circus.doctor import examine

STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", Level.UNKNOWN: "dim", Level.OK: "green"}


@click.command()
@json_option
@click.option("--deep", is_flag=True, help="Also start a test worker of each watcher, on a port of its own.")
@for_ini
def check(choice: IniChoice, as_data: bool, deep: bool) -> int:
    """Check the ini file: options, hooks, plugins, ports. Exits with 1 on an error."""
    found = checking.check(choice.config_file)
    if deep and found.passed:
        found = report([*found.findings, *_trials(choice.config_file)])
    return _print(found, as_data)


@click.command()
@json_option
@for_ini
def doctor(choice: IniChoice, as_data: bool) -> int:
    """Examine the host and the backend, and print what is wrong with its cure. Changes nothing.

    Exits with 1 on an error; warnings do not count.
    """
    return _print(report(examine(choice.config_file)), as_data)


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--app", required=True, metavar="MODULE:APP", help="The ASGI app that the workers serve.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Public port.")
@click.option("--page-port", type=click.IntRange(1, 65535), help="Port of the dashboard.  [default: 8080]")
@click.option(
    "--endpoint-port",
    type=click.IntRange(1, 65534),
    default=5555,
    show_default=True,
    help="Port for commands to circusd; it publishes events on the next one.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of workers.")
@click.option("--live-path", metavar="PATH", help="Path that answers 2xx while a worker works.")
@click.option("--ready-path", metavar="PATH", help="Path that answers 2xx when a worker is ready.")
@click.option("--force", is_flag=True, help="Overwrite an existing circus.ini.")
def init(folder: Path, force: bool, **given: Any) -> None:
    """Write a circus.ini for your own app into DIR (default: the current folder)."""
    written = initial.write_config(folder, initial.NewBackend(**given), force=force)
    say(f"wrote {written}; next: `xboard-circus -c {written} start`")


def show(found: Report, *, down_to: Level = Level.WARNING) -> None:
    """Print the findings, from the worst down to that level."""
    wanted = list(Level)[: list(Level).index(down_to) + 1]
    for finding in found.findings:
        if finding.level in wanted:
            say(f"{finding.level.value}: {finding}", STYLES[finding.level])


def _print(found: Report, as_data: bool) -> int:
    """Print the report of a command and return its exit code."""
    if as_data:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        show(found, down_to=Level.OK)
    return DONE if found.passed else FAILED


def _trials(config_file: Path) -> Iterator[Finding]:
    """Start a throw-away worker of each armed watcher; yield how it fared."""
    config = load(config_file)
    for watcher in filter(is_armed, config.watchers):
        outcome = preflight.preflight(config, watcher)
        level = Level.ERROR if outcome.verdict is preflight.TrialVerdict.FAILED else Level.OK
        yield Finding(level, "", outcome.with_log(), "", watcher.section, config.shown)
