"""The commands in docs/operations.md: each is run as it is written, in a checkout of its own.

Those that take a container engine or systemd are run by test_operations_container.py and test_operations_service.py.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .operations import ENGINE, HERE, OPERATIONS, OPERATIONS_ZH, SYSTEMD, Checkout, Command, commands
from .parts import find, needs


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path.resolve() / "xboard")
    yield made
    for process in made.monitors():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.wait(60)
    ended = made.run(Command(".venv/bin/xboard-circus clean"))
    assert ended.returncode == 0, ended.stderr
    shutil.rmtree(made.runtime, ignore_errors=True)


def test_each_command_that_runs_on_a_host_does_what_it_says(checkout: Checkout) -> None:
    """Given a fresh checkout, when the page is followed from top to bottom, then no command fails."""
    needs("lsof", "netstat", "ps", "logrotate")
    checkout.stand_in("sudo", 'exec "$@"')
    checkout.stand_in("logrotate", f'exec {find("logrotate")} --state {checkout.runtime}/logrotate.state "$@"')
    for command in commands(OPERATIONS, HERE):
        checkout.follow(command)


def test_both_languages_have_the_same_commands() -> None:
    assert commands(OPERATIONS_ZH) == commands(OPERATIONS)


def test_no_command_is_for_a_place_where_no_test_runs_it() -> None:
    """Given the places that test_operations*.py run commands for, then every block of the page is for one of them."""
    assert {command.place for command in commands(OPERATIONS)} == {HERE, ENGINE, SYSTEMD}


def test_every_command_is_in_a_block_that_is_read() -> None:
    """Given a line that begins as a command does, then it is one of those that the tests run."""
    lines = [line for line in OPERATIONS.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("$ ")]

    assert lines == [f"$ {command.text}" for command in commands(OPERATIONS)]
