"""Write what is generated from the code: options, patches and verdicts in docs/, and the diagram in docs/design.md.

`python scripts/build_docs.py --check` writes nothing and ends with 1 if a file differs.
A text of an option without a Chinese translation is reported, and ends both with 1.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clone import import_from

ROOT = Path(__file__).resolve().parent.parent
import_from(ROOT)

import verdict_docs  # noqa: E402

from xboard_circus.core.worker_phases import diagram  # noqa: E402
from xboard_circus.options.reading import ini_text  # noqa: E402
from xboard_circus.options.reference import HEAD, OptionDoc, sections  # noqa: E402
from xboard_circus.supervisor.patches.patch import PatchKind, every_kind  # noqa: E402

DOCS, DOCS_ZH = ROOT / "docs" / "options.md", ROOT / "docs" / "options.zh-CN.md"
TRANSLATIONS = ROOT / "docs" / "options.zh.json"  # by the English text
PATCHES, DESIGN = ROOT / "docs" / "patches.md", ROOT / "docs" / "design.md"
VERDICTS = {ROOT / "docs" / "verdicts.md": "en", ROOT / "docs" / "verdicts.zh-CN.md": "zh"}
WRITTEN_BY = "Written by `scripts/build_docs.py` from the option classes in `xboard_circus/options/`; do not edit."
PATCHES_HEAD = """\
# What is replaced in Circus

Written by `scripts/build_docs.py` from `xboard_circus/supervisor/patches/`; do not edit.

Circus 0.19 is the last release, and is not maintained. These are all its methods and attributes that we replace. The
files in that folder are the only ones that name an inside of Circus; `tests/test_architecture.py` fails on a touch
elsewhere. Where a new Python breaks something, look here first. With a Circus that lacks one of them nothing is armed:
the backends run plainly, and `last_reason` names what is missing.
"""
ABOUT_PATCHES = {
    "boot": "Everything in circusd, before it binds anything",
    "circus_arbiter": "The arbiter",
    "circus_controller": "The controller and its commands",
    "circus_process": "Each process",
    "circus_stream": "The logs of watchers and of circusd",
    "circus_watcher": "Each armed watcher, and each plugin of ours",
}
PIPE = r"\|"  # in a cell, also within code
_VALUES = re.compile(r"\w+(, \w+)+")  # a unit that lists values, which are the same in each language


def reference(twins: str, translate: Callable[[str], str] = str) -> str:
    """Return docs/options.md or its twin, with the line of links to both, and each text as *translate* returns it."""
    parts = [f"# {translate('Options')}\n", f"{twins}\n", f"{translate(WRITTEN_BY)}\n", f"{translate(HEAD.strip())}\n"]
    for section in sections():
        parts += [f"## `{section.title}`\n", f"{translate(section.about.strip())}\n"]
        if section.title == "[watcher:NAME]":
            for family, options in section.families():
                parts += [f"### `{family}`\n", table(options, translate)]
        else:
            parts.append(table(section.options, translate))
    return "\n".join(parts)


def stale_translations(translations: Mapping[str, str]) -> list[str]:
    """Return a line for each text of docs/options.md without a translation, and each translation without a text."""
    texts: dict[str, str] = {}
    reference("", lambda text: texts.setdefault(text, text))
    shown = TRANSLATIONS.relative_to(ROOT)
    return [
        *(f"{shown} lacks a text; add its translation: {text}" for text in texts if text not in translations),
        *(f"{shown} translates a text that is gone; delete it: {text}" for text in translations if text not in texts),
    ]


def patches() -> str:
    """Return docs/patches.md."""
    files: dict[str, list[PatchKind[Any]]] = {}
    for kind in every_kind():
        files.setdefault(kind.file, []).append(kind)
    parts = [PATCHES_HEAD]
    for file, kinds in sorted(files.items()):
        rows = [(f"`{kind}`", kind.what, kind.without, kind.fact) for kind in kinds]
        head = ("replaced", "what ours does", "what breaks without it", "the fact that shows it")
        parts += [f"## {ABOUT_PATCHES[file]}\n", f"`{file}.py`\n", markdown([head, *rows])]
    return "\n".join(parts)


def marked(path: Path, name: str, block: str) -> str:
    """Return a page with *block* between the marks of that name."""
    marks = re.compile(rf"<!-- \[{name}\] -->.*?<!-- \[end of {name}\] -->", re.DOTALL)
    text = path.read_text(encoding="utf-8")
    return marks.sub(lambda _: f"<!-- [{name}] -->\n{block}<!-- [end of {name}] -->", text)


def table(options: Iterable[OptionDoc], translate: Callable[[str], str]) -> str:
    """Return a table with a row for each option."""
    rows = [tuple(map(translate, ("option", "default", "unit", "what it is, and when to change it")))]
    for option in options:
        default = translate("none") if option.default in (None, ()) else f"`{ini_text(option.default)}`"
        unit = option.unit if _VALUES.fullmatch(option.unit) else translate(option.unit)
        example = translate(" Example: {}.").format(f"`{option.name} = {option.example}`") if option.example else ""
        rows.append((f"`{option.name}`", default, unit, f"{translate(option.help)}{example}"))
    return markdown(rows)


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Return *rows*, the first of them the head, as a table."""
    head, *others = (f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |" for cells in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *others]) + "\n"


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them."""
    translations: dict[str, str] = json.loads(TRANSLATIONS.read_text(encoding="utf-8"))
    untranslated = stale_translations(translations)
    wanted = {
        DOCS: reference("English · [简体中文](options.zh-CN.md)"),
        DOCS_ZH: reference("[English](options.md) · 简体中文", lambda text: translations.get(text, text)),
        PATCHES: patches(),
        DESIGN: marked(DESIGN, "life", f"```mermaid\n{diagram()}\n```\n"),
    }
    for path, language in VERDICTS.items():
        wanted[path] = marked(path, "verdicts", f"\n{markdown(verdict_docs.table(language))}\n")
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        shown = path.relative_to(ROOT)
        if "--check" in arguments:
            print(f"{shown} is not up to date: run python scripts/build_docs.py", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {shown}")
    for line in untranslated:
        print(line, file=sys.stderr)
    return 1 if untranslated or (stale and "--check" in arguments) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
