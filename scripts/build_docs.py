"""Write what is generated from the option classes: docs/options.md, and the options in circus.ini.

`python scripts/build_docs.py --check` writes nothing and ends with 1 where a file is not as it would be written.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from xboard_circus.options.alert_fields import AlertOptions  # noqa: E402
from xboard_circus.options.reading import (  # noqa: E402
    OptionDoc,
    PluginOptions,
    WatcherOptions,
    documented,
    ini_text,
)

DOCS = ROOT / "docs" / "options.md"
INI = ROOT / "circus.ini"
WIDTH = 118

HEAD = """\
# Options

Written by `scripts/build_docs.py` from the option classes in `xboard_circus/options/`; do not edit.

Times are in seconds. Circus keeps the first of two lines with the same option, knows comments only at the very start
of a line, and says nothing about an option that it does not know. `xboard-circus check` does, and refuses a wrong
value; under bare `circusd` the default holds in its place, and the log and `last_reason` say so.

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
As many sections as there are to be told; Circus passes them over, `[plugin:xboard]` reads them, and reads them again
when the file has changed. Addresses with a token in them, passwords and signing secrets come from the environment of
circusd or from a file that nobody else may read. `xboard-circus alerts test` sends one alert to each.
"""


def reference() -> str:
    """Return docs/options.md."""
    parts = [HEAD, "## `[watcher:NAME]`\n", WATCHER_HEAD]
    families: dict[str, list[OptionDoc]] = {}
    for option in documented(WatcherOptions):
        families.setdefault(option.name.partition(".")[0], []).append(option)
    for family, options in families.items():
        parts += [f"### `{family}`\n", table(options)]
    parts += ["## `[plugin:NAME]`\n", PLUGIN_HEAD, table(documented(PluginOptions))]
    parts += ["## `[alert:NAME]`\n", ALERT_HEAD, table(documented(AlertOptions))]
    return "\n".join(parts)


def table(options: Iterable[OptionDoc]) -> str:
    """Return a table with a row for each option."""
    rows = ["| option | default | unit | what it is, and when to change it |", "|---|---|---|---|"]
    for option in options:
        default = "none" if option.default in (None, ()) else f"`{ini_text(option.default)}`"
        example = f" Example: `{option.name} = {option.example}`." if option.example else ""
        rows.append(f"| `{option.name}` | {default} | {option.unit} | {option.help}{example} |")
    return "\n".join(rows) + "\n"


def commented(options: Iterable[OptionDoc]) -> str:
    """Return the options as commented lines of an ini file, each under its explanation."""
    lines = []
    for option in options:
        lines += [f"# {line}" for line in textwrap.wrap(option.help, WIDTH)]
        lines.append(f"# {option.written}")
    return "\n".join(lines)


def ini(text: str) -> str:
    """Return circus.ini with the options between their marks; what the section sets itself is left out."""
    # The marks stand in the text for good, so that it can be written again.
    of_watchers = documented(WatcherOptions)
    blocks = {
        "options": [option for option in of_watchers if not option.name.startswith("dashboard.")],
        "dashboard options": [option for option in of_watchers if option.name.startswith("dashboard.")],
        "plugin options": documented(PluginOptions),
    }
    for name, options in blocks.items():
        unset = [option for option in options if not re.search(rf"^{re.escape(option.name)} *=", text, re.MULTILINE)]
        marks = re.compile(rf"^# \[{name}\]$.*?^# \[end of {name}\]$", re.MULTILINE | re.DOTALL)
        block = f"# [{name}]\n{commented(unset)}\n# [end of {name}]"
        text = marks.sub(block.replace("\\", "\\\\"), text)
    return text


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them."""
    wanted = {DOCS: reference(), INI: ini(INI.read_text(encoding="utf-8"))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is not up to date: run python scripts/build_docs.py", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
