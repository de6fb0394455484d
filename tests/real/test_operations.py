"""The commands in docs/operations.md: each is run as it is written, in a checkout of its own.

Those that take a container engine or systemd are run by test_operations_container.py and test_operations_service.py.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .operations import ENGINE, HERE, OPERATIONS, OPERATIONS_ZH, SYSTEMD, Checkout, Command, commands
from .parts import find, needs

# Needs no program of its own: sets the loopback up, as it is on a machine that is in no network.
LOOPBACK = """
import fcntl, socket, struct, time
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))
print("up", flush=True)
time.sleep(3600)
"""


@contextlib.contextmanager
def no_network() -> Iterator[tuple[str, ...]]:
    """Make a network with nothing but the loopback, and yield what enters it; nothing where only root may make one."""
    if os.geteuid() != 0:
        yield ()
        return
    needs("unshare", "nsenter")
    with subprocess.Popen(["unshare", "--net", sys.executable, "-c", LOOPBACK], stdout=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"up\n"
            yield "nsenter", "--net", f"--target={keeper.pid}", "--"
        finally:
            keeper.kill()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    with no_network() as enter:
        made = Checkout(tmp_path.resolve() / "xboard")
        made.enter = enter
        yield made
        for process in made.monitors():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
                process.wait(90)
        ended = made.run(Command(".venv/bin/xboard-circus clean"))
        assert ended.returncode == 0, ended.stderr
        shutil.rmtree(made.runtime, ignore_errors=True)


def test_each_command_that_runs_on_a_host_does_what_it_says(checkout: Checkout) -> None:
    """Given a fresh checkout on a machine without a network, whose setup.cfg is newer than its .venv, when the page is
    followed from top to bottom, then no command fails; the first installation was the only one."""
    needs("lsof", "netstat", "ps", "logrotate", "curl")
    checkout.stand_in("sudo", 'exec "$@"')
    checkout.stand_in("curl", f'exec {find("curl")} --fail "$@"')
    checkout.stand_in("logrotate", f'exec {find("logrotate")} --state {checkout.runtime}/logrotate.state "$@"')
    # Where the network is there, for want of root, pip is told that there is no index; nor does it try for long.
    checkout.added |= {"PIP_RETRIES": "0"} if checkout.enter else {"PIP_NO_INDEX": "1"}
    installed = checkout.folder / ".venv" / ".installed-"
    good = installed.read_bytes()
    installed.write_text("older\n")
    page = commands(OPERATIONS, HERE)
    after_clean = 1 + [each.text.split()[-1] for each in page].index("clean")
    for command in page[:after_clean]:  # has a start and a restart
        checkout.follow(command)
    assert installed.read_text() == "older\n"
    installed.write_bytes(good)
    for command in page[after_clean:]:
        checkout.follow(command)
    logs = [path for path in (checkout.folder / "logs").iterdir() if path.is_file()]
    assert [path for path in logs if path.stat().st_mode & 0o007] == []
    assert {"circusd.log", "xboard.log", "plugin-xboard.log"} <= {path.name for path in logs}


def test_both_languages_have_the_same_commands() -> None:
    assert commands(OPERATIONS_ZH) == commands(OPERATIONS)


def test_no_command_is_for_a_place_where_no_test_runs_it() -> None:
    """Given the places that test_operations*.py run commands for, then every block of the page is for one of them."""
    assert {command.place for command in commands(OPERATIONS)} == {HERE, ENGINE, SYSTEMD}


def test_every_command_is_in_a_block_that_is_read() -> None:
    """Given a line that begins as a command does, then it is one of those that the tests run."""
    lines = [line for line in OPERATIONS.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("$ ")]

    assert lines == [f"$ {command.text}" for command in commands(OPERATIONS)]
