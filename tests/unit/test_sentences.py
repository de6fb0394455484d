"""Every sentence that reaches a reader is of the catalogue, and the catalogue is whole in every language."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import xboard_circus
from xboard_circus.core.sentences import FAMILIES, Say, Template
from xboard_circus.dashboard import translations
from xboard_circus.dashboard.translations import SPOKEN

PACKAGE = Path(xboard_circus.__file__).resolve().parent
PLUGINS = PACKAGE.parent / "plugins"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PLUGINS.glob("*.py")])
KINDS: dict[str, type[Template]] = {kind.__name__: kind for kind in SPOKEN}
OTHERS = [language for language in translations.LANGUAGES if language != "en"]
FIELD = re.compile(r"\{(\w+)\}")
LAUNCH = PACKAGE / "launch.py"

# Where reasons and answers are made, and how each hands them on.
SPEAKING = sorted(
    [
        *(PACKAGE / "core").glob("*.py"),
        *(PACKAGE / "supervisor").glob("*.py"),
        *(PACKAGE / "dashboard").glob("*.py"),
        *(
            PLUGINS / name
            for name in ("port_guard.py", "_limited.py", "_questions.py", "_sightings.py", "http_health.py")
        ),
        PACKAGE / "circus_client.py",
        PACKAGE / "host" / "oom.py",
        PACKAGE / "ledger" / "explain.py",
        PACKAGE / "logs" / "files.py",
        PACKAGE / "probe.py",
        PACKAGE / "worker" / "app_calls.py",
    ]
)
# Told to who starts the page, on a terminal: its settings, tokens and tunnel; and what an ini file's options must be.
OF_THE_TERMINAL = {"serving.py", "settings.py", "tokens.py", "tunnel.py", "__main__.py"}
HANDED_TO = {
    "tell",
    "publish",
    "MessageError",
    "Refused",
    "HTTPException",
    "refusal",
    "Event",
    "Replace",
    "Verdict",
    "News",
    "_Silence",
    "_Unclear",
    "_end",
    "CircusdGone",
    "XboardError",
    "Story",
    "LogFile",
    "UrlAnswer",
}
REASONS = {"reason", "our_reason", "failure", "why", "told", "error", "_last_error"}


def fields(template: str) -> set[str]:
    return set(FIELD.findall(template))


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_is_in_every_language_with_the_same_fields(language: str) -> None:
    path = Path(translations.__file__).with_name(f"sentences.{language}.json")
    translated = json.loads(path.read_text(encoding="utf-8"))

    assert {kind: {name: fields(words) for name, words in each.items()} for kind, each in translated.items()} == {
        kind: {each.name: fields(each.value) for each in members} for kind, members in KINDS.items()
    }
    assert translations.sentences(language)["sentences"][0] == (
        "Say",
        "CANNOT_RUN",
        Say.CANNOT_RUN.value,
        translated["Say"]["CANNOT_RUN"],
    )


def test_a_page_in_english_takes_nothing_apart() -> None:
    assert translations.sentences("en") == {"sentences": []}


def test_a_family_that_a_field_names_has_members() -> None:
    names = [each.name for kind in SPOKEN for each in kind]

    assert [each for each in FAMILIES if not any(name.startswith(f"{each.upper()}_") for name in names)] == []


def test_every_sentence_is_said_somewhere() -> None:
    said = {(kind, name) for path in SOURCES for kind, name, _ in uses(tree_of(path))}
    quoted = {"STATE_", "EVENT_", "ROLE_", "CIRCUS_", "NO_SUCH_", "NO_RIGHT_"}

    unsaid = [
        (kind, each.name)
        for kind, members in KINDS.items()
        for each in members
        if (kind, each.name) not in said and not (kind == "Say" and each.name.startswith(tuple(quoted)))
    ]

    assert unsaid == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_sentence_is_given_all_its_fields(path: Path) -> None:
    """A KeyError in a hook would be one too many; two that share a call share their fields."""
    missing = [
        f"{kind}.{name} misses {fields(KINDS[kind][name].value) - given}"
        for kind, name, given in uses(tree_of(path))
        if given is not None and fields(KINDS[kind][name].value) - given
    ]

    assert missing == []


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_no_reason_is_made_beside_the_catalogue(path: Path) -> None:
    if path.name in OF_THE_TERMINAL:
        return
    assert [f"{path.name}:{line}: {words}" for line, words in made_here(tree_of(path))] == []


def test_the_launcher_s_own_sentences_are_those_of_the_catalogue() -> None:
    """It imports nothing of the package, so it writes them out."""
    own = {
        shape(argument)
        for node in ast.walk(tree_of(LAUNCH))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LaunchError"
        for argument in node.args[1:]
        if getattr(node.args[0], "id", "") not in ("USAGE", "CIRCUSD_GONE")
    }
    known = {FIELD.sub("{}", each.value) for each in Say}

    # "...{where}" is the end of one of two, and NAME=VALUE two fields of one.
    assert {each.replace("{}={}", "{}").replace("program not found: {}{}", "program not found: {}") for each in own} - (
        known
    ) == set()


def test_a_value_is_not_taken_for_a_field() -> None:
    assert Say.CANNOT_RUN(why="{why} {0} {") == "cannot be run: {why} {0} {"


# --- how sources are read ---


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def uses(tree: ast.Module) -> Iterator[tuple[str, str, set[str] | None]]:
    """Yield each sentence that is named, with the fields that it is given where it is called at once."""
    called: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {each.arg for each in node.keywords if each.arg is not None}
            for named in (node.func.body, node.func.orelse) if isinstance(node.func, ast.IfExp) else (node.func,):
                called[id(named)] = given
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in KINDS:
            yield node.value.id, node.attr, called.get(id(node))


def made_here(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the sentences that are written out where a reason is handed on or kept."""
    for node in ast.walk(tree):
        handed: list[ast.expr] = []
        if isinstance(node, ast.Call) and (name(node.func) in HANDED_TO):
            handed = [*node.args, *(each.value for each in node.keywords if each.arg in REASONS)]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(name(target) in REASONS for target in targets) and node.value is not None:
                handed = [node.value]
        for each in handed:
            yield from written(each)


def written(node: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.IfExp):
        yield from written(node.body)
        yield from written(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for each in node.values:
            yield from written(each)
    elif isinstance(node, ast.Call) and name(node.func) == "one_line":
        yield from written(node.args[0])
    elif isinstance(node, (ast.JoinedStr, ast.Constant)):
        words = shape(node)
        # One word is a name, of an event or a state; fields alone are put together of what others wrote.
        if re.search(r"\w \w", words.replace("{}", "")):
            yield node.lineno, words


def shape(node: ast.expr) -> str:
    """Return a text with {} for what is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
