"""Define the commands check and options, for the ini file before a start."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from xboard_circus import preflight
from xboard_circus.checks import check as checking
from xboard_circus.checks.findings import Finding, Level, Report, report
from xboard_circus.cli.context import for_ini_file, json_option
from xboard_circus.cli.error_boundary import DONE, FAILED
from xboard_circus.cli.screen import interrupted, show
from xboard_circus.config import is_armed, load
from xboard_circus.options.reading import ini_text, suggestion
from xboard_circus.options.reference import HEAD, OptionDoc, chosen, sections

WIDTH = 100


@click.command()
@json_option
@click.option("--deep", is_flag=True, help="Also start a test worker of each watcher, on a port of its own.")
@for_ini_file
def check(config_file: Path, as_data: bool, deep: bool) -> int:
    """Check the ini file: options, hooks, plugins, ports. Exits with 1 on an error."""
    with interrupted("not all was checked, and nothing was changed"):
        found = checking.check(config_file)
        if deep and found.passed:
            found = report([*found.findings, *_trials(config_file)])
    return print_report(found, as_data)


@click.command()
@click.argument("name", required=False)
def options(name: str | None) -> None:
    """Print every option of the ini file with its default, or only those of NAME.

    NAME is an option such as health.period, a family such as health, or a section: watcher, plugin or alert.
    """
    if not (found := chosen(name, sections()) if name else list(sections())):
        known = {option.name for section in sections() for option in section.options}
        hint = suggestion(str(name), known, alike=0.6, otherwise="`xboard-circus options` prints all")
        raise click.BadParameter(f"{name}: no such option, family or section; {hint}", param_hint="NAME")
    parts = ["\n".join([f"{each.title}\n", each.about, *map(_option, each.options)]) for each in found]
    click.echo("\n".join(parts if name else [HEAD, *parts]), nl=False)


def print_report(found: Report, as_data: bool) -> int:
    """Print the report of a command and return its exit code."""
    if as_data:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        show(found, down_to=Level.OK)
    return DONE if found.passed else FAILED


def _trials(config_file: Path) -> Iterator[Finding]:
    """Start a throw-away worker of each armed watcher; yield its result."""
    config = load(config_file)
    for watcher in filter(is_armed, config.watchers):
        outcome = preflight.preflight(config, watcher)
        level = Level.ERROR if outcome.failed else Level.OK
        yield Finding(level, "", outcome.with_log(), "", watcher.section, config.shown)
        if not outcome.failed and (why_not := preflight.why_not_forked(config, watcher)):
            level = Level.WARNING if why_not.hint else Level.OK
            yield Finding(level, "", why_not.why, why_not.hint, watcher.section, config.shown)


def _option(option: OptionDoc) -> str:
    default = "none" if option.default in (None, ()) else ini_text(option.default)
    lines = textwrap.wrap(option.help, WIDTH, initial_indent="    ", subsequent_indent="    ")
    example = [f"    Example: {option.name} = {option.example}"] if option.example else []
    unit = f" ({option.unit})" if option.unit else ""
    return "\n".join([f"{option.name}{unit}, default: {default}", *lines, *example, ""])
