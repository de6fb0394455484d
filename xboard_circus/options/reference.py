"""Build the reference of all options from their records: docs/options.md and `xboard-circus options`."""

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby, pairwise
from typing import NamedTuple

from xboard_circus.options.alert_fields import AlertOptions
from xboard_circus.options.fields import PluginOptions, WatcherOptions
from xboard_circus.options.reading import named_fields

HEAD = """\
Times are in seconds. Of two lines with the same option Circus keeps the first. It knows comments only at the very
start of a line, and ignores unknown options silently. `xboard-circus check` reports both, and refuses a wrong value;
under bare `circusd` the default applies instead, and the log and `last_reason` report it.

A change takes effect with `circusctl reloadconfig`, without a restart of the workers.
"""
WATCHER_HEAD = """\
In a watcher that is armed by `hooks.before_start = xboard_circus.plugins.guard.arm`.
"""
PLUGIN_HEAD = """\
In the section of a plugin of ours, such as `[plugin:xboard]`. A value may have no blanks: Circus pastes it into the
plugin's command line. Circus's own options, such as `working_dir` or `priority`, may stand beside them.
"""
ALERT_HEAD = """\
One section for each destination. Circus ignores them; `[plugin:xboard]` reads them, and again when the file has
changed. Addresses with a token in them, passwords and signing secrets come from the environment of circusd, or from a
file of mode 0600. `xboard-circus alerts test` sends a test alert to each.
"""


class OptionDoc(NamedTuple):
    """Documentation of one option."""

    name: str
    default: object
    unit: str
    help: str
    example: str


class Section(NamedTuple):
    """One kind of section of the ini file, such as ``[watcher:NAME]``."""

    title: str
    about: str
    options: tuple[OptionDoc, ...]

    def families(self) -> Iterator[tuple[str, list[OptionDoc]]]:
        """Yield the options by the word before their dot, in the documented order."""
        yield from ((family, list(options)) for family, options in groupby(self.options, key=family_of))


def documented(kind: type[WatcherOptions] | type[PluginOptions] | type[AlertOptions]) -> list[OptionDoc]:
    """Return every option of a section in the documented order."""
    return [
        OptionDoc(name, getattr(group, field), option.kind.unit, help_texts(group.__class__)[field], option.example)
        for name, group, field, option in named_fields(kind())
    ]


@cache
def help_texts(kind: type) -> dict[str, str]:
    """Return the text below each field of a class, from the source, because Python itself keeps none."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in pairwise(tree.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = " ".join(words.split())
    return found


def family_of(option: OptionDoc) -> str:
    """Return the word before the dot of the option's name."""
    return option.name.partition(".")[0]


def sections() -> tuple[Section, ...]:
    """Return all sections with options of ours."""
    return (
        Section("[watcher:NAME]", WATCHER_HEAD, tuple(documented(WatcherOptions))),
        Section("[plugin:NAME]", PLUGIN_HEAD, tuple(documented(PluginOptions))),
        Section("[alert:NAME]", ALERT_HEAD, tuple(documented(AlertOptions))),
    )


def chosen(name: str, within: Iterable[Section]) -> list[Section]:
    """Return the sections with *name*: an option, a family such as "health", or a section such as "watcher".

    >>> [(each.title, len(each.options)) for each in chosen("health.period", sections())]
    [('[watcher:NAME]', 1)]
    """
    found = []
    for section in within:
        if name.strip("[]").partition(":")[0] == section.title.strip("[]").partition(":")[0]:
            found.append(section)
        elif options := tuple(each for each in section.options if name in (each.name, family_of(each))):
            found.append(Section(section.title, section.about, options))
    return found
