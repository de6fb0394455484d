"""Each word that pm2 and supervisorctl list in their help is a command of ours, or is answered in one line."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from xboard_circus.cli import MODULES, main
from xboard_circus.cli.foreign_words import ANSWERS, SAME, WORDS

ROOT = Path(__file__).resolve().parents[2]
# As printed by `pm2 --help` of 7.0.4 and `supervisorctl help` of 4.3.0.
PM2 = """
start trigger deploy startOrRestart startOrReload pid create startOrGracefulReload stop restart scale profile:mem
profile:cpu reload id inspect delete del sendSignal ping updatePM2 update install module:install module:update
module:generate uninstall module:uninstall package publish module:publish set multiset get conf config unset report link
unlink monitor unmonitor open plus register login logout dump save cleardump send attach resurrect unstartup startup
logrotate ecosystem init reset describe desc info show env list ls l ps status jlist slist sysinfos prettylist monit
imonit dashboard dash flush reloadLogs logs kill pull forward backward deepUpdate serve expose autoinstall examples
install-otel uninstall-otel
"""
SUPERVISORCTL = """
add exit open reload restart start tail avail fg pid remove shutdown status update clear maintail quit reread signal
stop version help
"""
CELL = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stderr


@pytest.mark.parametrize("word", sorted({*PM2.split(), *SUPERVISORCTL.split()}))
def test_each_word_is_a_command_here_or_is_answered_in_one_line(word: str) -> None:
    if word in MODULES:
        assert (word in SAME.split(), word in ANSWERS) == (True, False)
        return

    code, shown = run(word, "web")

    assert (code, shown) == (2, f"xboard-circus: {word} is no command here: {ANSWERS[word]}\n")


def test_the_table_has_each_word_once_and_names_only_commands_and_options_that_exist() -> None:
    words = [name for word in WORDS for name in word.names.split()]
    named = [span for word in WORDS for span in re.findall(r"`xboard-circus ([^`]+)`", word.answer)]

    assert sorted(words) == sorted({*words})
    for span in named:
        command, *rest = span.split()
        if command.startswith("-") or command == "COMMAND":
            continue
        assert command in MODULES, span
        found = main.get_command(click.Context(main), command)
        assert found is not None
        known = [option for parameter in found.params for option in parameter.opts]
        if not isinstance(found, click.Group):
            assert [each for each in rest if each.startswith("-") and each not in known] == [], span


def test_operations_has_the_same_table_in_both_languages() -> None:
    pages = [(ROOT / "docs" / f"operations{language}.md").read_text("utf-8") for language in ("", ".zh-CN")]
    plain = [page.partition("| pm2, supervisorctl |")[2].partition("\n\n")[0] for page in pages]
    english, chinese = (dict(CELL.findall(table)) for table in plain)

    assert english == {
        ", ".join(f"`{name}`" for name in SAME.split()): "the same here; `reload` of supervisorctl is `restart` here",
        **{", ".join(f"`{name}`" for name in word.names.split()): word.answer for word in WORDS},
    }
    assert [*chinese] == [*english]
