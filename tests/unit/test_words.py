"""Keep the words that the project has given up out of everything that a user reads."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from xboard_circus.cli import main
from xboard_circus.core.alert_sentences import AlertSay
from xboard_circus.core.sentences import Say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.ledger.event_text import Told
from xboard_circus.options.reference import ALERT_HEAD, HEAD, PLUGIN_HEAD, WATCHER_HEAD, sections

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(path for path in ROOT.glob("docs/*.md") if not path.name.endswith(".zh-CN.md"))])
SHIPPED = sorted(
    path
    for folder, kinds in {"deploy": ("ini", "yml", "yaml"), "xboard_circus": ("ini", "j2", "dockerfile")}.items()
    for path in (ROOT / folder).rglob("*")
    if path.suffix[1:] in kinds
)

ROOMS = (
    *("alerts", "checks", "cli", "container", "dashboard", "doctor", "host", "logs", "options", "plugins"),
    *("service", "worker", "supervisor", "ledger", "."),
    *(f"supervisor/{room}" for room in ("bus", "life", "patches", "replace")),
)
FORBIDDEN = {
    r"wedge[ds]?": "hung",
    r"mold|zygote": "forkserver",
    r"roll(?:s|ed)?(?: over)?": "reload",
    r"half[ -]open": "cooling down",
    r"tell(?:s|ing)?|told": "report, log, notify, show, print",
    r"hear(?:s|d)?": "report, notify",
    r"whom|whoever": "the noun: process, worker, user",
    r"nobody": "no process, no worker, no user",
    r"there (?:is|are|was|were) none": "the noun: without an ini file",
    r"ports? (?:\S+ ){0,3}refused": "port taken",
    r"failures of all (?:workers|\{n\})": "restart budget: 3 of 5 used",
    r"(?:every|each) (?:single )?restart": "failure: how the worker ended",
    r"restarts used up": "restart budget used up",
    r"no\. ?(?:\d+|\{\w+\})": "#1",
    r"(?<![.-])wid": "slot",  # but Circus's variable, and an option of the launcher
    r"(?:say|says) otherwise": "the default",
}
ALLOWED = {
    # The field's own words, explained once where the other words are.
    "docs/design.md": ["(*half open*)"],
    # Columns of databases that are there.
    "xboard_circus/ledger/database.py": ["wid INTEGER"],
    "xboard_circus/ledger/record.py": ["pid, wid,"],
}


def texts() -> Iterator[tuple[str, str]]:
    """Yield each text that a user reads, with where it stands."""
    for key, text in json.loads((ROOT / "xboard_circus/dashboard/translations/en.json").read_text("utf-8")).items():
        yield f"en.json {key}", text
    for catalogue in (Say, AlertSay, Told, Answer):
        for member in catalogue:
            yield f"{catalogue.__name__}.{member.name}", str(member.value)
    for section in sections():
        for option in section.options:
            yield f"{section.title} {option.name}", option.help
    for head in (HEAD, WATCHER_HEAD, PLUGIN_HEAD, ALERT_HEAD):
        yield "head of the options", head
    yield from helps(main, ("xboard-circus",))
    for room in ROOMS:
        for file in sorted((ROOT / "xboard_circus" / room).glob("*.py")):
            yield from messages(file)
    for page in (ROOT / "circus.ini", ROOT / "docker-compose.yml", *SHIPPED):
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
            yield f"{page.relative_to(ROOT)}:{number}", line
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
            yield f"{page.relative_to(ROOT)}:{number}", line


def helps(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the whole help of *command* and of all commands below it."""
    context = click.Context(command, info_name=" ".join(path), max_content_width=10_000, terminal_width=10_000)
    yield f"{' '.join(path)} --help", command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, (*path, name))


def messages(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the strings of a Python file, without its docstrings and the names of things."""
    tree = ast.parse(file.read_text("utf-8"))
    docs = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docs:
            continue
        if not node.value.isidentifier():
            yield f"{file.relative_to(ROOT)}:{node.lineno}", node.value


def faults(text: str, where: str = "") -> list[str]:
    """Return what *text* should say instead of the words that it must not use."""
    for allowed in ALLOWED.get(where.partition(":")[0], ()):
        text = text.replace(allowed, "")
    text = " ".join(text.split())
    return [
        f"{where}: {found[0]!r}, write {better!r}: {text[max(0, found.start() - 40) : found.end() + 40]}"
        for pattern, better in FORBIDDEN.items()
        for found in re.finditer(rf"\b(?:{pattern})(?!\w)", text, re.IGNORECASE)
    ]


def test_what_a_user_reads_has_no_word_that_was_given_up() -> None:
    """Given all texts for users, then none has a word of the list; the failure names the text and a better word."""
    found = [fault for where, text in texts() for fault in faults(text, where)]

    assert not found, "\n".join([f"{len(found)} words to replace:", *found])


def test_the_texts_are_all_there() -> None:
    """Given the texts that are searched, then each source of them gives some, so that none is missed unseen."""
    places = " ".join(where for where, _ in texts())
    wanted = (
        "en.json",
        "Say.",
        "Told.",
        "Answer.",
        "[alert:NAME]",
        "alerts test --help",
        "README.md",
        "docs/design.md",
    )

    assert [each for each in wanted if each not in places] == []


@pytest.mark.parametrize(
    "text",
    [
        *("the worker is wedged", "Roll over to new code", "circusd told it", "Tell who is alerted", "Nobody listens"),
        *(
            "Whom to stop",
            "a user where there is none",
            "the port was refused",
            "worker No. 3",
            "the slot is half open",
        ),
        *("Failures of all workers 0 of 5", "hear of every single restart", "wid 3"),
    ],
)
def test_a_word_that_was_given_up_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        *("connection refused", "a rolling reload", "the controller", "port_refused", "no answer", "restart budget"),
        *("the port is taken; a command is refused", "width", "the shell", "exit code 1: no. The port is free"),
    ],
)
def test_a_word_that_is_fine_is_left_alone(text: str) -> None:
    assert not faults(text)
