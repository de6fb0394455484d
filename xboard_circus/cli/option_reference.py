"""The command options: print the reference of the ini file's options."""

from __future__ import annotations

import textwrap

import click

from xboard_circus.options.reading import OptionDoc, did_you_mean, ini_text
from xboard_circus.options.reference import HEAD, Section, chosen, sections

WIDTH = 100


@click.command()
@click.argument("name", required=False)
def options(name: str | None) -> None:
    """Print every option of the ini file with its default, or only those of NAME.

    NAME is an option such as health.period, a family such as health, or a section: watcher, plugin or alert.
    """
    found = chosen(name, sections()) if name else list(sections())
    if not found:
        known = {option.name for section in sections() for option in section.options}
        near = did_you_mean(str(name), known, alike=0.6)
        hint = f"did you mean {near}?" if near else "`xboard-circus options` prints all"
        raise click.BadParameter(f"{name}: no such option, family or section; {hint}", param_hint="NAME")
    parts = [*([] if name else [HEAD]), *map(_section, found)]
    click.echo("\n".join(parts), nl=False)


def _section(section: Section) -> str:
    return "\n".join([f"{section.title}\n", section.about, *map(_option, section.options)])


def _option(option: OptionDoc) -> str:
    default = "none" if option.default in (None, ()) else ini_text(option.default)
    lines = textwrap.wrap(option.help, WIDTH, initial_indent="    ", subsequent_indent="    ")
    example = [f"    Example: {option.name} = {option.example}"] if option.example else []
    unit = f" ({option.unit})" if option.unit else ""
    return "\n".join([f"{option.name}{unit}, default: {default}", *lines, *example, ""])
