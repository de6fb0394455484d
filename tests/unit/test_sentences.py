"""Every sentence that reaches a reader is of the catalogue, and the catalogue is whole in every language."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import xboard_circus
from xboard_circus.core.alert_sentences import AlertSay
from xboard_circus.core.reason import Reason, Template
from xboard_circus.core.sentences import Say
from xboard_circus.dashboard import translations
from xboard_circus.dashboard.answers import Answer
from xboard_circus.ledger.event_text import Told
from xboard_circus.ledger.story import KINDS as KINDS_OF_RECORDS
from xboard_circus.translations import BETWEEN, sentences, translated

PACKAGE = Path(xboard_circus.__file__).resolve().parent
PLUGINS = PACKAGE.parent / "plugins"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PLUGINS.glob("*.py")])
KINDS: dict[str, type[Template]] = {kind.__name__: kind for kind in (Say, AlertSay, Told, Answer)}
OTHERS = [language for language in translations.LANGUAGES if language != "en"]
FIELD = re.compile(r"\{(\w+)\}")

# Where reasons and answers are made, and how each hands them on.
SPEAKING = sorted(
    [
        *(PACKAGE / "core").glob("*.py"),
        *(PACKAGE / "supervisor").rglob("*.py"),
        *(PACKAGE / "dashboard").glob("*.py"),
        *(PLUGINS / name for name in ("_limited.py", "_questions.py", "_sightings.py", "http_health.py")),
        PACKAGE / "circus_client.py",
        PACKAGE / "host" / "oom.py",
        PACKAGE / "ledger" / "explain.py",
        PACKAGE / "logs" / "files.py",
        PACKAGE / "probe.py",
        PACKAGE / "worker" / "app_calls.py",
    ]
)
# Told to who starts the page, on a terminal: its settings, tokens and tunnel; and what an ini file's options must be.
OF_THE_TERMINAL = {"settings.py", "tokens.py", "__main__.py", "circushttpd.py"}
HANDED_TO = {
    "note_reason",
    "publish",
    "Order",
    "Lost",
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


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_text_has_two_keys(kind: type[Template]) -> None:
    texts = [each.value for each in kind]

    assert sorted({*texts}) == sorted(texts)


def fields(template: str) -> set[str]:
    return set(FIELD.findall(template))


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_is_in_every_language_with_the_same_fields(language: str) -> None:
    translated = dict(sentences(language))

    assert translated.pop(BETWEEN)
    assert {key: fields(words) for key, words in translated.items()} == {
        each.name: fields(each.value) for kind in KINDS.values() for each in kind
    }


def test_a_page_in_english_needs_no_translation() -> None:
    assert sentences("en") == {}


def test_what_happened_is_named_by_the_kinds_of_records() -> None:
    named = {each.name.partition("_")[2].lower() for each in Told if each.name.startswith(("WHAT_", "KIND_"))}

    assert named <= KINDS_OF_RECORDS


def test_every_sentence_is_said_somewhere() -> None:
    said = {(kind, name) for path in SOURCES for kind, name, _ in uses(tree_of(path))}
    composed = (
        "STATE_",
        "EVENT_",
        "ENDING_",
        "CAUSE_",
        "TROUBLE_",
        "DONE_",
        "TITLE_",
        "HELD_",
        "LABEL_",
        "WHAT_",
        "KIND_",
    )

    unsaid = [
        (kind, each.name)
        for kind, members in KINDS.items()
        for each in members
        if (kind, each.name) not in said and not each.name.startswith(composed)
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


@pytest.mark.parametrize(("name", "word"), [("web", "web"), ("my app", "'my app'"), ("$(id)", "'$(id)'")])
def test_the_name_of_a_watcher_in_a_command_is_one_word_of_a_shell(name: str, word: str) -> None:
    cure = Say.CURE_START(watcher=name)

    assert cure == Reason.from_data(cure.as_data()) == f"`xboard-circus start {word}` starts it"
    assert f"`xboard-circus start {word}`" in translated(cure, "zh")
    assert Say.NO_SUCH_SLOT(watcher=name, slot=3) == f"{name} has no held worker in slot 3"


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
